//! What was tried in this pass and failed, and which rules may have to do with it.

use std::net::IpAddr;

use aizen_protocol::private::Prefix;
use aizen_protocol::record::{
    Connect, ConnectOutcome, DnsAnswer, DnsProbe, DnsPurpose, DnsTransport, FilterRule, Reach,
};
use jiff::Timestamp;

use crate::case::View;
use crate::expert::{question, reach};

/// A probe that this device sent and that nobody answered although somebody should have.
pub(super) struct Failed {
    pub(super) source: &'static str,
    /// As nft names it.
    pub(super) protocol: &'static str,
    pub(super) port: Option<u16>,
    pub(super) target: IpAddr,
    /// It answered earlier in this boot.
    pub(super) before: bool,
    pub(super) at: Timestamp,
    pub(super) fact: String,
}

/// What was tried in this pass without any answer: configured resolvers, connections, and hosts that answered echo
/// requests earlier in this boot. Others may never have answered anybody.
pub(super) fn failed(view: &View<'_>) -> Vec<Failed> {
    let mut all = Vec::new();
    let now = view.now();
    if let Some(seen) = &now.dns {
        let is_silent = |probe: &&DnsProbe| {
            probe.configured
                && (probe.purpose, probe.transport) == (DnsPurpose::Lookup, DnsTransport::Udp)
                && !probe.answers.is_empty()
                && probe
                    .answers
                    .iter()
                    .all(|answer| matches!(answer, DnsAnswer::Timeout | DnsAnswer::Unreachable))
        };
        all.extend(seen.value.iter().filter(is_silent).map(|probe| {
            Failed {
                source: "dns",
                protocol: "udp",
                port: Some(53),
                target: probe.resolver,
                before: view
                    .this_boot()
                    .filter_map(|pass| question::tally(pass, probe.resolver))
                    .any(|tally| tally.served > 0),
                at: seen.at,
                fact: format!(
                    "{} answered none of {} questions",
                    probe.resolver,
                    probe.answers.len()
                ),
            }
        }));
    }
    if let Some(seen) = &now.connects {
        let is_silent = |connect: &&Connect| {
            matches!(
                connect.outcome,
                ConnectOutcome::Timeout | ConnectOutcome::Unreachable
            )
        };
        all.extend(seen.value.iter().filter(is_silent).map(|connect| Failed {
            source: "connects",
            protocol: "tcp",
            port: Some(connect.port),
            target: connect.target,
            before: connected_before(view, connect),
            at: seen.at,
            fact: format!(
                "no TCP connection to {} port {}",
                connect.target, connect.port
            ),
        }));
    }
    if let Some(seen) = &now.reach {
        let answered = |reach: &Reach| {
            view.this_boot()
                .filter_map(|pass| reach::ping(pass, reach.target))
                .any(|ping| ping.received > 0)
        };
        let is_silent = |reach: &&Reach| reach.sent > 0 && reach.received == 0 && answered(reach);
        all.extend(seen.value.iter().filter(is_silent).map(|reach| Failed {
            source: "reach",
            protocol: "icmp",
            port: None,
            target: reach.target,
            before: true,
            at: seen.at,
            fact: format!(
                "{} answered none of {} echo requests",
                reach.target, reach.sent
            ),
        }));
    }
    all
}

/// False if the rule's text says that it is about something else than this probe.
pub(super) fn may_concern(rule: &FilterRule, failed: &Failed) -> bool {
    let words: Vec<&str> = rule
        .text
        .0
        .split(|c: char| !c.is_ascii_alphanumeric())
        .collect();
    let says = |word: &str| words.contains(&word);
    // Packets that belong to no connection are no probe's.
    if says("invalid") {
        return false;
    }
    let named = |protocol: &str| match protocol {
        "icmp" => says("icmp") || says("icmpv6"),
        other => says(other),
    };
    let names_any = ["udp", "tcp", "icmp"].into_iter().any(named);
    let protocol = !names_any || named(failed.protocol);
    let port = !says("dport") || failed.port.is_some_and(|port| says(&port.to_string()));
    protocol && port && may_go_to(&rule.text.0, failed.target)
}

/// False if the rule's text names destinations and none of them holds the target.
fn may_go_to(text: &str, target: IpAddr) -> bool {
    let mut words = text.split(|c: char| c.is_whitespace() || "{},".contains(c));
    if !words.any(|word| word == "daddr") {
        return true;
    }
    let named: Vec<Prefix> = words
        .filter(|word| !word.is_empty())
        .map_while(|word| word.parse().ok())
        .collect();
    named.is_empty() || named.iter().any(|prefix| prefix.contains(target))
}

fn connected_before(view: &View<'_>, connect: &Connect) -> bool {
    view.this_boot()
        .filter_map(|pass| pass.connects.as_ref())
        .flat_map(|seen| &seen.value)
        .any(|older| {
            (older.target, older.port) == (connect.target, connect.port)
                && older.outcome == ConnectOutcome::Connected
        })
}

/// True if the rule's text names the target of this probe as destination: what it counts goes there.
pub(super) fn names_target(rule: &FilterRule, failed: &Failed) -> bool {
    let mut words = rule.text.0.split_whitespace();
    words.any(|word| word == "daddr")
        && words.next().is_some_and(|next| {
            next.parse::<Prefix>()
                .is_ok_and(|prefix| prefix.contains(failed.target) && !prefix.is_default())
        })
}
