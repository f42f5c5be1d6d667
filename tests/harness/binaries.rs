//! Where the programs under test are: beside the test's own executable, built by `cargo xtask`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The device's program.
///
/// # Errors
/// If it was not built.
pub fn aizen() -> Result<PathBuf> {
    built("aizen")
}

/// The cloud's program.
///
/// # Errors
/// If it was not built.
pub fn orchestrator() -> Result<PathBuf> {
    built("aizen-orchestrator")
}

/// The device's program for virtual machines (profile `guest`).
///
/// # Errors
/// If it was not built.
pub fn guest() -> Result<PathBuf> {
    let beside = aizen()?;
    let profiles = beside.parent().and_then(std::path::Path::parent);
    let path = profiles
        .context("a target has a folder")?
        .join("guest/aizen");
    if !path.exists() {
        bail!(
            "{} is not built: 'cargo xtask soak' does so",
            path.display()
        );
    }
    Ok(path)
}

fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("an executable has a folder")?;
    // Tests live in `deps`, one below the programs.
    let folder = if beside.ends_with("deps") {
        beside.parent().unwrap_or(beside)
    } else {
        beside
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!(
            "{} is not built: run 'cargo build --workspace --bins' or 'cargo xtask test'",
            path.display()
        );
    }
    Ok(path)
}
