//! What the kernel says of links, tables and connections.

use std::borrow::Cow;

use aizen_protocol::record::{
    Conntrack, FilterChain, Link, LinkCounters, NeighbourTable, Protocols, Queue, Softnet,
    WireGuard,
};

use super::{Labels, Made, cpu, float};

impl Made {
    pub(super) fn links(&mut self, links: &[Link]) {
        let of = |link: &Link| -> Labels { vec![("link", link.name.clone().into())] };
        self.gauge(
            "aizen_link_up",
            "1 if the link is administratively up.",
            links
                .iter()
                .map(|l| (of(l), f64::from(u8::from(l.admin_up)))),
        );
        self.gauge(
            "aizen_link_carrier",
            "1 if the link has a carrier.",
            links
                .iter()
                .filter_map(|l| Some((of(l), f64::from(u8::from(l.carrier?))))),
        );
        self.counter(
            "aizen_link_carrier_changes_total",
            "Times the carrier came or went.",
            links
                .iter()
                .filter_map(|l| Some((of(l), u64::from(l.carrier_changes?)))),
        );
        self.gauge(
            "aizen_link_mtu_bytes",
            "Largest packet.",
            links.iter().map(|l| (of(l), f64::from(l.mtu))),
        );
        for (name, help, field) in LINK_COUNTERS {
            let samples = links
                .iter()
                .filter_map(|link| Some((of(link), field(&link.counters?))));
            self.counter(name, help, samples);
        }
    }

    pub(super) fn queues(&mut self, queues: &[Queue]) {
        let labels = |made: &Self, queue: &Queue| {
            let mut labels = made.link(queue.link);
            labels.push(("kind", queue.kind.clone().into()));
            labels.push(("handle", format!("{:x}", queue.handle).into()));
            // Several of one handle 0 hang below one parent each.
            labels.push(("parent", format!("{:x}", queue.parent).into()));
            labels
        };
        let drops: Vec<_> = queues
            .iter()
            .map(|q| (labels(self, q), u64::from(q.drops)))
            .collect();
        let backlog: Vec<_> = queues
            .iter()
            .map(|q| (labels(self, q), f64::from(q.backlog_bytes)))
            .collect();
        self.counter(
            "aizen_queue_drops_total",
            "Packets dropped by a queueing discipline.",
            drops,
        );
        self.gauge(
            "aizen_queue_backlog_bytes",
            "Bytes that wait in a queueing discipline.",
            backlog,
        );
    }

    pub(super) fn neighbour_tables(&mut self, tables: &[NeighbourTable]) {
        let of = |table: &NeighbourTable| -> Labels { vec![("family", family(table.family))] };
        self.gauge(
            "aizen_neighbour_entries",
            "Neighbour entries.",
            tables.iter().map(|t| (of(t), f64::from(t.entries))),
        );
        self.gauge(
            "aizen_neighbour_limit",
            "Entries beyond which nothing new fits (gc_thresh3).",
            tables.iter().map(|t| (of(t), f64::from(t.thresholds[2]))),
        );
        self.counter(
            "aizen_neighbour_overflows_total",
            "Times the table was full.",
            tables.iter().map(|t| (of(t), t.overflows)),
        );
    }

    pub(super) fn protocols(&mut self, protocols: &Protocols) {
        let counters = protocols
            .counters
            .iter()
            .map(|(name, value)| (vec![("counter", name.clone().into())], *value));
        self.counter(
            "aizen_protocol_events_total",
            "Protocol counters by the kernel's names (SNMP MIBs).",
            counters,
        );
        let states = protocols
            .tcp_states
            .iter()
            .map(|(state, count)| (vec![("state", state.clone().into())], f64::from(*count)));
        self.gauge("aizen_tcp_sockets", "TCP sockets by state.", states);
    }

    pub(super) fn softnet(&mut self, cpus: &[Softnet]) {
        type Field = fn(&Softnet) -> u32;
        let columns: [(&'static str, &'static str, Field); 3] = [
            ("aizen_softnet_processed_total", "Packets processed.", |c| {
                c.processed
            }),
            (
                "aizen_softnet_dropped_total",
                "Packets dropped because the backlog was full.",
                |c| c.dropped,
            ),
            (
                "aizen_softnet_squeezed_total",
                "Times packet work ran out of its budget.",
                |c| c.squeezed,
            ),
        ];
        for (name, help, field) in columns {
            let samples = cpus.iter().map(|c| (cpu(c.cpu), u64::from(field(c))));
            self.counter(name, help, samples);
        }
    }

