//! Changes that would lock people out: each is rehearsed by the real executor on a router with its neighbours, and the
//! effect names what is lost. Their harmless twins are not called so.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;

use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::effect::{Effect, RehearsalResult, Rehearsed};
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::{Operation, Risk};
use nix::sched::{CloneFlags, unshare};

use crate::device::{Device, with_device};
use crate::{lab, prefixes, ubus};

/// What the router has for an orchestrator.
const FOUR: &str = "https://203.0.113.5:8443";
const SIX: &str = "https://[2001:db8:5::5]:8443";
/// A technician on the LAN.
const LOGIN: &str = "10.1.0.50 50000 10.1.0.1 22";
/// Resolvers beyond the default route.
const RESOLVERS: &str = "nameserver 203.0.113.53\nnameserver 203.0.113.54\n";

/// What a router lets in and through, and how it translates.
const FILTERS: &str = r#"
table inet guard
delete table inet guard
table inet guard {
    chain in {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
        iifname "lan" tcp dport { 22, 53 } accept
    }
    chain through {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan" accept
    }
}
table ip other
delete table ip other
table ip other {
    chain out {
        type nat hook postrouting priority srcnat; policy accept;
        oifname { "wan", "lte" } masquerade
    }
}
"#;

/// A namespace for whoever is at the other ends; it lives as long as the file is open.
pub(crate) fn elsewhere() -> File {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    thread.join().unwrap()
}

