//! `aizen ping`: ICMP echo to one target as ping(8) does it, and to many as fping(8) does.
//!
//! With `--json` it prints one object:
//!
//! ```json
//! {"targets": [{"host": "…", "address": "192.0.2.1", "sent": 5, "received": 5, "lost": 0, "loss_percent": 0.0,
//!   "not_measured": 0, "duplicates": 0, "late": 0, "errors": 0, "refused": 0,
//!   "rtt_ms": {"min": 0.1, "avg": 0.1, "max": 0.1, "mdev": 0.0, "p50": 0.1, "p95": 0.1, "p99": 0.1, "jitter": 0.0}}],
//!  "unknown": [{"host": "…", "error": "…"}], "unasked": ["…"], "dropped": 0}
//! ```
//!
//! `rtt_ms` is null without answers. `lost` and `loss_percent` are what the network lost; `not_measured` is what this
//! device's own socket had no room for (`dropped` messages in all). `unasked` says why a whole family was left out.

mod report;

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

pub(super) use self::report::{Times, ms, rounded};
use self::report::{line, report, summary, table};
use super::interrupt::Interrupt;
use super::{exit, show};
use crate::clock;
use crate::probe::echo::{self, MAX_TARGETS, Outcome, Plan, Target};
use crate::probe::name::{self, Family};

#[derive(Debug, Args)]
pub(super) struct PingArgs {
    /// Names or addresses
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
    /// Requests to each target [default: until Ctrl-C for one target, 5 for several]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Seconds between two requests to one target
    #[arg(short, value_name = "S", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Milliseconds between any two requests; 0 sends as fast as the machine can
    #[arg(long, value_name = "MS", default_value = "0.5", value_parser = milliseconds)]
    gap: Duration,
    /// Seconds to wait for an answer
    #[arg(short = 'W', value_name = "S", default_value = "2", value_parser = seconds)]
    wait: Duration,
    /// Bytes of payload
    #[arg(short, value_name = "BYTES", default_value = "56", value_parser = clap::value_parser!(u16).range(0..=65_000))]
    size: u16,
    #[command(flatten)]
    family: FamilyArgs,
    /// Send from this interface
    #[arg(short = 'I', value_name = "DEV")]
    device: Option<String>,
    /// Only the summary
    #[arg(short, long)]
    quiet: bool,
}

/// Which addresses of a name.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct FamilyArgs {
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "six")]
    four: bool,
    /// IPv6 only
    #[arg(short = '6')]
    six: bool,
}

impl FamilyArgs {
    pub(super) fn family(self) -> Family {
        match (self.four, self.six) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            (false, false) => Family::Any,
        }
    }
}

/// The targets that were found, beside the names that led to them.
struct Found {
    hosts: Vec<String>,
    targets: Vec<Target>,
    unknown: Vec<(String, String)>,
}

pub(super) fn run(args: &PingArgs, json: bool) -> anyhow::Result<ExitCode> {
    if args.hosts.len() > MAX_TARGETS {
        let why = format!("more than {MAX_TARGETS} targets");
        return Ok(exit::refuse(&why, json, exit::USAGE));
    }
    let interrupt = Interrupt::catch()?;
    let found = find(args);
    for (_, error) in &found.unknown {
        writeln!(io::stderr(), "aizen: {error}").ok();
    }
    let single = found.targets.len() == 1;
    let plan = Plan {
        targets: found.targets.clone(),
        times: args.count.or((!single).then_some(TIMES)),
        between: if single { Duration::ZERO } else { args.gap },
        each: args.interval,
        wait: args.wait,
        size: args.size,
        device: args.device.clone(),
        deadline: None,
    };
    // Each line of a single target is seen as it comes; a table comes at once.
    let mut out = BufWriter::new(io::stdout().lock());
    let lines = single && !args.quiet && !json;
    if lines {
        let (host, address) = (&found.hosts[0], found.targets[0].address);
        writeln!(
            out,
            "PING {host} ({address}): {} bytes of payload",
            args.size
        )?;
        out.flush()?;
    }
    let began = clock::since_boot();
    let outcome = echo::run(&plan, Some(interrupt.as_fd()), &mut |event| {
        if !lines {
            return ControlFlow::Continue(());
        }
        let told = line(&mut out, &plan, event).and_then(|()| out.flush());
        told.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    })?;
    let took = clock::since_boot().0.saturating_sub(began.0);
    for reason in &outcome.unasked {
        writeln!(io::stderr(), "aizen: {reason}").ok();
    }
    if json {
        show::json(&mut out, &report(&found, &outcome))?;
    } else if single {
        summary(&mut out, &found.hosts[0], &outcome.tallies[0], took)?;
    } else if !found.targets.is_empty() {
        table(&mut out, &found, &outcome)?;
    }
    out.flush()?;
    Ok(code(&found, &outcome))
}

fn find(args: &PingArgs) -> Found {
    let mut found = Found {
        hosts: Vec::new(),
        targets: Vec::new(),
        unknown: Vec::new(),
    };
    let results = name::resolve(&args.hosts, args.family.family(), NAMES_WAIT);
    for (host, result) in args.hosts.iter().zip(results) {
        match result {
            Ok(target) => {
                found.hosts.push(host.clone());
                found.targets.push(target);
            }
            Err(error) => found.unknown.push((host.clone(), error.to_string())),
        }
    }
    found
}

fn code(found: &Found, outcome: &Outcome) -> ExitCode {
    if !found.unknown.is_empty() || !outcome.unasked.is_empty() {
        exit::USAGE.into()
    } else if outcome.tallies.iter().all(|tally| tally.received > 0) {
        ExitCode::SUCCESS
    } else {
        exit::FAILED.into()
    }
}

/// Seconds on a command line.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    number(text, 86_400.0).map(Duration::from_secs_f64)
}

/// Milliseconds on a command line.
pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    number(text, 60_000.0).map(|ms| Duration::from_secs_f64(ms / 1e3))
}

fn number(text: &str, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("must be 0 to {most}"))
    }
}

const TIMES: u32 = 5;
pub(super) const NAMES_WAIT: Duration = Duration::from_secs(5);
