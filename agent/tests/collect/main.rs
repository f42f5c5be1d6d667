//! Rounds against real kernels: each test lays out its own network namespaces and breaks one thing.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't lay out its network must fail"
)]

mod duplicates;
mod host;
mod netns;
mod path_mtu;
mod tables;
mod watch;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use aizen_agent::collect::reach::Pinging;
use aizen_agent::collect::resolve::{self, Asking};
use aizen_agent::collect::{Collector, Settings};
use aizen_protocol::record::{
    Body, DnsAnswer, DnsProbe, DnsPurpose, DnsTransport, Duplicate, Gap, Link, Neighbour,
    NeighbourState, PathMtu, Reach, ReachRole, Round, Route, TimeServer, Trigger,
};
use netns::{Netns, device_and_gateway, root};

/// What one round saw.
#[derive(Debug, Default)]
struct Pass {
    links: Vec<Link>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
    dns: Vec<DnsProbe>,
    reach: Vec<Reach>,
    path_mtu: Vec<PathMtu>,
    duplicates: Vec<Duplicate>,
    servers: Vec<TimeServer>,
    kinds: Vec<&'static str>,
    end: Option<Round>,
}

impl Pass {
    fn gaps(&self) -> &[Gap] {
        &self.end.as_ref().unwrap().gaps
    }

    fn gap(&self, collector: &str) -> Option<&str> {
        self.gaps()
            .iter()
            .find(|g| g.collector == collector)
            .map(|g| g.reason.0.as_str())
    }
}

async fn one_round(settings: Settings) -> Pass {
    let mut pass = Pass::default();
    for observation in Collector::new(settings).round(Trigger::Asked, 7).await {
        let record = observation.local();
        pass.kinds.push(record.body.collector());
        match record.body.clone() {
            Body::Links(seen) => pass.links = seen,
            Body::Routes(seen) => pass.routes = seen,
            Body::Neighbours(seen) => pass.neighbours = seen,
            Body::Dns(seen) => pass.dns = seen,
            Body::Reach(seen) => pass.reach = seen,
            Body::PathMtu(seen) => pass.path_mtu = seen,
            Body::Duplicates(seen) => pass.duplicates = seen,
            Body::Time(seen) => pass.servers = seen.servers,
            Body::Round(seen) => pass.end = Some(seen),
            _ => {}
        }
    }
    pass
}

/// Short waits: everything here is on one machine.
fn settings(root: &Path) -> Settings {
    Settings {
        root: root.to_owned(),
        pinging: Pinging {
            times: 3,
            pause: Duration::from_millis(30),
            deadline: Duration::from_millis(600),
        },
        asking: Asking {
            times: 3,
            pause: Duration::from_millis(10),
            deadline: Duration::from_millis(800),
        },
        ..Settings::default()
    }
}

