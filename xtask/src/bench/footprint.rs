//! Memory and processor time of the connected daemon with a round every ten seconds, beside other agents that collect
//! as often; and the size of what ships.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::program::Program;
use harness::world::World;

use super::cost;

/// Time in which a program reaches its idle state: three rounds.
const SETTLE: Duration = Duration::from_secs(35);
const EVERY: Duration = Duration::from_secs(10);
/// Rounds in which processor time is counted.
const ROUNDS: u32 = 6;
const EXPORTER: &str = "127.0.0.1:19100";

pub(super) fn rows(device: &Path) -> Result<String> {
    let world = connected(device)?;
    let collectd = collectd(world.lab.folder())?;
    let exporter = Program::start(
        "node_exporter",
        Command::new("prometheus-node-exporter").arg(format!("--web.listen-address={EXPORTER}")),
        &world.lab.folder().join("exporter.log"),
    )?;
    std::thread::sleep(SETTLE);
    let daemon = world.device.daemon_pid()?;
    let peers = [
        ("collectd", collectd.pid().as_raw()),
        ("node_exporter", exporter.pid().as_raw()),
    ];
    let pids = [daemon, peers[0].1, peers[1].1];
    let before = pids.map(cost::of_process);
    for _ in 0..ROUNDS {
        std::thread::sleep(EVERY);
        scrape()?;
    }
    let mut spent = Vec::new();
    for (pid, before) in pids.into_iter().zip(before) {
        spent.push(cost::of_process(pid)? - before?);
    }
    let ours = Memory::of(daemon)?;
    let mut rows = String::new();
    for (place, (name, pid)) in peers.into_iter().enumerate() {
        let peer = Memory::of(pid)?;
        for (kind, own, other) in [
            ("private", ours.private, peer.private),
            ("resident", ours.resident, peer.resident),
        ] {
            rows.push_str(&format!(
                "| {kind} memory of the connected daemon, beside {name} | {own} KiB | {other} KiB | {:.2} |\n",
                own as f64 / peer_or_one(other)
            ));
        }
        let (own, other) = (spent[0], spent[place + 1]);
        rows.push_str(&format!(
            "| CPU of {ROUNDS} collections in a minute, beside {name} | {own:.0?} | {other:.0?} | {:.2} |\n",
            cost::ratio(own, other)
        ));
    }
    let executor = Memory::of(world.device.executor_pid()?)?;
    rows.push_str(&format!(
        "| private memory of the executor, which sleeps beside the daemon | {} KiB | | |\n",
        executor.private
    ));
    let size = fs::metadata(device)?.len();
    rows.push_str(&format!(
        "| size of `aizen`, profile `device`, stripped | {:.2} MiB | | |\n",
        size as f64 / f64::from(1 << 20)
    ));
    Ok(rows)
}

/// The lab's device, with a round every ten seconds in place of two.
fn connected(program: &Path) -> Result<World> {
    let mut world = World::enrolled()?;
    world.device.use_program(program);
    let config = world.device.etc().join("aizen/aizen.toml");
    let quick = fs::read_to_string(&config)?;
    let slow = quick.replace("every_s = 2\n", &format!("every_s = {}\n", EVERY.as_secs()));
    anyhow::ensure!(slow != quick, "the lab's rounds are told another way");
    fs::write(&config, slow)?;
    world.device.start()?;
    world
        .device
        .wait_connected(Duration::from_secs(20))
        .with_context(|| world.said())?;
    Ok(world)
}

fn scrape() -> Result<()> {
    let mut stream = TcpStream::connect(EXPORTER)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn collectd(folder: &Path) -> Result<Program> {
    let data = folder.join("collectd");
    fs::create_dir_all(&data)?;
    let config = folder.join("collectd.conf");
    fs::write(
        &config,
        format!(
            "BaseDir \"{data}\"\nPIDFile \"{data}/pid\"\nPluginDir \"/usr/lib/collectd\"\nTypesDB \"/usr/share/collectd/types.db\"\nInterval 10\n\
             LoadPlugin cpu\nLoadPlugin memory\nLoadPlugin load\nLoadPlugin interface\nLoadPlugin disk\nLoadPlugin df\nLoadPlugin csv\n\
             <Plugin csv>\n DataDir \"{data}/csv\"\n</Plugin>\n",
            data = data.display()
        ),
    )?;
    Program::start(
        "collectd",
        Command::new("collectd").arg("-f").arg("-C").arg(config),
        &folder.join("collectd.log"),
    )
}

/// From `smaps_rollup` (proc(5)), KiB.
struct Memory {
    private: u64,
    resident: u64,
}

impl Memory {
    fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("can't read {path}: did the program end?"))?;
        let field = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|l| l.split_whitespace().nth(1))
                .and_then(|v| v.parse().ok())
                .unwrap_or(0)
        };
        Ok(Self {
            private: field("Private_Clean:") + field("Private_Dirty:"),
            resident: field("Rss:"),
        })
    }
}

fn peer_or_one(kib: u64) -> f64 {
    kib.max(1) as f64
}
