//! A sweep of loopback targets by `aizen ping` beside `fping`, taking turns: processor time and rate.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Turns; the median of each is told.
const TURNS: usize = 7;
/// Requests to each target.
const TIMES: u32 = 10;

pub(super) fn rows(device: &Path) -> Result<String> {
    let mut rows = String::new();
    for targets in [256, 1000] {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            ours.push(sweep(&mut aizen(device), targets)?);
            peer.push(sweep(&mut fping(), targets)?);
        }
        let [ours, peer] = [ours, peer].map(Sweep::median);
        let probes = f64::from(targets * TIMES);
        let each = |s: &Sweep| s.processor.as_secs_f64() * 1e6 / probes;
        let rate = |s: &Sweep| probes / s.wall.as_secs_f64();
        rows.push_str(&format!(
            "| ICMP sweep of {targets} targets, processor per probe, beside fping | {:.1} µs | {:.1} µs | {:.2} |\n\
             | ICMP sweep of {targets} targets, probes in a second, beside fping | {:.0} | {:.0} | {:.2} |\n",
            each(&ours),
            each(&peer),
            each(&ours) / each(&peer),
            rate(&ours),
            rate(&peer),
            rate(&ours) / rate(&peer)
        ));
    }
    Ok(rows)
}

/// Both as fast as they can, and nothing is printed but the end.
fn aizen(device: &Path) -> Command {
    let mut command = Command::new(device);
    command.args(["ping", "-q", "--gap", "0", "-i", "0", "-c"]);
    command.arg(TIMES.to_string());
    command
}

fn fping() -> Command {
    let mut command = Command::new("fping");
    command.args(["-q", "-i", "0.01", "-p", "1", "-r", "0", "-c"]);
    command.arg(TIMES.to_string());
    command
}

struct Sweep {
    wall: Duration,
    processor: Duration,
}

impl Sweep {
    /// The median of each figure.
    fn median(mut sweeps: Vec<Self>) -> Self {
        let middle = sweeps.len() / 2;
        sweeps.sort_by_key(|s| s.wall);
        let wall = sweeps[middle].wall;
        sweeps.sort_by_key(|s| s.processor);
        let processor = sweeps[middle].processor;
        Self { wall, processor }
    }
}

fn sweep(command: &mut Command, targets: u32) -> Result<Sweep> {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    let targets = (0..targets).map(|n| Ipv4Addr::from(first + n).to_string());
    let before = children()?;
    let began = Instant::now();
    let status = command
        .args(targets)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("can't start {command:?}"))?;
    let wall = began.elapsed();
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(Sweep {
        wall,
        processor: children()?.saturating_sub(before),
    })
}

/// Processor time of all programs that this one started and that ended.
fn children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |t: TimeVal| -> Result<Duration> {
        let (s, us) = (u64::try_from(t.tv_sec())?, u64::try_from(t.tv_usec())?);
        Ok(Duration::from_secs(s) + Duration::from_micros(us))
    };
    Ok(time(usage.user_time())? + time(usage.system_time())?)
}