/// The library's router, with its neighbours somewhere else, a second uplink, filters, and clients that it serves.
fn router(device: &Device, server: &str) -> File {
    lab::router();
    let there = elsewhere();
    let path = format!("/proc/{}/fd/{}", std::process::id(), there.as_raw_fd());
    lab::ip("link add lte address 02:00:00:00:00:05 type veth peer name far2");
    lab::ip("link add spare mtu 1400 address 02:00:00:00:00:06 type veth peer name far3");
    for far in ["far0", "far1", "far2"] {
        lab::ip(&format!("link set {far} netns {path}"));
        let up = Command::new("nsenter")
            .args([&format!("--net={path}"), "ip", "link", "set", far, "up"])
            .status();
        assert!(up.unwrap().success(), "{far}");
    }
    for command in [
        "link set lte up",
        "address add 198.51.100.2/24 dev lte",
        "route add default via 198.51.100.1 dev lte table 210",
        "neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:02 dev wan nud reachable",
        "rule delete priority 1000",
    ] {
        lab::ip(command);
    }
    for (key, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/wan/rp_filter", "0"),
        ("ipv4/conf/lte/rp_filter", "0"),
    ] {
        fs::write(Path::new("/proc/sys/net").join(key), value).unwrap();
    }
    lab::nft("-f -", FILTERS);
    fs::write(device.resolv_conf(), RESOLVERS).unwrap();
    let enrolled = format!(r#"{{"device":"dev-1","epoch":"ep-1","server":"{server}"}}"#);
    fs::write(device.path("state/enrolled.json"), enrolled).unwrap();
    there
}

fn package(device: &Device, grants: &str, script: &str) -> Package {
    let mut package = device.package(&format!("set -eu\n{script}\n"));
    let operations: Vec<Operation> = serde_json::from_str(&format!("[{grants}]")).unwrap();
    package.manifest.operations = operations;
    package
}

/// Asks as a technician who is logged in over the network.
fn rehearse(device: &Device, package: &Package) -> (Effect, Envelope) {
    let request = ExecutorRequest::Rehearse {
        package: device.sign(package),
        bindings: Bindings::new(),
    };
    let output = Command::new("/proc/self/exe")
        .args(["role", "ask"])
        .arg(device.path("executor.sock"))
        .arg(serde_json::to_string(&request).unwrap())
        .env("SSH_CONNECTION", LOGIN)
        .output()
        .unwrap();
    match serde_json::from_slice(&output.stdout).unwrap() {
        ExecutorAnswer::Rehearsed { local, signed } => (local, signed),
        other => panic!("{other:?}"),
    }
}

fn shown(effect: &Effect) -> String {
    let lines = |label: &str, texts: &[aizen_protocol::private::Text]| {
        let lines = texts.iter().map(|text| format!("{label}: {text}\n"));
        lines.collect::<String>()
    };
    lines("LOCK-OUT", &effect.lock_outs)
        + &lines("not rehearsed", &effect.not_rehearsed)
        + &format!("{:?}", effect.script)
}

fn rehearsed(server: &str, grants: &str, script: &str) -> Effect {
    let mut effect = None;
    with_device(async |mut device: Device| {
        let _there = router(&device, server);
        device.start().await;
        effect = Some(rehearse(&device, &package(&device, grants, script)).0);
    });
    effect.unwrap()
}

/// Each word is in a line about something that is lost, and nothing was lost already.
fn lost(server: &str, grants: &str, script: &str, words: &[&str]) {
    let effect = rehearsed(server, grants, script);
    let said = shown(&effect);
    for word in words {
        let found = effect.lock_outs.iter().any(|line| line.0.contains(word));
        assert!(found, "{word:?} is missing in\n{said}");
    }
    assert_eq!(effect.risk, Risk::High, "{said}");
    assert!(!said.contains("before the script either"), "{said}");
    assert!(said.contains("Exited(0)"), "{said}");
}

/// Nothing is lost, and everything could be tried.
fn holds(server: &str, grants: &str, script: &str, words: &[&str]) {
    let effect = rehearsed(server, grants, script);
    let said = shown(&effect);
    assert!(effect.lock_outs.is_empty(), "{said}");
    assert!(!said.contains("before the script either"), "{said}");
    assert!(said.contains("Exited(0)"), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in\n{said}");
    }
}

macro_rules! scenes {
    ($list:ident, $judge:ident: $($name:literal, $server:ident, $grants:literal, $script:literal, [$($word:literal),*];)+) => {
        pub(crate) const $list: &[(&str, fn())] = &[
            $(($name, || $judge($server, $grants, $script, &[$($word),*])),)+
        ];
    };
}

scenes! { LOST, lost:
    "a_deleted_default_route_is_a_lock_out", FOUR,
    r#"{"route":{"delete":{"dst":"default","metric":100}}}"#,
    "change route delete default metric 100",
    ["the orchestrator (203.0.113.5:8443): there is no route any more (before: via 192.0.2.1 dev wan)", "the Internet (IPv4)", "clients on lan (IPv4)", "names:"];

    "a_deleted_default_route_of_ipv6_is_a_lock_out", SIX,
    r#"{"route":{"delete":{"dst":"default6","metric":512}}}"#,
    "change route delete default6 metric 512",
    ["the orchestrator ([2001:db8:5::5]:8443): there is no route", "the Internet (IPv6)", "clients on lan (IPv6)"];

    "a_default_route_onto_a_link_without_a_next_hop_is_a_lock_out", FOUR,
    r#"{"route":{"add":{"dst":"default","dev":"lan","metric":10}}}"#,
    "change route add default dev lan metric 10",
    ["the orchestrator (203.0.113.5:8443): packets leave dev lan now", "the Internet (IPv4)"];

    "the_gateway_asked_for_on_the_wrong_link_is_a_lock_out", FOUR,
    r#"{"address":{"add":{"address":"192.0.2.77/24","dev":"lte"}}},{"route":{"replace":{"dst":"default","via":"192.0.2.1","dev":"lte","metric":100}}}"#,
    "change address add 192.0.2.77/24 dev lte\nchange route replace default via 192.0.2.1 dev lte metric 100",
    ["the orchestrator (203.0.113.5:8443): packets leave via 192.0.2.1 dev lte now, where nobody is known to answer"];

    "a_detour_for_the_orchestrators_network_alone_is_a_lock_out", FOUR,
    r#"{"route":{"add":{"dst":"203.0.113.0/29","dev":"lan"}}}"#,
    "change route add 203.0.113.0/29 dev lan",
    ["the orchestrator (203.0.113.5:8443): packets leave dev lan now"];

    "a_rule_that_sends_everything_to_another_table_is_a_lock_out", FOUR,
    r#"{"route":{"add":{"dst":"default","dev":"lan","table":77}}},{"rule":{"add":{"priority":10,"table":77}}}"#,
    "change route add default dev lan table 77\nchange rule add priority 10 lookup 77",
    ["the orchestrator (203.0.113.5:8443): packets leave dev lan now"];

    "removing_the_devices_own_addresses_is_a_lock_out", FOUR,
    r#"{"address":{"delete":{"address":"192.0.2.3/24","dev":"wan"}}},{"address":{"delete":{"address":"192.0.2.2/24","dev":"wan"}}}"#,
    "change address delete 192.0.2.3/24 dev wan\nchange address delete 192.0.2.2/24 dev wan",
    ["the orchestrator (203.0.113.5:8443): there is no route", "names:"];

    "another_network_on_the_uplink_without_its_gateway_is_a_lock_out", FOUR,
    r#"{"address":{"add":{"address":"198.18.0.2/24","dev":"wan"}}},{"address":{"delete":{"address":"192.0.2.3/24","dev":"wan"}}},{"address":{"delete":{"address":"192.0.2.2/24","dev":"wan"}}}"#,
    "change address add 198.18.0.2/24 dev wan\nchange address delete 192.0.2.3/24 dev wan\nchange address delete 192.0.2.2/24 dev wan",
    ["the orchestrator (203.0.113.5:8443): there is no route"];

    "switching_the_uplink_off_is_a_lock_out", FOUR,
    r#"{"link":{"set":{"dev":"wan","up":false}}}"#,
    "change link set wan down",
    ["the orchestrator (203.0.113.5:8443): wan is down, and there is no other route", "the Internet (IPv6)"];

    "a_bounced_uplink_whose_route_does_not_come_back_is_a_lock_out", FOUR,
    r#"{"link":{"set":{"dev":"wan","up":false}}},{"link":{"set":{"dev":"wan","up":true}}}"#,
    "change link set wan down\nchange link set wan up",
    ["the orchestrator (203.0.113.5:8443): there is no route"];

    "switching_the_technicians_link_off_is_a_lock_out", FOUR,
    r#"{"link":{"set":{"dev":"lan","up":false}}}"#,
    "change link set lan down",
    ["a new login from 10.1.0.50 to port 22", "clients on lan (IPv4)"];

    "removing_the_address_of_the_technicians_login_is_a_lock_out", FOUR,
    r#"{"address":{"delete":{"address":"10.1.0.1/24","dev":"lan"}}}"#,
    "change address delete 10.1.0.1/24 dev lan",
    ["a new login from 10.1.0.50 to port 22", "clients on lan (IPv4)"];

    "an_mtu_of_68_is_a_lock_out", FOUR,
    r#"{"link":{"set":{"dev":"wan","mtu":68}}}"#,
    "change link set wan mtu 68",
    ["the orchestrator (203.0.113.5:8443)", "the Internet (IPv6)"];

    "an_mtu_of_1000_is_a_lock_out_where_the_orchestrator_has_ipv6", SIX,
    r#"{"link":{"set":{"dev":"wan","mtu":1000}}}"#,
    "change link set wan mtu 1000",
    ["the orchestrator ([2001:db8:5::5]:8443)", "the Internet (IPv6)"];

    "a_filter_that_drops_what_the_device_sends_is_a_lock_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"lockdown"}}}"#,
    "change nft replace-table inet lockdown <<'END'\ntable inet lockdown {\n\tchain out {\n\t\ttype filter hook output priority filter; policy drop;\n\t\toifname \"lo\" accept\n\t}\n}\nEND",
    ["the orchestrator (203.0.113.5:8443)", "a new login", "names:"];

    "a_filter_that_drops_what_comes_back_is_a_lock_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"guard"}}}"#,
    "change nft replace-table inet guard <<'END'\ntable inet guard {\n\tchain in {\n\t\ttype filter hook input priority filter; policy drop;\n\t\tiifname \"lan\" accept\n\t\tmeta l4proto { icmp, ipv6-icmp } accept\n\t}\n}\nEND",
    ["the orchestrator (203.0.113.5:8443): packets should leave via 192.0.2.1 dev wan as before, but no answer gets in", "names:"];

    "a_filter_without_the_technicians_port_is_a_lock_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"guard"}}}"#,
    "change nft replace-table inet guard <<'END'\ntable inet guard {\n\tchain in {\n\t\ttype filter hook input priority filter; policy drop;\n\t\tct state established,related accept\n\t\tmeta l4proto { icmp, ipv6-icmp } accept\n\t}\n}\nEND",
    ["a new login from 10.1.0.50 to port 22"];

    "a_filter_that_rejects_the_orchestrators_port_is_a_lock_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"lockdown"}}}"#,
    "change nft replace-table inet lockdown <<'END'\ntable inet lockdown {\n\tchain out {\n\t\ttype filter hook output priority filter; policy accept;\n\t\ttcp dport 8443 reject with tcp reset\n\t}\n}\nEND",
    ["the orchestrator (203.0.113.5:8443): a filter of this device answers in its place"];

    "a_filter_that_drops_questions_of_names_is_a_lock_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"lockdown"}}}"#,
    "change nft replace-table inet lockdown <<'END'\ntable inet lockdown {\n\tchain out {\n\t\ttype filter hook output priority filter; policy accept;\n\t\tudp dport 53 drop\n\t}\n}\nEND",
    ["names: no resolver answers any more: 203.0.113.53, 203.0.113.54"];

    "a_filter_that_lets_no_client_through_is_a_lock_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"lockdown"}}}"#,
    "change nft replace-table inet lockdown <<'END'\ntable inet lockdown {\n\tchain through {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\nEND",
    ["clients on lan (IPv4)", "clients on lan (IPv6)"];

    "clients_whose_addresses_are_no_longer_translated_are_locked_out", FOUR,
    r#"{"nft":{"delete_table":{"family":"ip","name":"other"}}}"#,
    "change nft delete-table ip other",
    ["clients on lan (IPv4): their packets leave with their own addresses"];

    "a_router_that_forwards_no_more_locks_its_clients_out", FOUR,
    r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"0"}}}"#,
    "change sysctl net.ipv4.ip_forward=0",
    ["clients on lan (IPv4)"];

    "a_wrong_hardware_address_of_the_gateway_is_a_lock_out", FOUR,
    r#"{"neighbour":{"replace":{"address":"192.0.2.1","lladdr":"02:00:00:00:00:99","dev":"wan"}}}"#,
    "change neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:99 dev wan",
    ["the orchestrator (203.0.113.5:8443): packets should leave via 192.0.2.1 dev wan as before, but no answer gets in"];

    "a_strict_reverse_path_on_a_link_that_marks_alone_lead_to_is_a_lock_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"steer"}}},{"rule":{"add":{"priority":50,"fwmark":7,"table":210}}},{"sysctl":{"set":{"key":"net.ipv4.conf.lte.rp_filter","value":"1"}}}"#,
    "change nft replace-table inet steer <<'END'\ntable inet steer {\n\tchain out {\n\t\ttype route hook output priority mangle; policy accept;\n\t\ttcp dport 8443 meta mark set 7\n\t}\n}\nEND\nchange rule add priority 50 fwmark 7 lookup 210\nchange sysctl net.ipv4.conf.lte.rp_filter=1",
    ["the orchestrator (203.0.113.5:8443)"];

    "ipv6_switched_off_is_a_lock_out_where_the_orchestrator_has_ipv6", SIX,
    r#"{"sysctl":{"set":{"key":"net.ipv6.conf.wan.disable_ipv6","value":"1"}}}"#,
    "change sysctl net.ipv6.conf.wan.disable_ipv6=1",
    ["the orchestrator ([2001:db8:5::5]:8443): there is no route", "the Internet (IPv6)"];

    "a_resolver_at_which_nobody_listens_is_a_lock_out", FOUR,
    r#"{"file":{"write":"/etc/resolv.conf"}}"#,
    "echo 'nameserver 127.0.0.1' | change file write /etc/resolv.conf",
    ["names: no resolver answers any more: 127.0.0.1 (before: 203.0.113.53, 203.0.113.54)"];

    "a_resolver_without_a_route_is_a_lock_out", FOUR,
    r#"{"file":{"write":"/etc/resolv.conf"}}"#,
    "echo 'nameserver 10.66.0.1' | change file write /etc/resolv.conf",
    ["names: no resolver answers any more: 10.66.0.1"];

    "an_empty_list_of_resolvers_is_a_lock_out", FOUR,
    r#"{"file":{"write":"/etc/resolv.conf"}}"#,
    "echo 'search lan' | change file write /etc/resolv.conf",
    ["names: no resolver answers any more"];

    "a_deleted_list_of_resolvers_is_a_lock_out", FOUR,
    r#"{"file":{"delete":"/etc/resolv.conf"}}"#,
    "change file delete /etc/resolv.conf",
    ["names: no resolver answers any more"];
}

