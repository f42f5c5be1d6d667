use aizen_protocol::record::Record;
use aizen_sanitizer::Local;

fn send(local: Local<'_, Record>) -> String {
    serde_json::to_string(&local).unwrap()
}

fn main() {}
