//! `aizen trace`: the way to a target hop by hop, with live figures as mtr(8) has them, and the path MTU.
//!
//! With `--json` it prints one object:
//!
//! ```json
//! {"host": "…", "target": "192.0.2.1", "method": "udp", "reached": true,
//!  "hops": [{"ttl": 1, "addresses": ["…"], "sent": 10, "received": 10, "lost": 0, "loss_percent": 0.0, "mtu": null,
//!    "rtt_ms": {"min": 0.1, "avg": 0.1, "max": 0.1, "mdev": 0.0, "p50": 0.1, "p95": 0.1, "p99": 0.1, "jitter": 0.0}}],
//!  "path_mtu": {"link": 1500, "answered": 1400, "lost": 1401, "reported": 1400, "black_hole": false},
//!  "notes": ["…"]}
//! ```
//!
//! `rtt_ms` is null without answers; `path_mtu` is null if it was not searched or can't be, `black_hole` says that
//! larger packets vanish without anybody saying so. `mtu` is what that hop reported for the next link.

use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::interrupt::Interrupt;
use super::ping::{FamilyArgs, NAMES_WAIT, Times, ms, seconds};
use super::{exit, show};
use crate::clock;
use crate::collect::link;
use crate::collect::path_mtu::{self, Found};
use crate::probe::name;
use crate::probe::trace::{self, Method, Note, Path, Plan, TraceError};

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Name or address
    host: String,
    /// Probe with UDP (the default)
    #[arg(long, group = "method")]
    udp: bool,
    /// Probe with ICMP echo
    #[arg(long, group = "method")]
    icmp: bool,
    /// Probe with TCP connects to this port [default: 443]
    #[arg(long, group = "method", value_name = "PORT", num_args = 0..=1, default_missing_value = "443", require_equals = true, value_parser = clap::value_parser!(u16).range(1..))]
    tcp: Option<u16>,
    /// Probes to each hop
    #[arg(short, value_name = "ROUNDS", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Farthest hop
    #[arg(short, value_name = "MAXTTL", default_value = "30", value_parser = clap::value_parser!(u8).range(1..=64))]
    max_hops: u8,
    /// Seconds between two rounds
    #[arg(short, value_name = "S", default_value = "0.5", value_parser = seconds)]
    interval: Duration,
    /// Seconds to wait for an answer
    #[arg(short = 'W', value_name = "S", default_value = "1.5", value_parser = seconds)]
    wait: Duration,
    #[command(flatten)]
    family: FamilyArgs,
    /// Send from this interface
    #[arg(short = 'I', value_name = "DEV")]
    device: Option<String>,
    /// Don't search the path MTU
    #[arg(long)]
    no_mtu: bool,
}

impl TraceArgs {
    fn method(&self) -> Method {
        match (self.icmp, self.tcp) {
            (true, _) => Method::Icmp,
            (false, Some(port)) => Method::Tcp(port),
            (false, None) => Method::Udp,
        }
    }
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    host: &'a str,
    target: IpAddr,
    method: &'static str,
    reached: bool,
    hops: Vec<Row<'a>>,
    path_mtu: Option<Mtu>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    ttl: u8,
    addresses: &'a [IpAddr],
    sent: u64,
    received: u64,
    lost: u64,
    loss_percent: f64,
    mtu: Option<u16>,
    rtt_ms: Option<Times>,
}

#[derive(Clone, Debug, Serialize)]
struct Mtu {
    link: u16,
    answered: Option<u16>,
    lost: Option<u16>,
    reported: Option<u16>,
    black_hole: bool,
}

