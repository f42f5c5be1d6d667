//! Evidence for tests: a healthy router, and the ways in which it breaks.

use std::net::IpAddr;

use aizen_protocol::finding::{Finding, Verdict};
use aizen_protocol::id::RoundId;
use aizen_protocol::private::Name;
use aizen_protocol::record::{
    Address, Body, Disk, DnsAnswer, DnsProbe, Forwarding, Gap, Host, Link, LinkCounters, Neighbour,
    NeighbourState, OperState, PathMtu, Profile, Reach, ReachRole, Record, Resolvers, Role, Round,
    Route, Time, TimeServer, Trigger,
};
use jiff::{SignedDuration, Timestamp};

use crate::case::Case;
use crate::expert;

pub(crate) mod machine;
pub(crate) mod lower;

pub(crate) const WAN: u32 = 2;
pub(crate) const LAN: u32 = 3;
pub(crate) const SPARE: u32 = 4;
pub(crate) const GATEWAY: &str = "100.64.7.1";
pub(crate) const RESOLVER: &str = "10.83.7.53";
pub(crate) const SECOND: &str = "10.83.7.54";
pub(crate) const ALTERNATE: &str = "172.20.9.9";
pub(crate) const ANCHOR: &str = "198.18.4.4";
pub(crate) const FAR_ANCHOR: &str = "198.18.200.8";
pub(crate) const NAME: &str = "host-4kq2mz7w3n5pa.host-b6tgy2jx4rv3c";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// When round `round` is read: one every 10 seconds.
pub(crate) fn at(round: u64) -> Timestamp {
    let start: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs(10 * i64::try_from(round).unwrap())
}

/// Every body of one round; tests change what is to be broken.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) round: u64,
    pub(crate) boot: &'static str,
    pub(crate) profile: Profile,
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) forwarding: Forwarding,
    pub(crate) resolvers: Resolvers,
    pub(crate) dns: Vec<DnsProbe>,
    pub(crate) reach: Vec<Reach>,
    pub(crate) path_mtu: Vec<PathMtu>,
    pub(crate) duplicates: Vec<aizen_protocol::record::Duplicate>,
    pub(crate) time: Time,
    pub(crate) host: Host,
    pub(crate) gaps: Vec<Gap>,
    /// What else was seen; it takes the place of what stands above.
    pub(crate) extra: Vec<Body>,
}

/// A router with a WAN and a LAN, all well, and with what must never alarm: a spare port without cable, a bridge without
/// guests, no IPv6, an alternate resolver that doesn't answer, an anchor that blocks echo, one lost ping, one slow and
/// one lost question.
pub(crate) fn healthy(round: u64) -> Evidence {
    Evidence {
        round,
        boot: "boot-1",
        profile: Profile {
            role: Role::Router,
            wan: vec!["wan".into()],
            expected_up: vec!["wan".into(), "lan".into()],
            gateway: Some(ip(GATEWAY)),
            agent: "0.1.0".into(),
        },
        links: links(round),
        addresses: vec![
            address(1, "127.0.0.1/8", "host"),
            address(WAN, "100.64.7.20/24", "global"),
            address(LAN, "192.168.40.1/24", "global"),
            address(5, "192.168.90.1/24", "global"),
            address(WAN, "fe80::5eff:fe10:2/64", "link"),
        ],
        routes: vec![
            route("0.0.0.0/0", Some(GATEWAY), WAN),
            route("100.64.7.0/24", None, WAN),
            route("192.168.40.0/24", None, LAN),
            route("192.168.90.0/24", None, 5),
        ],
        neighbours: vec![
            neighbour(WAN, GATEWAY, "02:00:5e:10:07:01", NeighbourState::Reachable),
            neighbour(
                LAN,
                "192.168.40.20",
                "02:00:5e:10:40:20",
                NeighbourState::Failed,
            ),
        ],
        forwarding: Forwarding {
            ipv4: Some(true),
            ipv6: Some(false),
        },
        resolvers: Resolvers {
            configured: vec![ip(RESOLVER), ip(SECOND)],
            alternates: vec![ip(ALTERNATE)],
            search: vec![],
            regular_file: true,
        },
        dns: questions(),
        reach: echoes(),
        path_mtu: vec![
            path(ANCHOR, Some(1500), None),
            path(FAR_ANCHOR, None, Some(576)),
        ],
        duplicates: vec![],
        time: Time {
            kernel_synchronised: Some(true),
            servers: vec![server("198.18.77.1", Some(12)), server("198.18.77.2", None)],
        },
        host: Host {
            uptime_s: 90_000,
            cpus: 2,
            memory_total_bytes: 1 << 30,
            memory_available_bytes: 1 << 29,
            disks: vec![
                disk("/", "ext4", 100 << 30, 60 << 30),
                // 4 % of 4 TiB is plenty.
                disk("/srv", "xfs", 4 << 40, (4 << 40) / 25),
                disk("/rom", "squashfs", 5 << 20, 0),
            ],
            ..Host::default()
        },
        gaps: vec![],
        extra: vec![],
    }
}

