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

use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::errno::Errno;
use serde::Serialize;

use super::interrupt::Interrupt;
use super::{exit, show};
use crate::clock;
use crate::probe::echo::{self, Event, Kind, MAX_TARGETS, Outcome, Plan, Target};
use crate::probe::name::{self, Family};
use crate::probe::{Summary, Tally};

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

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    targets: Vec<Row<'a>>,
    unknown: Vec<Unknown<'a>>,
    unasked: &'a [String],
    dropped: u64,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    host: &'a str,
    address: IpAddr,
    sent: u64,
    received: u64,
    lost: u64,
    loss_percent: f64,
    not_measured: u64,
    duplicates: u64,
    late: u64,
    errors: u64,
    refused: u64,
    rtt_ms: Option<Times>,
}

#[derive(Debug, Serialize)]
struct Unknown<'a> {
    host: &'a str,
    error: String,
}

/// Milliseconds, to the microsecond.
#[derive(Debug, Serialize)]
pub(super) struct Times {
    min: f64,
    avg: f64,
    max: f64,
    mdev: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    jitter: f64,
}

impl From<Summary> for Times {
    fn from(summary: Summary) -> Self {
        Self {
            min: rounded(summary.min),
            avg: rounded(summary.avg),
            max: rounded(summary.max),
            mdev: rounded(summary.mdev),
            p50: rounded(summary.p50),
            p95: rounded(summary.p95),
            p99: rounded(summary.p99),
            jitter: rounded(summary.jitter),
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
        writeln!(io::stderr(), "aizen: more than {MAX_TARGETS} targets").ok();
        return Ok(exit::USAGE.into());
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
    } else {
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

fn line(out: &mut impl Write, plan: &Plan, event: Event) -> io::Result<()> {
    let address = plan.targets[event.target].address;
    // ping(8) counts from 1.
    let seq = u64::from(event.number) + 1;
    let bytes = usize::from(plan.size) + 8;
    match event.kind {
        Kind::Reply(rtt) => writeln!(
            out,
            "{bytes} bytes from {address}: seq={seq} time={} ms",
            ms(rtt)
        ),
        Kind::Duplicate(rtt) => writeln!(
            out,
            "{bytes} bytes from {address}: seq={seq} time={} ms (duplicate)",
            ms(rtt)
        ),
        Kind::Late(rtt) => writeln!(
            out,
            "{bytes} bytes from {address}: seq={seq} time={} ms (too late)",
            ms(rtt)
        ),
        Kind::Error { from, why } => writeln!(out, "from {from}: seq={seq} {}", why.text()),
        Kind::Lost => writeln!(out, "no answer from {address}: seq={seq}"),
        Kind::NotMeasured => writeln!(
            out,
            "{address}: seq={seq} not measured, this device's socket overflowed"
        ),
        Kind::Refused(errno) => {
            writeln!(
                out,
                "{address}: seq={seq} not sent: {}",
                Errno::from_raw(errno).desc()
            )
        }
    }
}

fn summary(out: &mut impl Write, host: &str, tally: &Tally, took: Duration) -> io::Result<()> {
    writeln!(out, "\n--- {host} ping statistics ---")?;
    write!(
        out,
        "{} sent, {} received, {:.1} % loss",
        tally.sent,
        tally.received,
        tally.loss_percent()
    )?;
    for (count, what) in extras(tally) {
        write!(out, ", {count} {what}")?;
    }
    writeln!(out, ", time {} ms", took.as_millis())?;
    if let Some(s) = tally.summary() {
        writeln!(
            out,
            "rtt min/avg/max/mdev = {}/{}/{}/{} ms",
            ms(s.min),
            ms(s.avg),
            ms(s.max),
            ms(s.mdev)
        )?;
        writeln!(
            out,
            "rtt p50/p95/p99 = {}/{}/{} ms, jitter {} ms",
            ms(s.p50),
            ms(s.p95),
            ms(s.p99),
            ms(s.jitter)
        )?;
    }
    Ok(())
}

fn extras(tally: &Tally) -> impl Iterator<Item = (u64, &'static str)> {
    [
        (tally.not_measured, "not measured"),
        (tally.duplicates, "duplicates"),
        (tally.late, "too late"),
        (tally.errors, "errors"),
        (tally.refused, "not sent"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
}

fn table(out: &mut impl Write, found: &Found, outcome: &Outcome) -> io::Result<()> {
    let width = found
        .hosts
        .iter()
        .map(String::len)
        .max()
        .unwrap_or(4)
        .clamp(4, 40);
    writeln!(
        out,
        "{:<width$} {:>6} {:>6} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "HOST",
        "SENT",
        "RECV",
        "LOSS %",
        "MIN ms",
        "AVG ms",
        "P50 ms",
        "P95 ms",
        "MAX ms",
        "JITTER"
    )?;
    for (host, tally) in found.hosts.iter().zip(&outcome.tallies) {
        write!(
            out,
            "{host:<width$} {:>6} {:>6} {:>7.1}",
            tally.sent,
            tally.received,
            tally.loss_percent()
        )?;
        match tally.summary() {
            Some(s) => {
                for time in [s.min, s.avg, s.p50, s.p95, s.max, s.jitter] {
                    write!(out, " {:>9}", ms(time))?;
                }
            }
            None => (0..6).try_for_each(|_| write!(out, " {:>9}", "-"))?,
        }
        for (count, what) in extras(tally) {
            write!(out, "  {count} {what}")?;
        }
        writeln!(out)?;
    }
    let answered = outcome.tallies.iter().filter(|t| t.received > 0).count();
    write!(
        out,
        "{answered} of {} targets answered",
        found.targets.len()
    )?;
    if outcome.dropped > 0 {
        write!(
            out,
            "; this device's socket had no room for {} messages",
            outcome.dropped
        )?;
    }
    writeln!(out)
}

fn report<'a>(found: &'a Found, outcome: &'a Outcome) -> Report<'a> {
    let rows = found.hosts.iter().zip(&found.targets).zip(&outcome.tallies);
    Report {
        targets: rows
            .map(|((host, target), tally)| Row {
                host,
                address: target.address,
                sent: tally.sent,
                received: tally.received,
                lost: tally.lost,
                loss_percent: tally.loss_percent(),
                not_measured: tally.not_measured,
                duplicates: tally.duplicates,
                late: tally.late,
                errors: tally.errors,
                refused: tally.refused,
                rtt_ms: tally.summary().map(Times::from),
            })
            .collect(),
        unknown: found
            .unknown
            .iter()
            .map(|(host, error)| Unknown {
                host,
                error: error.clone(),
            })
            .collect(),
        unasked: &outcome.unasked,
        dropped: outcome.dropped,
    }
}

/// Milliseconds with three digits.
pub(super) fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

/// Milliseconds, to the microsecond.
pub(super) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
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
