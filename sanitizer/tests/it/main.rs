//! What the sanitizer promises, as laws and as examples.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compile;
mod forms;
mod laws;
mod map;
mod planted;
mod records;
mod survives;
mod throughput;

use aizen_sanitizer::{Policy, Sanitizer, SanitizerKey};

/// A sanitizer under a fixed key.
fn sanitizer() -> Sanitizer {
    keyed(42)
}

fn keyed(byte: u8) -> Sanitizer {
    Sanitizer::new(SanitizerKey::from_bytes([byte; 32]), Policy::default())
}

/// A text after sanitizing.
fn text(sanitizer: &mut Sanitizer, text: &str) -> String {
    sanitizer.sanitize_text(text).into_inner().0
}
