//! One reading of everything local, by kind.

use std::collections::BTreeSet;
use std::time::Duration;

use aizen_protocol::id::RoundId;
use aizen_protocol::record::{
    Address, Body, Conntrack, CpuTimes, Ethernet, Gap, Host, Link, LinkCounters, Neighbour,
    NeighbourTable, Pressure, Protocols, Queue, Record, Route, Rule, Softnet,
};
use jiff::Timestamp;

use crate::clock::{self, BootTime};
use crate::collect::Collector;

/// What was read; empty or none where there was nothing, and then a gap says why.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Sample {
    pub(in crate::cli) at: Timestamp,
    pub(in crate::cli) since_boot: BootTime,
    pub(in crate::cli) links: Vec<Link>,
    pub(in crate::cli) ethernet: Vec<Ethernet>,
    pub(in crate::cli) queues: Vec<Queue>,
    pub(in crate::cli) addresses: Vec<Address>,
    pub(in crate::cli) routes: Vec<Route>,
    pub(in crate::cli) rules: Vec<Rule>,
    pub(in crate::cli) neighbours: Vec<Neighbour>,
    pub(in crate::cli) neighbour_tables: Vec<NeighbourTable>,
    pub(in crate::cli) host: Option<Host>,
    pub(in crate::cli) cpu: Vec<CpuTimes>,
    pub(in crate::cli) softnet: Vec<Softnet>,
    pub(in crate::cli) conntrack: Option<Conntrack>,
    pub(in crate::cli) protocols: Option<Protocols>,
    pub(in crate::cli) pressure: Option<Pressure>,
    pub(in crate::cli) gaps: Vec<Gap>,
}

impl Sample {
    /// Reads everything once.
    pub(in crate::cli) async fn take(collector: &mut Collector) -> Self {
        let observations = collector.look().await;
        let mut sample = Self::nothing(clock::now(), clock::since_boot());
        for observation in &observations {
            sample.keep(observation.local().body.clone());
        }
        sample
    }

    /// The newest round of the past, and the one before it.
    pub(in crate::cli) fn newest(records: &[Record]) -> (Option<Self>, Self) {
        let rounds: BTreeSet<RoundId> = records.iter().map(|record| record.round).collect();
        let mut newest = rounds.iter().rev().map(|round| {
            let of_round = records.iter().filter(|record| record.round == *round);
            let at = of_round.clone().map(|record| record.at).max();
            // A round's number is its time since boot in milliseconds.
            let since_boot = BootTime(Duration::from_millis(round.0));
            let mut sample = Self::nothing(at.unwrap_or(Timestamp::UNIX_EPOCH), since_boot);
            of_round.for_each(|record| sample.keep(record.body.clone()));
            sample
        });
        let now = newest.next();
        let before = newest.next();
        let nothing = || Self::nothing(Timestamp::UNIX_EPOCH, BootTime(Duration::ZERO));
        (before, now.unwrap_or_else(nothing))
    }

    /// A reading of nothing yet.
    pub(in crate::cli) fn nothing(at: Timestamp, since_boot: BootTime) -> Self {
        Self {
            at,
            since_boot,
            links: Vec::new(),
            ethernet: Vec::new(),
            queues: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            neighbours: Vec::new(),
            neighbour_tables: Vec::new(),
            host: None,
            cpu: Vec::new(),
            softnet: Vec::new(),
            conntrack: None,
            protocols: None,
            pressure: None,
            gaps: Vec::new(),
        }
    }

    fn keep(&mut self, body: Body) {
        match body {
            Body::Links(value) => self.links = value,
            Body::Ethernet(value) => self.ethernet = value,
            Body::Queues(value) => self.queues = value,
            Body::Addresses(value) => self.addresses = value,
            Body::Routes(value) => self.routes = value,
            Body::Rules(value) => self.rules = value,
            Body::Neighbours(value) => self.neighbours = value,
            Body::NeighbourTables(value) => self.neighbour_tables = value,
            Body::Host(value) => self.host = Some(value),
            Body::Cpu(value) => self.cpu = value,
            Body::Softnet(value) => self.softnet = value,
            Body::Conntrack(value) => self.conntrack = Some(value),
            Body::Protocols(value) => self.protocols = Some(value),
            Body::Pressure(value) => self.pressure = Some(value),
            Body::Round(value) => self.gaps = value.gaps,
            _ => {}
        }
    }

