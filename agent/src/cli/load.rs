//! `aizen perf --load`: how much a transfer adds to the delay, and in which direction (bufferbloat).
//!
//! It costs traffic, so it needs the URL of a server that the person may load, and says before it starts how much it
//! moves at most. `aizen perf` without it only reads.
//!
//! With `--json` it prints one object:
//!
//! ```json
//! {"host": "…", "address": "192.0.2.1", "by": "icmp", "at": "…", "idle_ms": {"p50": 12.1, …},
//!  "directions": [{"direction": "down", "rtt_ms": {"min": 12.0, "p50": 14.0, "p95": 20.1, "max": 31.0}, "lost": 0,
//!    "added_ms": 1.9, "grade": "A+", "bits_per_second": 93000000, "bytes": 93000000, "seconds": 8.0, "error": null}],
//!  "grade": "A+", "bloats": [], "findings": []}
//! ```
//!
//! `added_ms` is the median under load minus the idle one; it, `rtt_ms` and `grade` are null where a direction could not
//! be measured, and then `error` says why. `findings` are what the expert makes of it, as `aizen diagnose` has them.

mod grade;
mod report;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use aizen_protocol::finding::Finding;
use aizen_protocol::record::{Body, LoadDirection, Record};
use clap::{Args, ValueEnum};

use self::report::Report;
use super::look::{Look, LookArgs};
use super::ping::{FamilyArgs, NAMES_WAIT};
use super::screen::Screen;
use super::{exit, look, show};
use crate::analyze;
use crate::collect::load::{Outcome, Plan, Server, measure};
use crate::collect::{CollectError, Collector, Settings};
use crate::probe::echo::Target;
use crate::probe::name;
use crate::probe::roots::Roots;
use crate::probe::web::Url;

/// What can be said to `aizen perf`.
#[derive(Debug, Args)]
pub(super) struct PerfArgs {
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Delay under load")]
struct LoadArgs {
    /// Measure delay while the line is idle and while a transfer fills it
    #[arg(long, requires = "to", conflicts_with = "watch")]
    load: bool,
    /// Fetch this, and send to it: a large file on a server that you may load
    #[arg(long, value_name = "URL", requires = "load")]
    to: Option<Url>,
    /// Send to this instead: most servers take no uploads where they give files
    #[arg(long, value_name = "URL", requires = "load")]
    up: Option<Url>,
    /// Which way
    #[arg(long, value_enum, default_value = "both", requires = "load")]
    direction: Ways,
    /// Seconds that each direction takes at most
    #[arg(long, value_name = "N", default_value_t = 10, requires = "load",
          value_parser = clap::value_parser!(u16).range(3..=30))]
    seconds: u16,
    /// Megabytes that each direction moves at most
    #[arg(long, value_name = "N", default_value_t = 250, requires = "load",
          value_parser = clap::value_parser!(u32).range(1..=4000))]
    megabytes: u32,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 8, requires = "load",
          value_parser = clap::value_parser!(u16).range(1..=16))]
    streams: u16,
    #[command(flatten)]
    family: FamilyArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ways {
    /// First down, then up
    Both,
    /// To this device
    Down,
    /// From this device
    Up,
}

/// Runs `aizen perf`, with or without a load.
///
/// # Errors
/// When standard output can't be written.
pub(super) async fn run(
    args: &PerfArgs,
    json: bool,
    settings: Settings,
) -> anyhow::Result<ExitCode> {
    match &args.load.to {
        Some(to) if args.load.load => load(&args.load, to, json, settings).await,
        _ => look::run(Look::Perf, &args.look, json, settings).await,
    }
}