fn see(device: &Netns, settings: Settings) -> Pass {
    device.block_on(|| one_round(settings))
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// What was asked over UDP, again and again.
fn lookups(pass: &Pass) -> impl Iterator<Item = &DnsProbe> {
    let wanted = (DnsPurpose::Lookup, DnsTransport::Udp);
    pass.dns
        .iter()
        .filter(move |p| (p.purpose, p.transport) == wanted)
}

/// A question becomes the answer to it by its response bit.
fn yes(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer
}

#[test]
fn a_dead_resolver_is_refused_by_a_living_host_and_silent_on_a_dead_one() {
    let (device, _gateway) = device_and_gateway();
    let root = root("nameserver 192.0.2.1\nnameserver 192.0.2.99\n");
    let pass = see(&device, settings(root.path()));
    let answers = |server: &str| {
        &pass
            .dns
            .iter()
            .find(|p| p.resolver == ip(server))
            .unwrap()
            .answers
    };
    assert_eq!(answers("192.0.2.1"), &[DnsAnswer::PortUnreachable; 3]);
    assert!(
        answers("192.0.2.99")
            .iter()
            .all(|a| matches!(a, DnsAnswer::Timeout | DnsAnswer::Unreachable))
    );
    assert!(lookups(&pass).all(|p| p.configured && p.name.0 == "." && p.rtt_us.is_empty()));
}

#[test]
fn a_living_resolver_answers_with_times_and_a_liar_is_garbage() {
    let (device, gateway) = device_and_gateway();
    gateway.ip("address add 192.0.2.3/24 dev isp");
    let _resolver = gateway.serve("192.0.2.1:53", yes);
    let _liar = gateway.serve("192.0.2.3:53", |_| b"no such thing".to_vec());
    let root = root("nameserver 192.0.2.1\n");
    let asked = Settings {
        names: vec!["www.example".to_owned()],
        alternates: vec![ip("192.0.2.3")],
        ..settings(root.path())
    };
    let pass = see(&device, asked);
    assert_eq!(pass.dns[0].answers, [DnsAnswer::Rcode(0); 3]);
    assert_eq!(
        (pass.dns[0].rtt_us.len(), pass.dns[0].configured),
        (3, true)
    );
    assert_eq!(
        (pass.dns[1].answers.as_slice(), pass.dns[1].configured),
        ([DnsAnswer::Garbage; 3].as_slice(), false)
    );
}

#[test]
fn a_resolver_beyond_no_route_is_unreachable() {
    let device = Netns::new();
    let asked = device.block_on(|| resolve::ask(ip("198.51.100.53"), ".", Duration::from_secs(2)));
    assert_eq!((asked.answer, asked.rtt), (DnsAnswer::Unreachable, None));
}

#[test]
fn a_silent_gateway_answers_no_echo_and_its_neighbour_entry_fails() {
    let (device, gateway) = device_and_gateway();
    let root = root("");
    let alive = see(&device, settings(root.path()));
    let to = &alive.reach[0];
    assert_eq!(
        (to.target, to.role, to.sent, to.received),
        (ip("192.0.2.1"), ReachRole::Gateway, 3, 3)
    );
    assert!(
        alive
            .neighbours
            .iter()
            .any(|n| n.address == to.target && n.state == NeighbourState::Reachable)
    );
    gateway.ip("address del 192.0.2.1/24 dev isp");
    device.ip("neighbour flush dev wan");
    let pass = see(
        &device,
        Settings {
            pinging: Pinging::default(),
            ..settings(root.path())
        },
    );
    assert_eq!(
        (
            pass.reach[0].sent,
            pass.reach[0].received,
            pass.reach[0].no_route
        ),
        (5, 0, false)
    );
    let entry = pass
        .neighbours
        .iter()
        .find(|n| n.address == ip("192.0.2.1"))
        .unwrap();
    assert_eq!((entry.state, entry.mac), (NeighbourState::Failed, None));
}

#[test]
fn without_a_route_nothing_is_sent_and_it_is_said() {
    let (device, _gateway) = device_and_gateway();
    device.ip("route del default");
    let root = root("");
    let anchored = Settings {
        anchors: vec![ip("198.51.100.1")],
        gateway: Some(ip("192.0.2.1")),
        ..settings(root.path())
    };
    let pass = see(&device, anchored);
    let to = |role| pass.reach.iter().find(|r| r.role == role).unwrap();
    assert_eq!(
        (to(ReachRole::Anchor).sent, to(ReachRole::Anchor).no_route),
        (0, true)
    );
    assert_eq!(
        to(ReachRole::Gateway).received,
        3,
        "the expected gateway is asked while there is no default route"
    );
    assert!(pass.path_mtu.is_empty());
}

#[test]
fn routes_of_every_table_and_kind_are_seen_as_they_were_made() {
    let (device, _gateway) = device_and_gateway();
    device.ip("-6 address add 2001:db8::2/64 dev wan nodad");
    device.ip("route add 198.51.100.0/24 via 192.0.2.1 table 100 metric 42 proto static");
    device.ip("route add blackhole 203.0.113.0/24");
    device.ip("route add 10.0.0.0/8 nexthop via 192.0.2.1 nexthop via 192.0.2.7 onlink dev wan");
    device.ip("-6 route add default via 2001:db8::1 dev wan metric 5 proto ra");
    device.ip("rule add from 192.0.2.2 lookup 100 priority 1000");
    let root = root("");
    let before = see(&device, settings(root.path()));
    let pass = see(&device, settings(root.path()));
    let wan_of = |pass: &Pass| pass.links.iter().find(|l| l.name == "wan").unwrap().clone();
    let (earlier, wan) = (wan_of(&before), wan_of(&pass));
    assert_eq!(
        (wan.driver_kind.as_deref(), wan.carrier, wan.mtu),
        (Some("veth"), Some(true), 1500)
    );
    assert!(wan.mac.is_some());
    // The first round sent three echo requests.
    assert!(wan.counters.unwrap().tx_packets >= earlier.counters.unwrap().tx_packets + 3);
    let find = |destination: &str| -> Vec<&Route> {
        pass.routes
            .iter()
            .filter(|r| r.destination.to_string() == destination)
            .collect()
    };
    let [policy] = find("198.51.100.0/24")[..] else {
        panic!("{:?}", pass.routes)
    };
    assert_eq!(
        (policy.table, policy.metric, policy.protocol.as_str()),
        (100, Some(42), "static")
    );
    assert_eq!(find("203.0.113.0/24")[0].kind, "blackhole");
    let [multipath] = find("10.0.0.0/8")[..] else {
        panic!("{:?}", pass.routes)
    };
    let hops: Vec<_> = multipath
        .next_hops
        .iter()
        .map(|hop| (hop.gateway, hop.link, hop.weight, hop.dead))
        .collect();
    assert_eq!(
        hops,
        [
            (Some(ip("192.0.2.1")), wan.index, 1, false),
            (Some(ip("192.0.2.7")), wan.index, 1, false)
        ]
    );
    assert_eq!(
        (multipath.gateway, multipath.link),
        (Some(ip("192.0.2.1")), Some(wan.index))
    );
    let [default] = find("0.0.0.0/0")[..] else {
        panic!("{:?}", pass.routes)
    };
    assert_eq!(
        (default.gateway, default.table, default.protocol.as_str()),
        (Some(ip("192.0.2.1")), 254, "boot")
    );
    assert_eq!(
        (find("::/0")[0].metric, find("::/0")[0].protocol.as_str()),
        (Some(5), "ra")
    );
    assert_eq!(find("192.0.2.0/24")[0].source, Some(ip("192.0.2.2")));
}

#[test]
fn what_needs_a_permission_that_is_missing_is_a_gap_by_name() {
    let (device, _gateway) = device_and_gateway();
    let root = root("nameserver 192.0.2.1\n");
    let asked = settings(root.path());
    let pass = device.block_on(move || {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        one_round(asked)
    });
    assert!(
        pass.gap("reach").unwrap().contains("ping_group_range"),
        "{:?}",
        pass.gaps()
    );
    assert!(
        pass.gap("path_mtu").unwrap().contains("ping_group_range"),
        "{:?}",
        pass.gaps()
    );
    assert!(
        pass.gap("duplicates")
            .unwrap()
            .contains("only the executor may"),
        "{:?}",
        pass.gaps()
    );
    assert_eq!(
        pass.dns[0].answers,
        [DnsAnswer::PortUnreachable; 3],
        "DNS needs no permission"
    );
}

#[test]
fn a_time_server_that_is_ahead_shows_the_offset_and_a_dead_one_none() {
    let (device, gateway) = device_and_gateway();
    let _server = gateway.serve("192.0.2.1:123", |request| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let ahead = u32::try_from((now.as_secs() + 2_208_988_800 + 90) & 0xffff_ffff).unwrap();
        let fraction =
            u32::try_from((u64::from(now.subsec_nanos()) << 32) / 1_000_000_000).unwrap();
        let mut answer = [0; 48];
        answer[0] = 4 << 3 | 4;
        answer[1] = 2;
        answer[24..32].copy_from_slice(&request[40..48]);
        for at in [32, 40] {
            answer[at..at + 4].copy_from_slice(&ahead.to_be_bytes());
            answer[at + 4..at + 8].copy_from_slice(&fraction.to_be_bytes());
        }
        answer.to_vec()
    });
    let root = root("");
    let asked = Settings {
        ntp: vec![ip("192.0.2.1"), ip("192.0.2.9")],
        ..settings(root.path())
    };
    let pass = see(&device, asked);
    let offset = pass.servers[0].offset_ms.unwrap();
    assert!((89_000..=91_000).contains(&offset), "{offset}");
    assert_eq!(
        (pass.servers[0].stratum, pass.servers[1].offset_ms),
        (Some(2), None)
    );
}

