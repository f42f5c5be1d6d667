//! The read-only door against real kernels and real servers, each test in network namespaces of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't lay out its network must fail"
)]

#[path = "../collect/netns.rs"]
#[expect(dead_code, reason = "the collectors' tests use all of it")]
mod netns;
mod peer;

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aizen_agent::collect::{Collector, Door, Settings};
use aizen_agent::door;
use aizen_protocol::control::{ExecutorAnswer, Question};
use aizen_protocol::record::{
    Body, DhcpProbe, FilterChain, Gap, Lldp, LogLine, LogOrigin, PppoeProbe, RouterProbe, Trigger,
};
use netns::{Netns, device_and_gateway};
use peer::{Running, lldp_speaker, switch};

/// Answers from inside; a sentence is a failure.
fn ask(device: &Netns, question: Question) -> (Body, Vec<String>) {
    match answer(device, question) {
        ExecutorAnswer::Seen { body, gaps } => (*body, gaps),
        other => panic!("{other:?}"),
    }
}

fn answer(device: &Netns, question: Question) -> ExecutorAnswer {
    device.block_on(move || async move { door::answer(&question).await })
}

/// Asks until the answer is what a server gives that has begun to work.
fn until<T>(mut ask: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let since = Instant::now();
    loop {
        let told = ask();
        if wanted(&told) || since.elapsed() > Duration::from_secs(40) {
            return told;
        }
    }
}

fn filter(device: &Netns) -> (Vec<FilterChain>, Vec<String>) {
    let (Body::Filter(chains), gaps) = ask(device, Question::Filter) else {
        panic!("the packet filter")
    };
    (chains, gaps)
}

const RULES: &str = r#"
table inet fw {
    set bad { type ipv4_addr; elements = { 203.0.113.9 } }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname "lo" accept
        iifname "wan*" ip saddr 192.0.2.0/24 icmp type echo-request counter accept
        ip saddr @bad drop
        ip saddr 10.1.16.0/20 tcp dport { 22, 80 } accept
        tcp dport 443 tcp flags & (syn|ack) == syn limit rate 5/second log prefix "web " accept comment "the page"
        udp dport 5000-5010 jump ports
        meta l4proto udp counter reject
        ip saddr . tcp dport vmap { 192.0.2.9 . 22 : accept }
    }
    chain ports {
        ip6 daddr 2001:db8::/32 return
        udp dport 5001 drop
    }
}
table ip nat {
    chain out {
        type nat hook postrouting priority 100;
        oifname "wan" masquerade
        ip daddr 198.51.100.7 snat to 192.0.2.77
    }
    chain pre {
        type nat hook prerouting priority -100;
        tcp dport 8080 dnat to 10.0.0.5:80
    }
}
table ip asleep {
    flags dormant
    chain x {
        type filter hook input priority 0
        drop
    }
}
"#;

fn load(device: &Netns, rules: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.nft");
    fs::write(&file, rules).unwrap();
    device.exec(&["nft", "-f", file.to_str().unwrap()]);
}

