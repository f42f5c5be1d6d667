use aizen_sanitizer::Observation;

fn send(observation: &Observation) -> String {
    serde_json::to_string(observation).unwrap()
}

fn main() {}