fn links(round: u64) -> Vec<Link> {
    let mut lo = link(1, "lo", true);
    (lo.loopback, lo.oper, lo.mac) = (true, OperState::Unknown, None);
    let mut guests = link(5, "br-guest", false);
    guests.driver_kind = Some("bridge".into());
    let wan = grown(link(WAN, "wan", true), round);
    let lan = grown(link(LAN, "lan", true), round);
    vec![lo, wan, lan, link(SPARE, "lan4", false), guests]
}

fn questions() -> Vec<DnsProbe> {
    let mut uneven = dns(RESOLVER, true, &[DnsAnswer::Rcode(0); 5], 3_000);
    uneven.answers[4] = DnsAnswer::Timeout;
    uneven.rtt_us = vec![3_000, 2_500, 900_000, 2_000];
    vec![
        uneven,
        dns(SECOND, true, &[DnsAnswer::Rcode(0); 5], 9_000),
        dns(ALTERNATE, false, &[DnsAnswer::Timeout; 5], 0),
    ]
}

fn echoes() -> Vec<Reach> {
    let mut lossy = reach(GATEWAY, ReachRole::Gateway, 5, 800);
    (lossy.received, lossy.rtt_us) = (4, vec![800; 4]);
    vec![
        lossy,
        reach(RESOLVER, ReachRole::Resolver, 5, 2_000),
        reach(SECOND, ReachRole::Resolver, 5, 8_000),
        reach(ALTERNATE, ReachRole::Resolver, 0, 0),
        reach(ANCHOR, ReachRole::Anchor, 5, 12_000),
        reach(FAR_ANCHOR, ReachRole::Anchor, 0, 0),
    ]
}

impl Evidence {
    /// One record a collector, the end last.
    pub(crate) fn records(&self) -> Vec<Record> {
        let bodies = vec![
            Body::Profile(self.profile.clone()),
            Body::Links(self.links.clone()),
            Body::Addresses(self.addresses.clone()),
            Body::Routes(self.routes.clone()),
            Body::Rules(vec![]),
            Body::Neighbours(self.neighbours.clone()),
            Body::Forwarding(self.forwarding),
            Body::Resolvers(self.resolvers.clone()),
            Body::Dns(self.dns.clone()),
            Body::Reach(self.reach.clone()),
            Body::PathMtu(self.path_mtu.clone()),
            Body::Duplicates(self.duplicates.clone()),
            Body::Time(self.time.clone()),
            Body::Host(self.host.clone()),
            Body::Round(Round {
                trigger: Trigger::Tick,
                took_ms: 900,
                gaps: self.gaps.clone(),
                dropped: 0,
                again: Default::default(),
            }),
        ];
        let told = |body: &Body| {
            let extra = |other: &Body| other.collector() == body.collector();
            !self.extra.iter().any(extra)
        };
        let (end, bodies) = bodies.split_last().unwrap();
        bodies
            .iter()
            .filter(|body| told(body))
            .chain(&self.extra)
            .chain([end])
            .cloned()
            .map(|body| Record {
                round: RoundId(self.round),
                at: at(self.round),
                boot: self.boot.parse().unwrap(),
                body,
            })
            .collect()
    }

    /// Replaces what the collector of this body saw.
    pub(crate) fn see(&mut self, body: Body) {
        self.extra
            .retain(|other| other.collector() != body.collector());
        self.extra.push(body);
    }

    pub(crate) fn verdict(&self) -> Verdict {
        verdict(std::slice::from_ref(self))
    }

    pub(crate) fn link(&mut self, index: u32) -> &mut Link {
        self.links
            .iter_mut()
            .find(|link| link.index == index)
            .unwrap()
    }

    pub(crate) fn dns_of(&mut self, resolver: &str) -> &mut DnsProbe {
        self.dns
            .iter_mut()
            .find(|probe| probe.resolver == ip(resolver))
            .unwrap()
    }

    /// What every question to this resolver gets.
    pub(crate) fn answers(&mut self, resolver: &str, answer: DnsAnswer) {
        let probe = self.dns_of(resolver);
        probe.answers = vec![answer; 5];
        if !matches!(answer, DnsAnswer::Rcode(_)) {
            probe.rtt_us.clear();
        }
    }

    pub(crate) fn silence(&mut self, target: &str) {
        for reach in self
            .reach
            .iter_mut()
            .filter(|reach| reach.target == ip(target))
        {
            (reach.received, reach.rtt_us) = (0, vec![]);
        }
    }

