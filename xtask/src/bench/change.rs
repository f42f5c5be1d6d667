//! A repair of 100 KiB on a router with 1,000 routes and a set of 20,000 elements: from its arrival to its first
//! instruction, what is kept for undoing it, and the way back.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aizen_agent::control::Connection;
use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::outcome::{End, Outcome, Stage};
use anyhow::{Context as _, Result, bail, ensure};
use harness::device::Device;
use harness::world::World;
use harness::{package, wait};
use jiff::Timestamp;
use serde_json::json;

/// Turns; the median of each is told.
const TURNS: usize = 9;
const SCRIPT: usize = 100 << 10;
const POLICY: &str = "allow_changes = true\nmin_isolation = 1\ninterpreters = [\"/bin/bash\"]\n";

/// What is durable before the first instruction, in this order, and what it stands for.
const STAGES: [(Stage, &str); 4] = [
    (Stage::Admitted, "every check, and that it never runs again"),
    (
        Stage::Snapshotted,
        "the state before and the probes' baseline",
    ),
    (Stage::Armed, "the deadline"),
    (Stage::Running, "that it runs"),
];

/// One turn, in milliseconds and bytes.
struct Turn {
    first_instruction: f64,
    /// Of it, the time until each of [`STAGES`] was durable, and from the last of them to the script.
    parts: Vec<f64>,
    snapshot: f64,
    restore: f64,
    kept: u64,
}

pub(super) fn rows(program: &Path) -> Result<String> {
    let world = World::start_with(Some(program), &mut |_, _| {})?;
    world.device.write_policy(POLICY)?;
    let small = turns(&world)?;
    let (syncs, synced) = synced(&world)?;
    fill(&world.device)?;
    let listing = listed(&world.device)?;
    let large = turns(&world)?;
    let mut text = String::new();
    let first = middle(&small, |turn| turn.first_instruction);
    // Writing to a string does not fail.
    writeln!(text, "| a signed repair of 100 KiB, from its arrival to its first instruction | {first:.1}ms | | |").ok();
    for (part, (_, told)) in STAGES.iter().enumerate() {
        let time = middle(&small, |turn| turn.parts[part]);
        writeln!(text, "| … of it: {told} | {time:.1}ms | | |").ok();
    }
    let (last, bare) = (middle(&small, |turn| turn.parts[STAGES.len()]), bare()?);
    writeln!(
        text,
        "| … of it: from there to the first instruction, beside that of a bare `bash` | {last:.1}ms | {bare:.1}ms | {:.2} |",
        last / bare
    )
    .ok();
    writeln!(
        text,
        "| … of it: {syncs} times fsync, under strace | {synced:.1}ms | | |"
    )
    .ok();
    writeln!(
        text,
        "| … with 1,000 routes and 20,000 elements | {:.1}ms | | |",
        middle(&large, |turn| turn.first_instruction)
    )
    .ok();
    let snapshot = middle(&large, |turn| turn.snapshot);
    writeln!(
        text,
        "| taking and storing the state of those, beside `ip route save` and `nft list ruleset` | {snapshot:.1}ms | {listing:.1}ms | {:.2} |",
        snapshot / listing
    )
    .ok();
    writeln!(
        text,
        "| … kept on the device, sealed | {} KiB | | |",
        large[0].kept >> 10
    )
    .ok();
    writeln!(
        text,
        "| putting it back and comparing it | {:.1}ms | | |",
        middle(&large, |turn| turn.restore)
    )
    .ok();
    Ok(text)
}

