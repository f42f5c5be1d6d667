//! Rounds of anything: a random script, a random end, something random that comes between; then every invariant of a
//! change is looked at (`docs/changes.md`).
//!
//! Lanes are processes of their own, each with a device that lasts for many rounds. `cargo xtask soak rounds` runs
//! thousands; some fixed ones are in every test run.

mod life;
mod plan;
mod threat;
mod traces;
mod world;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use crate::device::{Device, with_device};
use life::Ground;
use plan::Plan;

pub(crate) const ALL: &[(&str, fn())] = &[("rounds_of_anything_break_no_invariant", || {
    assert_eq!(
        run(&SOME.map(|seed| Lane {
            seed,
            from: 0,
            count: 4,
            step: 1
        })),
        0
    )
})];

/// `cargo xtask soak rounds`.
pub(crate) const LONG: &[(&str, fn())] =
    &[("as_many_rounds_as_are_wanted_break_no_invariant", many)];

/// Four rounds of each.
const SOME: [u64; 5] = [11, 23, 37, 41, 59];

/// Rounds of one device: its memory of packages is bounded.
const GENERATION: u64 = 400;

/// The rounds of one process: `from`, `from + step`, and so on.
#[derive(Clone, Copy, Debug)]
struct Lane {
    seed: u64,
    from: u64,
    count: u64,
    step: u64,
}

/// This program as a lane.
pub(crate) fn play(words: &[&str]) -> Option<ExitCode> {
    let ["role", "rounds", seed, from, count, step] = words else {
        return None;
    };
    let number = |word: &str| word.parse::<u64>().unwrap();
    let lane = Lane {
        seed: number(seed),
        from: number(from),
        count: number(count),
        step: number(step),
    };
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    // Whoever loses its parent is this process's child then: what is left behind is found here.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let done = Arc::new(AtomicU64::new(0));
    while done.load(Ordering::SeqCst) < lane.count {
        let first = done.load(Ordering::SeqCst);
        let counted = Arc::clone(&done);
        // A thread for each device: a panic ends its namespaces with it.
        let thread = std::thread::spawn(move || {
            with_device(async |device| generation(lane, device, &counted).await)
        });
        if let Err(panic) = thread.join() {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            tell_violation(lane, done.load(Ordering::SeqCst), &text.unwrap_or_default());
            done.fetch_add(1, Ordering::SeqCst);
        }
        assert!(done.load(Ordering::SeqCst) > first, "a lane stands still");
    }
    Some(ExitCode::SUCCESS)
}

async fn generation(lane: Lane, device: Device, done: &AtomicU64) {
    let mut ground = Ground::new(device).await;
    for _ in 0..GENERATION {
        let number = done.load(Ordering::SeqCst);
        if number >= lane.count {
            return;
        }
        let index = lane.from + number * lane.step;
        let plan = Plan::draw(lane.seed, index);
        let since = Instant::now();
        let told = ground.round(&plan).await;
        if let Err(what) = told.result {
            tell_violation(lane, number, &what);
            // On a device that is as new.
            done.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let kind = format!("{:?}", plan.misfortune);
        println!(
            "round\t{index}\t{:?}\t{}\t{}\t{}\t{}",
            plan.ending,
            kind.split_whitespace().next().unwrap_or_default(),
            told.cut.join(","),
            told.end,
            since.elapsed().as_millis()
        );
        done.fetch_add(1, Ordering::SeqCst);
    }
}

fn tell_violation(lane: Lane, number: u64, what: &str) {
    let index = lane.from + number * lane.step;
    let plan = Plan::draw(lane.seed, index);
    let text = format!("{what}\n{plan:#?}").replace('\n', "\x1f");
    println!("violation\t{}\t{index}\t{text}", lane.seed);
}

/// What all lanes told.
#[derive(Default)]
struct Tally {
    rounds: u64,
    violations: u64,
    took_ms: u64,
    ends: BTreeMap<String, u64>,
    plans: BTreeMap<String, u64>,
    cuts: BTreeMap<String, u64>,
}

impl Tally {
    fn take(&mut self, line: &str) {
        let parts: Vec<&str> = line.split('\t').collect();
        match parts.as_slice() {
            ["round", _, ending, misfortune, cuts, end, took] => {
                self.rounds += 1;
                self.took_ms += took.parse::<u64>().unwrap();
                *self.ends.entry((*end).to_owned()).or_default() += 1;
                *self
                    .plans
                    .entry(format!("{ending}, {misfortune}"))
                    .or_default() += 1;
                for cut in cuts.split(',').filter(|cut| !cut.is_empty()) {
                    *self.cuts.entry(cut.to_owned()).or_default() += 1;
                }
            }
            ["violation", seed, index, text] => {
                self.rounds += 1;
                self.violations += 1;
                println!(
                    "VIOLATION, again with: cargo xtask soak rounds --seed {seed} --from {index} --rounds 1\n{}",
                    text.replace('\x1f', "\n")
                );
            }
            _ => println!("{line}"),
        }
    }
}

/// Runs lanes beside each other; gives how many rounds broke an invariant.
fn run(lanes: &[Lane]) -> u64 {
    let since = Instant::now();
    let (lines_tx, lines) = mpsc::sync_channel(256);
    let mut children = Vec::new();
    for lane in lanes {
        let mut child = start(*lane);
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines_tx = lines_tx.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The reader lasts as long as this process.
                lines_tx.send(line).ok();
            }
        });
        children.push(child);
    }
    drop(lines_tx);
    let mut tally = Tally::default();
    for line in lines {
        tally.take(&line);
        if tally.rounds.is_multiple_of(500) && tally.rounds > 0 {
            println!(
                "{} rounds, {} violations, {} s",
                tally.rounds,
                tally.violations,
                since.elapsed().as_secs()
            );
        }
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success(), "a lane died");
    }
    let wanted: u64 = lanes.iter().map(|lane| lane.count).sum();
    assert_eq!(tally.rounds, wanted, "a lane ended early");
    println!(
        "{} rounds in {} s, {} ms each; {} violations",
        tally.rounds,
        since.elapsed().as_secs(),
        tally.took_ms / tally.rounds.max(1),
        tally.violations
    );
    println!("ends: {:?}", tally.ends);
    println!("plans: {:#?}", tally.plans);
    println!("where the executor was cut: {:#?}", tally.cuts);
    tally.violations
}

fn start(lane: Lane) -> Child {
    Command::new("/proc/self/exe")
        .args(["role", "rounds"])
        .args([lane.seed, lane.from, lane.count, lane.step].map(|n| n.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// `AIZEN_SOAK_ROUNDS` is `SEED FROM ROUNDS LANES`.
fn many() {
    let wanted = std::env::var("AIZEN_SOAK_ROUNDS").unwrap_or_else(|_| "1 0 100 2".to_owned());
    let numbers: Vec<u64> = wanted.split(' ').map(|n| n.parse().unwrap()).collect();
    let [seed, from, rounds, lanes] = numbers[..] else {
        panic!("SEED FROM ROUNDS LANES, not {wanted}");
    };
    println!("seed {seed}, rounds {from} to {}", from + rounds - 1);
    let lanes = lanes.clamp(1, rounds);
    let lanes: Vec<Lane> = (0..lanes)
        .map(|lane| Lane {
            seed,
            from: from + lane,
            count: (rounds - lane).div_ceil(lanes),
            step: lanes,
        })
        .collect();
    let violations = run(&lanes);
    assert_eq!(violations, 0, "rounds broke an invariant");
}
