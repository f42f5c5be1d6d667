//! Scripts with capabilities: they use `ip` and `nft` themselves, and what they did beyond their manifest does not stay.

use std::process::Command;

use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::effect::Effect;
use aizen_protocol::id::PackageId;
use aizen_protocol::outcome::{End, Outcome, Stage};
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::{Capability, Class, Operation};
use aizen_protocol::reason::Reason;

use crate::device::{Device, ended, refused, until, wants_on_site, with_device};
use crate::lab;

pub(crate) const ALL: &[(&str, fn())] = &[
    (
        "a_script_with_capabilities_uses_the_tools_that_people_know_and_what_it_declared_stays",
        kept,
    ),
    (
        "routes_and_addresses_beyond_the_manifest_are_a_policy_violation_and_undone",
        || violations(ROUTES),
    ),
    (
        "links_rules_and_neighbours_beyond_the_manifest_are_a_policy_violation_and_undone",
        || violations(LINKS),
    ),
    (
        "tables_beyond_the_manifest_are_a_policy_violation_and_undone",
        || violations(FILTERS),
    ),
    (
        "what_no_operation_can_declare_is_a_policy_violation_and_undone",
        || violations(BEYOND),
    ),
    (
        "a_setting_that_is_not_the_declared_one_is_a_policy_violation",
        inexact,
    ),
    (
        "what_the_kernel_does_by_itself_when_a_declared_thing_is_done_is_no_violation",
        consequences,
    ),
    (
        "a_script_with_capabilities_that_nobody_confirms_is_undone_and_what_others_did_since_stays",
        unconfirmed,
    ),
    (
        "killed_between_two_changes_of_its_own_hands_the_next_start_undoes_both",
        killed,
    ),
    (
        "no_script_holds_a_capability_without_the_policys_word_and_a_user_of_its_own",
        refusals,
    ),
    (
        "a_rehearsal_shows_what_its_own_hands_do_and_what_is_not_declared",
        rehearsed,
    ),
];

const POLICY: &str = "allow_changes = true\nmin_isolation = 1\nrehearsed_only = false\ncapabilities = [\"net_admin\"]\n";
/// What the scripts declare and do.
const DECLARED: &str = r#"[
    {"route":{"replace":{"dst":"10.20.0.0/16","via":"10.1.0.20","dev":"lan"}}},
    {"address":{"add":{"address":"192.0.2.9/24","dev":"wan"}}},
    {"rule":{"add":{"priority":2000,"from":"10.20.0.0/16","table":100}}},
    {"neighbour":{"replace":{"address":"10.1.0.20","lladdr":"02:00:00:00:00:20","dev":"lan"}}},
    {"nft":{"replace_table":{"family":"inet","name":"guest"}}},
    {"link":{"set":{"dev":"lan","mtu":1400}}},
    {"file":{"write":"/etc/resolv.conf"}}
]"#;
const DONE: &str = "set -e
ip route replace 10.20.0.0/16 via 10.1.0.20 dev lan
ip address add 192.0.2.9/24 dev wan
ip rule add priority 2000 from 10.20.0.0/16 lookup 100
ip neighbour replace 10.1.0.20 lladdr 02:00:00:00:00:20 dev lan nud permanent
nft 'table inet guest { chain in { type filter hook input priority 0; iifname \"lan\" accept; }; }'
ip link set lan mtu 1400
echo 'nameserver 192.0.2.54' | change file write /etc/resolv.conf
";

fn direct(device: &Device, script: &str, operations: &str) -> Package {
    let mut package = device.package(script);
    package.manifest.class = Class::Direct;
    package.manifest.capabilities = vec![Capability::NetAdmin];
    package.manifest.operations = serde_json::from_str(operations).unwrap();
    package
}

/// A test on a router whose policy lets scripts hold `net_admin`.
fn on_router(test: impl AsyncFnOnce(&mut Device)) {
    with_device(async |mut device: Device| {
        lab::router();
        device.policy(POLICY);
        device.start().await;
        test(&mut device).await;
    });
}

