//! Undo from every prefix of every repair: the executor's own tests, with the whole library
//! (`agent/tests/executor/scripts`).

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::packages;

pub(crate) fn run() -> Result<()> {
    #[expect(
        clippy::print_stderr,
        reason = "a developer's command speaks on the terminal"
    )]
    packages::ensure(&mut |line| eprintln!("{line}"))?;
    // Not nextest: it ends a test after some minutes, and this one takes longer.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "test",
            "--package",
            "aizen-agent",
            "--test",
            "executor",
            "--",
        ])
        .arg("from_every_prefix_of_every_repair")
        .env("AIZEN_SOAK", "1")
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME")
        .status()
        .context("can't start cargo")?;
    if !status.success() {
        bail!("a repair was not undone: cargo ended with {status}");
    }
    Ok(())
}