fn middle(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut all: Vec<f64> = turns.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// From the start of the same interpreter, without any wall, to its first instruction, in milliseconds.
fn bare() -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let began = Timestamp::now();
        let told = Command::new("/bin/bash")
            .args(["-c", "echo $EPOCHREALTIME"])
            .output()
            .context("can't start bash")?;
        let at: f64 = String::from_utf8(told.stdout)?.trim().parse()?;
        times.push(at * 1e3 - milliseconds(began));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn turns(world: &World) -> Result<Vec<Turn>> {
    (0..TURNS).map(|_| turn(world)).collect()
}

fn turn(world: &World) -> Result<Turn> {
    let mut script =
        String::from("echo at $EPOCHREALTIME\nchange route replace 198.51.100.0/24 dev lo\n");
    script.push_str(&format!("#{}\n", "x".repeat(SCRIPT - script.len() - 2)));
    let manifest = package::manifest(&json!({
        "class": "repair", "min_isolation": 1, "timeout_s": 60,
        "operations": [
            {"route": {"replace": {"dst": "198.51.100.0/24", "dev": "lo"}}},
            {"nft": {"replace_table": {"family": "inet", "name": "aizen_bench"}}},
        ],
        "confirm": {"within_s": 120, "stable_s": 1, "probes": []},
    }))?;
    let mut package = package::package(world, &script, manifest)?;
    package.interpreter = "/bin/bash".to_owned();
    let envelope = package::sign(&package, &[&package::alice(world)?])?;
    let request = ExecutorRequest::Execute {
        package: envelope,
        delivery: None,
        bindings: Bindings::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sent, kept, outcome) = runtime.block_on(life(&world.device, &request))?;
    ensure!(outcome.end == End::RolledBack, "{outcome:?}");
    let output = outcome
        .script
        .as_ref()
        .map_or("", |run| run.output.0.as_str());
    let at = output.lines().find_map(|line| line.strip_prefix("at "));
    let at: f64 = at.context("the script told no time")?.parse()?;
    let reached = |stage| {
        let step = outcome.steps.iter().find(|step| step.stage == stage);
        step.map(|step| milliseconds(step.at))
            .with_context(|| format!("no {stage:?}"))
    };
    let moments = std::iter::once(Ok(milliseconds(sent)))
        .chain(STAGES.iter().map(|(stage, _)| reached(*stage)))
        .chain([Ok(at * 1e3)]);
    let moments: Vec<f64> = moments.collect::<Result<_>>()?;
    Ok(Turn {
        first_instruction: at * 1e3 - milliseconds(sent),
        parts: moments.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        snapshot: reached(Stage::Snapshotted)? - reached(Stage::Admitted)?,
        restore: reached(Stage::RolledBack)? - reached(Stage::RollingBack)?,
        kept,
    })
}

fn milliseconds(at: Timestamp) -> f64 {
    at.as_nanosecond() as f64 / 1e6
}

/// Sends it, has it undone as soon as it waits to be confirmed, and hears its end.
async fn life(device: &Device, request: &ExecutorRequest) -> Result<(Timestamp, u64, Outcome)> {
    let mut connection = Connection::connect(&device.executor_socket()).await?;
    // With what this program, which is not optimised, takes to write it down.
    let sent = Timestamp::now();
    connection.send(request).await?;
    let mut kept = 0;
    loop {
        match connection.recv().await?.context("the executor hung up")? {
            ExecutorAnswer::ConfirmOnSiteWanted { change, .. } => {
                kept = stored(&device.state().join("executor/snapshots"))?;
                let mut other = Connection::connect(&device.executor_socket()).await?;
                let undo = ExecutorRequest::RollBack { change };
                let answer: ExecutorAnswer = other.ask(&undo).await?;
                ensure!(answer == ExecutorAnswer::Done, "{answer:?}");
            }
            ExecutorAnswer::Ended { local, .. } => return Ok((sent, kept, *local)),
            ExecutorAnswer::Refused(refusal) => bail!("refused: {refusal:?}"),
            _ => {}
        }
    }
}

fn stored(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// How often, and how long in milliseconds, the executor waits for the disk up to the first instruction.
fn synced(world: &World) -> Result<(usize, f64)> {
    let file = world.lab.folder().join("syncs");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-T",
            "-e",
            "trace=fsync,fdatasync,execve",
            "-o",
        ])
        .arg(&file)
        .args(["-p", &world.device.executor_pid()?.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .context("can't start strace")?;
    let status = format!("/proc/{}/status", world.device.executor_pid()?);
    let traced = || {
        let status = fs::read_to_string(&status).ok()?;
        (!status.contains("TracerPid:\t0\n")).then_some(())
    };
    wait::until("strace to attach", Duration::from_secs(10), traced)?;
    let turned = turn(world);
    // It lets go of what it traced.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(strace.id().try_into()?),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    strace.wait()?;
    turned?;
    let text = fs::read_to_string(file)?;
    let before: Vec<&str> = text
        .lines()
        .take_while(|line| !line.contains("/bin/bash"))
        .collect();
    let syncs = before.iter().filter(|line| line.contains("sync"));
    let times = syncs.filter_map(|line| {
        line.rsplit_once('<')?
            .1
            .strip_suffix('>')?
            .parse::<f64>()
            .ok()
    });
    let times: Vec<f64> = times.collect();
    ensure!(!times.is_empty(), "strace saw no fsync: {text}");
    Ok((times.len(), times.iter().sum::<f64>() * 1e3))
}

/// 1,000 routes and a set of 20,000 addresses.
fn fill(device: &Device) -> Result<()> {
    let routes: String = (0..1000)
        .map(|n| format!("route add 10.{}.{}.0/24 dev lo\n", 100 + n / 250, n % 250))
        .collect();
    fed(device.command("ip").args(["-batch", "-"]), &routes)?;
    let elements: Vec<String> = (0..20_000)
        .map(|n| format!("10.{}.{}.{}", 200 + n / 62_500, n / 250 % 250, n % 250))
        .collect();
    let table = format!(
        "table inet aizen_bench {{\n set blocked {{\n type ipv4_addr;\n elements = {{ {} }}\n }}\n}}\n",
        elements.join(", ")
    );
    fed(device.command("nft").args(["-f", "-"]), &table)
}

fn fed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    child
        .stdin
        .take()
        .context("a pipe")?
        .write_all(input.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// What the tools take to tell the same, in milliseconds.
fn listed(device: &Device) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let began = Instant::now();
        for (program, words) in [
            ("ip", &["route", "save", "table", "all"][..]),
            ("nft", &["list", "ruleset"]),
        ] {
            let status = device
                .command(program)
                .args(words)
                .stdout(Stdio::null())
                .status()?;
            ensure!(status.success(), "{program} ended with {status}");
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