async fn run(device: &Device, package: &Package) -> Outcome {
    let mut life = device.execute(device.sign(package), None).await;
    ended(&mut life).await.0
}

fn kept() {
    on_router(async |device| {
        let package = direct(device, DONE, DECLARED);
        let mut life = device.execute(device.sign(&package), None).await;
        let change = wants_on_site(&mut life).await;
        let confirm = ExecutorRequest::ConfirmOnSite { change };
        assert_eq!(device.ask_as(0, &confirm), ExecutorAnswer::Done);
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::Confirmed, "{local:?}");
        assert_eq!(local.reason, None);
        let effect = local.effect.unwrap();
        assert_eq!(effect.undeclared, []);
        let objects: Vec<&str> = effect.changes.iter().map(|c| c.object.0.as_str()).collect();
        for object in [
            "/etc/resolv.conf",
            "10.20.0.0/16",
            "192.0.2.9/24 dev wan",
            "10.1.0.20 dev lan",
            "inet guest",
            "lan",
        ] {
            assert!(objects.contains(&object), "{object}: {objects:?}");
        }
        let layer = |name: &str| {
            let mut layers = local.isolation.layers.iter();
            layers
                .find(|layer| layer.name == name)
                .unwrap()
                .detail
                .clone()
        };
        assert!(local.isolation.level < 4);
        assert!(layer("capabilities").contains("exactly net_admin"));
        assert!(layer("network").contains("the host's"));
        assert!(lab::ip("route show 10.20.0.0/16").contains("via 10.1.0.20 dev lan"));
        assert!(lab::ip("link show lan").contains("mtu 1400"));
        assert!(lab::nft("list tables", "").contains("table inet guest"));
        assert!(device.picture().starts_with("nameserver 192.0.2.54"));
    });
}

/// Each with what the report must name.
const ROUTES: &[(&str, &str)] = &[
    (
        "ip route replace default via 192.0.2.77 dev wan metric 100",
        "route default",
    ),
    (
        "ip route del default via 192.0.2.1 dev wan",
        "route default",
    ),
    (
        "ip route add 10.30.0.0/16 via 10.1.0.20 dev lan",
        "route 10.30.0.0/16",
    ),
    (
        "ip route add 203.0.113.0/24 dev wan proto kernel scope link",
        "route 203.0.113.0/24",
    ),
    (
        "ip -6 route flush 2001:db8:99::/48",
        "route 2001:db8:99::/48",
    ),
    (
        "ip route add 10.30.0.0/16 via 10.1.0.20 dev lan table 77",
        "table 77",
    ),
    (
        "ip address del 10.1.0.1/24 dev lan",
        "address 10.1.0.1/24 dev lan",
    ),
    (
        "ip address add 192.0.2.66/24 dev wan",
        "address 192.0.2.66/24 dev wan",
    ),
    (
        "ip -6 address add 2001:db8:1::66/64 dev wan nodad",
        "address 2001:db8:1::66/64 dev wan",
    ),
];
const LINKS: &[(&str, &str)] = &[
    ("ip link set wan down", "link wan"),
    ("ip link set wan mtu 1280", "link wan"),
    ("ip link set wan address 02:00:00:00:00:99", "link wan"),
    (
        "ip link add spy type veth peer name spy0; ip link set spy up",
        "link spy",
    ),
    (
        "ip link set wan down; ip link set wan name outside; ip link set outside up",
        "link outside",
    ),
    (
        "ip link add name bridge0 type bridge; ip link set lan master bridge0",
        "link lan",
    ),
    ("ip rule add priority 3000 from all lookup 100", "rule 3000"),
    ("ip rule del priority 1000 from 10.1.0.0/24", "rule 1000"),
    (
        "ip neighbour replace 192.0.2.1 lladdr 02:00:00:00:00:66 dev wan nud permanent",
        "neighbour 192.0.2.1 dev wan",
    ),
    (
        "ip neighbour del 10.1.0.77 dev lan",
        "neighbour 10.1.0.77 dev lan",
    ),
];
const FILTERS: &[(&str, &str)] = &[
    ("nft add table inet tap", "nft table inet tap"),
    ("nft delete table inet guard", "nft table inet guard"),
    ("nft flush ruleset", "nft table ip other"),
    (
        "nft add rule inet guard in ip saddr 10.66.0.1 accept",
        "nft table inet guard",
    ),
    (
        "nft add element inet guard blocked '{ 10.66.0.1 }'",
        "nft table inet guard",
    ),
];

