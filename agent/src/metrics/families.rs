//! Which number of which record is which metric.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aizen_protocol::record::{
    Body, Conntrack, CpuTimes, DnsProbe, Ethernet, Host, Link, LinkCounters, NeighbourTable,
    Pressure, Protocols, Queue, Reach, Record, Round, Service, ServiceState, Softnet, Stall, Time,
    WireGuard,
};

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
            _ => {}
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

    fn links(&mut self, links: &[Link]) {
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

    fn ethernet(&mut self, ports: &[Ethernet]) {
        let mut samples = Vec::new();
        for port in ports {
            for (name, total) in &port.statistics {
                let mut labels = self.link(port.link);
                labels.push(("counter", name.clone().into()));
                samples.push((labels, *total));
            }
        }
        self.counter(
            "aizen_ethernet_driver_total",
            "What the driver counts: the standard's groups, and of its own counters those of trouble that are not 0.",
            samples,
        );
    }

    fn queues(&mut self, queues: &[Queue]) {
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

    fn neighbour_tables(&mut self, tables: &[NeighbourTable]) {
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

    fn reach(&mut self, reach: &[Reach]) {
        let of = |r: &Reach| -> Labels { vec![("target", r.target.to_string().into())] };
        self.gauge(
            "aizen_echo_sent",
            "Echo requests of the newest round.",
            reach.iter().map(|r| (of(r), f64::from(r.sent))),
        );
        self.gauge(
            "aizen_echo_received",
            "Echo replies of the newest round.",
            reach.iter().map(|r| (of(r), f64::from(r.received))),
        );
        self.gauge(
            "aizen_echo_round_trip_seconds",
            "Median round trip of the newest round.",
            reach
                .iter()
                .filter_map(|r| Some((of(r), median_seconds(&r.rtt_us)?))),
        );
    }

    fn dns(&mut self, probes: &[DnsProbe]) {
        // One resolver is asked for several things: they are added up, so that labels stay few.
        let mut resolvers: BTreeMap<String, (u32, Vec<u32>)> = BTreeMap::new();
        for probe in probes {
            let (asked, times) = resolvers.entry(probe.resolver.to_string()).or_default();
            *asked = asked.saturating_add(u32::try_from(probe.answers.len()).unwrap_or(u32::MAX));
            times.extend_from_slice(&probe.rtt_us);
        }
        let of = |resolver: &String| -> Labels { vec![("resolver", resolver.clone().into())] };
        self.gauge(
            "aizen_dns_questions",
            "Questions of the newest round.",
            resolvers
                .iter()
                .map(|(r, (asked, _))| (of(r), f64::from(*asked))),
        );
        self.gauge(
            "aizen_dns_answers",
            "Answers of the newest round.",
            resolvers
                .iter()
                .map(|(r, (_, times))| (of(r), float(times.len().try_into().unwrap_or(u64::MAX)))),
        );
        self.gauge(
            "aizen_dns_round_trip_seconds",
            "Median time to an answer in the newest round.",
            resolvers
                .iter()
                .filter_map(|(r, (_, times))| Some((of(r), median_seconds(times)?))),
        );
    }

    fn protocols(&mut self, protocols: &Protocols) {
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

    fn softnet(&mut self, cpus: &[Softnet]) {
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

    fn conntrack(&mut self, conntrack: &Conntrack) {
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

    fn wireguard(&mut self, interfaces: &[WireGuard]) {
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

    fn cpu(&mut self, cpus: &[CpuTimes]) {
        let kinds = |c: &CpuTimes| {
            [
                ("user", c.user_ms),
                ("nice", c.nice_ms),
                ("system", c.system_ms),
                ("idle", c.idle_ms),
                ("iowait", c.iowait_ms),
                ("irq", c.irq_ms),
                ("softirq", c.softirq_ms),
                ("steal", c.steal_ms),
            ]
        };
        let samples = cpus.iter().flat_map(|c| {
            kinds(c).map(|(kind, ms)| {
                let mut labels = cpu(c.cpu);
                labels.push(("mode", kind.into()));
                (labels, float(ms) / 1000.0)
            })
        });
        self.family(
            "aizen_cpu_seconds_total",
            Kind::Counter,
            "Time that processors spent, by kind.",
            samples,
        );
    }

    fn pressure(&mut self, pressure: &Pressure) {
        let stalls = [
            ("cpu", "some", pressure.cpu),
            ("memory", "some", pressure.memory_some),
            ("memory", "full", pressure.memory_full),
            ("io", "some", pressure.io_some),
            ("io", "full", pressure.io_full),
        ];
        let samples = stalls.into_iter().filter_map(|(resource, share, stall)| {
            let labels = vec![("resource", resource.into()), ("share", share.into())];
            stall.map(|stall: Stall| (labels, float(stall.total_us) / 1e6))
        });
        self.family(
            "aizen_pressure_waiting_seconds_total",
            Kind::Counter,
            "Time in which some or all tasks waited for a resource.",
            samples,
        );
    }

    fn host(&mut self, host: &Host) {
        let one = |value: f64| [(Labels::new(), value)];
        self.gauge(
            "aizen_uptime_seconds",
            "Time since boot.",
            one(float(host.uptime_s)),
        );
        self.gauge(
            "aizen_load1",
            "Load over one minute.",
            one(host.load[0].into()),
        );
        self.gauge(
            "aizen_memory_total_bytes",
            "Memory.",
            one(float(host.memory_total_bytes)),
        );
        self.gauge(
            "aizen_memory_available_bytes",
            "Memory that programs can have without swapping.",
            one(float(host.memory_available_bytes)),
        );
        let oom = host.oom_kills.map(|kills| (Labels::new(), kills));
        self.counter(
            "aizen_oom_kills_total",
            "Processes killed for want of memory.",
            oom,
        );
        let celsius = host.temperature_c.map(|c| (Labels::new(), f64::from(c)));
        self.gauge("aizen_temperature_celsius", "The hottest sensor.", celsius);
        let disk = |mount: &aizen_protocol::private::Text| vec![("mount", mount.0.clone().into())];
        self.gauge(
            "aizen_disk_size_bytes",
            "Size of a file system.",
            host.disks
                .iter()
                .map(|d| (disk(&d.mount), float(d.total_bytes))),
        );
        self.gauge(
            "aizen_disk_available_bytes",
            "Space for unprivileged users.",
            host.disks
                .iter()
                .map(|d| (disk(&d.mount), float(d.available_bytes))),
        );
        self.gauge(
            "aizen_disk_read_only",
            "1 if the file system is mounted read-only.",
            host.disks
                .iter()
                .map(|d| (disk(&d.mount), f64::from(u8::from(d.read_only)))),
        );
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "an offset of weeks keeps its milliseconds"
    )]
    fn time(&mut self, time: &Time) {
        let samples = time.servers.iter().filter_map(|server| {
            let labels = vec![("server", server.server.to_string().into())];
            Some((labels, server.offset_ms? as f64 / 1000.0))
        });
        self.gauge(
            "aizen_clock_offset_seconds",
            "A time server's clock minus this device's.",
            samples,
        );
    }

    fn services(&mut self, services: &[Service]) {
        let of = |s: &Service| -> Labels { vec![("service", s.name.clone().into())] };
        self.gauge(
            "aizen_service_failed",
            "1 if the service failed.",
            services
                .iter()
                .map(|s| (of(s), f64::from(u8::from(s.state == ServiceState::Failed)))),
        );
        self.counter(
            "aizen_service_restarts_total",
            "Times its manager started the service again.",
            services
                .iter()
                .filter_map(|s| Some((of(s), u64::from(s.restarts?)))),
        );
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

fn family(number: u8) -> Cow<'static, str> {
    if number == 6 { "ipv6" } else { "ipv4" }.into()
}

fn cpu(number: u16) -> Labels {
    vec![("cpu", number.to_string().into())]
}

fn median_seconds(times_us: &[u32]) -> Option<f64> {
    let mut sorted = times_us.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::from(*median) / 1e6)
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

#[cfg(test)]
mod tests {
    use aizen_protocol::id::{BootId, RoundId};
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
