//! How long `aizen diagnose --offline` takes: on a healthy network, and when everything outside is silent. And what
//! the expert costs, as a replay of the evidence recorded then.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::fault::Fault;
use harness::world::World;

use super::cost::{self, Cost};

const TURNS: usize = 3;
const REPLAYS: usize = 15;
/// What the command promises.
const PROMISE: Duration = Duration::from_secs(10);

pub(super) fn rows(device: &Path) -> Result<String> {
    let mut world = World::enrolled()?;
    world.device.use_program(device);
    let mut rows = String::new();
    for (state, fault) in [
        ("a healthy network", None),
        ("everything outside silent", Some(Fault::GatewayDead)),
    ] {
        if let Some(fault) = fault {
            fault.inject(&mut world.lab)?;
        }
        let file = world.lab.folder().join("recording");
        let recording = file.to_str().context("a lab folder of text")?.to_owned();
        let mut times = Vec::new();
        for _ in 0..TURNS {
            let began = Instant::now();
            let words = ["diagnose", "--offline", "--json", "--record", &recording];
            let output = world.device.try_aizen(&words)?;
            times.push(began.elapsed());
            let verdict: serde_json::Value = serde_json::from_slice(&output.stdout)
                .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
            let named = verdict["findings"][0]["cause"].as_str().map(str::to_owned);
            let expected = fault.map(|fault| fault.cause().to_owned());
            anyhow::ensure!(named == expected, "{state}: {verdict}");
        }
        let longest = times.iter().max().copied().unwrap_or_default();
        let replay = replayed(device, &file)?;
        rows.push_str(&format!(
            "| `aizen diagnose --offline`, {state}: median (promise: {PROMISE:?}) | {:.1?} | | |\n\
             | … the longest of {TURNS} | {longest:.1?} | | |\n\
             | … CPU of the expert: a replay of it, from start to end of the program | {:.1?} | | |\n",
            cost::median(times),
            replay.processor,
        ));
    }
    Ok(rows)
}

fn replayed(device: &Path, recording: &Path) -> Result<Cost> {
    let mut turns = Vec::new();
    for _ in 0..REPLAYS {
        let mut command = std::process::Command::new(device);
        command
            .args(["diagnose", "--json", "--replay"])
            .arg(recording);
        let (cost, output) = cost::of_any(&mut command)?;
        // The exit code tells the health; a verdict there must be.
        anyhow::ensure!(!output.stdout.is_empty(), "{command:?} gave no verdict");
        turns.push(cost);
    }
    Ok(Cost::median(&turns))
}
