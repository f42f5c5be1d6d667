//! What people type.
use std::process::ExitCode;

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
