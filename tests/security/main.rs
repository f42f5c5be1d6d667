//! Promises about hostile input and private values, each under a test that bears its name.

mod parsing;
mod signatures;