    /// By the monotonic clock: a clock that was set makes no rate wrong.
    pub(in crate::cli) fn milliseconds_since(&self, before: &Self) -> u64 {
        let passed = self.since_boot.0.saturating_sub(before.since_boot.0);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    /// The interface's name, or its number where links weren't seen.
    pub(in crate::cli) fn link_name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }

    /// The counters of a link and their growth a second since `before`. None where the link is new, was made again,
    /// or counts nothing: a rate is never guessed.
    pub(in crate::cli) fn link_rates(&self, before: &Self, link: &Link) -> Option<LinkRates> {
        let older = before
            .links
            .iter()
            .find(|older| older.index == link.index)?;
        let (was, is) = (older.counters?, link.counters?);
        let seconds = seconds(self.milliseconds_since(before))?;
        let per_second = |field: fn(&LinkCounters) -> u64| {
            let grown = field(&is).checked_sub(field(&was))?;
            Some(as_float(grown) / seconds)
        };
        Some(LinkRates {
            rx_bits: per_second(|c| c.rx_bytes)? * 8.0,
            tx_bits: per_second(|c| c.tx_bytes)? * 8.0,
            rx_packets: per_second(|c| c.rx_packets)?,
            tx_packets: per_second(|c| c.tx_packets)?,
            errors: per_second(|c| c.rx_errors.saturating_add(c.tx_errors))?,
            dropped: per_second(|c| c.rx_dropped.saturating_add(c.tx_dropped))?,
        })
    }
}

/// Growth a second.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(in crate::cli) struct LinkRates {
    #[serde(rename = "rx_bits_per_second")]
    pub(in crate::cli) rx_bits: f64,
    #[serde(rename = "tx_bits_per_second")]
    pub(in crate::cli) tx_bits: f64,
    #[serde(rename = "rx_packets_per_second")]
    pub(in crate::cli) rx_packets: f64,
    #[serde(rename = "tx_packets_per_second")]
    pub(in crate::cli) tx_packets: f64,
    #[serde(rename = "errors_per_second")]
    pub(in crate::cli) errors: f64,
    #[serde(rename = "dropped_per_second")]
    pub(in crate::cli) dropped: f64,
}

/// None for no time at all.
fn seconds(milliseconds: u64) -> Option<f64> {
    (milliseconds > 0).then(|| as_float(milliseconds) / 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
pub(in crate::cli) fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use super::*;

    pub(in crate::cli) fn sample(seconds: u64, links: Vec<Link>) -> Sample {
        let at = Timestamp::UNIX_EPOCH;
        Sample {
            links,
            ..Sample::nothing(at, BootTime(Duration::from_secs(seconds)))
        }
    }

    pub(in crate::cli) fn link(rx_bytes: u64) -> Link {
        Link {
            index: 2,
            name: "wan".into(),
            mtu: 1500,
            counters: Some(LinkCounters {
                rx_bytes,
                ..LinkCounters::default()
            }),
            ..Link::default()
        }
    }

    #[test]
    fn a_rate_is_growth_by_time_and_nothing_where_a_counter_fell() {
        let (before, now) = (sample(10, vec![link(1000)]), sample(12, vec![link(3500)]));
        let rates = now.link_rates(&before, &now.links[0]).unwrap();
        assert!((rates.rx_bits - 10_000.0).abs() < f64::EPSILON);
        let reset = sample(12, vec![link(3)]);
        assert_eq!(reset.link_rates(&before, &reset.links[0]), None);
        let at_once = sample(10, vec![link(3500)]);
        assert_eq!(at_once.link_rates(&before, &at_once.links[0]), None);
        let fresh = sample(9, Vec::new());
        assert_eq!(now.link_rates(&fresh, &now.links[0]), None);
    }
}
