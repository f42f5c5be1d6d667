//! `aizen neighbours`.

use std::io::{self, Write};

use aizen_protocol::record::NeighbourState;

use super::sample::Sample;
use crate::cli::screen::{Align, Screen, Table, duration};

pub(super) fn table(now: &Sample) -> Table {
    let mut table = Table::new(&[
        ("ADDRESS", Align::Left),
        ("LINK", Align::Left),
        ("MAC", Align::Left),
        ("STATE", Align::Left),
        ("CONFIRMED", Align::Right),
        ("NOTES", Align::Left),
    ]);
    // Multicast and the like need no asking: no neighbour in the sense of a person.
    let asked = now
        .neighbours
        .iter()
        .filter(|n| n.state != NeighbourState::Noarp);
    for neighbour in asked {
        let confirmed = neighbour.confirmed_ms.map_or_else(
            || "-".to_owned(),
            |ms| format!("{} ago", duration(ms / 1000)),
        );
        table.row(vec![
            neighbour.address.to_string(),
            now.link_name(neighbour.link),
            neighbour
                .mac
                .map_or_else(|| "-".to_owned(), |mac| mac.to_string()),
            state(neighbour.state).to_owned(),
            confirmed,
            if neighbour.router { "router" } else { "" }.to_owned(),
        ]);
    }
    table
}

pub(super) fn write(out: &mut impl Write, now: &Sample, screen: &Screen) -> io::Result<()> {
    table(now).write(out, screen)?;
    for table in &now.neighbour_tables {
        writeln!(
            out,
            "IPv{}: {} entries of {}, {} overflows",
            table.family, table.entries, table.thresholds[2], table.overflows
        )?;
    }
    Ok(())
}

fn state(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Incomplete => "incomplete",
        NeighbourState::Reachable => "reachable",
        NeighbourState::Stale => "stale",
        NeighbourState::Delay => "delay",
        NeighbourState::Probe => "probe",
        NeighbourState::Failed => "FAILED",
        NeighbourState::Noarp => "noarp",
        NeighbourState::Permanent => "permanent",
        NeighbourState::None => "none",
    }
}
