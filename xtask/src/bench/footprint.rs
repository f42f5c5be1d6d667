//! Memory of the connected, idle daemon beside other agents, and the size of what ships.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::program::Program;
use harness::world::World;

/// Time in which a program reaches its idle state.
const SETTLE: Duration = Duration::from_secs(20);

pub(super) fn rows(device: &Path) -> Result<String> {
    let world = World::start_with(Some(device), &mut |_, _| {})?;
    let collectd = collectd(world.lab.folder())?;
    let exporter = Program::start(
        "node_exporter",
        Command::new("prometheus-node-exporter").arg("--web.listen-address=127.0.0.1:19100"),
        &world.lab.folder().join("exporter.log"),
    )?;
    std::thread::sleep(SETTLE);
    let ours = Memory::of(world.device.daemon_pid()?)?;
    let mut rows = String::new();
    for (name, pid) in [
        ("collectd", collectd.pid().as_raw()),
        ("node_exporter", exporter.pid().as_raw()),
    ] {
        let peer = Memory::of(pid)?;
        for (kind, own, other) in [
            ("private", ours.private, peer.private),
            ("resident", ours.resident, peer.resident),
        ] {
            rows.push_str(&format!(
                "| {kind} memory of the connected idle daemon, beside {name} | {own} KiB | {other} KiB | {:.2} |\n",
                ratio(own, other)
            ));
        }
    }
    let size = std::fs::metadata(device)?.len();
    rows.push_str(&format!(
        "| size of `aizen`, profile `device`, stripped | {:.2} MiB | | |\n",
        size as f64 / f64::from(1 << 20)
    ));
    Ok(rows)
}

fn collectd(folder: &Path) -> Result<Program> {
    let data = folder.join("collectd");
    std::fs::create_dir_all(&data)?;
    let config = folder.join("collectd.conf");
    std::fs::write(
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
        let text = std::fs::read_to_string(&path)
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

pub(super) fn ratio(own: u64, peer: u64) -> f64 {
    own as f64 / (peer.max(1)) as f64
}