const BEYOND: &[(&str, &str)] = &[
    (
        "tc qdisc add dev wan root handle 5: tbf rate 1mbit burst 10kb latency 50ms",
        "qdisc dev wan root",
    ),
    ("tc qdisc del dev lan root", "qdisc dev lan root"),
    (
        "tc qdisc replace dev lan root handle 7: pfifo limit 3",
        "qdisc dev lan root",
    ),
    (
        "tc class change dev lan parent 1: classid 1:10 htb rate 1mbit ceil 1mbit",
        "class dev lan classid 1:10",
    ),
    (
        "ip nexthop add id 6 blackhole; ip nexthop add id 7 via 192.0.2.44 dev wan",
        "nexthop id 6",
    ),
    ("ip nexthop del id 1", "nexthop id 1"),
    (
        "ip addrlabel add prefix 2001:db8::/32 label 99",
        "addrlabel prefix 2001:db8::/32",
    ),
    ("ip link set wan txqueuelen 7", "other settings of link wan"),
    ("ip link set wan promisc on", "other settings of link wan"),
    ("ip link set wan alias taken", "other settings of link wan"),
    ("ip link set wan group 9", "other settings of link wan"),
    (
        "bridge fdb add 02:00:00:00:00:51 dev port master static",
        "bridge fdb dev port lladdr 02:00:00:00:00:51",
    ),
    (
        "bridge fdb add 02:00:00:00:00:52 dev port master permanent",
        "bridge fdb dev port lladdr 02:00:00:00:00:52",
    ),
    (
        "bridge fdb del 02:00:00:00:00:50 dev port master",
        "bridge fdb dev port lladdr 02:00:00:00:00:50",
    ),
    (
        "bridge link set dev port isolated on learning off",
        "other settings of link port",
    ),
];

/// What other tools than ours show.
fn everything() -> String {
    let mut all = lab::picture();
    for words in [
        &["tc", "qdisc"][..],
        &["tc", "class", "show", "dev", "lan"],
        &["ip", "nexthop"],
        &["ip", "addrlabel"],
        &["ip", "-d", "link"],
        // Without the groups that network cards let in.
        &["bridge", "fdb", "show", "br", "inside"],
    ] {
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        all += &String::from_utf8(output.stdout).unwrap();
    }
    all
}

fn violations(deeds: &[(&str, &str)]) {
    on_router(async |device| {
        for words in [
            "qdisc add dev lan root handle 1: htb default 10",
            "class add dev lan parent 1: classid 1:10 htb rate 8mbit",
        ] {
            let done = Command::new("tc").args(words.split(' ')).status().unwrap();
            assert!(done.success(), "tc {words}");
        }
        for words in [
            "link add inside type bridge",
            "link add port type veth peer name far2",
            "link set port master inside",
        ] {
            lab::ip(words);
        }
        let words = "fdb add 02:00:00:00:00:50 dev port master static";
        let made = Command::new("bridge").args(words.split(' ')).status();
        assert!(made.unwrap().success(), "bridge {words}");
        lab::ip("nexthop add id 1 via 10.1.0.250 dev lan");
        let before = everything();
        for (deed, named) in deeds {
            eprintln!("{deed}");
            let script =
                format!("set -e\nip route replace 10.20.0.0/16 via 10.1.0.20 dev lan\n{deed}\n");
            let local = run(device, &direct(device, &script, DECLARED)).await;
            assert_eq!(local.end, End::RolledBack, "{deed}: {local:?}");
            assert_eq!(
                local.reason,
                Some(Reason::PolicyViolation),
                "{deed}: {local:?}"
            );
            let undeclared = &local.effect.as_ref().unwrap().undeclared;
            assert!(
                undeclared.iter().any(|text| text.0.contains(named)),
                "{deed}: {undeclared:?}"
            );
            assert!(
                !undeclared
                    .iter()
                    .any(|text| text.0.contains("10.20.0.0/16")),
                "{deed}: {undeclared:?}"
            );
            assert!(local.detail.0.contains(named), "{deed}: {}", local.detail);
            assert_eq!(local.state_before, local.state_after, "{deed}");
            assert_eq!(everything(), before, "{deed}");
        }
    });
}