pub(super) fn run(args: &TraceArgs, json: bool) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch()?;
    let mut found = name::resolve(
        std::slice::from_ref(&args.host),
        args.family.family(),
        NAMES_WAIT,
    );
    let target = match found.pop() {
        Some(Ok(target)) => target,
        Some(Err(error)) => return Ok(exit::refuse(&error, json, exit::USAGE)),
        None => return Ok(exit::USAGE.into()),
    };
    let plan = Plan {
        target,
        method: args.method(),
        rounds: Some(args.count),
        max_hops: args.max_hops,
        gap: GAP,
        every: args.interval,
        wait: args.wait,
        device: args.device.clone(),
        deadline: None,
    };
    let mut out = io::stdout().lock();
    let mut screen = Screen::new(!json && io::stdout().is_terminal());
    if !json {
        writeln!(
            out,
            "TRACE {} ({}) by {}, at most {} hops",
            args.host,
            target.address,
            method(plan.method),
            args.max_hops
        )?;
    }
    let traced = trace::run(&plan, Some(interrupt.as_fd()), &mut |path| {
        let drawn = screen.draw(&mut out, path);
        drawn.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    });
    let mut path = match traced {
        Ok(path) => path,
        Err(error @ (TraceError::Open(_) | TraceError::Send { .. })) => {
            return Ok(exit::refuse(&error, json, exit::USAGE));
        }
        Err(TraceError::Socket(source)) if source.raw_os_error() == Some(NO_DEVICE) => {
            let device = args.device.as_deref().unwrap_or_default();
            let why = format!("can't send from interface {device}: {source}");
            return Ok(exit::refuse(&why, json, exit::USAGE));
        }
        Err(error) => return Err(error.into()),
    };
    screen.clear(&mut out)?;
    let found = if args.no_mtu || interrupt.came() || path.reached().is_none() {
        None
    } else {
        search_mtu(target.address)?
    };
    for (from, mtu) in found.iter().flat_map(|found| &found.reporters) {
        path.report_mtu(*from, *mtu);
    }
    let mtu = found.map(Mtu::from);
    if json {
        show::json(&mut out, &report(args, target.address, &path, mtu))?;
    } else {
        table(&mut out, &path)?;
        for note in notes(&path, mtu.as_ref()) {
            writeln!(out, "{note}")?;
        }
    }
    out.flush()?;
    Ok(if path.reached().is_some() {
        ExitCode::SUCCESS
    } else {
        exit::FAILED.into()
    })
}

/// The same search as a round's, with its own runtime: none runs while somebody traces by hand.
fn search_mtu(target: IpAddr) -> anyhow::Result<Option<Found>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let links = link::collect().await?;
        path_mtu::find(target, &links.value, MTU_WAIT)
            .await
            .map_err(anyhow::Error::from)
    });
    // The path is told without it.
    Ok(found
        .inspect_err(|error| {
            writeln!(io::stderr(), "aizen: the path MTU is not known: {error:#}").ok();
        })
        .ok()
        .flatten())
}

impl From<Found> for Mtu {
    fn from(found: Found) -> Self {
        let path = found.path;
        Self {
            link: path.link_mtu,
            answered: path.largest_answered,
            lost: path.smallest_lost,
            reported: path.reported,
            black_hole: path.largest_answered.is_some()
                && path.smallest_lost.is_some()
                && path.reported.is_none(),
        }
    }
}

/// A table that is drawn over itself on a terminal.
struct Screen {
    live: bool,
    lines: usize,
    drawn: Option<Duration>,
}

impl Screen {
    fn new(live: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            live: live && !dumb,
            lines: 0,
            drawn: None,
        }
    }

    fn draw(&mut self, out: &mut impl Write, path: &Path) -> io::Result<()> {
        let now = clock::since_boot().0;
        if !self.live || self.drawn.is_some_and(|drawn| now < drawn + REDRAW) {
            return Ok(());
        }
        self.drawn = Some(now);
        self.clear(out)?;
        let mut text = Vec::new();
        table(&mut text, path)?;
        self.lines = text.iter().filter(|byte| **byte == b'\n').count();
        out.write_all(&text)?;
        out.flush()
    }

    fn clear(&mut self, out: &mut impl Write) -> io::Result<()> {
        match std::mem::take(&mut self.lines) {
            0 => Ok(()),
            // Up to where the table began, and everything below away (ECMA-48).
            lines => write!(out, "\x1b[{lines}A\x1b[J"),
        }
    }
}

