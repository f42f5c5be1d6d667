//! A sweep of targets by `aizen ping` beside `fping`, taking turns: processor time and rate on loopback, and whether
//! they tell the same round-trip times over a link with a delay.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::netns::{Netns, cable};

use super::cost::{self, Cost, us};

/// Turns; the median of each is told.
const TURNS: usize = 7;
/// Requests to each target.
const TIMES: u32 = 10;
const DELAY_MS: u32 = 20;

pub(super) fn rows(device: &Path) -> Result<String> {
    let mut rows = String::new();
    for targets in [256, 1000] {
        rows.push_str(&sweep(device, targets)?);
    }
    rows.push_str(&agreement(device)?);
    Ok(rows)
}

fn sweep(device: &Path, targets: u32) -> Result<String> {
    let addresses = addresses(Ipv4Addr::new(127, 1, 0, 1), targets);
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(cost::of(aizen(Command::new(device)).args(&addresses))?.0);
        peer.push(cost::of(fping(Command::new("fping")).args(&addresses))?.0);
    }
    let [ours, peer] = [ours, peer].map(|turns| Cost::median(&turns));
    let probes = f64::from(targets * TIMES);
    let each = |cost: &Cost| us(cost.processor) / probes;
    let rate = |cost: &Cost| probes / cost.wall.as_secs_f64();
    Ok(format!(
        "| CPU of a probe, {targets} targets, beside `fping` | {:.1} µs | {:.1} µs | {:.2} |\n\
         | probes a second, {targets} targets, beside `fping` | {:.0} | {:.0} | {:.2} |\n",
        each(&ours),
        each(&peer),
        each(&ours) / each(&peer),
        rate(&ours),
        rate(&peer),
        rate(&ours) / rate(&peer)
    ))
}

/// Mean round-trip times of all targets behind a link whose far end answers late.
fn agreement(device: &Path) -> Result<String> {
    let [near, far] =
        ["near", "far"].map(|end| Netns::new(format!("az{end}{}", std::process::id())));
    let (near, far) = (near?, far?);
    cable(
        (&near, "n0", "198.51.100.1/24"),
        (&far, "f0", "198.51.100.2/24"),
    )?;
    near.ip("route add 198.18.0.0/22 via 198.51.100.2")?;
    far.ip("route add local 198.18.0.0/22 dev lo")?;
    let netem = format!("tc qdisc add dev f0 root netem delay {DELAY_MS}ms limit 10000");
    let mut words = netem.split(' ');
    let tc = words.next().context("a word")?;
    harness::shell::run(far.command(tc).args(words))?;
    let addresses = addresses(Ipv4Addr::new(198, 18, 0, 1), 256);
    let program = device.to_str().context("a target folder of text")?;
    let (mut ours, mut peer, mut lost) = (Vec::new(), Vec::new(), [0, 0]);
    for _ in 0..TURNS {
        let (_, told) = cost::of(aizen(near.command(program)).arg("--json").args(&addresses))?;
        let told: serde_json::Value = serde_json::from_slice(&told)?;
        for target in told["targets"].as_array().context("no targets")? {
            lost[0] += target["lost"].as_u64().context("no count")?;
            ours.extend(target["rtt_ms"]["avg"].as_f64());
        }
        let output = fping(near.command("fping")).args(&addresses).output()?;
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            let (avg, answered) = told_by_fping(line).with_context(|| line.to_owned())?;
            lost[1] += u64::from(TIMES - answered);
            peer.extend(avg);
        }
    }
    let [ours, peer] = [ours, peer].map(middle);
    Ok(format!(
        "| RTT that is told of 256 targets behind {DELAY_MS} ms, beside `fping` | {ours:.3} ms | {peer:.3} ms | {:.3} |\n\
         | … probes lost of {} | {} | {} | |\n",
        ours / peer,
        usize::try_from(TIMES)? * 256 * TURNS,
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
