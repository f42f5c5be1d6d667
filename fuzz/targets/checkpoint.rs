#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| aizen_agent::fuzz::checkpoint(bytes));