fn table(out: &mut impl Write, path: &Path) -> io::Result<()> {
    writeln!(
        out,
        "{:>3}  {:<39} {:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "HOP", "ADDRESS", "LOSS %", "SENT", "BEST ms", "AVG ms", "P95 ms", "WORST ms", "JITTER"
    )?;
    // Behind the last that answered, one line says it for all.
    let heard = path.hops.iter().rposition(|hop| !hop.addresses.is_empty());
    let shown = heard.map_or(1, |last| last + 2).min(path.hops.len());
    for hop in &path.hops[..shown] {
        let first = hop
            .addresses
            .first()
            .map_or("?".to_owned(), IpAddr::to_string);
        write!(
            out,
            "{:>3}  {first:<39} {:>7.1} {:>5}",
            hop.ttl,
            hop.tally.loss_percent(),
            hop.tally.sent
        )?;
        match hop.tally.summary() {
            Some(s) => {
                for time in [s.min, s.avg, s.p95, s.max, s.jitter] {
                    write!(out, " {:>9}", ms(time))?;
                }
            }
            None => (0..5).try_for_each(|_| write!(out, " {:>9}", "-"))?,
        }
        if let Some(mtu) = hop.mtu {
            write!(out, "  next link takes {mtu} bytes")?;
        }
        writeln!(out)?;
        for also in hop.addresses.iter().skip(1) {
            writeln!(out, "     {also}")?;
        }
    }
    match &path.hops[shown..] {
        [] => Ok(()),
        [first, .., last] => writeln!(
            out,
            "     hops {} to {}: no answer either",
            first.ttl, last.ttl
        ),
        [one] => writeln!(out, "     hop {}: no answer either", one.ttl),
    }
}

fn notes(path: &Path, mtu: Option<&Mtu>) -> Vec<String> {
    let mut notes: Vec<String> = path.notes().iter().map(note).collect();
    if let Some(mtu) = mtu {
        match (mtu.answered, mtu.lost) {
            (Some(answered), Some(lost)) if mtu.black_hole => notes.push(format!(
                "path MTU {answered}: packets of {lost} bytes vanish and nobody says so (black hole)"
            )),
            (Some(answered), _) => notes.push(format!(
                "path MTU {answered} (link {}{})",
                mtu.link,
                mtu.reported
                    .map_or(String::new(), |reported| format!(", reported {reported}"))
            )),
            (None, _) => notes.push("path MTU not known: the target answers no echo".to_owned()),
        }
    }
    notes
}

fn note(note: &Note) -> String {
    match note {
        Note::RateLimited { ttl } => {
            format!("loss at hop {ttl} does not persist: rate limiting, no fault")
        }
        Note::Silent { ttl } => format!("hop {ttl} forwards without answering: no fault"),
        Note::LossFrom { ttl } => format!("loss from hop {ttl} on persists up to the target"),
        Note::Loop {
            from,
            again,
            address,
        } => {
            format!("routing loop: {address} stands at hop {from} and again at hop {again}")
        }
        Note::EndsAfter { ttl: 0 } => "nobody answers, not even the first hop".to_owned(),
        Note::EndsAfter { ttl } => format!(
            "nobody answers behind hop {ttl}: the target is down, or a filter drops these probes"
        ),
        Note::Refused { ttl, address, why } => {
            format!("{address} at hop {ttl} refuses: {}", why.text())
        }
    }
}

fn report<'a>(args: &'a TraceArgs, target: IpAddr, path: &'a Path, mtu: Option<Mtu>) -> Report<'a> {
    Report {
        host: &args.host,
        target,
        method: method(args.method()),
        reached: path.reached().is_some(),
        hops: path
            .hops
            .iter()
            .map(|hop| Row {
                ttl: hop.ttl,
                addresses: &hop.addresses,
                sent: hop.tally.sent,
                received: hop.tally.received,
                lost: hop.tally.lost,
                loss_percent: hop.tally.loss_percent(),
                mtu: hop.mtu,
                rtt_ms: hop.tally.summary().map(Times::from),
            })
            .collect(),
        notes: notes(path, mtu.as_ref()),
        path_mtu: mtu,
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Udp => "udp",
        Method::Icmp => "icmp",
        Method::Tcp(_) => "tcp",
    }
}

/// Between two probes.
const GAP: Duration = Duration::from_millis(10);
/// What binding a socket to an interface that is not there gives.
const NO_DEVICE: i32 = nix::libc::ENODEV;
const REDRAW: Duration = Duration::from_millis(100);
const MTU_WAIT: Duration = Duration::from_secs(5);
