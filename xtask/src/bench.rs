//! `cargo xtask bench`.
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub(crate) struct BenchArgs {}

pub(crate) fn run(_args: &BenchArgs) -> Result<()> {
    Ok(())
}
