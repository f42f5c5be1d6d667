//! What `aizen diagnose` says about real networks that are broken in one way each.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't lay out its network must fail"
)]

#[path = "../collect/netns.rs"]
mod netns;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aizen_agent::cli::diagnose::{self, DiagnoseArgs};
use aizen_agent::collect::{Door, Settings};
use aizen_protocol::finding::{Health, Verdict};
use aizen_protocol::record::Role;

use netns::{Netns, Served, device_and_gateway, root};

/// device - gateway (and resolver) - anchor.
struct Lab {
    device: Netns,
    gateway: Netns,
    anchor: Netns,
    _resolvers: [Served; 2],
}

impl Lab {
    fn lay_out() -> Self {
        let (device, gateway) = device_and_gateway();
        let anchor = Netns::new();
        gateway.join("far", &anchor, "near");
        gateway.ip("address add 198.51.100.2/24 dev far");
        anchor.ip("address add 198.51.100.1/24 dev near");
        anchor.ip("route add default via 198.51.100.2");
        for router in [&device, &gateway] {
            router.exec(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        }
        let _resolvers = [
            gateway.serve("192.0.2.1:53", answer),
            anchor.serve("198.51.100.1:53", answer),
        ];
        Self {
            device,
            gateway,
            anchor,
            _resolvers,
        }
    }

    fn diagnose(&self, settings: Settings) -> (Verdict, ExitCode) {
        self.device.block_on(|| async {
            let began = Instant::now();
            let mut out = Vec::new();
            let code = diagnose::run(
                DiagnoseArgs::default(),
                true,
                settings,
                None,
                || unreachable!("nothing is recorded"),
                &mut out,
            )
            .await
            .unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{:?}",
                began.elapsed()
            );
            (serde_json::from_slice(&out).unwrap(), code)
        })
    }

    /// The only fault that is found.
    fn cause(&self, settings: Settings) -> String {
        let (verdict, _) = self.diagnose(settings);
        let [finding] = &verdict.findings[..] else {
            panic!("{verdict:#?}")
        };
        finding.cause.0.clone()
    }
}

/// A small resolver: it knows the root and `www.example`, and that there is nothing else.
fn answer(question: &[u8]) -> Vec<u8> {
    const A: u8 = 1;
    let mut end = 12;
    let mut labels = Vec::new();
    while question[end] != 0 {
        let length = usize::from(question[end]);
        labels.push(&question[end + 1..=end + length]);
        end += 1 + length;
    }
    let kind = question[end + 2];
    // Header and question, without what EDNS adds behind them.
    let mut answer = question[..end + 5].to_vec();
    answer[2] |= 0x80;
    (answer[10], answer[11]) = (0, 0);
    let known = labels.is_empty() || labels == [&b"www"[..], b"example"];
    if !known {
        answer[3] |= 3;
    } else if kind == A || labels.is_empty() {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 1]);
    }
    answer
}

fn settings(root: &Path) -> Settings {
    let anchor: IpAddr = "198.51.100.1".parse().unwrap();
    Settings {
        role: Role::Router,
        wan: vec!["wan".to_owned()],
        expected_up: vec!["wan".to_owned()],
        gateway: Some("192.0.2.1".parse().unwrap()),
        anchors: vec![anchor],
        alternates: vec![anchor],
        names: vec!["www.example".to_owned()],
        root: root.to_owned(),
        ..Settings::default()
    }
}

#[test]
fn a_healthy_network_is_healthy_and_exits_with_0() {
    let lab = Lab::lay_out();
    let root = root("nameserver 192.0.2.1\n");
    let (verdict, code) = lab.diagnose(settings(root.path()));
    assert_eq!(
        (verdict.health, verdict.findings.len()),
        (Health::Healthy, 0),
        "{verdict:#?}"
    );
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

#[test]
fn a_device_without_any_configuration_gets_a_verdict_too() {
    let lab = Lab::lay_out();
    let root = root("nameserver 192.0.2.1\n");
    let (verdict, _) = lab.diagnose(Settings {
        root: root.path().to_owned(),
        ..Settings::default()
    });
    assert_eq!(verdict.health, Health::Healthy, "{verdict:#?}");
}

#[test]
fn a_dead_resolver_is_named_and_exits_with_2() {
    let lab = Lab::lay_out();
    let root = root("nameserver 192.0.2.99\n");
    let (verdict, code) = lab.diagnose(settings(root.path()));
    let [finding] = &verdict.findings[..] else {
        panic!("{verdict:#?}")
    };
    assert_eq!(
        (finding.cause.0.as_str(), finding.component.0.as_str()),
        ("resolver_dead", "192.0.2.99")
    );
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
}

#[test]
fn a_lost_default_route_is_named() {
    let lab = Lab::lay_out();
    lab.device.ip("route del default");
    let root = root("nameserver 192.0.2.1\n");
    assert_eq!(lab.cause(settings(root.path())), "no_default_route");
}

#[test]
fn a_dead_gateway_is_named() {
    let lab = Lab::lay_out();
    lab.gateway.ip("link set isp arp off");
    lab.gateway.ip("address flush dev isp");
    lab.device.ip("neighbour flush dev wan");
    let root = root("nameserver 198.51.100.1\n");
    assert_eq!(lab.cause(settings(root.path())), "gateway_dead");
}

#[test]
fn a_black_hole_is_named() {
    let lab = Lab::lay_out();
    lab.gateway.ip("link set far mtu 1400");
    lab.gateway.exec(&[
        "nft",
        "add table inet hole; add chain inet hole out { type filter hook output priority 0; }; \
         add rule inet hole out icmp type destination-unreachable drop",
    ]);
    lab.anchor.ip("link set near mtu 1400");
    let root = root("nameserver 192.0.2.1\n");
    assert_eq!(lab.cause(settings(root.path())), "mtu_black_hole");
}

#[test]
fn a_second_owner_of_our_address_is_named() {
    let lab = Lab::lay_out();
    lab.gateway.ip("address add 192.0.2.2/32 dev isp");
    let root = root("nameserver 198.51.100.1\n");
    // The gateway answers for the device itself and forwards nothing back: what is found first is the duplicate.
    let (verdict, _) = lab.diagnose(Settings {
        door: Door::Direct,
        ..settings(root.path())
    });
    assert!(
        verdict
            .findings
            .iter()
            .any(|f| f.cause.0 == "duplicate_address"),
        "{verdict:#?}"
    );
}

#[test]
fn a_link_without_carrier_is_named() {
    let lab = Lab::lay_out();
    lab.gateway.ip("link set isp down");
    let root = root("nameserver 192.0.2.1\n");
    assert_eq!(lab.cause(settings(root.path())), "link_down");
}

#[test]
fn forwarding_that_is_off_is_named_on_a_router() {
    let lab = Lab::lay_out();
    lab.device.exec(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    let root = root("nameserver 192.0.2.1\n");
    assert_eq!(lab.cause(settings(root.path())), "forwarding_off");
}
