//! Promises about hostile input and private values, each under a test that bears its name.

#![expect(
    clippy::unwrap_used,
    reason = "where a test can't go on, it has failed"
)]

mod parsing;
mod private_values;
mod signatures;