fn inexact() {
    on_router(async |device| {
        let before = lab::picture();
        for deed in [
            "ip route replace 10.20.0.0/16 via 10.1.0.21 dev lan",
            "ip route replace 10.20.0.0/16 via 10.1.0.20 dev lan onlink mtu 1000",
            "ip route replace unreachable 10.20.0.0/16",
            "ip link set lan mtu 1399",
            "ip neighbour replace 10.1.0.20 lladdr 02:00:00:00:00:21 dev lan nud permanent",
            "ip rule add priority 2000 from 10.21.0.0/16 lookup 100",
            "ip rule add priority 2000 from 10.20.0.0/16 lookup 101",
            "ip address add 192.0.2.9/25 dev wan",
            "ip address add 192.0.2.9/24 dev lan",
        ] {
            let local = run(device, &direct(device, deed, DECLARED)).await;
            assert_eq!(
                local.reason,
                Some(Reason::PolicyViolation),
                "{deed}: {local:?}"
            );
            assert_eq!(local.end, End::RolledBack, "{deed}: {local:?}");
            assert_eq!(lab::picture(), before, "{deed}");
        }
    });
}

fn consequences() {
    on_router(async |device| {
        for (deed, operations) in [
            (
                "ip link set lan down",
                r#"[{"link":{"set":{"dev":"lan","up":false}}}]"#,
            ),
            (
                "ip address del 10.1.0.1/24 dev lan",
                r#"[{"address":{"delete":{"address":"10.1.0.1/24","dev":"lan"}}}]"#,
            ),
            (
                "ip address add 10.77.0.1/24 dev lan; ip -6 address add 2001:db8:77::1/64 dev lan nodad",
                r#"[{"address":{"add":{"address":"10.77.0.1/24","dev":"lan"}}},{"address":{"add":{"address":"2001:db8:77::1/64","dev":"lan"}}}]"#,
            ),
            (
                "ip link set lan down; ip link set lan up",
                r#"[{"link":{"set":{"dev":"lan","up":false}}},{"link":{"set":{"dev":"lan","up":true}}}]"#,
            ),
        ] {
            let before = lab::picture();
            let mut package = direct(device, deed, operations);
            package.id = PackageId::fresh();
            let mut life = device.execute(device.sign(&package), None).await;
            let change = wants_on_site(&mut life).await;
            let undo = ExecutorRequest::RollBack { change };
            assert_eq!(device.ask(undo).await, ExecutorAnswer::Done);
            let (local, _) = ended(&mut life).await;
            assert_eq!(local.end, End::RolledBack, "{deed}: {local:?}");
            assert_eq!(local.reason, None, "{deed}: {local:?}");
            assert_eq!(lab::picture(), before, "{deed}");
        }
    });
}

fn unconfirmed() {
    on_router(async |device| {
        let mut package = direct(device, DONE, DECLARED);
        package.manifest.confirm.within_s = 6;
        let (picture, file) = (lab::picture(), device.picture());
        let mut life = device.execute(device.sign(&package), None).await;
        wants_on_site(&mut life).await;
        lab::ip("route add 10.55.0.0/16 via 10.1.0.55 dev lan");
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert!(local.detail.0.contains("10.55.0.0/16"), "{}", local.detail);
        assert!(lab::ip("route show 10.55.0.0/16").contains("via 10.1.0.55"));
        lab::ip("route del 10.55.0.0/16");
        assert_eq!(lab::picture(), picture);
        assert_eq!(device.picture(), file);
    });
}

