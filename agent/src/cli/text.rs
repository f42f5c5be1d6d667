//! `aizen sanitize`: what a text would look like if it left this device.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::config::Config;

/// A text is read whole: at most so much.
const MOST: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct SanitizeArgs {
    /// The file; standard input if none is given
    file: Option<PathBuf>,
}

pub(super) fn sanitize(args: &SanitizeArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    match &args.file {
        Some(file) => std::fs::File::open(file)
            .and_then(|f| f.take(MOST).read_to_string(&mut text))
            .with_context(|| format!("can't read {}", file.display()))?,
        None => io::stdin()
            .take(MOST)
            .read_to_string(&mut text)
            .context("can't read standard input")?,
    };
    let mut stage = crate::sanitize::Stage::open(config)?;
    io::stdout().write_all(stage.text(&text).get().0.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
