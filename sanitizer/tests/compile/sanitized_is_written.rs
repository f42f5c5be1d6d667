//! The way that must stay open: what passed the sanitizer can be written out.

use aizen_sanitizer::{Policy, Sanitizer, SanitizerKey};

fn main() {
    let mut sanitizer = Sanitizer::new(SanitizerKey::from_bytes([1; 32]), Policy::default());
    let sanitized = sanitizer.sanitize_text("from 192.168.1.7");
    let written = serde_json::to_string(&sanitized).unwrap();
    assert!(!written.contains("192.168.1.7"));
}
