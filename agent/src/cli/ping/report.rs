//! How answers to echo requests look: line by line, as a summary, as a table, as JSON.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;
use serde::Serialize;

use super::Found;
use crate::probe::echo::{Event, Kind, Outcome, Plan};
use crate::probe::{Summary, Tally};

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
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
pub(in crate::cli) struct Times {
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

pub(super) fn line(out: &mut impl Write, plan: &Plan, event: Event) -> io::Result<()> {
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

pub(super) fn summary(
    out: &mut impl Write,
    host: &str,
    tally: &Tally,
    took: Duration,
) -> io::Result<()> {
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

pub(super) fn table(out: &mut impl Write, found: &Found, outcome: &Outcome) -> io::Result<()> {
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

pub(super) fn report<'a>(found: &'a Found, outcome: &'a Outcome) -> Report<'a> {
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
pub(in crate::cli) fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

/// Milliseconds, to the microsecond.
pub(in crate::cli) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
