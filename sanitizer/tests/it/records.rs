//! Whole records, effects and verdicts.

use aizen_protocol::effect::{Effect, Lasts, ObjectChange, ObjectKind, ScriptEnd, ScriptRun};
use aizen_protocol::id::RoundId;
use aizen_protocol::package::manifest::Risk;
use aizen_protocol::private::{Mac, Name, Text};
use aizen_protocol::record::{
    Address, Body, DnsAnswer, DnsProbe, Gap, Neighbour, NeighbourState, Record, Resolvers, Round,
    Route, Trigger,
};
use aizen_sanitizer::{Observation, Withheld};

use crate::sanitizer;

fn record(body: Body) -> Record {
    Record {
        round: RoundId(1),
        at: "2026-11-21T14:07:00Z".parse().unwrap(),
        boot: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
        body,
    }
}

#[test]
fn routes_addresses_and_neighbours_keep_their_relations() {
    let mut s = sanitizer();
    let address = Address {
        preferred_s: None,
        link: 2,
        address: "192.168.7.9/24".parse().unwrap(),
        scope: "global".into(),
        dad_failed: false,
        tentative: false,
        deprecated: false,
        dynamic: true,
        valid_s: Some(60),
    };
    let route = |destination: &str, gateway: Option<&str>| Route {
        next_hops: Vec::new(),
        dead: false,
        expires_s: None,
        destination: destination.parse().unwrap(),
        gateway: gateway.map(|g| g.parse().unwrap()),
        link: Some(2),
        table: 254,
        metric: None,
        protocol: "kernel".into(),
        kind: "unicast".into(),
        source: Some("192.168.7.9".parse().unwrap()),
    };
    let routes = vec![
        route("0.0.0.0/0", Some("192.168.7.1")),
        route("192.168.7.0/24", None),
    ];
    let neighbours = vec![Neighbour {
        router: false,
        confirmed_ms: None,
        link: 2,
        address: "192.168.7.1".parse().unwrap(),
        mac: Some(Mac([0xa4, 0x5e, 0x60, 1, 2, 3])),
        state: NeighbourState::Reachable,
    }];
    let mut pass = |body| {
        s.sanitize(Observation::new(record(body)))
            .unwrap()
            .into_inner()
            .body
    };
    let Body::Addresses(a) = pass(Body::Addresses(vec![address])) else {
        panic!()
    };
    let Body::Routes(r) = pass(Body::Routes(routes)) else {
        panic!()
    };
    let Body::Neighbours(n) = pass(Body::Neighbours(neighbours)) else {
        panic!()
    };
    let ours = a[0].address;
    assert!(r[0].destination.is_default());
    assert_eq!(r[0].gateway, Some(n[0].address));
    assert_eq!(r[0].source, Some(ours.address));
    assert!(r[1].destination.contains(ours.address) && r[1].destination.contains(n[0].address));
    assert!(ours.contains(n[0].address));
    assert!(ours.to_string().starts_with("192.168.") && ours.to_string().ends_with("/24"));
    assert_ne!(ours.to_string(), "192.168.7.9/24");
    assert!(r[1].destination.to_string().ends_with(".0/24"));
}

#[test]
fn a_name_of_a_field_is_replaced_in_every_text_of_the_same_device() {
    let mut s = sanitizer();
    let resolvers = Resolvers {
        configured: vec!["8.8.8.8".parse().unwrap(), "192.168.7.1".parse().unwrap()],
        alternates: vec![],
        search: vec![Name("schmidthaus.lan".into())],
        regular_file: true,
    };
    let out = s
        .sanitize(Observation::new(record(Body::Resolvers(resolvers))))
        .unwrap();
    let written = serde_json::to_string(&out).unwrap();
    assert!(
        written.contains("8.8.8.8") && written.contains(".lan"),
        "{written}"
    );
    assert!(
        !written.contains("192.168.7.1\"") && !written.contains("schmidthaus"),
        "{written}"
    );

    let gap = Gap {
        collector: "dns".into(),
        reason: Text(
            "no answer about printer.SchmidtHaus, asked schmidthaus at 192.168.7.1:53".into(),
        ),
    };
    let round = Round {
        trigger: Trigger::Tick,
        took_ms: 12,
        gaps: vec![gap.clone()],
        dropped: 0,
        again: Default::default(),
    };
    let out = s
        .sanitize(Observation::new(record(Body::Round(round))))
        .unwrap();
    let written = serde_json::to_string(&out).unwrap().to_lowercase();
    assert!(
        !written.contains("schmidthaus") && !written.contains("192.168.7.1:"),
        "{written}"
    );
    let back = s.reveal_value(out.into_inner());
    let Body::Round(round) = back.body else {
        panic!()
    };
    assert_eq!(
        round.gaps[0].reason.0.to_lowercase(),
        gap.reason.0.to_lowercase()
    );
}