scenes! { HELD, holds:
    "another_metric_of_the_same_default_route_locks_nobody_out", FOUR,
    r#"{"route":{"add":{"dst":"default","via":"192.0.2.1","dev":"wan","metric":50}}},{"route":{"delete":{"dst":"default","metric":100}}}"#,
    "change route add default via 192.0.2.1 dev wan metric 50\nchange route delete default metric 100",
    [];

    "the_other_uplink_locks_nobody_out", FOUR,
    r#"{"route":{"replace":{"dst":"default","via":"198.51.100.1","dev":"lte","metric":100}}}"#,
    "change route replace default via 198.51.100.1 dev lte metric 100",
    [];

    "an_uplink_that_is_bounced_and_routed_again_locks_nobody_out", FOUR,
    r#"{"link":{"set":{"dev":"wan","up":false}}},{"link":{"set":{"dev":"wan","up":true}}},{"route":{"add":{"dst":"default","via":"192.0.2.1","dev":"wan","metric":100}}},{"address":{"add":{"address":"2001:db8:1::2/64","dev":"wan"}}},{"route":{"add":{"dst":"default6","via":"2001:db8:1::1","dev":"wan","metric":512}}}"#,
    "change link set wan down\nchange link set wan up\nchange route add default via 192.0.2.1 dev wan metric 100\nchange address add 2001:db8:1::2/64 dev wan\nchange route add default6 via 2001:db8:1::1 dev wan metric 512",
    [];

    "one_address_less_of_two_locks_nobody_out", FOUR,
    r#"{"address":{"delete":{"address":"192.0.2.3/24","dev":"wan"}}}"#,
    "change address delete 192.0.2.3/24 dev wan",
    [];

    "the_right_hardware_address_of_the_gateway_locks_nobody_out", FOUR,
    r#"{"neighbour":{"replace":{"address":"192.0.2.1","lladdr":"02:00:00:00:00:02","dev":"wan"}}}"#,
    "change neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:02 dev wan",
    [];

    "marked_packets_over_another_uplink_lock_nobody_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"steer"}}},{"rule":{"add":{"priority":50,"fwmark":7,"table":210}}}"#,
    "change nft replace-table inet steer <<'END'\ntable inet steer {\n\tchain out {\n\t\ttype route hook output priority mangle; policy accept;\n\t\ttcp dport 8443 meta mark set 7\n\t}\n}\nEND\nchange rule add priority 50 fwmark 7 lookup 210",
    [];

    "a_filter_that_keeps_what_people_need_locks_nobody_out", FOUR,
    r#"{"nft":{"replace_table":{"family":"inet","name":"guard"}}}"#,
    "change nft replace-table inet guard <<'END'\ntable inet guard {\n\tchain in {\n\t\ttype filter hook input priority filter; policy drop;\n\t\tct state established,related accept\n\t\tmeta l4proto { icmp, ipv6-icmp } accept\n\t\tiifname \"lan\" tcp dport 22 accept\n\t}\n}\nEND",
    [];

    "a_gateway_that_nobody_has_heard_of_is_told_and_called_no_lock_out", FOUR,
    r#"{"route":{"replace":{"dst":"default","via":"192.0.2.200","dev":"wan","metric":100}}}"#,
    "change route replace default via 192.0.2.200 dev wan metric 100",
    ["not rehearsed: whether 192.0.2.200 is there on wan: this device has not heard of it"];

    "an_mtu_of_1280_locks_nobody_out", SIX,
    r#"{"link":{"set":{"dev":"wan","mtu":1280}}}"#,
    "change link set wan mtu 1280",
    [];

    "one_resolver_that_answers_is_enough", FOUR,
    r#"{"file":{"write":"/etc/resolv.conf"}}"#,
    "printf 'nameserver 127.0.0.1\\nnameserver 192.0.2.53\\n' | change file write /etc/resolv.conf",
    [];
}

