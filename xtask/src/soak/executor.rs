//! The executor's own tests, with those that take long (`agent/tests/executor/{faults,foreseen,prefixes}.rs`).

use std::process::Command;

use anyhow::{Context as _, Result, bail};

pub(super) fn run(filter: &str) -> Result<()> {
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
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME")
        .status()
        .context("can't start cargo")?;
    if !status.success() {
        bail!("a promise was broken: cargo ended with {status}");
    }
    Ok(())
}