    /// Nothing beyond the gateway answers.
    pub(crate) fn silence_outside(&mut self) {
        for target in [RESOLVER, SECOND, ALTERNATE, ANCHOR, FAR_ANCHOR] {
            self.silence(target);
        }
        for resolver in [RESOLVER, SECOND, ALTERNATE] {
            self.answers(resolver, DnsAnswer::Timeout);
        }
        self.path_mtu.clear();
        for server in &mut self.time.servers {
            (server.offset_ms, server.stratum, server.rtt_us) = (None, None, None);
        }
    }

    pub(crate) fn neighbour_is(&mut self, address: &str, state: NeighbourState) {
        let entry = self
            .neighbours
            .iter_mut()
            .find(|entry| entry.address == ip(address));
        entry.unwrap().state = state;
    }
}

pub(crate) fn verdict(rounds: &[Evidence]) -> Verdict {
    let records = rounds.iter().flat_map(Evidence::records).collect();
    expert::analyze(&Case::new(records))
}

/// The only finding there is.
pub(crate) fn only(verdict: &Verdict) -> &Finding {
    let causes: Vec<_> = verdict
        .findings
        .iter()
        .map(|finding| &finding.cause.0)
        .collect();
    assert_eq!(causes.len(), 1, "{causes:?}");
    let finding = &verdict.findings[0];
    // What every finding owes to whoever reads it.
    assert!(!finding.evidence.is_empty(), "{causes:?}");
    assert!(!finding.missing.is_empty(), "{causes:?}");
    assert!(!finding.next_step.0.is_empty(), "{causes:?}");
    finding
}

pub(crate) fn link(index: u32, name: &str, carrier: bool) -> Link {
    Link {
        index,
        name: name.into(),
        driver_kind: None,
        loopback: false,
        admin_up: true,
        oper: if carrier {
            OperState::Up
        } else {
            OperState::Down
        },
        carrier: Some(carrier),
        carrier_changes: Some(2),
        mtu: 1500,
        mac: Some(aizen_protocol::private::Mac([
            2,
            0,
            0x5e,
            0x10,
            0,
            u8::try_from(index).unwrap(),
        ])),
        master: None,
        counters: None,
        ..Link::default()
    }
}

fn grown(mut link: Link, round: u64) -> Link {
    link.counters = Some(LinkCounters {
        rx_packets: 1000 + 50 * round,
        tx_packets: 900 + 40 * round,
        ..LinkCounters::default()
    });
    link
}

pub(crate) fn address(link: u32, address: &str, scope: &str) -> Address {
    Address {
        preferred_s: None,
        link,
        address: address.parse().unwrap(),
        scope: scope.into(),
        dad_failed: false,
        tentative: false,
        deprecated: false,
        dynamic: false,
        valid_s: None,
    }
}

pub(crate) fn route(destination: &str, gateway: Option<&str>, link: u32) -> Route {
    Route {
        next_hops: Vec::new(),
        dead: false,
        expires_s: None,
        destination: destination.parse().unwrap(),
        gateway: gateway.map(ip),
        link: Some(link),
        table: 254,
        metric: None,
        protocol: "static".into(),
        kind: "unicast".into(),
        source: None,
    }
}

pub(crate) fn neighbour(link: u32, address: &str, mac: &str, state: NeighbourState) -> Neighbour {
    Neighbour {
        router: false,
        confirmed_ms: None,
        link,
        address: ip(address),
        mac: mac.parse().ok(),
        state,
    }
}

pub(crate) fn dns(
    resolver: &str,
    configured: bool,
    answers: &[DnsAnswer],
    rtt_us: u32,
) -> DnsProbe {
    let came = answers
        .iter()
        .filter(|answer| matches!(answer, DnsAnswer::Rcode(_)))
        .count();
    DnsProbe {
        transport: aizen_protocol::record::DnsTransport::Udp,
        purpose: aizen_protocol::record::DnsPurpose::Lookup,
        addresses: Vec::new(),
        authentic: false,
        resolver: ip(resolver),
        configured,
        name: Name(NAME.into()),
        answers: answers.to_vec(),
        rtt_us: vec![rtt_us; came],
    }
}

pub(crate) fn reach(target: &str, role: ReachRole, received: u16, rtt_us: u32) -> Reach {
    Reach {
        target: ip(target),
        role,
        sent: 5,
        received,
        rtt_us: vec![rtt_us; received.into()],
        no_route: false,
    }
}

pub(crate) fn path(target: &str, answered: Option<u16>, lost: Option<u16>) -> PathMtu {
    PathMtu {
        target: ip(target),
        link_mtu: 1500,
        largest_answered: answered,
        smallest_lost: lost,
        reported: None,
    }
}