async fn load(
    args: &LoadArgs,
    to: &Url,
    json: bool,
    settings: Settings,
) -> anyhow::Result<ExitCode> {
    let plan = match plan(args, to, &settings) {
        Ok(plan) => plan,
        Err(error) => return Ok(exit::refuse(&error, json, exit::USAGE)),
    };
    // With standard error closed there is nobody to tell, and what was asked for is done all the same.
    writeln!(io::stderr(), "{}", announced(&plan)).ok();
    let mut collector = Collector::new(settings);
    collector.look().await;
    let mut outcome = Outcome::default();
    let measured = tokio::select! {
        measured = measure(&plan, &mut outcome) => measured,
        // What is through is told.
        _ = tokio::signal::ctrl_c() => Err(CollectError::Untold("ended early".to_owned())),
    };
    if let Err(error) = measured {
        if outcome.phases.is_empty() {
            return Ok(exit::refuse(&error, json, exit::FAILED));
        }
        writeln!(io::stderr(), "aizen: {error}").ok();
    }
    let findings = judged(&mut collector, &plan, &outcome).await;
    let report = Report::new(&to.host, plan.target.address, &outcome, findings);
    let mut out = io::stdout().lock();
    if json {
        show::json(&mut out, &report)?;
    } else {
        report.write(&mut out, &Screen::of_stdout())?;
    }
    out.flush()?;
    let whole = outcome.phases.len() == plan.transfers.len();
    Ok(if whole && report.is_measured() {
        ExitCode::SUCCESS
    } else {
        exit::FAILED.into()
    })
}

fn plan(args: &LoadArgs, to: &Url, settings: &Settings) -> Result<Plan, name::NameError> {
    let up = args.up.as_ref().unwrap_or(to);
    let names = [to.host.clone(), up.host.clone()];
    let mut found = name::resolve(&names, args.family.family(), NAMES_WAIT).into_iter();
    let mut next = || found.next().transpose();
    let (Some(target), Some(other)) = (next()?, next()?) else {
        return Err(name::NameError::TooSlow {
            name: to.host.clone(),
            waited: NAMES_WAIT,
        });
    };
    let server = |url: &Url, at: Target| Server {
        url: url.clone(),
        address: SocketAddr::new(at.address, url.port),
    };
    let down = (LoadDirection::Down, server(to, target));
    let up = (LoadDirection::Up, server(up, other));
    Ok(Plan {
        target,
        port: to.port,
        transfers: match args.direction {
            Ways::Both => vec![down, up],
            Ways::Down => vec![down],
            Ways::Up => vec![up],
        },
        streams: args.streams,
        time: Duration::from_secs(args.seconds.into()),
        bytes: u64::from(args.megabytes) * 1_000_000,
        roots: Roots::read(&settings.root).ok(),
    })
}

/// What will happen, before it does.
fn announced(plan: &Plan) -> String {
    let ways: Vec<String> = plan
        .transfers
        .iter()
        .map(|(direction, server)| match direction {
            LoadDirection::Down => format!("down from {}", server.url),
            LoadDirection::Up => format!("up to {}", server.url),
        })
        .collect();
    format!(
        "loading the line: {}; each at most {} s and {} MB over {} connections; Ctrl-C ends it",
        ways.join(", then "),
        plan.time.as_secs(),
        plan.bytes / 1_000_000,
        plan.streams
    )
}

/// What the expert makes of it, beside what the kernel says of queues and routes after the load.
async fn judged(collector: &mut Collector, plan: &Plan, outcome: &Outcome) -> Vec<Finding> {
    let observations = collector.look().await;
    let mut records: Vec<Record> = observations
        .iter()
        .map(|observation| Record::clone(&observation.local()))
        .collect();
    // The last record ends the round.
    if let Some(end) = records.last().cloned() {
        let load = Record {
            body: Body::Load(outcome.records(&plan.target)),
            ..end
        };
        records.insert(records.len() - 1, load);
    }
    let mut findings = analyze::records(records).findings;
    findings.retain(|finding| finding.cause.0 == CAUSE);
    findings
}

/// The cause that this command is about.
const CAUSE: &str = "bufferbloat";
