//! Calls cargo; its output goes to the terminal.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs `cargo WORDS`.
pub(crate) fn cargo(words: &[&str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The variables that cargo sets for this program would leak into what it starts.
    command
        .args(words)
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME");
    let status = command
        .status()
        .with_context(|| format!("can't start cargo {}", words.join(" ")))?;
    if !status.success() {
        bail!("cargo {} ended with {status}", words.join(" "));
    }
    Ok(())
}

/// Builds the product's programs in the profile of this program, beside it.
pub(crate) fn programs() -> Result<()> {
    cargo(&["build", "--quiet", "--workspace", "--bins"])
}

/// Builds the device's program for virtual machines.
pub(crate) fn guest() -> Result<()> {
    cargo(&[
        "build",
        "--quiet",
        "--profile",
        "guest",
        "--package",
        "aizen-agent",
        "--bin",
        "aizen",
    ])
}