fn killed() {
    on_router(async |device| {
        let before = lab::picture();
        let script = "ip link set wan address 02:00:00:00:00:99; ip route flush table 100; nft flush ruleset; ip route add 10.66.6.0/24 via 10.1.0.66; sleep 60";
        let mut life = device
            .execute(device.sign(&direct(device, script, DECLARED)), None)
            .await;
        until(&mut life, |answer| match answer {
            ExecutorAnswer::Reached {
                stage: Stage::Running,
                ..
            } => Some(()),
            _ => None,
        })
        .await;
        crate::device::wait_until("the last change", || {
            !lab::ip("route show 10.66.6.0/24").is_empty()
        })
        .await;
        device.kill();
        device.start().await;
        let outcomes = device.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        assert_eq!(outcomes[0].end, End::RolledBack, "{outcomes:?}");
        assert_eq!(lab::picture(), before);
    });
}

fn refusals() {
    on_router(async |device| {
        let package = direct(device, DONE, DECLARED);
        let refusal = async |package: &Package| {
            let mut life = device.execute(device.sign(package), None).await;
            refused(&mut life).await
        };
        let without = |line: &str| POLICY.replace("capabilities = [\"net_admin\"]", line);
        device.policy(&without(""));
        assert_eq!(refusal(&package).await, Reason::UnsupportedClass);
        device.policy(&without("capabilities = [\"net_raw\"]"));
        assert_eq!(refusal(&package).await, Reason::PolicyDenied);
        device.policy(&format!("{POLICY}protected_links = [\"far9\"]\n"));
        assert_eq!(refusal(&package).await, Reason::PolicyDenied);
        device.policy(POLICY);
        let mut deep = package.clone();
        deep.manifest.min_isolation = 4;
        assert!(matches!(refusal(&deep).await, Reason::IsolationUnreachable));
    });
    with_device(async |mut device: Device| {
        device.policy(POLICY);
        device.without_script_user();
        device.start().await;
        let mut life = device
            .execute(device.sign(&direct(&device, "true", "[]")), None)
            .await;
        assert_eq!(refused(&mut life).await, Reason::IsolationUnreachable);
    });
}

async fn rehearse(device: &Device, package: &Package) -> Effect {
    let request = ExecutorRequest::Rehearse {
        package: device.sign(package),
        bindings: Bindings::new(),
    };
    match device.ask(request).await {
        ExecutorAnswer::Rehearsed { local, .. } => local,
        other => panic!("{other:?}"),
    }
}

fn rehearsed() {
    on_router(async |device| {
        let before = lab::picture();
        let mut package = direct(device, DONE, DECLARED);
        let shown = rehearse(device, &package).await;
        assert_eq!(shown.undeclared, []);
        assert_eq!(lab::picture(), before);
        package.manifest.confirm.within_s = 5;
        let real = run(device, &package).await.effect.unwrap();
        assert_eq!(shown.changes, real.changes);
        assert_eq!(shown.changes_digest(), real.changes_digest());

        let declared: Vec<Operation> = serde_json::from_str(DECLARED).unwrap();
        assert_eq!(package.manifest.operations, declared);
        let sly = direct(
            device,
            "ip link set wan down\nnft flush ruleset\n",
            DECLARED,
        );
        let shown = rehearse(device, &sly).await;
        let undeclared: Vec<&str> = shown.undeclared.iter().map(|t| t.0.as_str()).collect();
        for named in ["link wan", "nft table inet guard", "nft table ip other"] {
            assert!(
                undeclared.iter().any(|u| u.contains(named)),
                "{named}: {undeclared:?}"
            );
        }
        assert_eq!(lab::picture(), before);
    });
}
