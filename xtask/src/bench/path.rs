//! Fifty rounds along a path of four hops: `aizen trace` beside `mtr`, taking turns, both with the same pause.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::netns::{Netns, cable};

use super::cost::{self, Cost, ratio, us};

const TURNS: usize = 3;
const ROUNDS: &str = "50";
const PAUSE_S: &str = "0.1";
const ROUTERS: usize = 3;

pub(super) fn rows(device: &Path) -> Result<String> {
    let chain = Chain::lay()?;
    let (near, target) = (&chain.nodes[0], chain.target());
    let program = device.to_str().context("a target folder of text")?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut aizen = near.command(program);
        aizen.args(["trace", "--icmp", "--no-mtu", "-c", ROUNDS, "-i", PAUSE_S]);
        ours.push(told(aizen.arg("--json").arg(&target))?);
        let mut mtr = near.command("mtr");
        mtr.args(["--json", "-n", "-c", ROUNDS, "-i", PAUSE_S]);
        peer.push(told(mtr.arg(&target))?);
    }
    let [ours, peer] = [ours, peer].map(|turns| Cost::median(&turns));
    Ok(format!(
        "| {ROUNDS} rounds along {} hops every {PAUSE_S} s, wall, `aizen trace` beside `mtr` | {:.2?} | {:.2?} | {:.2} |\n\
         | … CPU | {:.0} µs | {:.0} µs | {:.2} |\n",
        ROUTERS + 1,
        ours.wall,
        peer.wall,
        ratio(ours.wall, peer.wall),
        us(ours.processor),
        us(peer.processor),
        ratio(ours.processor, peer.processor),
    ))
}

/// Only a run that saw every hop counts.
fn told(command: &mut Command) -> Result<Cost> {
    let (cost, told) = cost::of(command)?;
    let told: serde_json::Value = serde_json::from_slice(&told)?;
    let hops = told["hops"]
        .as_array()
        .or(told["report"]["hubs"].as_array());
    let hops = hops.map_or(0, Vec::len);
    anyhow::ensure!(hops == ROUTERS + 1, "{command:?} saw {hops} hops: {told}");
    Ok(cost)
}

/// A host, routers in a row, and a host at the end.
struct Chain {
    nodes: Vec<Netns>,
}

impl Chain {
    fn lay() -> Result<Self> {
        let nodes = (0..ROUTERS + 2)
            .map(|n| Netns::new(format!("azpath{}-{n}", std::process::id())))
            .collect::<Result<Vec<_>>>()?;
        for (n, pair) in nodes.windows(2).enumerate() {
            let [left, right] = pair else { continue };
            cable(
                (left, "right", &format!("198.51.{n}.1/24")),
                (right, "left", &format!("198.51.{n}.2/24")),
            )?;
            left.ip(&format!("route add default via 198.51.{n}.2"))?;
        }
        for (n, node) in nodes.iter().enumerate().skip(1) {
            node.sysctl("net.ipv4.ip_forward", "1")?;
            // A router answers each of the expired, as many as come (icmp(7)).
            node.sysctl("net.ipv4.icmp_ratelimit", "0")?;
            for behind in 0..n - 1 {
                node.ip(&format!(
                    "route add 198.51.{behind}.0/24 via 198.51.{}.1",
                    n - 1
                ))?;
            }
        }
        Ok(Self { nodes })
    }

    fn target(&self) -> String {
        format!("198.51.{ROUTERS}.2")
    }
}
