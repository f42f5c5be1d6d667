//! The kernel's tables, from kernels that hold them.

use std::path::Path;
use std::time::{Duration, Instant};

use aizen_agent::collect::{Changed, Collector, watch};
use aizen_protocol::record::{
    Address, Body, Ethernet, Fdb, Gap, Link, LinkDetail, NeighbourTable, Port, PortState, Queue,
    Radio, Route, Rule, Trigger,
};
use aizen_sanitizer::Observation;
use tokio::sync::mpsc;

use crate::netns::{Netns, device_and_gateway, root};
use crate::{ip, settings};

/// The tables of one pass.
#[derive(Debug, Default)]
struct Tables {
    links: Vec<Link>,
    ethernet: Vec<Ethernet>,
    fdb: Fdb,
    queues: Vec<Queue>,
    radio: Radio,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    neighbour_tables: Vec<NeighbourTable>,
    gaps: Vec<Gap>,
    kinds: Vec<&'static str>,
}

impl Tables {
    fn of(observations: &[Observation]) -> Self {
        let mut tables = Self::default();
        for observation in observations {
            let body = &observation.local().body;
            tables.kinds.push(body.collector());
            match body.clone() {
                Body::Links(seen) => tables.links = seen,
                Body::Ethernet(seen) => tables.ethernet = seen,
                Body::Fdb(seen) => tables.fdb = seen,
                Body::Queues(seen) => tables.queues = seen,
                Body::Wireless(seen) => tables.radio = seen,
                Body::Addresses(seen) => tables.addresses = seen,
                Body::Routes(seen) => tables.routes = seen,
                Body::Rules(seen) => tables.rules = seen,
                Body::NeighbourTables(seen) => tables.neighbour_tables = seen,
                Body::Round(seen) => tables.gaps = seen.gaps,
                _ => {}
            }
        }
        tables
    }

    fn link(&self, name: &str) -> &Link {
        self.links.iter().find(|link| link.name == name).unwrap()
    }

    fn route(&self, destination: &str) -> &Route {
        let wanted = |route: &&Route| route.destination.to_string() == destination;
        self.routes.iter().find(wanted).unwrap()
    }
}

/// A quick look into a namespace.
fn glance(device: &Netns) -> Tables {
    glances(device, 1, |_| {}).remove(0)
}

/// Looks of one collector; `between` runs before the second and every later one.
fn glances(device: &Netns, times: usize, between: impl Fn(usize)) -> Vec<Tables> {
    let (ask, asked) = std::sync::mpsc::sync_channel::<()>(0);
    let (tell, told) = std::sync::mpsc::sync_channel(0);
    let root = root("");
    let settings = settings(root.path());
    let looker = device.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut collector = Collector::new(settings);
        while asked.recv().is_ok() {
            let seen = runtime.block_on(collector.glance(Trigger::Event, 0));
            tell.send(Tables::of(&seen)).unwrap();
        }
    });
    let look = |n| {
        if n > 0 {
            between(n);
        }
        ask.send(()).unwrap();
        told.recv().unwrap()
    };
    let seen = (0..times).map(look).collect();
    drop(ask);
    looker.join().unwrap();
    seen
}

/// A bridge `br0` with two ports, each the end of a pair.
fn bridged() -> Netns {
    let device = Netns::new();
    device.ip("link add br0 type bridge");
    device.ip("link set br0 up");
    for port in ["p1", "p2"] {
        device.ip(&format!("link add {port} type veth peer name {port}x"));
        device.ip(&format!("link set {port} master br0 up"));
        device.ip(&format!("link set {port}x up"));
    }
    device
}

#[test]
fn a_bridge_tells_its_spanning_tree_and_each_port_its_state() {
    let device = bridged();
    device.ip("link set br0 type bridge priority 4096 stp_state 1");
    device.ip("link set p2 down");
    let seen = glance(&device);
    let bridge = seen.link("br0");
    let Some(LinkDetail::Bridge {
        stp,
        priority,
        root,
        root_priority,
        root_port,
        ..
    }) = bridge.detail
    else {
        panic!("{bridge:?}")
    };
    assert_eq!((stp, priority), (true, 4096));
    // Alone it is its own root.
    assert_eq!((root, root_priority, root_port), (bridge.mac, 4096, 0));
    let state = |name: &str| {
        let link = seen.link(name);
        assert_eq!(link.master, Some(bridge.index));
        match link.port {
            Some(Port::Bridge { state, .. }) => state,
            ref other => panic!("{other:?}"),
        }
    };
    assert_ne!(state("p1"), PortState::Disabled);
    assert_eq!(state("p2"), PortState::Disabled);
}

