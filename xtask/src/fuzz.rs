//! `cargo xtask fuzz`: the decoders of foreign bytes under cargo-fuzz.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// One target; all of them, one after the other, without it
    target: Option<String>,
    /// How long each runs
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let there = Command::new("cargo-fuzz").arg("--version").output();
    if !there.is_ok_and(|o| o.status.success()) {
        bail!(
            "cargo-fuzz is missing: install it with `cargo install cargo-fuzz` (a C++ compiler is needed, too). \
             Without it, `cargo xtask test fuzz` feeds every decoder with damaged seeds"
        );
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let known = targets(&folder)?;
    let chosen = match &args.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "there is no target {target}; there are {}",
            known.join(", ")
        ),
    };
    let mut found = Vec::new();
    for target in chosen {
        if !fuzz(&folder, &target, args.seconds)? {
            found.push(target);
        }
    }
    if !found.is_empty() {
        bail!(
            "findings in {}: the bytes are in fuzz/artifacts; keep them as a seed with the repair",
            found.join(", ")
        );
    }
    Ok(())
}

/// The targets, by name.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let place = folder.join("targets");
    let files = std::fs::read_dir(&place).with_context(|| format!("{}", place.display()))?;
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = files.flatten().filter_map(|f| stem(f.path())).collect();
    names.sort();
    Ok(names)
}

/// Runs one target; false if it found something.
fn fuzz(folder: &Path, target: &str, seconds: u32) -> Result<bool> {
    let corpus = folder.join("corpus").join(target);
    std::fs::create_dir_all(&corpus).with_context(|| format!("{}", corpus.display()))?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // The decoders have no unsafe code, so no sanitizer is needed, and without one a stable compiler will do.
        .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"])
        .arg(folder)
        .arg(target)
        .args([corpus, folder.join("seeds").join(target)])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=65536"])
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME")
        .status()
        .context("can't start cargo fuzz")?;
    Ok(status.success())
}
