//! What the evidence of one round weighs when it leaves, by kind of record, in the lab's calm world.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::shell;
use harness::world::World;

/// Rarely run collectors have run, and the executor was woken.
const SETTLE: Duration = Duration::from_secs(60);
/// As long as the longest common pause, at the cadence of a real device.
const WATCHED: Duration = Duration::from_secs(300);

/// The orchestrator's table: kind and bytes of JSON of each record.
const WEIGH: &str = "import sqlite3, sys\n\
    for row in sqlite3.connect(sys.argv[1]).execute('select kind, length(cast(record as blob)) from records \
    order by seq'): print(*row)";

pub(super) fn rows() -> Result<String> {
    let mut world = World::start(&mut |_, _| {})?;
    let config = world.device.etc().join("aizen/aizen.toml");
    let text = std::fs::read_to_string(&config)?.replace("every_s = 2", "every_s = 10");
    std::fs::write(&config, text)?;
    world.device.daemon()?.stop()?;
    world.device.start_daemon()?;
    std::thread::sleep(SETTLE);
    let before = records(&world)?.len();
    std::thread::sleep(WATCHED);
    let all = records(&world)?;
    let rounds = |records: &[Told]| -> Vec<u64> {
        let ended = records.split_inclusive(|told| told.kind == "round");
        ended.map(bytes).collect()
    };
    let whole = rounds(&all).into_iter().max().unwrap_or(0);
    let calm = all.get(before..).unwrap_or_default();
    let count = rounds(calm).len().max(1) as u64;
    let mut rows = format!(
        "| evidence of a round, mean of {count} calm ones, beside a round that tells everything | {} bytes | {whole} bytes | {:.2} |\n",
        bytes(calm) / count,
        bytes(calm) as f64 / (count * whole.max(1)) as f64
    );
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for told in calm {
        let (times, bytes) = kinds.entry(&told.kind).or_default();
        *times += 1;
        *bytes += told.bytes;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    for (kind, (times, bytes)) in kinds {
        rows.push_str(&format!(
            "| of it `{kind}`, told {times} times | {} bytes | | |\n",
            bytes / count
        ));
    }
    Ok(rows)
}

struct Told {
    kind: String,
    bytes: u64,
}

/// Without what the device remembers, which has a cadence of its own and grows for hours.
fn bytes(records: &[Told]) -> u64 {
    let told = records.iter().filter(|told| told.kind != "history");
    told.map(|told| told.bytes).sum()
}

fn records(world: &World) -> Result<Vec<Told>> {
    let db = world.cloud.data().join("orchestrator.db");
    let told = |line: &str| -> Result<Told> {
        let mut words = line.split_whitespace();
        Ok(Told {
            kind: words.next().context("no kind")?.to_owned(),
            bytes: words.next().context("no number")?.parse()?,
        })
    };
    shell::run(Command::new("python3").arg("-c").arg(WEIGH).arg(db))?
        .lines()
        .map(told)
        .collect()
}
