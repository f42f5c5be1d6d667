//! argv to a subcommand, an error to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    aizen_orchestrator::cli::main()
}
