//! The fault lab as tests: every recorded scenario, as it is and as it travels, and a fixed selection of those that run.

use std::process::ExitCode;

use anyhow::Result;
use harness::lab::recorded::{self, Recorded};
use harness::lab::run::{self, How};
use harness::lab::scenario::{self, Scenario};
use libtest_mimic::{Arguments, Failed, Trial};

mod retold;

/// The same names and addresses in each test run; `cargo xtask lab` draws new ones.
const SEED: u64 = 1;

fn main() -> Result<ExitCode> {
    let quick = scenario::all()?
        .into_iter()
        .filter(|scenario| scenario.quick);
    let real = quick
        .map(|scenario| Trial::test(format!("real::{}", scenario.name), move || plays(&scenario)));
    let replayed = recorded::all()?.into_iter().map(|recorded| {
        Trial::test(format!("recorded::{}", recorded.name), move || {
            replays(&recorded)
        })
    });
    let retold = recorded::all()?.into_iter().map(|recorded| {
        Trial::test(format!("retold::{}", recorded.name), move || {
            retold::misses_nothing(&recorded)
        })
    });
    let trials = real.chain(replayed).chain(retold).collect();
    Ok(libtest_mimic::run(&Arguments::from_args(), trials).exit_code())
}

fn plays(scenario: &Scenario) -> Result<(), Failed> {
    let outcome = run::one(
        scenario,
        How {
            seed: SEED,
            keep: false,
            record: None,
        },
    );
    if outcome.passed() {
        return Ok(());
    }
    Err(format!("{}\n{:#?}", outcome.line(), outcome.verdict).into())
}

fn replays(recorded: &Recorded) -> Result<(), Failed> {
    let replayed = recorded
        .replay()
        .map_err(|e| Failed::from(format!("{e:#}")))?;
    if !replayed.twin.passed() {
        return Err(format!("without the fault: {:?}", replayed.twin).into());
    }
    if !replayed.judged.passed() {
        return Err(format!("{:?}\n{:#?}", replayed.judged, replayed.verdict).into());
    }
    Ok(())
}
