//! `cargo xtask bench`: the product beside its peers, in one run on one machine. Ratios count; the machine is noisy.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use harness::packages;

use crate::build;

mod change;
mod collection;
mod cost;
mod diagnosis;
mod footprint;
mod loop_time;
mod names;
mod path;
mod probes;
mod sandbox_start;
mod uplink;

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Only this part
    #[arg(long, value_parser = ["collection", "footprint", "diagnose", "probes", "trace", "dns", "sandbox", "change", "loop", "uplink"])]
    only: Option<String>,
}

const PEERS: &[(&str, &str)] = &[
    ("bwrap", "bubblewrap"),
    ("collectd", "collectd-core"),
    ("fping", "fping"),
    ("mtr", "mtr-tiny"),
    ("strace", "strace"),
    ("tc", "iproute2"),
    ("prometheus-node-exporter", "prometheus-node-exporter"),
    ("dnsperf", "dnsperf"),
    ("dig", "bind9-dnsutils"),
];

/// Prints the table of the README.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let mut say = |line: &str| print(&format!("<!-- {line} -->"));
    packages::ensure(&mut say)?;
    if args.only.as_deref() == Some("uplink") {
        // Bytes are the same in every profile, and there is no peer.
        build::programs()?;
        print(&format!("{HEAD}\n{}", uplink::rows()?));
        return Ok(());
    }
    packages::ensure_all(PEERS, &mut say)?;
    build::programs()?;
    build::cargo(&[
        "build",
        "--quiet",
        "--profile",
        "device",
        "-p",
        "aizen-agent",
    ])?;
    build::cargo(&[
        "build",
        "--quiet",
        "--profile",
        "device",
        "-p",
        "aizen-agent",
        "--example",
        "limits",
    ])?;
    let (device, limits) = (built("aizen")?, built("examples/limits")?);
    print(HEAD);
    let wanted = |part: &str| args.only.as_deref().is_none_or(|only| only == part);
    if wanted("collection") {
        print(&collection::rows(&limits)?);
    }
    if wanted("footprint") {
        print(&footprint::rows(&device)?);
    }
    if wanted("diagnose") {
        print(&diagnosis::rows(&device)?);
    }
    if wanted("probes") {
        print(&probes::rows(&device, &limits)?);
    }
    if wanted("trace") {
        print(&path::rows(&device)?);
    }
    if wanted("dns") {
        print(&names::rows(&device)?);
    }
    if wanted("sandbox") {
        print(&sandbox_start::rows(&device)?);
    }
    if wanted("change") {
        print(&change::rows(&device)?);
    }
    if wanted("loop") {
        print(&loop_time::rows()?);
    }
    if wanted("uplink") {
        print(&uplink::rows()?);
    }
    Ok(())
}

const HEAD: &str = "| what | this product | peer | ratio |\n| --- | --- | --- | --- |";

/// A program built as it ships: in `target/device`, beside this profile's folder.
fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own
        .parent()
        .and_then(Path::parent)
        .context("this program lies in target/PROFILE")?;
    let program = target.join("device").join(name);
    anyhow::ensure!(
        program.exists(),
        "cargo build --profile device made no {}",
        program.display()
    );
    Ok(program)
}

fn print(text: &str) {
    use std::io::Write as _;
    // With standard output closed there is nobody to tell.
    writeln!(std::io::stdout(), "{}", text.trim_end()).ok();
}
