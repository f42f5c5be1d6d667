use aizen_protocol::record::Record;
use aizen_sanitizer::Observation;

fn open(observation: Observation) -> Record {
    observation.0
}

fn main() {}