#[test]
fn a_round_in_which_everything_is_dead_ends_in_time_and_tells_each_kind() {
    let (device, gateway) = device_and_gateway();
    gateway.ip("address del 192.0.2.1/24 dev isp");
    let root = root("nameserver 192.0.2.53\nnameserver 198.51.100.53\n");
    let asked = Settings {
        anchors: vec![ip("198.51.100.1"), ip("203.0.113.1")],
        names: vec!["a.example".to_owned(), "b.example".to_owned()],
        ntp: vec![ip("198.51.100.123")],
        root: root.path().to_owned(),
        ..Settings::default()
    };
    let began = Instant::now();
    let pass = see(&device, asked);
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    // From the cable upwards, each once.
    let kinds = [
        "profile",
        "links",
        "ethernet",
        "fdb",
        "queues",
        "wireless",
        "addresses",
        "routes",
        "rules",
        "neighbours",
        "neighbour_tables",
        "forwarding",
        "resolvers",
        "dns",
        "reach",
        "path_mtu",
        "connects",
        "traces",
        "duplicates",
        "dhcp",
        "protocols",
        "softnet",
        "time",
        "host",
        "cpu",
        "pressure",
        "log",
        "configuration",
        "history",
        "round",
    ];
    // Not every kernel tracks connections.
    let told = pass.kinds.iter().filter(|kind| **kind != "conntrack");
    let told: Vec<_> = told.copied().collect();
    assert_eq!(told, kinds, "{:?}", pass.gaps());
    assert!(pass.reach.iter().all(|r| r.received == 0));
    assert!(lookups(&pass).all(|p| p.answers.len() == 5 && p.rtt_us.is_empty()));
    assert!(pass.path_mtu.iter().all(|p| p.largest_answered.is_none()));
    assert_eq!(pass.end.unwrap().dropped, 7);
}