#[test]
fn a_bridge_that_does_not_look_at_tags_tells_no_vlans_of_its_ports() {
    let device = bridged();
    let seen = glance(&device);
    let expected = Port::Bridge {
        state: PortState::Forwarding,
        pvid: None,
        vlans: Vec::new(),
    };
    assert_eq!(seen.link("p1").port, Some(expected));
}

#[test]
fn links_name_what_they_run_on_and_pairs_do_not() {
    let (device, _gateway) = device_and_gateway();
    device.ip("link add link wan name mv0 type macvlan mode bridge");
    device.ip("link add vx0 type vxlan id 7 local 192.0.2.2 remote 192.0.2.1 dev wan dstport 4789");
    device.ip("link add near type veth peer name far");
    let seen = glance(&device);
    let wan = seen.link("wan");
    assert_eq!(wan.parent, None);
    assert_eq!(seen.link("near").parent, None);
    assert_eq!(seen.link("mv0").parent, Some(wan.index));
    let tunnel = LinkDetail::Tunnel {
        under: Some(wan.index),
        local: Some(ip("192.0.2.2")),
        remote: Some(ip("192.0.2.1")),
    };
    assert_eq!(seen.link("vx0").detail, Some(tunnel));
}

#[test]
fn settings_of_a_link_are_those_of_its_sysctls() {
    let (device, _gateway) = device_and_gateway();
    let set = |setting: &str| device.exec(&["sysctl", "-qw", setting]);
    let before = glance(&device);
    set("net.ipv4.conf.wan.rp_filter=2");
    set("net.ipv4.conf.wan.arp_ignore=1");
    set("net.ipv4.conf.wan.forwarding=1");
    set("net.ipv6.conf.wan.accept_ra=2");
    set("net.ipv6.conf.wan.forwarding=1");
    let seen = glance(&device);
    let ipv4 = seen.link("wan").ipv4.unwrap();
    assert_eq!(
        (ipv4.rp_filter, ipv4.arp_ignore, ipv4.forwarding),
        (2, 1, true)
    );
    let ipv6 = seen.link("wan").ipv6.unwrap();
    assert_eq!(
        (ipv6.accept_ra, ipv6.forwarding, ipv6.disabled),
        (2, true, false)
    );
    assert!(!before.link("wan").ipv6.unwrap().forwarding);
    set("net.ipv6.conf.wan.disable_ipv6=1");
    assert!(glance(&device).link("wan").ipv6.unwrap().disabled);
}

#[test]
fn an_address_that_wanders_between_ports_is_counted_from_the_kernels_notices() {
    let device = bridged();
    let put = |port: &str| {
        let entry = ["bridge", "fdb", "replace", "02:00:00:00:00:99", "dev", port];
        device.exec(&[&entry[..], &["master", "static"]].concat());
    };
    put("p1");
    let seen = glances(&device, 3, |n| {
        if n == 1 {
            for port in ["p2", "p1", "p2"] {
                put(port);
            }
        }
    });
    let [first, second, third] = &seen[..] else {
        panic!("{seen:?}")
    };
    let (p1, p2) = (first.link("p1").index, first.link("p2").index);
    let entry = |tables: &Tables| {
        let mut entries = tables.fdb.entries.iter();
        let entry = entries.find(|e| e.mac.to_string() == "02:00:00:00:00:99");
        entry.map(|e| (e.link, e.own, e.bridge)).unwrap()
    };
    let bridge = Some(first.link("br0").index);
    assert_eq!(entry(first), (p1, false, bridge));
    assert_eq!(entry(second), (p2, false, bridge));
    assert!(first.fdb.moves.is_empty());
    let [moved] = &second.fdb.moves[..] else {
        panic!("{:?}", second.fdb)
    };
    assert_eq!((moved.moves, moved.links.len()), (3, 2));
    assert!(third.fdb.moves.is_empty(), "{:?}", third.fdb);
    let own = first.fdb.entries.iter().filter(|e| e.own).count();
    assert!(own >= 2, "{:?}", first.fdb);
    assert_eq!(first.fdb.total as usize, first.fdb.entries.len());
}

