use aizen_sanitizer::SanitizerKey;

fn print(key: &SanitizerKey) -> String {
    format!("{key}{:?}", serde_json::to_string(key))
}

fn main() {}
