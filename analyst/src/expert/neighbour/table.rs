//! Neighbour tables without room.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{LogOrigin, NeighbourTable};

use super::WINDOW;
use crate::case::View;
use crate::expert::draft::{Draft, Examined, Layer};
use crate::expert::unit::list;
use crate::repair;

pub(super) fn tables(view: &View<'_>, examined: &mut Examined) {
    let Some(seen) = &view.now().neighbour_tables else {
        return;
    };
    let before = view.span(WINDOW, |pass| pass.neighbour_tables.as_ref());
    let mut well = Vec::new();
    for table in &seen.value {
        let older = before.and_then(|(older, _)| {
            older
                .value
                .iter()
                .find(|older| older.family == table.family)
        });
        let overflows = older.map_or(0, |older| table.overflows.saturating_sub(older.overflows));
        let limit = table.thresholds[2];
        // Many entries alone are no fault: the kernel throws old ones out when it needs room, and says if it can't.
        if overflows > 0 {
            examined.drafts.push(full(view, table, overflows));
        } else {
            well.push(format!("IPv{} {} of {limit}", table.family, table.entries));
        }
    }
    if !well.is_empty() {
        examined
            .well
            .push(format!("The neighbour tables have room: {}", list(well)));
    }
}

fn full(view: &View<'_>, table: &NeighbourTable, overflows: u64) -> Draft {
    let at = view
        .now()
        .neighbour_tables
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    let (family, limit) = (table.family, table.thresholds[2]);
    let mut draft = Draft::new(
        "neighbour_table_full",
        Layer::Neighbour,
        format!("IPv{family} neighbour table"),
        Severity::Critical,
        format!(
            "The IPv{family} neighbour table is full: new hosts of connected networks are not reached"
        ),
    );
    let fact = format!("{} entries; gc_thresh3 is {limit}", table.entries);
    draft.shown("neighbour_tables", "entries", at, fact);
    let fact = format!("the table was full {overflows} times within 5 minutes");
    draft.shown("neighbour_tables", "overflows", at, fact);
    let lines = view.now().log.iter().flat_map(|seen| &seen.value);
    let mut logged = lines.filter(|line| {
        let text = line.text.0.to_ascii_lowercase();
        line.origin == LogOrigin::Kernel && text.contains("table overflow")
    });
    if let Some(line) = logged.next() {
        let fact = "the kernel logged a neighbour table overflow".into();
        draft.backed("log", "overflow", line.at, fact);
    }
    draft.misses(
        "who fills it: a scan of the network, or more hosts than planned (`aizen neighbours` by link)",
    );
    draft.next(format!(
        "Raise net.ipv{family}.neigh.default.gc_thresh3 above {limit}; if a host scans the network, stop it"
    ));
    draft.propose(repair::neighbour::raise_limit(view, table));
    draft
}
