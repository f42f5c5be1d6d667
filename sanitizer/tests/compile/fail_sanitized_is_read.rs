use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;

fn receive(text: &str) -> Sanitized<Record> {
    serde_json::from_str(text).unwrap()
}

fn main() {}
