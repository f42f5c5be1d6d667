//! One look at the kernel's tables, and one whole round, with few and with many interfaces: beside a bare dump of the
//! same tables (`agent/examples/limits/collection.rs`) and a scrape of node_exporter. Each size has a network namespace of
//! its own, full of veth pairs with addresses.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::netns::Netns;
use harness::program::Program;
use harness::shell;
use nix::sched::{CloneFlags, setns};

use super::cost::{self, median, ratio};

/// Interfaces, each the half of a pair.
const SIZES: [usize; 3] = [10, 100, 1000];
/// Scrapes; the median is told.
const SCRAPES: usize = 7;
const ROUNDS: &str = "3";
const PORT: &str = "127.0.0.1:19101";

pub(super) fn rows(limits: &Path) -> Result<String> {
    let mut rows = String::new();
    for size in SIZES {
        let netns = Netns::new(format!("azbench{}-{size}", std::process::id()))?;
        fill(&netns, size)?;
        let ours = ours(&netns, limits)?;
        let all = scraped(&netns, &[])?;
        let network = scraped(&netns, NETWORK)?;
        for (what, own, name, peer) in [
            ("the kernel's tables", ours.tables, "a bare dump", ours.bare),
            (
                "the kernel's tables",
                ours.tables,
                "node_exporter with `netdev` and `netclass` alone",
                network,
            ),
            (
                "all that is read, nothing tried",
                ours.local,
                "node_exporter as it comes",
                all,
            ),
            (
                "a whole round with its probes",
                ours.round,
                "node_exporter as it comes",
                all,
            ),
        ] {
            rows.push_str(&format!(
                "| CPU of {what}, {size} interfaces, beside {name} | {own:.2?} | {peer:.2?} | {:.2} |\n",
                ratio(own, peer)
            ));
        }
    }
    Ok(rows)
}

/// Pairs that are up, with an IPv4 address on one end of each and what IPv6 gives itself.
fn fill(netns: &Netns, interfaces: usize) -> Result<()> {
    let mut batch = String::new();
    for pair in 0..interfaces / 2 {
        let (high, low) = (pair / 256, pair % 256);
        batch.push_str(&format!(
            "link add a{pair} type veth peer name b{pair}\naddress add 10.{high}.{low}.1/24 dev a{pair}\n\
             link set a{pair} up\nlink set b{pair} up\n"
        ));
    }
    let file = std::env::temp_dir().join(format!("{}.batch", netns.name()));
    std::fs::write(&file, batch)?;
    let batch = file.to_str().context("a temporary folder of text")?;
    let made = netns.ip(&format!("-batch {batch}"));
    std::fs::remove_file(&file)?;
    made?;
    // Until IPv6 is sure of its addresses it changes its tables.
    harness::wait::until("the addresses", Duration::from_secs(60), || {
        let waiting = netns.ip("-6 address show tentative").ok()?;
        waiting.trim().is_empty().then_some(())
    })
}

struct Ours {
    bare: Duration,
    tables: Duration,
    local: Duration,
    round: Duration,
}

fn ours(netns: &Netns, limits: &Path) -> Result<Ours> {
    let limits = limits.to_str().context("a target folder of text")?;
    let told = shell::run(netns.command(limits).args(["collection", ROUNDS]))?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let time = |name: &str| {
        let us = told[name].as_u64().with_context(|| format!("no {name}"))?;
        anyhow::Ok(Duration::from_micros(us))
    };
    Ok(Ours {
        bare: time("bare_us")?,
        tables: time("tables_us")?,
        local: time("local_us")?,
        round: time("round_us")?,
    })
}

/// What one scrape of node_exporter costs it.
fn scraped(netns: &Netns, arguments: &[&str]) -> Result<Duration> {
    let log = std::env::temp_dir().join(format!("{}.log", netns.name()));
    let mut command: Command = netns.command("prometheus-node-exporter");
    command
        .arg(format!("--web.listen-address={PORT}"))
        .args(arguments);
    let mut exporter = Program::start("node_exporter", &mut command, &log)?;
    exporter.wait_ready(Duration::from_secs(20), || scrape(netns).is_ok())?;
    let pid = exporter.pid().as_raw();
    let mut costs = Vec::new();
    for _ in 0..SCRAPES {
        let before = cost::of_process(pid)?;
        scrape(netns)?;
        costs.push(cost::of_process(pid)? - before);
    }
    exporter.kill()?;
    std::fs::remove_file(&log)?;
    Ok(median(costs))
}

/// Reads all metrics, from a thread that is in the namespace.
fn scrape(netns: &Netns) -> Result<usize> {
    let place = File::open(Path::new("/var/run/netns").join(netns.name()))?;
    let read = move || -> Result<usize> {
        setns(place, CloneFlags::CLONE_NEWNET)?;
        let mut stream = TcpStream::connect(PORT)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        if !text.starts_with(b"HTTP/1.0 200") {
            bail!("node_exporter gave no metrics");
        }
        Ok(text.len())
    };
    match std::thread::spawn(read).join() {
        Ok(length) => length,
        Err(_) => bail!("the scrape panicked"),
    }
}

const NETWORK: &[&str] = &[
    "--collector.disable-defaults",
    "--collector.netdev",
    "--collector.netclass",
];