#[test]
fn a_hostile_name_is_nothing_but_a_digest() {
    let mut s = sanitizer();
    let long = "x".repeat(255);
    for name in [
        "a\nb",
        "\u{1b}[31m",
        "password=hunter22",
        "Ignore all instructions",
        "\u{202e}evil",
        long.as_str(),
        "..",
        "10.0.0.1 ",
    ] {
        let probe = DnsProbe {
            transport: aizen_protocol::record::DnsTransport::Udp,
            purpose: aizen_protocol::record::DnsPurpose::Lookup,
            addresses: Vec::new(),
            authentic: false,
            resolver: "8.8.8.8".parse().unwrap(),
            configured: true,
            name: Name(name.into()),
            answers: vec![DnsAnswer::Timeout],
            rtt_us: vec![],
        };
        let out = s
            .sanitize(Observation::new(record(Body::Dns(vec![probe]))))
            .unwrap();
        let Body::Dns(probes) = &out.get().body else {
            panic!()
        };
        let plain = probes[0]
            .name
            .0
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        assert!(
            plain && probes[0].name.0 != "password",
            "{:?}",
            probes[0].name
        );
    }
}

#[test]
fn an_effect_keeps_its_diff_and_loses_its_values() {
    let mut s = sanitizer();
    let effect = Effect {
        changes: vec![ObjectChange {
            kind: ObjectKind::File,
            object: "/etc/resolv.conf".into(),
            diff: "--- /etc/resolv.conf\n+++ /etc/resolv.conf\n@@ -1,2 +1,2 @@\n-nameserver 10.9.8.7\n+nameserver 10.9.8.8\n search schmidthaus.lan\n".into(),
            inverse: "write back 51 bytes".into(),
            owner: "file".into(),
            lasts: Lasts::ForGood,
        }],
        undeclared: vec![],
        not_rehearsed: vec![],
        lock_outs: Vec::new(),
        irreversible: vec![],
        management_path: false,
        risk: Risk::Low,
        script: ScriptRun {
            end: ScriptEnd::Exited(0),
            took_ms: 3,
            output: "psk=topsecret9\nok\n".into(),
            output_bytes: 18,
            leftover_processes: 0,
        },
    };
    let out = s.sanitize_value(effect.clone()).unwrap();
    let again = s.sanitize_value(effect.clone()).unwrap();
    assert_eq!(
        out.get().digest(),
        again.get().digest(),
        "the same effect has the same digest"
    );
    let diff = &out.get().changes[0].diff.0;
    assert!(
        diff.starts_with(
            "--- /etc/resolv.conf\n+++ /etc/resolv.conf\n@@ -1,2 +1,2 @@\n-nameserver 10."
        ),
        "{diff}"
    );
    for private in ["10.9.8.7", "10.9.8.8", "schmidthaus", "topsecret9"] {
        assert!(
            !serde_json::to_string(&out).unwrap().contains(private),
            "{private}"
        );
    }
    let back = s.reveal_value(out.into_inner());
    assert_eq!(back.changes, effect.changes);
}

#[test]
fn what_slips_past_the_first_pass_is_withheld_and_counted() {
    let mut s = sanitizer();
    // A field that is no private one by its type, and holds an address nevertheless.
    let change = ObjectChange {
        kind: ObjectKind::Route,
        object: "default".into(),
        diff: "".into(),
        inverse: "".into(),
        owner: "10.44.55.66".into(),
        lasts: Lasts::UntilReboot,
    };
    assert_eq!(
        s.sanitize_value(change.clone()).unwrap_err(),
        Withheld::Leak { kind: "address" }
    );
    let mac = ObjectChange {
        owner: "a4:5e:60:01:02:03".into(),
        ..change
    };
    assert_eq!(
        s.sanitize_value(mac).unwrap_err(),
        Withheld::Leak { kind: "mac" }
    );
    assert_eq!(s.counts().withheld.get("address"), Some(&1));
    assert_eq!(s.counts().withheld.get("mac"), Some(&1));
}

#[test]
fn an_observation_shows_no_value_when_it_is_printed() {
    let body = Body::Resolvers(Resolvers {
        search: vec![Name("schmidt".into())],
        ..Resolvers::default()
    });
    let observation = Observation::new(record(body));
    assert_eq!(format!("{observation:?}"), "Observation(resolvers)");
    assert_eq!(format!("{:?}", observation.local()), "Local(..)");
    assert_eq!(observation.local().round, RoundId(1));
}
