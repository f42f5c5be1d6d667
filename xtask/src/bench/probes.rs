//! A sweep of targets by `aizen ping` beside `fping`, taking turns: processor time and rate on loopback, and whether
//! they tell the same round-trip times of a host that answers late.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::netns::Netns;
use harness::program::Program;

use super::cost::{self, Cost, us};

/// Turns; the median of each is told.
const TURNS: usize = 7;
/// Requests to each target.
const TIMES: u32 = 10;
const DELAY_MS: u32 = 20;
const LATE_HOSTS: u32 = 32;
const LATE: &str = include_str!("late.py");

pub(super) fn rows(device: &Path, limits: &Path) -> Result<String> {
    let mut rows = String::new();
    for targets in [256, 1000] {
        rows.push_str(&sweep(device, limits, targets)?);
    }
    rows.push_str(&agreement(device)?);
    Ok(rows)
}

fn sweep(device: &Path, limits: &Path, targets: u32) -> Result<String> {
    let addresses = addresses(Ipv4Addr::new(127, 1, 0, 1), targets);
    let [mut ours, mut peer, mut least] = [const { Vec::new() }; 3];
    for _ in 0..TURNS {
        ours.push(cost::of(aizen(Command::new(device)).args(&addresses))?.0);
        peer.push(cost::of(fping(Command::new("fping")).args(&addresses))?.0);
        let mut bare = Command::new(limits);
        bare.args(["sweep", &targets.to_string(), &TIMES.to_string()]);
        let (cost, told) = cost::of(&mut bare)?;
        let told: serde_json::Value = serde_json::from_slice(&told)?;
        anyhow::ensure!(told["answered"] == targets * TIMES, "a bare sweep: {told}");
        least.push(cost);
    }
    let [ours, peer, least] = [ours, peer, least].map(|turns| Cost::median(&turns));
    let probes = f64::from(targets * TIMES);
    let each = |cost: &Cost| us(cost.processor) / probes;
    let rate = |cost: &Cost| probes / cost.wall.as_secs_f64();
    Ok(format!(
        "| CPU of a probe, {targets} targets, beside `fping` | {:.1} µs | {:.1} µs | {:.2} |\n\
         | … beside a bare raw socket that only counts answers | {:.1} µs | {:.1} µs | {:.2} |\n\
         | probes a second, {targets} targets, beside `fping` | {:.0} | {:.0} | {:.2} |\n",
        each(&ours),
        each(&peer),
        each(&ours) / each(&peer),
        each(&ours),
        each(&least),
        each(&ours) / each(&least),
        rate(&ours),
        rate(&peer),
        rate(&ours) / rate(&peer)
    ))
}

/// Mean round-trip times of hosts that answer late: a tun whose far end is `late.py`.
fn agreement(device: &Path) -> Result<String> {
    let netns = Netns::new(format!("azlate{}", std::process::id()))?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("late.py");
    std::fs::write(&script, LATE)?;
    let mut python = netns.command("python3");
    python.arg(&script).arg(DELAY_MS.to_string());
    let mut late = Program::start("late.py", &mut python, &folder.path().join("late.log"))?;
    late.wait_ready(Duration::from_secs(20), || {
        netns.ip("link show late0").is_ok()
    })?;
    netns.ip("link set late0 up")?;
    netns.ip("address add 198.51.100.1/24 dev late0")?;
    netns.ip("route add 198.18.0.0/22 dev late0")?;
    let addresses = addresses(Ipv4Addr::new(198, 18, 0, 1), LATE_HOSTS);
    let program = device.to_str().context("a target folder of text")?;
    let (mut ours, mut peer, mut lost) = (Vec::new(), Vec::new(), [0, 0]);
    for _ in 0..TURNS {
        let (_, told) = cost::of(
            gentle_aizen(netns.command(program))
                .arg("--json")
                .args(&addresses),
        )?;
        let told: serde_json::Value = serde_json::from_slice(&told)?;
        for target in told["targets"].as_array().context("no targets")? {
            lost[0] += target["lost"].as_u64().context("no count")?;
            ours.extend(target["rtt_ms"]["avg"].as_f64());
        }
        let (_, output) = cost::of_any(gentle_fping(netns.command("fping")).args(&addresses))?;
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            let (avg, answered) = told_by_fping(line).with_context(|| line.to_owned())?;
            lost[1] += u64::from(TIMES - answered);
            peer.extend(avg);
        }
    }
    let [ours, peer] = [ours, peer].map(middle);
    Ok(format!(
        "| RTT that is told of {LATE_HOSTS} hosts that answer after {DELAY_MS} ms, beside `fping` | {ours:.3} ms | {peer:.3} ms | {:.3} |\n\
         | … lost of {} probes | {} | {} | |\n",
        ours / peer,
        TIMES * LATE_HOSTS * u32::try_from(TURNS)?,
        lost[0],
        lost[1],
    ))
}

/// `HOST : xmt/rcv/%loss = 10/10/0%, min/avg/max = 20.0/20.1/20.3`: the mean and how many were answered.
fn told_by_fping(line: &str) -> Option<(Option<f64>, u32)> {
    let (_, counts) = line.split_once("%loss = ")?;
    let answered = counts.split('/').nth(1)?.parse().ok()?;
    let times = line.split_once("min/avg/max = ");
    let mean = times.and_then(|(_, times)| times.split('/').nth(1)?.parse().ok());
    Some((mean, answered))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn addresses(first: Ipv4Addr, count: u32) -> Vec<String> {
    let first = u32::from(first);
    (0..count)
        .map(|n| Ipv4Addr::from(first + n).to_string())
        .collect()
}

/// Both every 2 ms, each host every 100 ms: what answers late is a script.
fn gentle_aizen(mut command: Command) -> Command {
    command.args(["ping", "-q", "--gap", "2", "-i", "0.1", "-c"]);
    command.arg(TIMES.to_string());
    command
}

fn gentle_fping(mut command: Command) -> Command {
    // As long as ours waits; left alone it gives up with the next request.
    command.args(["-q", "-i", "2", "-p", "100", "-t", "2000", "-r", "0", "-c"]);
    command.arg(TIMES.to_string());
    command
}

/// Both as fast as they can, and nothing is printed but the end.
fn aizen(mut command: Command) -> Command {
    command.args(["ping", "-q", "--gap", "0", "-i", "0", "-c"]);
    command.arg(TIMES.to_string());
    command
}

fn fping(mut command: Command) -> Command {
    command.args(["-q", "-i", "0.01", "-p", "1", "-r", "0", "-c"]);
    command.arg(TIMES.to_string());
    command
}
