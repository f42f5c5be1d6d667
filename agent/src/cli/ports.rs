//! `aizen ports`: which TCP ports of a host are open, closed or filtered.
//!
//! With `--json` it prints one object:
//!
//! ```json
//! {"host": "…", "target": "192.0.2.1", "tried": 40, "ports": [{"port": 22, "state": "open", "ms": 0.321}]}
//! ```
//!
//! `state` is `open`, `closed` (the host refuses: it lives), `filtered` (no answer in time) or `unreachable` (no route,
//! or somebody on the way says so). `ms` is the time of the answer, null without one. A port that was not tried before
//! Ctrl-C is not in the list.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use aizen_protocol::record::ConnectOutcome;
use clap::Args;
use serde::Serialize;

use super::interrupt::Interrupt;
use super::ping::{FamilyArgs, NAMES_WAIT, ms, rounded, seconds};
use super::{exit, show};
use crate::probe::connect::{self, Done, Plan};
use crate::probe::name;

#[derive(Debug, Args)]
pub(super) struct PortsArgs {
    /// Name or address
    host: String,
    /// Ports and ranges, such as 22,80,443,8000-8010 [default: 40 well-known ones]
    #[arg(short, value_name = "PORTS", value_parser = parse)]
    ports: Option<Ports>,
    /// Connects under way at once
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=500))]
    at_once: u16,
    /// Seconds to wait for an answer
    #[arg(short = 'W', value_name = "S", default_value = "2", value_parser = seconds)]
    wait: Duration,
    #[command(flatten)]
    family: FamilyArgs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports(BTreeSet<u16>);

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    host: &'a str,
    target: IpAddr,
    tried: usize,
    ports: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    port: u16,
    state: &'static str,
    ms: Option<f64>,
}

pub(super) fn run(args: &PortsArgs, json: bool) -> anyhow::Result<ExitCode> {
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
    let ports: Vec<u16> = match &args.ports {
        Some(Ports(ports)) => ports.iter().copied().collect(),
        None => WELL_KNOWN.to_vec(),
    };
    let plan = Plan {
        to: ports.iter().map(|port| (target, *port)).collect(),
        wait: args.wait,
        at_once: usize::from(args.at_once),
        deadline: None,
    };
    let mut done = connect::run(&plan, Some(interrupt.as_fd()))?;
    done.sort_by_key(|d| d.place);
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        let rows = done.iter().map(|d| Row {
            port: ports[d.place],
            state: state(d.outcome),
            ms: d.rtt.map(rounded),
        });
        let report = Report {
            host: &args.host,
            target: target.address,
            tried: done.len(),
            ports: rows.collect(),
        };
        show::json(&mut out, &report)?;
    } else {
        table(&mut out, args, target.address, &ports, &done)?;
    }
    out.flush()?;
    let answered = |d: &Done| d.rtt.is_some();
    Ok(if done.len() == ports.len() && done.iter().all(answered) {
        ExitCode::SUCCESS
    } else {
        exit::FAILED.into()
    })
}

fn table(
    out: &mut impl Write,
    args: &PortsArgs,
    target: IpAddr,
    ports: &[u16],
    done: &[Done],
) -> io::Result<()> {
    writeln!(out, "PORTS of {} ({target})", args.host)?;
    // Of a default list only what is not closed is of interest; who named ports wants to see them.
    let all = args.ports.is_some() && done.len() <= MOST_LINES;
    let shown = |d: &&Done| all || d.outcome == ConnectOutcome::Connected;
    for d in done.iter().filter(shown) {
        let time = d.rtt.map_or("-".to_owned(), ms);
        writeln!(
            out,
            "{:>5}  {:<11} {time:>9} ms",
            ports[d.place],
            state(d.outcome)
        )?;
    }
    let count = |outcome| done.iter().filter(|d| d.outcome == outcome).count();
    writeln!(
        out,
        "{} tried: {} open, {} closed, {} filtered, {} unreachable",
        done.len(),
        count(ConnectOutcome::Connected),
        count(ConnectOutcome::Refused),
        count(ConnectOutcome::Timeout),
        count(ConnectOutcome::Unreachable)
    )
}

fn state(outcome: ConnectOutcome) -> &'static str {
    match outcome {
        ConnectOutcome::Connected => "open",
        ConnectOutcome::Refused => "closed",
        ConnectOutcome::Timeout => "filtered",
        ConnectOutcome::Unreachable => "unreachable",
    }
}

/// `22,80,8000-8010`.
fn parse(text: &str) -> Result<Ports, String> {
    let mut ports = BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("'{text}' is no port")),
        };
        let (from, to) = (port(from)?, port(to)?);
        if from > to {
            return Err(format!("'{part}' ends before it begins"));
        }
        ports.extend(from..=to);
    }
    if ports.len() > MOST_PORTS {
        return Err(format!("{} ports; at most {MOST_PORTS}", ports.len()));
    }
    Ok(Ports(ports))
}

const MOST_PORTS: usize = 10_000;
const MOST_LINES: usize = 1000;
const WELL_KNOWN: [u16; 40] = [
    21, 22, 23, 25, 53, 80, 88, 110, 111, 135, 139, 143, 179, 389, 443, 445, 465, 514, 515, 548,
    554, 587, 631, 636, 853, 993, 995, 1194, 1433, 1723, 1883, 2049, 3128, 3306, 3389, 5060, 5432,
    5900, 8080, 8443,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_and_ranges_are_read_once_each_and_in_order() {
        let Ports(ports) = parse("443,22, 80-82,81").unwrap();
        assert_eq!(ports.into_iter().collect::<Vec<_>>(), [22, 80, 81, 82, 443]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for wrong in ["", "0", "65536", "80-", "9-8", "http", "1-10001"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("1-10000").is_ok());
    }

    proptest! {
        #[test]
        fn any_list_is_read_without_panic(text in "[0-9,\\- a]{0,40}") {
            if let Ok(Ports(ports)) = parse(&text) {
                prop_assert!(!ports.is_empty() && ports.len() <= MOST_PORTS && !ports.contains(&0));
            }
        }
    }
}