#[test]
fn a_ruleset_made_with_nft_is_told_in_words_near_to_its_own() {
    let (device, _gateway) = device_and_gateway();
    load(&device, RULES);
    let (chains, gaps) = filter(&device);
    let chain = |name: &str| chains.iter().find(|c| c.chain == name).unwrap();
    let texts = |name: &str| -> Vec<&str> {
        chain(name)
            .rules
            .iter()
            .map(|rule| rule.text.0.as_str())
            .collect()
    };
    assert_eq!(
        texts("input"),
        [
            "ct state established,related accept",
            "iifname \"lo\" accept",
            "iifname \"wan*\" meta nfproto ipv4 ip saddr 192.0.2.0/24 meta l4proto icmp icmp type 8 counter accept",
            "meta nfproto ipv4 ip saddr @bad drop",
            "meta nfproto ipv4 ip saddr 10.1.16.0/20 meta l4proto tcp tcp dport {…} accept",
            "meta l4proto tcp tcp dport 443 tcp flags & syn,ack == syn limit rate 5/second log prefix \"web \" accept \
             comment \"the page\"",
            "meta l4proto udp udp dport >= 5000 udp dport <= 5010 jump ports",
            "meta l4proto udp counter reject",
            "meta nfproto ipv4 meta l4proto tcp ip saddr . tcp dport vmap {…}",
        ]
    );
    assert_eq!(
        texts("ports"),
        [
            "meta nfproto ipv6 ip6 daddr 2001:db8::/32 return",
            "meta l4proto udp udp dport 5001 drop",
        ]
    );
    assert_eq!(
        texts("out"),
        [
            "oifname \"wan\" masquerade",
            "ip daddr 198.51.100.7 snat to 192.0.2.77"
        ]
    );
    assert_eq!(
        texts("pre"),
        ["meta l4proto tcp tcp dport 8080 dnat to 10.0.0.5:80"]
    );
    let input = chain("input");
    assert_eq!(
        (input.family.as_str(), input.table.as_str()),
        ("inet", "fw")
    );
    assert_eq!(
        (input.hook.as_deref(), input.policy.as_deref()),
        (Some("input"), Some("drop"))
    );
    assert_eq!(chain("ports").hook, None);
    let verdicts: Vec<_> = input
        .rules
        .iter()
        .map(|rule| rule.verdict.as_deref())
        .collect();
    assert_eq!(verdicts[6..], [Some("jump ports"), Some("reject"), None]);
    assert!(
        input
            .rules
            .windows(2)
            .all(|pair| pair[0].handle < pair[1].handle)
    );
    assert_eq!(
        gaps,
        ["the ip table asleep is dormant: none of its rules works"]
    );
}

#[test]
fn a_counter_grows_with_the_packets_that_its_rule_meets() {
    let (device, gateway) = device_and_gateway();
    load(&device, RULES);
    let counted = || {
        let (chains, _) = filter(&device);
        let input = chains.iter().find(|c| c.chain == "input").unwrap();
        (
            input.rules[2].packets.unwrap(),
            input.rules[2].bytes.unwrap(),
            input.rules[3].packets,
        )
    };
    assert_eq!(counted(), (0, 0, None));
    gateway.exec(&[
        "ping",
        "-q",
        "-c",
        "3",
        "-i",
        "0.2",
        "-s",
        "56",
        "192.0.2.2",
    ]);
    let (packets, bytes, _) = counted();
    // Echo requests of one flow are established from the second on.
    assert_eq!((packets, bytes), (1, 84));
}

#[test]
fn a_large_ruleset_is_cut_and_the_rest_counted() {
    let (device, _gateway) = device_and_gateway();
    let many: String = (0..300)
        .map(|n| format!("tcp dport {} drop\n", n + 1000))
        .collect();
    load(
        &device,
        &format!("table ip big {{\n chain c {{\n {many} }}\n }}\n"),
    );
    let (chains, gaps) = filter(&device);
    assert_eq!(chains[0].rules.len(), 256);
    assert_eq!(gaps, ["44 more rules of the packet filter were left out"]);
}

#[test]
fn a_process_without_capabilities_is_told_which_one_it_lacks() {
    let (device, _gateway) = device_and_gateway();
    for (question, capability) in [
        (Question::Filter, "CAP_NET_ADMIN"),
        (
            Question::Lldp {
                dev: "wan".to_owned(),
                wait_s: 1,
            },
            "CAP_NET_RAW",
        ),
    ] {
        let answer = device.block_on(move || {
            caps::clear(None, caps::CapSet::Effective).unwrap();
            async move { door::answer(&question).await }
        });
        let ExecutorAnswer::Failed { message } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(message, format!("it needs {capability}"));
    }
}

fn dhcp(device: &Netns) -> DhcpProbe {
    let (Body::DhcpProbes(mut probes), _) = ask(
        device,
        Question::DhcpProbe {
            dev: "wan".to_owned(),
        },
    ) else {
        panic!("DHCP")
    };
    probes.pop().unwrap()
}

