//! Entries of [`crate::fuzz`]: what the kernel tells.

mod files;

use std::collections::BTreeMap;

pub use self::files::*;
use super::dbus::Message;
use super::dbus::wire::{self, FIXED, Reader};
use super::netlink::{attribute, generic, parts};
use super::{
    address, conntrack as tracking, cpu, dhcp, ethernet as ethtool, fdb as forwarding, host,
    link as links, neighbour as neighbours, neighbour_table, pressure as stalls,
    protocols as counted, queue as queues, route as routes, rule, services, softnet as backlog,
    ubus as bus, wireless as radio,
};
use crate::fuzz::survives;

/// The bytes as one message's payload, and as a datagram of messages.
fn payloads(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::once(bytes).chain(parts(bytes).map(|part| part.payload))
}

/// Attributes, and a family of generic netlink.
pub fn attributes(bytes: &[u8]) {
    let held: usize = attribute::attributes(bytes)
        .map(|a| a.value.len() + 4)
        .sum();
    assert!(held <= bytes.len());
    for attribute in attribute::attributes(bytes) {
        drop((attribute.text(), attribute.mac(), attribute.ip()));
        assert!(attribute.inner().count() <= attribute.value.len());
    }
    generic::decode(bytes);
}

/// `RTM_NEWLINK` and the VLANs of bridge ports.
pub fn link(bytes: &[u8]) {
    for payload in payloads(bytes) {
        if let Some(link) = links::decode(payload) {
            survives(&link);
        }
        links::vlan::decode(payload);
    }
}

/// Addresses, routes, rules and next-hop objects.
pub fn route(bytes: &[u8]) {
    for payload in payloads(bytes) {
        routes::next_hop::decode(payload);
        if let Some(Some((route, _))) = routes::decode(payload) {
            survives(&route);
        }
        if let Some(Some(address)) = address::decode(payload) {
            survives(&address);
        }
        if let Some(Some(rule)) = rule::decode(payload) {
            survives(&rule);
        }
    }
}

/// Neighbours and their tables.
pub fn neighbour(bytes: &[u8]) {
    for payload in payloads(bytes) {
        if let Some(Some(neighbour)) = neighbours::decode(payload) {
            survives(&neighbour);
        }
        if let Some(Some(table)) = neighbour_table::decode(payload) {
            survives(&table);
        }
    }
}

/// Addresses that bridges learned.
pub fn fdb(bytes: &[u8]) {
    for payload in payloads(bytes) {
        if let Some(Some(entry)) = forwarding::decode(payload) {
            assert_eq!(entry.mac.0[0] & 1, 0, "a group is nobody's address");
            survives(&entry);
        }
    }
}

/// Queueing disciplines.
pub fn queue(bytes: &[u8]) {
    for payload in payloads(bytes) {
        if let Some(queue) = queues::decode(payload) {
            survives(&queue);
        }
    }
}

/// Modes, states and statistics of ethtool.
pub fn ethernet(bytes: &[u8]) {
    for payload in payloads(bytes) {
        ethtool::decode::Modes::decode(payload);
        ethtool::decode::State::decode(payload);
        ethtool::decode::Statistics::decode(payload);
    }
}

/// Radios, stations and their events (nl80211).
pub fn wireless(bytes: &[u8]) {
    for payload in payloads(bytes) {
        radio::decode::Interface::decode(payload);
        radio::decode::survey(payload);
        if let Some(station) = radio::decode::station(payload) {
            survives(&station);
        }
        radio::event::Heard::decode(payload);
    }
}

/// Sockets by netlink.
pub fn sock_diag(bytes: &[u8]) {
    for payload in payloads(bytes) {
        counted::sockets::decode(payload);
    }
}

/// Sockets by `/proc/net`.
pub fn socket_table(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        counted::sockets::line(line);
    }
}

/// `/proc/net/snmp`, `netstat` and `snmp6`.
pub fn protocols(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut counters = BTreeMap::new();
    counted::pairs(&text, &mut counters);
    counted::single(&text, &mut counters);
    survives(&counters);
}

/// `/proc/net/softnet_stat`.
pub fn softnet(bytes: &[u8]) {
    survives(&backlog::parse(&String::from_utf8_lossy(bytes)));
}

/// `/proc/net/stat/nf_conntrack`.
pub fn conntrack(bytes: &[u8]) {
    survives(&tracking::totals(&String::from_utf8_lossy(bytes)));
}

/// `/proc/stat`, `/proc/loadavg`, `/proc/meminfo`.
pub fn stat(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for hertz in [1, 100, 1000] {
        survives(&cpu::parse(&text, hertz));
    }
    host::ticks(&text);
    assert!(host::loads(&text).iter().all(|load| load.is_finite()));
    host::field(&text, "MemTotal:");
}

/// `/proc/pressure`.
pub fn pressure(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for kind in ["some", "full"] {
        if let Some(stall) = stalls::stall(&text, kind) {
            survives(&stall);
        }
    }
}

/// Messages of D-Bus and what services are asked.
pub fn dbus(bytes: &[u8]) {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return;
    };
    let Some(lengths) = wire::lengths(fixed) else {
        return;
    };
    let Some((fields, body)) = rest.split_at_checked(lengths.fields) else {
        return;
    };
    let Some(header) = wire::header(fixed, fields) else {
        return;
    };
    header.text(wire::ERROR_NAME);
    let mut reader = Reader::new(body, header.big);
    while reader.u32().is_some() {}
    let body = body.get(..lengths.body).unwrap_or(body).to_vec();
    let message = Message { header, body };
    services::units(&message);
    services::text(&message);
    services::number(&message);
}

/// Messages of ubus, and what netifd says.
pub fn ubus(bytes: &[u8]) {
    let Some((head, body)) = bytes.split_first_chunk::<{ bus::wire::HEAD }>() else {
        return;
    };
    bus::wire::length(head);
    let message = bus::wire::Message::new(head, body.to_vec());
    message
        .attribute(bus::wire::STATUS)
        .and_then(bus::wire::u32);
    let data = message.attribute(bus::wire::DATA).unwrap_or(body);
    if let Some(table) = bus::wire::table(data) {
        dhcp::netifd::decode(&table);
        services::procd::decode(&table);
    }
    arguments(body);
}

/// What is asked can be read as what was meant.
fn arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes.get(..2048).unwrap_or(bytes));
    let words: Vec<&str> = text.split('\0').take(16).collect();
    let inner: Vec<_> = words
        .iter()
        .map(|word| (*word, bus::Argument::Text(word)))
        .collect();
    let first = words.first().copied().unwrap_or_default();
    let asked = bus::wire::invoke(
        7,
        "method",
        &[
            ("all", bus::Argument::Table(&inner)),
            ("first", bus::Argument::Text(first)),
        ],
    );
    let asked = bus::wire::Message::new(&[0; bus::wire::HEAD], asked);
    let told = asked.attribute(bus::wire::DATA).and_then(bus::wire::table);
    assert!(told.is_some_and(|told| told["first"] == first), "{first}");
}