#[test]
fn a_queue_that_drops_tells_how_much() {
    let (device, _gateway) = device_and_gateway();
    device.exec(&[
        "tc", "qdisc", "add", "dev", "wan", "root", "handle", "7:", "tbf", "rate", "8kbit",
        "burst", "1600", "limit", "3000",
    ]);
    let sent = device.enter(|| {
        let socket = std::net::UdpSocket::bind("192.0.2.2:0").unwrap();
        (0..50)
            .filter(|_| socket.send_to(&[0; 1000], "192.0.2.1:9").is_ok())
            .count()
    });
    assert_eq!(sent.join().unwrap(), 50);
    let seen = glance(&device);
    let wan = seen.link("wan").index;
    let [queue] = &seen.queues[..] else {
        panic!("{:?}", seen.queues)
    };
    assert_eq!((queue.link, queue.kind.as_str()), (wan, "tbf"));
    assert_eq!((queue.handle, queue.parent), (0x0007_0000, u32::MAX));
    assert!(queue.drops > 0 && queue.overlimits > 0, "{queue:?}");
    assert!(
        queue.backlog_packets > 0 && queue.backlog_bytes > 1000,
        "{queue:?}"
    );
}

/// Weights of a route's next hops, and which of them are dead.
fn ways(tables: &Tables, destination: &str) -> Vec<(u16, bool)> {
    let hops = tables.route(destination).next_hops.iter();
    hops.map(|hop| (hop.weight, hop.dead)).collect()
}

