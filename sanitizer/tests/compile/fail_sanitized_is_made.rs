use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;

fn pretend(record: Record) -> Sanitized<Record> {
    Sanitized(record)
}

fn main() {}
