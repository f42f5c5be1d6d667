//! `aizen`: all that runs on the device, in one program.

use std::process::ExitCode;

fn main() -> ExitCode {
    aizen_agent::cli::main()
}