pub(crate) fn server(server: &str, offset_ms: Option<i64>) -> TimeServer {
    TimeServer {
        server: ip(server),
        offset_ms,
        rtt_us: offset_ms.map(|_| 8_000),
        stratum: offset_ms.map(|_| 2),
    }
}

pub(crate) fn disk(mount: &str, fs: &str, total: u64, available: u64) -> Disk {
    Disk {
        wanted_writable: None,
        errors: None,
        mount: mount.into(),
        fs: fs.into(),
        total_bytes: total,
        available_bytes: available,
        inodes: 1 << 20,
        inodes_free: 1 << 19,
        read_only: false,
    }
}

/// Each fault on the router, by its cause, after one healthy round and with the fault in the last two.
pub(crate) fn faults() -> Vec<(&'static str, Vec<Evidence>)> {
    type Breaks = fn(&mut Evidence);
    let causes: [(&str, Breaks); 12] = [
        ("resolver_dead", kill_resolver),
        ("resolver_slow", slow_resolver),
        ("no_default_route", lose_default_route),
        ("gateway_dead", kill_gateway),
        ("link_down", pull_cable),
        ("link_admin_down", switch_link_off),
        ("mtu_black_hole", swallow_large_packets),
        ("duplicate_address", share_address),
        ("forwarding_off", stop_forwarding),
        ("disk_full", fill_disk),
        ("ntp_offset", shift_clock),
        ("upstream_dead", Evidence::silence_outside),
    ];
    causes
        .into_iter()
        .map(|(cause, breaks)| {
            let mut rounds = vec![healthy(1), healthy(2), healthy(3)];
            rounds[1..].iter_mut().for_each(breaks);
            (cause, rounds)
        })
        .collect()
}

pub(crate) fn kill_resolver(evidence: &mut Evidence) {
    evidence.answers(RESOLVER, DnsAnswer::PortUnreachable);
}

pub(crate) fn slow_resolver(evidence: &mut Evidence) {
    let probe = evidence.dns_of(RESOLVER);
    *probe = dns(RESOLVER, true, &[DnsAnswer::Rcode(0); 5], 850_000);
}

pub(crate) fn lose_default_route(evidence: &mut Evidence) {
    evidence.silence_outside();
    evidence
        .routes
        .retain(|route| !route.destination.is_default());
    for reach in evidence
        .reach
        .iter_mut()
        .filter(|reach| reach.role != ReachRole::Gateway)
    {
        (reach.sent, reach.no_route) = (0, true);
    }
    for resolver in [RESOLVER, SECOND, ALTERNATE] {
        evidence.answers(resolver, DnsAnswer::Unreachable);
    }
}

pub(crate) fn kill_gateway(evidence: &mut Evidence) {
    evidence.silence_outside();
    evidence.silence(GATEWAY);
    evidence.neighbour_is(GATEWAY, NeighbourState::Failed);
}

pub(crate) fn pull_cable(evidence: &mut Evidence) {
    kill_gateway(evidence);
    let wan = evidence.link(WAN);
    (wan.carrier, wan.oper, wan.carrier_changes) = (Some(false), OperState::Down, Some(3));
    *wan = grown(wan.clone(), 1);
}

pub(crate) fn switch_link_off(evidence: &mut Evidence) {
    lose_default_route(evidence);
    evidence.silence(GATEWAY);
    evidence.routes.retain(|route| route.link != Some(WAN));
    evidence.neighbours.retain(|entry| entry.link != WAN);
    let wan = evidence.link(WAN);
    (wan.admin_up, wan.carrier, wan.oper) = (false, None, OperState::Down);
    *wan = grown(wan.clone(), 1);
}

pub(crate) fn swallow_large_packets(evidence: &mut Evidence) {
    evidence.path_mtu = vec![
        path(ANCHOR, Some(1420), Some(1421)),
        path(RESOLVER, Some(1412), Some(1432)),
    ];
}

pub(crate) fn share_address(evidence: &mut Evidence) {
    evidence.duplicates = vec![aizen_protocol::record::Duplicate {
        link: LAN,
        address: ip("192.168.40.1"),
        others: vec!["02:00:5e:10:40:20".parse().unwrap()],
        by: aizen_protocol::record::DuplicateBy::Arp,
    }];
}

pub(crate) fn stop_forwarding(evidence: &mut Evidence) {
    evidence.forwarding.ipv4 = Some(false);
}

pub(crate) fn fill_disk(evidence: &mut Evidence) {
    evidence.host.disks[0].available_bytes = 0;
}

pub(crate) fn shift_clock(evidence: &mut Evidence) {
    evidence.time = Time {
        kernel_synchronised: Some(false),
        servers: vec![
            server("198.18.77.1", Some(301_000)),
            server("198.18.77.2", Some(301_020)),
        ],
    };
}
