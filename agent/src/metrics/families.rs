//! Which number of which record is which metric.

mod leases;
mod machine;
mod network;
mod ports;
mod probes;
mod tables;

use std::borrow::Cow;
use std::collections::BTreeMap;

use aizen_protocol::record::{Body, Record, Round};

use super::{Family, Kind, Sample};

type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// All families of the newest record of each kind.
#[must_use]
pub fn families(records: &[Record]) -> Vec<Family> {
    let mut newest: BTreeMap<&'static str, &Body> = BTreeMap::new();
    for record in records {
        newest.insert(record.body.collector(), &record.body);
    }
    let names = match newest.get("links") {
        Some(Body::Links(links)) => links.iter().map(|l| (l.index, l.name.clone())).collect(),
        _ => BTreeMap::new(),
    };
    let mut made = Made {
        families: Vec::new(),
        names,
    };
    for body in newest.into_values() {
        match body {
            Body::Links(links) => made.links(links),
            Body::Ethernet(ports) => made.ethernet(ports),
            Body::Queues(queues) => made.queues(queues),
            Body::NeighbourTables(tables) => made.neighbour_tables(tables),
            Body::Reach(reach) => made.reach(reach),
            Body::Dns(probes) => made.dns(probes),
            Body::Protocols(protocols) => made.protocols(protocols),
            Body::Softnet(cpus) => made.softnet(cpus),
            Body::Conntrack(conntrack) => made.conntrack(conntrack),
            Body::WireGuard(interfaces) => made.wireguard(interfaces),
            Body::Cpu(cpus) => made.cpu(cpus),
            Body::Pressure(pressure) => made.pressure(pressure),
            Body::Host(host) => made.host(host),
            Body::Time(time) => made.time(time),
            Body::Services(services) => made.services(services),
            Body::Round(round) => made.round(round),
            Body::Fdb(fdb) => made.fdb(fdb),
            Body::Modules(modules) => made.modules(modules),
            Body::Wireless(radio) => made.wireless(radio),
            Body::Addresses(addresses) => made.addresses(addresses),
            Body::Routes(routes) => made.routes(routes),
            Body::Rules(rules) => made.rules(rules),
            Body::Neighbours(neighbours) => made.neighbours(neighbours),
            Body::Forwarding(forwarding) => made.forwarding(forwarding),
            Body::Resolvers(resolvers) => made.resolvers(resolvers),
            Body::PathMtu(paths) => made.path_mtu(paths),
            Body::Connects(connects) => made.connects(connects),
            Body::Traces(traces) => made.traces(traces),
            Body::Load(loads) => made.load(loads),
            Body::Certificates(certificates) => made.certificates(certificates),
            Body::Portal(portal) => made.portal(portal),
            Body::Duplicates(duplicates) => made.duplicates(duplicates),
            Body::Dhcp(dhcp) => made.dhcp(dhcp),
            Body::DhcpProbes(probes) => made.dhcp_probes(probes),
            Body::PppoeProbes(probes) => made.pppoe_probes(probes),
            Body::RouterProbes(probes) => made.router_probes(probes),
            Body::Lldp(ends) => made.lldp(ends),
            Body::Filter(chains) => made.filter(chains),
            Body::Log(lines) => made.log(lines),
            Body::Configuration(files) => made.configuration(files),
            // What the operator wrote, and what the others said earlier: no measurements.
            Body::Profile(_) | Body::History(_) => {}
        }
    }
    made.families
}

/// Families in the making.
struct Made {
    families: Vec<Family>,
    names: BTreeMap<u32, String>,
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn float(value: u64) -> f64 {
    value as f64
}

impl Made {
    fn family(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let samples = samples
            .into_iter()
            .map(|(labels, value)| Sample { labels, value });
        self.families.push(Family {
            name,
            help,
            kind,
            samples: samples.collect(),
        });
    }

    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples
            .into_iter()
            .map(|(labels, value)| (labels, float(value)));
        self.family(name, Kind::Counter, help, samples);
    }

    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.family(name, Kind::Gauge, help, samples);
    }

    fn link(&self, index: u32) -> Labels {
        let name = self.names.get(&index).cloned();
        vec![("link", name.unwrap_or_else(|| index.to_string()).into())]
    }

    fn round(&mut self, round: &Round) {
        let mut gaps: BTreeMap<&str, u32> = BTreeMap::new();
        for gap in &round.gaps {
            *gaps.entry(gap.collector.as_str()).or_default() += 1;
        }
        self.gauge(
            "aizen_round_duration_seconds",
            "How long the newest round took.",
            [(Labels::new(), f64::from(round.took_ms) / 1000.0)],
        );
        self.gauge(
            "aizen_round_gaps",
            "What the newest round could not see, by collector.",
            gaps.iter().map(|(collector, count)| {
                (
                    vec![("collector", (*collector).to_owned().into())],
                    f64::from(*count),
                )
            }),
        );
        self.counter(
            "aizen_records_dropped_total",
            "Records dropped for want of space since the device enrolled.",
            [(Labels::new(), round.dropped)],
        );
    }
}

/// How many there are of each.
fn count<K: Ord>(all: impl Iterator<Item = K>) -> BTreeMap<K, f64> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1.0;
    }
    counts
}

fn cpu(number: u16) -> Labels {
    vec![("cpu", number.to_string().into())]
}

#[cfg(test)]
mod tests {
    use aizen_protocol::id::{BootId, RoundId};
    use aizen_protocol::record::{Ethernet, Host, Link, LinkCounters, Queue};
    use jiff::Timestamp;

    use super::*;

    fn record(body: Body) -> Record {
        Record {
            round: RoundId(1),
            at: Timestamp::UNIX_EPOCH,
            boot: BootId::fresh(),
            body,
        }
    }

    fn wan(rx_bytes: u64) -> Record {
        record(Body::Links(vec![Link {
            index: 2,
            name: "wan".into(),
            admin_up: true,
            counters: Some(LinkCounters {
                rx_bytes,
                ..LinkCounters::default()
            }),
            ..Link::default()
        }]))
    }

    #[test]
    fn the_newest_record_of_a_kind_is_told_and_each_name_once() {
        let queue = record(Body::Queues(vec![Queue {
            link: 2,
            kind: "fq_codel".into(),
            drops: 7,
            ..Queue::default()
        }]));
        let port = record(Body::Ethernet(vec![Ethernet {
            link: 2,
            statistics: [("rx_crc_errors".to_owned(), 9)].into(),
            ..Ethernet::default()
        }]));
        let text = super::super::text(&[wan(1), queue, port, wan(2)]);
        assert!(
            text.contains(
                "aizen_ethernet_driver_total{link=\"wan\",counter=\"rx_crc_errors\"} 9\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("aizen_link_receive_bytes_total{link=\"wan\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("aizen_queue_drops_total{link=\"wan\",kind=\"fq_codel\",handle=\"0\",parent=\"0\"} 7\n"),
            "{text}"
        );
        // A carrier that nobody knows is no number.
        assert!(!text.contains("aizen_link_carrier{"), "{text}");
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# TYPE "))
            .collect();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn names_say_their_unit_and_counters_end_in_total() {
        for family in families(&[wan(1), record(Body::Host(Host::default()))]) {
            assert!(family.name.starts_with("aizen_"));
            assert_eq!(
                family.name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{}",
                family.name
            );
            assert!(family.help.ends_with('.'));
        }
    }
}
