//! `cargo xtask demo`: a network lab, the real programs, and two stories, told as they happen.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use harness::cloud::Cloud;
use harness::device::Device;
use harness::lab::Lab;
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

/// The lab with everything in it running.
pub(crate) struct World {
    // The device ends before the cloud, the cloud before the network.
    pub(crate) device: Device,
    pub(crate) cloud: Cloud,
    pub(crate) lab: Lab,
    pub(crate) id: String,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    ctrlc::set_handler(|| wait::INTERRUPTED.store(true, Ordering::SeqCst))
        .context("can't watch for Ctrl-C")?;
    let mut told = Told::new();
    told.title("Aizen: a network repaired, and a network saved from its repair");
    packages::ensure(&mut |line| told.step("lab", line))?;
    told.step("lab", "building the programs");
    build::programs()?;
    let mut world = lay_out(&mut told)?;
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

/// Lays out the lab and waits until the device is enrolled, connected and found healthy.
pub(crate) fn lay_out(told: &mut Told) -> Result<World> {
    told.step(
        "lab",
        "six network namespaces: device, LAN host, provider, two resolvers, cloud",
    );
    let lab = Lab::lay_out()?;
    told.step("cloud", "keys of root and approver, CA, trust document; the orchestrator starts (SQLite, own directory)");
    let cloud = Cloud::start(&lab)?;
    let mut device = Device::new(&lab)?;
    device.enroll(&cloud)?;
    told.step(
        "device",
        "enrolled with a one-time token: keys made here, CA and roots checked against the token",
    );
    device.start()?;
    device
        .wait_connected(Duration::from_secs(20))
        .with_context(|| device.said())?;
    let status = device.ask(&["status"])?;
    let id = status["daemon"]["device"]
        .as_str()
        .context("the device has no name")?
        .to_owned();
    told.step(
        "device",
        &format!("{id} connected; two processes: an unprivileged daemon, a privileged executor"),
    );
    wait::until("a healthy verdict", Duration::from_secs(30), || {
        let status = device.ask(&["status"]).ok()?;
        (status["daemon"]["health"] == "healthy").then_some(())
    })
    .with_context(|| device.said())?;
    told.step("device", "first rounds of evidence: healthy");
    Ok(World {
        device,
        cloud,
        lab,
        id,
    })
}
