//! Rounds of a small router, and what its executor says, in the protocol's own types.

use std::net::IpAddr;

use aizen_protocol::effect::{
    Effect, Lasts, ObjectChange, ObjectKind, RehearsalResult, Rehearsed, ScriptEnd, ScriptRun,
};
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{ChangeId, Digest, RoundId};
use aizen_protocol::outcome::{End, Isolation, Outcome, Stage, Step};
use aizen_protocol::package::manifest::Risk;
use aizen_protocol::package::{Package, Rehearsal};
use aizen_protocol::record::{
    Address, Body, DnsAnswer, DnsProbe, Forwarding, Link, OperState, Profile, Reach, ReachRole,
    Record, Resolvers, Role, Round, Route, Trigger,
};
use aizen_protocol::statement::{Confirmation, Nonce};
use jiff::Timestamp;

use crate::device::Device;

pub(crate) const RESOLVER: &str = "10.83.7.53";
const ALTERNATE: &str = "10.83.7.54";
const GATEWAY: &str = "10.83.7.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A round in which the only configured resolver is dead and the alternate answers.
pub(crate) fn dead_resolver(round: u64) -> Vec<Record> {
    let (answer, rtt) = (DnsAnswer::Timeout, vec![]);
    records(round, answer, &rtt)
}

/// A round in which all is well.
pub(crate) fn healthy(round: u64) -> Vec<Record> {
    records(round, DnsAnswer::Rcode(0), &[2_000; 5])
}

fn records(round: u64, answer: DnsAnswer, rtt_us: &[u32]) -> Vec<Record> {
    let now = Timestamp::now();
    let bodies = vec![
        Body::Profile(Profile {
            role: Role::Router,
            wan: vec!["wan".into()],
            expected_up: vec!["wan".into()],
            gateway: Some(ip(GATEWAY)),
            agent: "0.1.0".into(),
        }),
        Body::Links(vec![wan()]),
        Body::Addresses(vec![Address {
            preferred_s: None,
            link: 2,
            address: "10.83.7.20/24".parse().unwrap(),
            scope: "global".into(),
            dad_failed: false,
            tentative: false,
            deprecated: false,
            dynamic: false,
            valid_s: None,
        }]),
        Body::Routes(vec![
            route("0.0.0.0/0", Some(GATEWAY)),
            route("10.83.7.0/24", None),
        ]),
        Body::Forwarding(Forwarding {
            ipv4: Some(true),
            ipv6: Some(true),
        }),
        Body::Resolvers(Resolvers {
            configured: vec![ip(RESOLVER)],
            alternates: vec![ip(ALTERNATE)],
            search: vec![],
            regular_file: true,
        }),
        Body::Dns(vec![
            questions(RESOLVER, true, answer, rtt_us),
            questions(ALTERNATE, false, DnsAnswer::Rcode(0), &[2_000; 5]),
        ]),
        Body::Reach(vec![
            echo(GATEWAY, ReachRole::Gateway, 5),
            echo(
                RESOLVER,
                ReachRole::Resolver,
                5 * u16::from(!rtt_us.is_empty()),
            ),
            echo(ALTERNATE, ReachRole::Resolver, 5),
        ]),
        Body::Round(Round {
            trigger: Trigger::Tick,
            took_ms: 1,
            gaps: vec![],
            dropped: 0,
            again: Default::default(),
        }),
    ];
    let record = |body| Record {
        round: RoundId(round),
        at: now,
        boot: "boot-1".parse().unwrap(),
        body,
    };
    bodies.into_iter().map(record).collect()
}

fn wan() -> Link {
    Link {
        index: 2,
        name: "wan".into(),
        driver_kind: None,
        loopback: false,
        admin_up: true,
        oper: OperState::Up,
        carrier: Some(true),
        carrier_changes: Some(1),
        mtu: 1500,
        mac: Some("02:00:5e:10:00:01".parse().unwrap()),
        master: None,
        counters: None,
        ..Link::default()
    }
}

fn route(destination: &str, gateway: Option<&str>) -> Route {
    Route {
        next_hops: Vec::new(),
        dead: false,
        expires_s: None,
        destination: destination.parse().unwrap(),
        gateway: gateway.map(ip),
        link: Some(2),
        table: 254,
        metric: None,
        protocol: "static".into(),
        kind: "unicast".into(),
        source: None,
    }
}

fn questions(resolver: &str, configured: bool, answer: DnsAnswer, rtt_us: &[u32]) -> DnsProbe {
    DnsProbe {
        transport: aizen_protocol::record::DnsTransport::Udp,
        purpose: aizen_protocol::record::DnsPurpose::Lookup,
        addresses: Vec::new(),
        authentic: false,
        resolver: ip(resolver),
        configured,
        name: aizen_protocol::private::Name("host-4kq2mz7w3n5pa.host-b6tgy2jx4rv3c".into()),
        answers: vec![answer; 5],
        rtt_us: rtt_us.to_vec(),
    }
}

fn echo(target: &str, role: ReachRole, received: u16) -> Reach {
    Reach {
        target: ip(target),
        role,
        sent: 5,
        received,
        rtt_us: vec![900; received.into()],
        no_route: false,
    }
}

/// What the repair of the resolver does.
pub(crate) fn effect() -> Effect {
    Effect {
        changes: vec![ObjectChange {
            kind: ObjectKind::File,
            object: "/etc/resolv.conf".into(),
            diff: "-nameserver 10.83.7.53\n+nameserver 10.83.7.54\n".into(),
            inverse: "write the content of before".into(),
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
            took_ms: 12,
            output: "".into(),
            output_bytes: 0,
            leftover_processes: 0,
        },
    }
}

pub(crate) fn rehearsed(device: &Device, rehearsal: &Envelope, effect: Effect) -> Vec<u8> {
    let answer = Rehearsed {
        device: device.enrolled.device.clone(),
        package: Digest::of(&rehearsal.unverified_payload().unwrap()),
        deed: deed(rehearsal),
        result: RehearsalResult::Effect(effect),
    };
    serde_json::to_vec(&answer).unwrap()
}

fn deed(rehearsal: &Envelope) -> Option<Digest> {
    let payload = rehearsal.unverified_payload().unwrap();
    Some(Rehearsal::parse(&payload).unwrap().0.deed().unwrap())
}

pub(crate) fn confirmation(device: &Device, package: &Envelope, change: &ChangeId) -> Confirmation {
    Confirmation {
        device: device.enrolled.device.clone(),
        package: Digest::of(&package.unverified_payload().unwrap()),
        change: change.clone(),
        nonce: Nonce(Digest::of(change.as_str().as_bytes())),
    }
}

/// How a package ended.
pub(crate) fn outcome(device: &Device, package: &Envelope, end: End) -> Outcome {
    let payload = package.unverified_payload().unwrap();
    let form = Package::parse(&payload).unwrap();
    Outcome {
        device: device.enrolled.device.clone(),
        epoch: device.epoch.clone(),
        change: Some(ChangeId::fresh()),
        package: Some(form.id),
        package_digest: Some(Digest::of(&payload)),
        correlation_id: Some(form.correlation_id),
        end,
        reason: None,
        detail: "".into(),
        script: None,
        effect: Some(effect()),
        approved_effect: form.effect,
        approved_changes: form.effect.map(|_| effect().changes_digest()),
        isolation: Isolation::default(),
        probes: vec![],
        state_before: Some(Digest::of(b"before")),
        state_after: Some(Digest::of(b"after")),
        not_restored: vec![],
        steps: vec![Step {
            stage: Stage::Reported,
            at: Timestamp::now(),
        }],
        journal_head: None,
    }
}
