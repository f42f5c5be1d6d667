//! `cargo xtask demo`: a network lab, the real programs, and two stories, told as they happen.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result};
use clap::Args;
use harness::world::World;
use harness::{packages, wait};

use crate::build;

mod cut_off;
mod repaired;
mod told;

use told::Told;

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Approve without asking
    #[arg(long)]
    yes: bool,
    /// Only this story (1 or 2)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    story: Option<u8>,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    ctrlc::set_handler(|| wait::INTERRUPTED.store(true, Ordering::SeqCst))
        .context("can't watch for Ctrl-C")?;
    let mut told = Told::new();
    told.title("Aizen: a network repaired, and a network saved from its repair");
    packages::ensure(&mut |line| told.step("lab", line))?;
    told.step("lab", "building the programs");
    build::programs()?;
    let mut world = World::start(&mut |who, what| told.step(who, what))?;
    if args.story != Some(2) {
        repaired::tell(&mut world, &mut told, args.yes)?;
    }
    if args.story != Some(1) {
        cut_off::tell(&mut world, &mut told, args.yes)?;
    }
    told.title("What to look at next");
    told.text(
        "  README.md          what works, what does not yet, the measured table\n\
         \x20 ARCHITECTURE.md    the loop, folder by folder\n\
         \x20 docs/changes.md    the life of a change\n\
         \x20 cargo xtask test   every promise above as a test\n\
         \x20 aizen diagnose     the same expert on this machine: target/debug/aizen diagnose",
    );
    Ok(())
}
