//! Runs scenarios: lays out, breaks, diagnoses, judges, repairs.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aizen_protocol::finding::Verdict;
use anyhow::{Context as _, Result, anyhow};

use super::repair::{self, Proof};
use super::scenario::{Expect, Other, Scenario};
use super::stage::Stage;
use super::verdict::{Judged, without_the_machine};
use crate::device::Device;
use crate::{packages, shell, wait};

/// Scenarios that run at the same time, unless somebody says otherwise: they wait more than they work.
pub const AT_ONCE: usize = 2;

/// What came of one scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `FAMILY/NAME`.
    pub name: String,
    /// Nothing was broken.
    pub healthy: bool,
    /// The verdict beside what was expected.
    pub judged: Judged,
    /// How long `aizen diagnose` took.
    pub wall: Duration,
    /// The repair, where one was expected.
    pub repair: Option<Proof>,
    /// What kept it from a verdict.
    pub error: Option<String>,
    /// The verdict.
    pub verdict: Option<Verdict>,
}

impl Outcome {
    /// Right in every respect.
    #[must_use]
    pub fn passed(&self) -> bool {
        let repaired = self
            .repair
            .is_none_or(|proof| proof.mended && proof.rolled_back);
        self.error.is_none() && self.judged.passed() && repaired
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = if self.passed() { "ok  " } else { "MISS" };
        let mut line = format!("{mark} {}: {}", self.name, self.judged.told);
        if !self.judged.extra.is_empty() {
            line.push_str(&format!("; beside it: {}", self.judged.extra.join(", ")));
        }
        if let Some(proof) = self.repair {
            let word = |well| if well { "yes" } else { "NO" };
            line.push_str(&format!(
                "; mended: {}, rolled back to the same: {}",
                word(proof.mended),
                word(proof.rolled_back)
            ));
        }
        if let Some(error) = &self.error {
            line.push_str(&format!("; {error}"));
        }
        line
    }
}

/// Runs `aizen diagnose` on the device, as root, and leaves out what is true of the lab's machine alone. The sanitized
/// evidence goes to the file, if there is one.
///
/// # Errors
/// If it gives no verdict.
pub fn diagnose(device: &Device, record: Option<&Path>) -> Result<Verdict> {
    let mut command = device.aizen(&["diagnose", "--offline", "--json"])?;
    if let Some(file) = record {
        command.arg("--record").arg(file);
    }
    let output = shell::output(&mut command)?;
    let verdict = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "no verdict: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    Ok(without_the_machine(verdict))
}

/// How scenarios run.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// What names and addresses are drawn from.
    pub seed: u64,
    /// Networks, files and programs stay when a scenario is over.
    pub keep: bool,
    /// Folder for the sanitized evidence of each verdict, for `aizen diagnose --replay`.
    pub record: Option<&'a Path>,
}

/// Runs one scenario in a thread of its own: its mounts go with it.
#[must_use]
pub fn one(scenario: &Scenario, how: How<'_>) -> Outcome {
    let mut outcome = Outcome {
        name: scenario.name.clone(),
        healthy: scenario.healthy,
        judged: Judged::default(),
        wall: Duration::ZERO,
        repair: None,
        error: None,
        verdict: None,
    };
    let done = thread::scope(|scope| {
        let work = scope.spawn(|| play(scenario, how, &mut outcome));
        work.join()
            .unwrap_or_else(|_| Err(anyhow!("the runner panicked")))
    });
    outcome.error = done.err().map(|error| format!("{error:#}"));
    outcome
}

fn play(scenario: &Scenario, how: How<'_>, outcome: &mut Outcome) -> Result<()> {
    let mut stage = Stage::lay_out(scenario, own_seed(how.seed, &scenario.name))?;
    if how.keep {
        stage.keep();
    }
    let expect = scenario.expect.as_ref();
    let expect = expect.map(|expect| filled(expect, &stage)).transpose()?;
    let wants_repair = expect.as_ref().is_some_and(|expect| expect.repair);
    let id = if wants_repair {
        Some(stage.enrol()?)
    } else {
        None
    };
    if scenario.watched {
        stage.watch()?;
    }
    stage.inject(scenario)?;
    let began = Instant::now();
    let file = how.record.map(|folder| {
        let name = scenario.name.replace(['/', ' '], "-");
        folder.join(format!("{name}.{}.jsonl", how.seed))
    });
    let verdict = diagnose(&stage.device, file.as_deref())?;
    outcome.wall = began.elapsed();
    outcome.judged = match &expect {
        Some(expect) => Judged::fault(expect, &verdict),
        None => Judged::healthy(&verdict),
    };
    outcome.verdict = Some(verdict.clone());
    if let (Some(id), Some(expect)) = (id, &expect) {
        let proof = outcome.repair.insert(Proof::default());
        repair::prove(&mut stage, &id, expect, &verdict, proof)?;
    }
    Ok(())
}

/// The expectation with this run's names.
///
/// # Errors
/// If a placeholder is unknown.
pub fn filled(expect: &Expect, stage: &Stage) -> Result<Expect> {
    let mut filled = expect.clone();
    filled.component = stage.draw.fill(&expect.component)?;
    let fill = |other: &mut Other| -> Result<()> {
        if let Some(component) = &mut other.component {
            *component = stage.draw.fill(component)?;
        }
        Ok(())
    };
    filled.or.iter_mut().try_for_each(fill)?;
    filled.also.iter_mut().try_for_each(fill)?;
    filled.leaves.iter_mut().try_for_each(fill)?;
    Ok(filled)
}

/// Each scenario draws its own names, whichever others run (FNV-1a over the name).
#[must_use]
pub fn own_seed(seed: u64, name: &str) -> u64 {
    name.bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// The healthy twins of these scenarios: one for each topology and its options.
#[must_use]
pub fn twins(scenarios: &[Scenario]) -> Vec<Scenario> {
    let mut seen = BTreeSet::new();
    scenarios
        .iter()
        .filter(|scenario| !scenario.healthy)
        .map(Scenario::twin)
        .filter(|(key, _)| seen.insert(key.clone()))
        .map(|(_, twin)| twin)
        .collect()
}

/// Runs scenarios, `at_once` at a time, and tells each as it ends. When interrupted, those that came to their end are
/// what there is.
///
/// # Errors
/// If a package is missing.
pub fn many(
    scenarios: &[Scenario],
    how: How<'_>,
    at_once: usize,
    tell: &(dyn Fn(&Outcome) + Sync),
) -> Result<Vec<Outcome>> {
    packages::ensure(&mut |_| {})?;
    let waiting: Mutex<VecDeque<&Scenario>> = Mutex::new(scenarios.iter().collect());
    let done = Mutex::new(Vec::new());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front().filter(|_| !wait::interrupted())
    };
    thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    let outcome = one(scenario, how);
                    if outcome.error.is_some() && wait::interrupted() {
                        break;
                    }
                    tell(&outcome);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push(outcome);
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(done)
}
