//! How delay under load looks: a table, and JSON.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::finding::Finding;
use aizen_protocol::record::LoadDirection;
use jiff::Timestamp;
use serde::Serialize;

use super::grade::{BLOAT, Grade};
use crate::cli::diagnose::write_finding;
use crate::cli::look::as_float;
use crate::cli::ping::rounded;
use crate::cli::screen::{Align, Colour, Screen, Table, bit_rate};
use crate::clock;
use crate::collect::load::{By, ENOUGH, Outcome, Phase, Times};

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    host: &'a str,
    address: IpAddr,
    by: Option<By>,
    at: Timestamp,
    idle_ms: Option<Spread>,
    directions: Vec<Row<'a>>,
    /// The worst of those that were measured.
    grade: Option<Grade>,
    bloats: Vec<LoadDirection>,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    direction: LoadDirection,
    rtt_ms: Option<Spread>,
    lost: u16,
    added_ms: Option<f64>,
    grade: Option<Grade>,
    bits_per_second: u64,
    bytes: u64,
    seconds: f64,
    error: Option<&'a str>,
}

/// Milliseconds, to the microsecond.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    min: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    /// None with too few answers.
    fn of(times: &Times) -> Option<Self> {
        let at = |percent| times.quantile(percent).map(rounded);
        let spread = Self {
            min: at(0)?,
            p50: at(50)?,
            p95: at(95)?,
            p99: at(99)?,
            max: at(100)?,
        };
        (times.rtt.len() >= ENOUGH).then_some(spread)
    }

    fn cells(spread: Option<Self>) -> [String; 4] {
        spread.map_or_else(
            || ["-"; 4].map(str::to_owned),
            |s| [s.min, s.p50, s.p95, s.max].map(|ms| format!("{ms:.1}")),
        )
    }
}

/// What the load adds to the median, where both are known.
fn added(idle: Option<&Times>, phase: &Phase) -> Option<Duration> {
    let enough = phase.times.rtt.len() >= ENOUGH;
    let (idle, loaded) = (idle?.median()?, phase.times.median()?);
    enough.then(|| loaded.saturating_sub(idle))
}

impl<'a> Report<'a> {
    pub(super) fn new(
        host: &'a str,
        address: IpAddr,
        outcome: &'a Outcome,
        findings: Vec<Finding>,
    ) -> Self {
        let idle = outcome.idle.as_ref().map(|(_, times)| times);
        let directions: Vec<Row<'_>> = outcome
            .phases
            .iter()
            .map(|phase| {
                let added = added(idle, phase);
                Row {
                    direction: phase.direction,
                    rtt_ms: Spread::of(&phase.times),
                    lost: phase.times.lost,
                    added_ms: added.map(rounded),
                    grade: added.map(Grade::of),
                    bits_per_second: phase.bits_per_second,
                    bytes: phase.bytes,
                    seconds: phase.took.as_secs_f64(),
                    error: phase.fault.as_deref(),
                }
            })
            .collect();
        let bloated = |phase: &&Phase| added(idle, phase).is_some_and(|added| added >= BLOAT);
        Self {
            host,
            address,
            by: outcome.idle.as_ref().map(|(by, _)| *by),
            at: clock::now(),
            idle_ms: idle.and_then(Spread::of),
            grade: directions.iter().filter_map(|row| row.grade).max(),
            bloats: outcome
                .phases
                .iter()
                .filter(bloated)
                .map(|phase| phase.direction)
                .collect(),
            directions,
            findings,
        }
    }

    /// True if every direction was.
    pub(super) fn is_measured(&self) -> bool {
        self.directions.iter().all(|row| row.grade.is_some())
    }

    pub(super) fn write(&self, out: &mut impl Write, screen: &Screen) -> io::Result<()> {
        let by = match self.by {
            Some(By::Tcp) => "TCP handshake",
            Some(By::Icmp) | None => "ICMP echo",
        };
        writeln!(
            out,
            "LOAD on the way to {} ({}) by {by}",
            self.host, self.address
        )?;
        self.table().write(out, screen)?;
        for row in &self.directions {
            if let Some(error) = row.error {
                writeln!(out, "! {}: {error}", word(row.direction))?;
            }
        }
        let named: Vec<&str> = self.bloats.iter().map(|way| word(*way)).collect();
        match (self.grade, named.as_slice()) {
            (None, _) => writeln!(out, "no direction could be measured"),
            (Some(grade), []) => {
                let letter = screen.paint(Colour::Green, grade.letter());
                writeln!(out, "grade {letter}: no queue on the way grows too long")
            }
            (Some(grade), ways) => {
                let letter = screen.paint(Colour::Red, grade.letter());
                writeln!(
                    out,
                    "grade {letter}: too long a queue fills under {}",
                    ways.join(" and ")
                )
            }
        }?;
        for finding in &self.findings {
            writeln!(out)?;
            write_finding(out, finding, screen)?;
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("", Align::Left),
            ("RATE", Align::Right),
            ("MIN ms", Align::Right),
            ("P50 ms", Align::Right),
            ("P95 ms", Align::Right),
            ("MAX ms", Align::Right),
            ("LOST", Align::Right),
            ("ADDED ms", Align::Right),
            ("GRADE", Align::Left),
        ]);
        let dash = || "-".to_owned();
        let mut idle = vec!["idle".to_owned(), dash()];
        idle.extend(Spread::cells(self.idle_ms));
        idle.extend([dash(), dash(), dash()]);
        table.row(idle);
        for row in &self.directions {
            let mut cells = vec![
                word(row.direction).to_owned(),
                bit_rate(as_float(row.bits_per_second)),
            ];
            cells.extend(Spread::cells(row.rtt_ms));
            cells.push(row.lost.to_string());
            cells.push(row.added_ms.map_or_else(dash, |ms| format!("{ms:.1}")));
            cells.push(
                row.grade
                    .map_or_else(dash, |grade| grade.letter().to_owned()),
            );
            table.row(cells);
        }
        table
    }
}

fn word(direction: LoadDirection) -> &'static str {
    match direction {
        LoadDirection::Down => "download",
        LoadDirection::Up => "upload",
    }
}