#[test]
fn routes_tell_dead_ways_and_spell_next_hop_objects_out() {
    let (device, gateway) = device_and_gateway();
    device.join("wan2", &gateway, "isp2");
    device.ip("address add 198.51.100.2/24 dev wan2");
    device.ip("route add 10.1.0.0/16 nexthop via 192.0.2.1 weight 3 nexthop via 198.51.100.1");
    device.ip("nexthop add id 10 via 192.0.2.1 dev wan");
    device.ip("nexthop add id 11 via 198.51.100.1 dev wan2");
    device.ip("nexthop add id 20 group 10,4/11");
    device.ip("route add 10.2.0.0/16 nhid 10");
    device.ip("route add 10.3.0.0/16 nhid 20");
    device.exec(&["sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0"]);
    let seen = glance(&device);
    let wan = seen.link("wan").index;
    let single = seen.route("10.2.0.0/16");
    assert_eq!(
        (single.gateway, single.link),
        (Some(ip("192.0.2.1")), Some(wan))
    );
    assert_eq!(ways(&seen, "10.3.0.0/16"), [(4, false), (1, false)]);
    gateway.ip("link set isp2 down");
    let since = Instant::now();
    let seen = loop {
        // The kernel holds carrier changes back for up to 1 s.
        let seen = glance(&device);
        if seen.route("198.51.100.0/24").dead || since.elapsed() > Duration::from_secs(10) {
            break seen;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(ways(&seen, "10.1.0.0/16"), [(3, false), (1, true)]);
    let dead = |destination: &str| seen.route(destination).dead;
    assert!(!dead("10.1.0.0/16") && !dead("0.0.0.0/0") && dead("198.51.100.0/24"));
}

#[test]
fn rules_tell_the_interfaces_and_the_mark_that_they_match() {
    let (device, _gateway) = device_and_gateway();
    device.ip("rule add iif wan fwmark 0x7 lookup 100 priority 1000");
    device.ip("rule add oif lo lookup 101 priority 1001");
    let seen = glance(&device);
    let rule = |priority| seen.rules.iter().find(|r| r.priority == priority).unwrap();
    let first = rule(1000);
    assert_eq!(
        (first.iif.as_deref(), first.oif.as_deref(), first.mark),
        (Some("wan"), None, Some(7))
    );
    assert_eq!(rule(1001).oif.as_deref(), Some("lo"));
}

#[test]
fn lifetimes_and_neighbour_tables_are_told() {
    let (device, _gateway) = device_and_gateway();
    device.ip("-6 address add 2001:db8::2/64 dev wan nodad valid_lft 600 preferred_lft 300");
    device.ip("-6 route add 2001:db8:9::/48 via 2001:db8::1 dev wan expires 900");
    let seen = glance(&device);
    let leased = |address: &str| {
        let mut all = seen.addresses.iter();
        let found = all.find(|a| a.address.address == ip(address)).unwrap();
        (found.valid_s, found.preferred_s)
    };
    let (valid, preferred) = leased("2001:db8::2");
    assert!((590..=600).contains(&valid.unwrap()), "{valid:?}");
    assert!((290..=300).contains(&preferred.unwrap()), "{preferred:?}");
    assert_eq!(leased("192.0.2.2"), (None, None));
    let expires = seen.route("2001:db8:9::/48").expires_s.unwrap();
    assert!((890..=900).contains(&expires), "{expires}");
    let families: Vec<_> = seen.neighbour_tables.iter().map(|t| t.family).collect();
    assert_eq!(families, [4, 6]);
    for table in &seen.neighbour_tables {
        let [first, second, third] = table.thresholds;
        assert!(0 < first && first < second && second < third, "{table:?}");
    }
}

#[test]
fn an_interface_whose_name_is_no_text_is_seen_with_all_others() {
    let (device, _gateway) = device_and_gateway();
    let odd = "ip link add \"$(printf 'w\\377n')\" type veth peer name mate";
    device.exec(&["sh", "-c", odd]);
    let seen = glance(&device);
    assert!(seen.link("w\u{fffd}n").driver_kind.as_deref() == Some("veth"));
    assert_eq!(seen.links.len(), 4, "{:?}", seen.links);
    assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
}

#[test]
fn hundreds_of_virtual_interfaces_are_seen_whole_and_make_no_noise() {
    let device = Netns::new();
    let batch = tempfile::NamedTempFile::new().unwrap();
    let pairs: String = (0..300)
        .map(|n| format!("link add a{n} type veth peer name b{n}\nlink set a{n} up\n"))
        .collect();
    std::fs::write(batch.path(), pairs).unwrap();
    device.ip(&format!("-batch {}", batch.path().display()));
    let seen = glance(&device);
    assert_eq!(seen.links.len(), 601);
    assert!(seen.links.iter().all(|link| link.counters.is_some()));
    assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
    assert!(seen.ethernet.is_empty() && seen.queues.is_empty());
    assert_eq!((seen.fdb, seen.radio), (Fdb::default(), Radio::default()));
}

#[test]
fn a_cable_that_is_pulled_is_seen_at_the_glance_that_its_notice_causes() {
    let (device, gateway) = device_and_gateway();
    let root = root("nameserver 192.0.2.1\n");
    let settings = settings(root.path());
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let looker = device.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (tx, mut events) = mpsc::channel(8);
            let mut collector = Collector::new(settings);
            let round = Tables::of(&collector.round(Trigger::Asked, 0).await);
            assert_eq!(round.link("wan").carrier, Some(true));
            let watching = watch(tx);
            tokio::pin!(watching);
            assert!(futures_util::poll!(watching.as_mut()).is_pending());
            ready.send(()).unwrap();
            let looks = async {
                loop {
                    let event = events.recv().await.unwrap();
                    if !event.changed.contains(&Changed::Links) {
                        continue;
                    }
                    let heard = Instant::now();
                    let seen = Tables::of(&collector.glance(Trigger::Event, 0).await);
                    if seen.link("wan").carrier == Some(false) {
                        return (round.kinds, seen, heard.elapsed());
                    }
                }
            };
            tokio::select! {
                ended = &mut watching => panic!("{ended:?}"),
                seen = looks => seen,
            }
        })
    });
    is_ready.recv().unwrap();
    gateway.ip("link set isp down");
    let (kinds, seen, took) = looker.join().unwrap();
    assert_eq!(seen.kinds, kinds, "a glance is as complete as a round");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn the_tables_need_no_permission() {
    let device = bridged();
    let root = root("");
    let settings = settings(Path::new(root.path()));
    let seen = device.block_on(move || async move {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        Tables::of(&Collector::new(settings).glance(Trigger::Event, 0).await)
    });
    assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
    assert_eq!(seen.neighbour_tables.len(), 2);
    assert!(!seen.fdb.entries.is_empty());
}
