//! `cargo xtask lab`: faults made on purpose, and what the device says of them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use harness::lab::needs;
use harness::lab::recorded::{self, Recorded};
use harness::lab::run::{self, How, Outcome};
use harness::lab::scenario::{self, Scenario};
use harness::lab::score::Score;
use harness::lab::stage::Stage;
use harness::{packages, wait};

use crate::build;

#[derive(Subcommand)]
pub(crate) enum LabCommand {
    /// Every scenario
    List,
    /// Make faults and look whether the expert names them
    Run(RunArgs),
    /// Make a fault and open a shell on the device
    Shell(ShellArgs),
    /// Run everything and count
    Score(ScoreArgs),
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Scenarios (FAMILY/NAME, or a whole FAMILY)
    names: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Repeat a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// How many run at the same time
    #[arg(long, value_name = "N", default_value_t = run::AT_ONCE)]
    at_once: usize,
    /// Leave networks, files and programs where they are at the end
    #[arg(long)]
    keep: bool,
    /// Print the whole verdict of each miss
    #[arg(long)]
    verdict: bool,
    /// Run the same networks without their faults as well
    #[arg(long)]
    twins: bool,
    /// Write the sanitized evidence of each verdict there, for 'aizen diagnose --replay'; the device sees the folder, so
    /// not below /etc, /run or /var
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ShellArgs {
    /// The scenario (FAMILY/NAME)
    name: String,
    /// Repeat a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// Leave networks, files and programs where they are at the end
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
pub(crate) struct ScoreArgs {
    /// Repeat a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// How many run at the same time
    #[arg(long, value_name = "N", default_value_t = run::AT_ONCE)]
    at_once: usize,
    /// Only the recorded scenarios
    #[arg(long)]
    recorded: bool,
    /// Write the table into this file, between the lab's two marks
    #[arg(long)]
    write: Option<PathBuf>,
}

pub(crate) fn run(command: &LabCommand) -> Result<()> {
    ctrlc::set_handler(|| wait::INTERRUPTED.store(true, Ordering::SeqCst))
        .context("can't watch for Ctrl-C")?;
    match command {
        LabCommand::List => list(),
        LabCommand::Run(args) => play(args),
        LabCommand::Shell(args) => shell(args),
        LabCommand::Score(args) => score(args),
    }
}

fn list() -> Result<()> {
    say("| scenario | row | made how | expected | what |\n| --- | --- | --- | --- | --- |");
    for one in scenario::all()? {
        let expected = one.expect.map_or("healthy".into(), |expect| expect.cause);
        say(&format!(
            "| {} | {} | {} | {expected} | {} |",
            one.name, one.row, one.topology, one.title
        ));
    }
    for one in recorded::all()? {
        let expected = one.expect.map_or("healthy".into(), |expect| expect.cause);
        say(&format!(
            "| {}/{} | {} | recorded | {expected} | {} |",
            one.family, one.name, one.row, one.title
        ));
    }
    Ok(())
}

fn play(args: &RunArgs) -> Result<()> {
    let wanted = |name: &str| {
        let family = name.split('/').next();
        args.all
            || args
                .names
                .iter()
                .any(|word| word == name || Some(word.as_str()) == family)
    };
    let mut real: Vec<Scenario> = scenario::all()?
        .into_iter()
        .filter(|one| wanted(&one.name))
        .collect();
    if args.twins {
        real.extend(run::twins(&real));
    }
    let replayed: Vec<Recorded> = recorded::all()?
        .into_iter()
        .filter(|one| wanted(&format!("{}/{}", one.family, one.name)))
        .collect();
    if real.is_empty() && replayed.is_empty() {
        bail!("no scenario of that name: 'cargo xtask lab list' shows them, --all takes all");
    }
    let mut missed = 0;
    for one in &replayed {
        missed += usize::from(!replay(one, &mut Score::default())?);
    }
    if let Some(folder) = &args.record {
        std::fs::create_dir_all(folder)?;
    }
    let how = How {
        seed: args.seed.unwrap_or_else(fresh_seed),
        keep: args.keep,
        record: args.record.as_deref(),
    };
    let outcomes = stage(&real, how, args.at_once, args.verdict)?;
    missed += outcomes.iter().filter(|outcome| !outcome.passed()).count();
    if missed > 0 {
        bail!("{missed} of {} missed", replayed.len() + outcomes.len());
    }
    Ok(())
}

fn replay(one: &Recorded, score: &mut Score) -> Result<bool> {
    let replayed = one.replay()?;
    score.replayed(&replayed, one.healthy);
    let well = replayed.judged.passed() && replayed.twin.passed();
    let mark = if well { "ok  " } else { "MISS" };
    let mut line = format!(
        "{mark} {}/{}: {}",
        one.family, one.name, replayed.judged.told
    );
    if !replayed.judged.extra.is_empty() {
        line.push_str(&format!(
            "; beside it: {}",
            replayed.judged.extra.join(", ")
        ));
    }
    if !replayed.twin.passed() {
        line.push_str(&format!("; without the fault: {}", replayed.twin.told));
    }
    say(&line);
    Ok(well)
}

/// Runs scenarios under a seed that is told, so that it can be repeated.
fn stage(
    scenarios: &[Scenario],
    how: How<'_>,
    at_once: usize,
    verdict: bool,
) -> Result<Vec<Outcome>> {
    if scenarios.is_empty() {
        return Ok(Vec::new());
    }
    prepare()?;
    let scenarios = possible(scenarios)?;
    say(&format!("seed {}", how.seed));
    run::many(&scenarios, how, at_once, &|outcome| {
        say(&outcome.line());
        if verdict && !outcome.passed() {
            say(&format!("{:#?}", outcome.verdict));
        }
    })
}

/// Those that this kernel can run; the others are named with what they lack.
fn possible(scenarios: &[Scenario]) -> Result<Vec<Scenario>> {
    let mut possible = Vec::new();
    for scenario in scenarios {
        let lacking = needs::lacking(&scenario.needs)?;
        if lacking.is_empty() {
            possible.push(scenario.clone());
        } else {
            say(&format!(
                "skip {}: this kernel has no {}; 'cargo xtask soak lab' runs it under Debian's",
                scenario.name,
                lacking.join(", ")
            ));
        }
    }
    if possible.iter().any(|scenario| !scenario.needs.is_empty()) {
        packages::ensure_all(needs::PROGRAMS, &mut say)?;
    }
    Ok(possible)
}

fn prepare() -> Result<()> {
    packages::ensure(&mut say)?;
    build::programs()
}

pub(crate) fn fresh_seed() -> u64 {
    jiff::Timestamp::now().as_microsecond().unsigned_abs() % 1_000_000
}

fn shell(args: &ShellArgs) -> Result<()> {
    let scenario = scenario::all()?
        .into_iter()
        .find(|one| one.name == args.name)
        .context("no scenario of that name runs: 'cargo xtask lab list' shows them")?;
    prepare()?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let mut stage = Stage::lay_out(&scenario, run::own_seed(seed, &scenario.name))?;
    if args.keep {
        stage.keep();
    }
    stage.inject(&scenario)?;
    say(&format!("{} (seed {seed})", scenario.title));
    if let Some(expect) = &scenario.expect {
        let expect = run::filled(expect, &stage)?;
        say(&format!("expected: {} {}", expect.cause, expect.component));
    }
    for (key, value) in stage.draw.values() {
        say(&format!("  {{{key}}} = {value}"));
    }
    let program = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    say(&format!(
        "{program} on the device; 'aizen diagnose' is on the PATH; exit cleans up"
    ));
    on_the_device(&stage, &program)
}

fn on_the_device(stage: &Stage, program: &str) -> Result<()> {
    let programs = harness::binaries::aizen()?;
    let beside = programs.parent().context("a program has a folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command: Command = stage.device.command(program);
    command.env("PATH", format!("{}:{path}", beside.display()));
    // However the shell ends, the stage goes when it is dropped.
    command
        .status()
        .with_context(|| format!("can't start {program}"))?;
    Ok(())
}

fn score(args: &ScoreArgs) -> Result<()> {
    let mut score = Score::default();
    for one in recorded::all()? {
        replay(&one, &mut score)?;
    }
    let (mut counted, mut wanted) = (0, 0);
    if !args.recorded {
        let mut scenarios = scenario::all()?;
        scenarios.extend(run::twins(&scenarios));
        let scenarios = possible(&scenarios)?;
        wanted = scenarios.len();
        let how = How {
            seed: args.seed.unwrap_or_else(fresh_seed),
            keep: false,
            record: None,
        };
        for outcome in stage(&scenarios, how, args.at_once, false)? {
            counted += 1;
            score.ran(&outcome);
        }
    }
    say(&format!("\n{}", score.table()));
    if counted < wanted {
        bail!(
            "interrupted: the table counts {counted} of {wanted} scenarios that run, and nothing is written"
        );
    }
    if let Some(file) = &args.write {
        write(file, &score.table())?;
    }
    if !score.holds() {
        bail!("the score is too low");
    }
    Ok(())
}

const BEGIN: &str = "<!-- lab:begin -->\n";
const END: &str = "<!-- lab:end -->";

fn write(file: &PathBuf, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let marked = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}{table}{END}{after}"))
    });
    let text = marked.with_context(|| {
        format!(
            "{} has no place for it: {}…{END}",
            file.display(),
            BEGIN.trim_end()
        )
    })?;
    Ok(std::fs::write(file, text)?)
}

fn say(line: &str) {
    use std::io::Write as _;
    // With standard output closed there is nobody to tell.
    writeln!(std::io::stdout(), "{line}").ok();
}
