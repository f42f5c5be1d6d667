//! The executor's own tests, with those that take long (`agent/tests/executor/{faults,foreseen,prefixes,rounds}.rs`).

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Rounds `from` to `from + rounds` of a seed, on so many devices beside each other.
pub(super) fn rounds(seed: u64, from: u64, rounds: u64, lanes: u64) -> Result<()> {
    let wanted = format!("{seed} {from} {rounds} {lanes}");
    start(
        "as_many_rounds_as_are_wanted",
        &[("AIZEN_SOAK_ROUNDS", &wanted)],
    )
}

const TEST: [&str; 5] = ["test", "--package", "aizen-agent", "--test", "executor"];

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(TEST)
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME");
    command
}

pub(super) fn run(filter: &str) -> Result<()> {
    start(filter, &[])
}

fn start(filter: &str, variables: &[(&str, &str)]) -> Result<()> {
    // Not nextest: it ends a test after some minutes, and these take longer.
    let status = cargo()
        .args(["--", filter])
        .env("AIZEN_SOAK", "1")
        .envs(variables.iter().copied())
        .status()
        .context("can't start cargo")?;
    if !status.success() {
        bail!("a promise was broken: cargo ended with {status}");
    }
    Ok(())
}

/// Builds the tests as virtual machines need them; where the program lies.
pub(super) fn built() -> Result<PathBuf> {
    let output = cargo()
        .args(["--no-run", "--profile", "guest", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()
        .context("can't start cargo")?;
    if !output.status.success() {
        bail!("cargo ended with {}", output.status);
    }
    let told = String::from_utf8(output.stdout)?;
    told.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|told| Some(told.get("executable")?.as_str()?.into()))
        .context("cargo names no program of the executor's tests")
}
