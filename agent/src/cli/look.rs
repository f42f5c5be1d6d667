//! `aizen links`, `routes`, `neighbours`, `perf`: what the kernel says, once or again and again.

mod links;
mod neighbours;
mod perf;
mod routes;
mod sample;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

pub(super) use self::sample::{LinkRates, Sample, as_float};
use super::screen::{Screen, Table};
use super::unseen::folded;
use crate::collect::{Collector, Settings};

/// What can be said to each of them.
#[derive(Debug, Args)]
pub(super) struct LookArgs {
    /// Look again every SECONDS until interrupted [default with no value: 2]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Links,
    Routes,
    Neighbours,
    Perf,
}

impl Look {
    /// Rates need two readings.
    fn compares(self) -> bool {
        matches!(self, Self::Links | Self::Perf)
    }

    fn write(
        self,
        out: &mut impl Write,
        before: Option<&Sample>,
        now: &Sample,
        screen: &Screen,
    ) -> io::Result<()> {
        match self {
            Self::Links => links::write(out, before, now, screen),
            Self::Routes => routes::write(out, now, screen),
            Self::Neighbours => neighbours::write(out, now, screen),
            Self::Perf => perf::write(out, before, now, screen),
        }
    }

    fn json(self, before: Option<&Sample>, now: &Sample) -> Value {
        let mut object = match self {
            Self::Links => links::json(before, now),
            Self::Routes => json!({ "routes": now.routes, "rules": now.rules }),
            Self::Neighbours => {
                json!({ "neighbours": now.neighbours, "tables": now.neighbour_tables })
            }
            Self::Perf => perf::json(before, now),
        };
        object["at"] = json!(now.at);
        object["interval_ms"] = json!(before.map(|before| now.milliseconds_since(before)));
        object["unseen"] = json!(self.unseen(now).collect::<Vec<_>>());
        object
    }

    /// The gaps that concern this look.
    fn unseen(self, now: &Sample) -> impl Iterator<Item = &aizen_protocol::record::Gap> {
        let concerned: &[&str] = match self {
            Self::Links => &["links", "addresses", "ethernet"],
            Self::Routes => &["routes", "rules", "links"],
            Self::Neighbours => &["neighbours", "neighbour_tables", "links"],
            Self::Perf => &[
                "host",
                "cpu",
                "pressure",
                "softnet",
                "conntrack",
                "protocols",
            ],
        };
        now.gaps
            .iter()
            .filter(move |gap| concerned.contains(&gap.collector.as_str()))
    }
}

/// Links, routes, neighbours and disks of one reading, under their titles.
pub(super) fn tables(before: Option<&Sample>, now: &Sample) -> Vec<(&'static str, Table)> {
    vec![
        ("Links", links::table(before, now)),
        ("Routes", routes::table(now)),
        ("Neighbours", neighbours::table(now)),
        ("Disks", perf::disks(now)),
    ]
}

/// Runs the command.
///
/// # Errors
/// When standard output can't be written.
pub(super) async fn run(
    look: Look,
    args: &LookArgs,
    json: bool,
    settings: Settings,
) -> anyhow::Result<ExitCode> {
    let mut collector = Collector::new(settings);
    let screen = Screen::of_stdout();
    let mut now = Sample::take(&mut collector).await;
    let mut before = None;
    if look.compares() {
        tokio::time::sleep(BETWEEN).await;
        before = Some(std::mem::replace(
            &mut now,
            Sample::take(&mut collector).await,
        ));
    }
    loop {
        show(look, before.as_ref(), &now, json, args.watch, &screen)
            .context("standard output can't be written")?;
        let Some(seconds) = args.watch else {
            return Ok(ExitCode::SUCCESS);
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds.into())) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
        before = Some(std::mem::replace(
            &mut now,
            Sample::take(&mut collector).await,
        ));
    }
}

fn show(
    look: Look,
    before: Option<&Sample>,
    now: &Sample,
    json: bool,
    watch: Option<u32>,
    screen: &Screen,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        // Watched, a line each, so that other programs can follow.
        let value = look.json(before, now);
        if watch.is_some() {
            writeln!(out, "{value}")?;
        } else {
            super::show::json(&mut out, &value)?;
        }
        return out.flush();
    }
    let mut page = Vec::new();
    look.write(&mut page, before, now, screen)?;
    for line in folded(look.unseen(now)) {
        writeln!(page, "not seen: {line}")?;
    }
    if let Some(seconds) = watch {
        if io::stdout().is_terminal() {
            out.write_all(CLEAR)?;
        }
        writeln!(out, "{}, every {seconds} s", screen.moment(now.at))?;
    }
    out.write_all(&page)?;
    out.flush()
}

/// Between the two readings that make a rate.
const BETWEEN: Duration = Duration::from_millis(1000);
/// Cursor home, erase the rest (ECMA-48 CUP and ED): without the flicker of erasing first.
const CLEAR: &[u8] = b"\x1b[H\x1b[J";

#[cfg(test)]
pub(in crate::cli) use self::sample::tests;