#[test]
fn the_offers_of_two_servers_on_one_link_are_told_and_nothing_is_leased() {
    let (device, servers) = switch(2);
    let folder = tempfile::tempdir().unwrap();
    let leases: Vec<_> = (0..2)
        .map(|n| folder.path().join(format!("leases{n}")))
        .collect();
    assert_eq!(dhcp(&device).offers, []);
    let serve = |n: usize, router: &str| {
        let address = format!("192.0.2.{}", n + 1);
        servers[n].ip(&format!("address add {address}/24 dev port"));
        Running::dnsmasq(
            &servers[n],
            &[
                &format!("--dhcp-range=192.0.2.{0}0,192.0.2.{0}9,1h", n + 1),
                &format!("--dhcp-option=3,{router}"),
                "--dhcp-option=6,192.0.2.53,192.0.2.54",
                &format!("--dhcp-leasefile={}", leases[n].display()),
                "--dhcp-authoritative",
            ],
        )
    };
    let _first = serve(0, "192.0.2.1");
    let one = until(|| dhcp(&device), |probe| !probe.offers.is_empty());
    let [offer] = &one.offers[..] else {
        panic!("{one:?}")
    };
    assert_eq!(offer.server, IpAddr::from([192, 0, 2, 1]));
    assert_eq!(offer.routers, [IpAddr::from([192, 0, 2, 1])]);
    assert_eq!(offer.resolvers.len(), 2);
    assert!(offer.address.is_some() && offer.server_mac.is_some());
    let _second = serve(1, "192.0.2.254");
    let two = until(|| dhcp(&device), |probe| probe.offers.len() == 2);
    let mut servers: Vec<_> = two.offers.iter().map(|offer| offer.server).collect();
    servers.sort();
    assert_eq!(
        servers,
        [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]
    );
    for file in leases {
        assert_eq!(fs::read_to_string(file).unwrap_or_default(), "");
    }
}

fn routers(device: &Netns) -> RouterProbe {
    let (Body::RouterProbes(mut probes), _) = ask(
        device,
        Question::RouterProbe {
            dev: "wan".to_owned(),
        },
    ) else {
        panic!("routers")
    };
    probes.pop().unwrap()
}

