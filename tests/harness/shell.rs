//! Runs a program to its end; an error says what ran and what it said.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};

/// Runs a command and gives its standard output.
///
/// # Errors
/// If it can't be started or does not exit with 0: with its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command and gives whatever came of it.
///
/// # Errors
/// If it can't be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("can't start {command:?}"))
}

/// Runs a line of words, split at white space.
///
/// # Errors
/// As [`run`].
pub fn line(words: &str) -> Result<String> {
    let mut parts = words.split_whitespace();
    let program = parts.next().context("an empty command line")?;
    run(Command::new(program).args(parts))
}