    pub(super) fn conntrack(&mut self, conntrack: &Conntrack) {
        let one = |value: u32| [(Labels::new(), f64::from(value))];
        self.gauge(
            "aizen_conntrack_entries",
            "Tracked connections.",
            one(conntrack.count),
        );
        self.gauge(
            "aizen_conntrack_limit",
            "Connections that fit.",
            one(conntrack.max),
        );
        for (name, help, value) in [
            (
                "aizen_conntrack_drops_total",
                "Packets dropped because no entry could be made.",
                conntrack.drop,
            ),
            (
                "aizen_conntrack_insert_failures_total",
                "Insertions that failed.",
                conntrack.insert_failed,
            ),
            (
                "aizen_conntrack_early_drops_total",
                "Entries dropped early to make room.",
                conntrack.early_drop,
            ),
        ] {
            self.counter(name, help, [(Labels::new(), value)]);
        }
    }

    pub(super) fn filter(&mut self, chains: &[FilterChain]) {
        let rules = || {
            chains.iter().flat_map(|chain| {
                chain.rules.iter().map(move |rule| {
                    let labels: Labels = vec![
                        ("family", chain.family.clone().into()),
                        ("table", chain.table.clone().into()),
                        ("chain", chain.chain.clone().into()),
                        ("handle", rule.handle.to_string().into()),
                    ];
                    (labels, rule)
                })
            })
        };
        self.counter(
            "aizen_filter_rule_packets_total",
            "Packets that a rule with a counter matched.",
            rules().filter_map(|(labels, rule)| Some((labels, rule.packets?))),
        );
        self.counter(
            "aizen_filter_rule_bytes_total",
            "Bytes of them.",
            rules().filter_map(|(labels, rule)| Some((labels, rule.bytes?))),
        );
    }

    pub(super) fn wireguard(&mut self, interfaces: &[WireGuard]) {
        let mut ages = Vec::new();
        let mut received = Vec::new();
        let mut sent = Vec::new();
        for interface in interfaces {
            for peer in &interface.peers {
                let mut labels = self.link(interface.link);
                labels.push(("peer", peer.key.clone().into()));
                if let Some(age) = peer.handshake_s {
                    ages.push((labels.clone(), float(age)));
                }
                received.push((labels.clone(), peer.rx_bytes));
                sent.push((labels, peer.tx_bytes));
            }
        }
        self.gauge(
            "aizen_wireguard_handshake_age_seconds",
            "Time since the last handshake.",
            ages,
        );
        self.counter(
            "aizen_wireguard_receive_bytes_total",
            "Bytes received from a peer.",
            received,
        );
        self.counter(
            "aizen_wireguard_transmit_bytes_total",
            "Bytes sent to a peer.",
            sent,
        );
    }
}

fn family(number: u8) -> Cow<'static, str> {
    if number == 6 { "ipv6" } else { "ipv4" }.into()
}

type LinkField = fn(&LinkCounters) -> u64;

/// Name, help and field of each counter.
const LINK_COUNTERS: [(&str, &str, LinkField); 13] = [
    ("aizen_link_receive_bytes_total", "Bytes received.", |c| {
        c.rx_bytes
    }),
    ("aizen_link_transmit_bytes_total", "Bytes sent.", |c| {
        c.tx_bytes
    }),
    (
        "aizen_link_receive_packets_total",
        "Packets received.",
        |c| c.rx_packets,
    ),
    ("aizen_link_transmit_packets_total", "Packets sent.", |c| {
        c.tx_packets
    }),
    (
        "aizen_link_receive_errors_total",
        "Bad packets received.",
        |c| c.rx_errors,
    ),
    (
        "aizen_link_transmit_errors_total",
        "Packets that could not be sent.",
        |c| c.tx_errors,
    ),
    (
        "aizen_link_receive_drops_total",
        "Packets received and dropped.",
        |c| c.rx_dropped,
    ),
    (
        "aizen_link_transmit_drops_total",
        "Packets dropped before they were sent.",
        |c| c.tx_dropped,
    ),
    (
        "aizen_link_receive_crc_errors_total",
        "Frames with a wrong checksum.",
        |c| c.rx_crc_errors,
    ),
    (
        "aizen_link_receive_missed_total",
        "Frames missed by the port.",
        |c| c.rx_missed_errors,
    ),
    (
        "aizen_link_receive_fifo_errors_total",
        "Frames lost in the receive queue.",
        |c| c.rx_fifo_errors,
    ),
    ("aizen_link_collisions_total", "Collisions.", |c| {
        c.collisions
    }),
    (
        "aizen_link_receive_multicast_packets_total",
        "Multicast packets received.",
        |c| c.multicast,
    ),
];
