//! The executor's own tests, with those that take long (`agent/tests/executor/{faults,foreseen,prefixes,rounds}.rs`).

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Rounds `from` to `from + rounds` of a seed, on so many devices beside each other.
pub(super) fn rounds(seed: u64, from: u64, rounds: u64, lanes: u64) -> Result<()> {
    let wanted = format!("{seed} {from} {rounds} {lanes}");
    start(
        "as_many_rounds_as_are_wanted",
        &[("AIZEN_SOAK_ROUNDS", &wanted)],
    )
}

pub(super) fn run(filter: &str) -> Result<()> {
    start(filter, &[])
}

fn start(filter: &str, variables: &[(&str, &str)]) -> Result<()> {
    // Not nextest: it ends a test after some minutes, and these take longer.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "test",
            "--package",
            "aizen-agent",
            "--test",
            "executor",
            "--",
        ])
        .arg(filter)
        .env("AIZEN_SOAK", "1")
        .envs(variables.iter().copied())
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME")
        .status()
        .context("can't start cargo")?;
    if !status.success() {
        bail!("a promise was broken: cargo ended with {status}");
    }
    Ok(())
}