#[test]
fn a_router_that_advertises_itself_is_heard_also_by_a_device_that_would_not_listen() {
    let (device, gateway) = device_and_gateway();
    // On the wire, not accepted: a firewall against ICMPv6.
    load(
        &device,
        "table ip6 f {\n chain i {\n type filter hook input priority 0\n icmpv6 type nd-router-advert drop\n }\n }\n",
    );
    gateway.ip("address add 2001:db8:7::1/64 dev isp nodad");
    let _radvd = Running::radvd(
        &gateway,
        "interface isp { AdvSendAdvert on; AdvManagedFlag on; AdvLinkMTU 1480; AdvDefaultLifetime 1200;
           prefix 2001:db8:7::/64 { AdvOnLink on; AdvAutonomous on; };
           RDNSS 2001:db8:7::53 {}; };",
    );
    let told = until(
        || routers(&device),
        |probe| !probe.advertisements.is_empty(),
    );
    let [router] = &told.advertisements[..] else {
        panic!("{told:?}")
    };
    assert!(router.router.to_string().starts_with("fe80:"));
    assert_eq!(
        (router.lifetime_s, router.mtu, router.managed),
        (1200, Some(1480), true)
    );
    assert_eq!(router.prefixes, ["2001:db8:7::/64".parse().unwrap()]);
    assert_eq!(
        router.resolvers,
        ["2001:db8:7::53".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn a_link_without_a_router_has_none() {
    let (device, _gateway) = device_and_gateway();
    assert_eq!(routers(&device).advertisements, []);
}

fn concentrators(device: &Netns) -> PppoeProbe {
    let (Body::PppoeProbes(mut probes), _) = ask(
        device,
        Question::PppoeProbe {
            dev: "wan".to_owned(),
        },
    ) else {
        panic!("PPPoE")
    };
    probes.pop().unwrap()
}

#[test]
fn an_access_concentrator_answers_by_name() {
    let (device, gateway) = device_and_gateway();
    assert_eq!(concentrators(&device).names, []);
    let _server = Running::pppoe(&gateway, "isp", "bras-7");
    let told = until(|| concentrators(&device), |probe| !probe.names.is_empty());
    assert_eq!(
        told.names.iter().map(|n| n.0.as_str()).collect::<Vec<_>>(),
        ["bras-7"]
    );
    assert_eq!(told.concentrators.len(), 1);
}

#[test]
fn a_neighbour_that_speaks_lldp_is_heard_and_our_own_frames_are_not() {
    let (device, gateway) = device_and_gateway();
    let _neighbour = lldp_speaker(&gateway, "isp", "switch-1");
    let _self = lldp_speaker(&device, "wan", "myself");
    let question = Question::Lldp {
        dev: "wan".to_owned(),
        wait_s: 1,
    };
    let listen = || {
        let (Body::Lldp(neighbours), _) = ask(&device, question.clone()) else {
            panic!("LLDP")
        };
        neighbours
    };
    let told = until(listen, |neighbours: &Vec<Lldp>| !neighbours.is_empty());
    let [neighbour] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(neighbour.system.as_ref().unwrap().0, "switch-1");
    assert_eq!(
        (neighbour.port.0.as_str(), neighbour.pvid),
        ("port-1", Some(20))
    );
}

fn kernel_log(device: &Netns) -> Vec<LogLine> {
    let (Body::Log(lines), _) = ask(device, Question::KernelLog) else {
        panic!("log")
    };
    lines
}

#[test]
fn what_the_kernel_says_is_heard_and_what_a_program_says_in_its_place_is_not() {
    let (device, _gateway) = device_and_gateway();
    let name = format!("az{}", std::process::id());
    let mut kmsg = fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .unwrap();
    kmsg.write_all(format!("<2>{name}: Link is Down, said a program").as_bytes())
        .unwrap();
    device.ip(&format!("link add {name} type bridge"));
    device.ip(&format!("link set wan master {name}"));
    let ours = || -> Vec<LogLine> {
        let lines = kernel_log(&device);
        lines
            .into_iter()
            .filter(|line| line.text.0.contains(&name))
            .collect()
    };
    let told = until(ours, |lines| !lines.is_empty());
    assert!(
        told.iter()
            .all(|line| line.origin == LogOrigin::Kernel && !line.text.0.contains("program"))
    );
    assert!(
        told.iter().any(|line| line.text.0.contains("port 1(wan)")),
        "{told:?}"
    );
    let age = jiff::Timestamp::now().duration_since(told[0].at);
    assert!(age.as_secs().abs() < 120, "{told:?}");
}

fn round(device: &Netns, door: Door) -> (Vec<Body>, Vec<Gap>) {
    let root = netns::root("");
    let settings = Settings {
        root: root.path().to_owned(),
        wan: vec!["wan".to_owned()],
        door,
        ..Settings::default()
    };
    let observations =
        device.block_on(|| async { Collector::new(settings).round(Trigger::Asked, 0).await });
    let mut bodies: Vec<_> = observations
        .iter()
        .map(|o| o.local().body.clone())
        .collect();
    let Some(Body::Round(end)) = bodies.pop() else {
        panic!("no end")
    };
    (bodies, end.gaps)
}

#[test]
fn a_round_of_a_process_that_may_look_holds_what_is_behind_the_door() {
    let (device, gateway) = device_and_gateway();
    load(&device, RULES);
    let _neighbour = lldp_speaker(&gateway, "isp", "switch-1");
    let (bodies, gaps) = round(&device, Door::Direct);
    let kinds: Vec<_> = bodies.iter().map(Body::collector).collect();
    for kind in [
        "filter",
        "log",
        "dhcp_probes",
        "router_probes",
        "lldp",
        "duplicates",
    ] {
        assert_eq!(
            kinds.iter().filter(|k| **k == kind).count(),
            1,
            "{kind}: {kinds:?} {gaps:?}"
        );
    }
    // The provider's link has an address, and there is neither WireGuard nor hardware in this namespace.
    for kind in ["pppoe_probes", "wireguard", "modules"] {
        assert!(!kinds.contains(&kind), "{kind}");
    }
}

#[test]
fn a_round_behind_a_closed_door_says_what_it_could_not_see_and_what_to_do() {
    let (device, _gateway) = device_and_gateway();
    let (bodies, gaps) = round(&device, Door::Closed);
    assert!(
        !bodies
            .iter()
            .any(|body| matches!(body, Body::Filter(_) | Body::DhcpProbes(_) | Body::Lldp(_)))
    );
    for (collector, what) in [
        ("filter", "the packet filter"),
        ("log", "the kernel's messages"),
        ("dhcp_probes", "who offers DHCP"),
        ("lldp", "LLDP neighbours"),
        ("duplicates", "who else answers for our IPv4 addresses"),
    ] {
        let gap = gaps.iter().find(|gap| gap.collector == collector).unwrap();
        let wanted = format!("could not see {what}: only the executor may");
        assert!(gap.reason.0.starts_with(&wanted), "{gap:?}");
    }
}
