//! `cargo xtask soak`: long trials.

use anyhow::Result;
use clap::Subcommand;

mod prefixes;

#[derive(Subcommand)]
pub(crate) enum SoakCommand {
    /// Stop every repair script of the library after each of its operations, and look what the device is afterwards
    Prefixes,
}

pub(crate) fn run(command: &SoakCommand) -> Result<()> {
    match command {
        SoakCommand::Prefixes => prefixes::run(),
    }
}