/// Scripts of the library that mend or tidy, and take nothing away.
const HARMLESS: [&str; 14] = [
    "advertisements-taken",
    "buffer-raised",
    "default-route-preferred",
    "forwarding-on",
    "forwarding6-on",
    "hosts-and-resolver",
    "link-switched-on",
    "marked-traffic",
    "mtu-lowered",
    "neighbour-corrected",
    "reverse-path-loose",
    "rule-moved",
    "source-routing",
    "uci-dns",
];

pub(crate) const MORE: &[(&str, fn())] = &[
    ("harmless_repairs_of_the_library_lock_nobody_out", harmless),
    (
        "stopping_the_devices_own_resolver_is_a_lock_out_and_changing_it_for_another_is_none",
        own_resolver,
    ),
    (
        "a_policy_may_refuse_what_would_lock_people_out",
        refused_by_policy,
    ),
    (
        "what_an_approver_sees_names_the_lock_out_without_addresses",
        signed,
    ),
];

fn harmless() {
    for name in HARMLESS {
        // Each in a namespace and a root of its own.
        let thread = std::thread::spawn(move || {
            with_device(async |mut device: Device| {
                let services = prefixes::furnish(&device);
                let _there = router_of_the_library(&device);
                device.start().await;
                let package = prefixes::package(&device, name);
                let (effect, _) = rehearse(&device, &package);
                let said = shown(&effect);
                assert!(effect.lock_outs.is_empty(), "{name}\n{said}");
                assert!(said.contains("Exited(0)"), "{name}\n{said}");
                drop(services);
            });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// As [`router`], with the library's rules.
fn router_of_the_library(device: &Device) -> File {
    let there = router(device, FOUR);
    lab::ip("rule add from 10.1.0.0/24 lookup 100 priority 1000");
    there
}

fn own_resolver() {
    with_device(async |mut device: Device| {
        let _there = router(&device, FOUR);
        let services = ubus::start(
            &device.path("root"),
            &[("dnsmasq", true), ("unbound", false)],
        );
        fs::write(device.resolv_conf(), "nameserver 127.0.0.1\n").unwrap();
        let listens = UdpSocket::bind("127.0.0.1:53").unwrap();
        device.start().await;
        let stop = r#"{"service":{"stop":"dnsmasq"}}"#;
        let (effect, _) = rehearse(
            &device,
            &package(&device, stop, "change service stop dnsmasq"),
        );
        let said = shown(&effect);
        assert!(
            said.contains("LOCK-OUT: names: no resolver answers any more: 127.0.0.1"),
            "{said}"
        );
        let swap = format!(r#"{stop},{{"service":{{"start":"unbound"}}}}"#);
        let (effect, _) = rehearse(
            &device,
            &package(
                &device,
                &swap,
                "change service stop dnsmasq\nchange service start unbound",
            ),
        );
        assert!(effect.lock_outs.is_empty(), "{}", shown(&effect));
        drop((services, listens));
    });
}

fn refused_by_policy() {
    with_device(async |mut device: Device| {
        let _there = router(&device, FOUR);
        device.start().await;
        let grant = r#"{"route":{"delete":{"dst":"default","metric":100}}}"#;
        let mut package = package(&device, grant, "change route delete default metric 100");
        rehearse(&device, &package);
        device.policy("allow_changes = true\nmin_isolation = 1\nrefuse_lock_outs = true\n");
        let before = lab::picture();
        package.id = aizen_protocol::id::PackageId::fresh();
        let mut life = device.execute(device.sign(&package), None).await;
        assert_eq!(
            crate::device::refused(&mut life).await,
            aizen_protocol::reason::Reason::PolicyDenied
        );
        assert_eq!(before, lab::picture());
    });
}

fn signed() {
    with_device(async |mut device: Device| {
        let _there = router(&device, FOUR);
        device.start().await;
        let grant = r#"{"route":{"delete":{"dst":"default","metric":100}}}"#;
        let package = package(&device, grant, "change route delete default metric 100");
        let before = lab::picture();
        let (_, signed) = rehearse(&device, &package);
        assert_eq!(before, lab::picture());
        let known = [device.result.public()];
        let opened = signed.open(PayloadType::Effect, known.iter()).unwrap();
        let rehearsed: Rehearsed = serde_json::from_slice(opened.payload()).unwrap();
        let RehearsalResult::Effect(effect) = rehearsed.result else {
            panic!("no effect");
        };
        let said = shown(&effect);
        assert!(said.contains("LOCK-OUT: the orchestrator"), "{said}");
        assert!(!said.contains("203.0.113.5"), "{said}");
        assert_eq!(effect.risk, Risk::High);
        assert!(effect.management_path);
    });
}
