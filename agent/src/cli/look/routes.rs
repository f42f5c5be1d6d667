//! `aizen routes`.

use std::io::{self, Write};

use aizen_protocol::record::{Route, Rule};

use super::sample::Sample;
use crate::cli::screen::{Align, Screen, Table};

pub(super) fn table(now: &Sample) -> Table {
    let mut table = Table::new(&[
        ("DESTINATION", Align::Left),
        ("GATEWAY", Align::Left),
        ("LINK", Align::Left),
        ("METRIC", Align::Right),
        ("TABLE", Align::Left),
        ("MADE BY", Align::Left),
        ("SOURCE", Align::Left),
        ("NOTES", Align::Left),
    ]);
    // The kernel's own table of local and broadcast addresses says nothing that `aizen links` doesn't.
    for route in now.routes.iter().filter(|route| route.table != LOCAL) {
        table.row(row(now, route));
        for hop in &route.next_hops {
            table.row(vec![
                "  way".to_owned(),
                hop.gateway.map_or_else(dash, |gateway| gateway.to_string()),
                now.link_name(hop.link),
                dash(),
                String::new(),
                String::new(),
                String::new(),
                format!(
                    "weight {}{}",
                    hop.weight,
                    if hop.dead { ", dead" } else { "" }
                ),
            ]);
        }
    }
    table
}

pub(super) fn write(out: &mut impl Write, now: &Sample, screen: &Screen) -> io::Result<()> {
    table(now).write(out, screen)?;
    // The three that every kernel makes are no news.
    let rules: Vec<&Rule> = now
        .rules
        .iter()
        .filter(|rule| ![0, 32_766, 32_767].contains(&rule.priority))
        .collect();
    if rules.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut table = Table::new(&[
        ("RULE", Align::Right),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("MATCHES", Align::Left),
        ("ACTION", Align::Left),
    ]);
    for rule in rules {
        table.row(rule_row(rule));
    }
    table.write(out, screen)
}

fn dash() -> String {
    "-".to_owned()
}

fn row(now: &Sample, route: &Route) -> Vec<String> {
    let mut notes = Vec::new();
    if route.kind != "unicast" {
        notes.push(route.kind.clone());
    }
    if route.dead {
        notes.push("link down".to_owned());
    }
    if let Some(seconds) = route.expires_s {
        notes.push(format!("{seconds} s left"));
    }
    let destination = if route.destination.is_default() {
        format!("default ({})", route.destination)
    } else {
        route.destination.to_string()
    };
    vec![
        destination,
        route
            .gateway
            .map_or_else(dash, |gateway| gateway.to_string()),
        route.link.map_or_else(dash, |link| now.link_name(link)),
        route.metric.map_or_else(dash, |metric| metric.to_string()),
        table_name(route.table),
        route.protocol.clone(),
        route.source.map_or_else(dash, |source| source.to_string()),
        notes.join(", "),
    ]
}

fn rule_row(rule: &Rule) -> Vec<String> {
    let any = || "any".to_owned();
    let mut matches = Vec::new();
    matches.extend(rule.iif.as_ref().map(|iif| format!("in {iif}")));
    matches.extend(rule.oif.as_ref().map(|oif| format!("out {oif}")));
    matches.extend(rule.mark.map(|mark| format!("mark {mark:#x}")));
    let action = if rule.action == "to_table" {
        format!("table {}", table_name(rule.table))
    } else {
        rule.action.clone()
    };
    vec![
        rule.priority.to_string(),
        rule.from.map_or_else(any, |from| from.to_string()),
        rule.to.map_or_else(any, |to| to.to_string()),
        matches.join(" "),
        action,
    ]
}

fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        LOCAL => "local".to_owned(),
        other => other.to_string(),
    }
}

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h).
const LOCAL: u32 = 255;
