//! Keys, a trust document and a package that passes every check: tests change one thing and see which check it hits.

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::{DeviceId, Digest, Epoch, PackageId};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::outcome::{Isolation, Layer};
use aizen_protocol::package::manifest::{Class, Confirm, Limits, Manifest};
use aizen_protocol::package::{DeliveryMode, Package, SCHEMA, Script, Target};
use aizen_protocol::statement::Delivery;
use aizen_protocol::trust::{Role, TrustDocument, TrustedKey};
use jiff::{Timestamp, ToSpan as _};

use super::{Circumstances, Policy, Replay};

pub(crate) fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

pub(crate) fn package() -> Package {
    Package {
        schema: SCHEMA,
        id: PackageId::fresh(),
        issuer: "test".into(),
        trust_version: 3,
        issued_at: now() - 5.minutes(),
        not_before: now() - 5.minutes(),
        expires: now() + 1.hour(),
        target: vec![Target {
            device: "dev-1".parse().unwrap(),
            epoch: "ep-1".parse().unwrap(),
        }],
        interpreter: "/bin/sh".into(),
        script: Script::of(b"change sysctl net.ipv4.ip_forward=1\n"),
        bindings: Vec::new(),
        manifest: Manifest {
            class: Class::Repair,
            min_isolation: 2,
            timeout_s: 30,
            risk: None,
            operations: serde_json::from_str(
                r#"[{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}]"#,
            )
            .unwrap(),
            capabilities: Vec::new(),
            read: Vec::new(),
            limits: Limits::default(),
            confirm: Confirm::default(),
        },
        delivery: DeliveryMode::Uplink,
        intent: "forward again".into(),
        evidence: Vec::new(),
        effect: None,
        correlation_id: "cor-1".parse().unwrap(),
    }
}

pub(crate) struct Fixture {
    pub(crate) approver: PrivateKey,
    pub(crate) second_approver: PrivateKey,
    pub(crate) diagnosing_approver: PrivateKey,
    pub(crate) late_approver: PrivateKey,
    pub(crate) orchestrator: PrivateKey,
    pub(crate) stranger: PrivateKey,
    pub(crate) trust: TrustDocument,
    pub(crate) policy: Policy,
    pub(crate) replay: Replay,
    pub(crate) isolation: Isolation,
    pub(crate) paused: bool,
    pub(crate) enrolled: bool,
    pub(crate) now: Timestamp,
    device: DeviceId,
    epoch: Epoch,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let keys: [PrivateKey; 6] = std::array::from_fn(|_| PrivateKey::generate().unwrap());
        let [
            approver,
            second_approver,
            diagnosing_approver,
            late_approver,
            orchestrator,
            stranger,
        ] = keys;
        let all = vec![Class::Diagnose, Class::Repair];
        let key = |key: &PrivateKey, role, classes: &[Class], until| TrustedKey {
            key: key.public(),
            role,
            name: "someone".into(),
            classes: classes.to_vec(),
            until,
        };
        let until = now() + 24.hours();
        let trust = TrustDocument {
            version: 3,
            issued_at: now() - 1.hour(),
            expires: until,
            threshold: 1,
            roots: vec![stranger.public()],
            keys: vec![
                key(&approver, Role::Approver, &all, until),
                key(&second_approver, Role::Approver, &all, until),
                key(
                    &diagnosing_approver,
                    Role::Approver,
                    &[Class::Diagnose],
                    until,
                ),
                key(&late_approver, Role::Approver, &all, now() - 1.minute()),
                key(&orchestrator, Role::Orchestrator, &all, until),
            ],
            revoked: Vec::new(),
        };
        let policy = Policy {
            allow_changes: true,
            ..Policy::default()
        };
        Self {
            approver,
            second_approver,
            diagnosing_approver,
            late_approver,
            orchestrator,
            stranger,
            trust,
            policy,
            replay: Replay::default(),
            isolation: Isolation {
                level: 3,
                layers: vec![Layer {
                    name: "landlock".into(),
                    enforced: false,
                    detail: "no such kernel".into(),
                }],
            },
            paused: false,
            enrolled: true,
            now: now(),
            device: "dev-1".parse().unwrap(),
            epoch: "ep-1".parse().unwrap(),
        }
    }

    pub(crate) fn at(&self) -> Circumstances<'_> {
        Circumstances {
            now: self.now,
            device: &self.device,
            epoch: &self.epoch,
            trust: self.enrolled.then_some(&self.trust),
            policy: &self.policy,
            replay: &self.replay,
            paused: self.paused,
            isolation: &self.isolation,
        }
    }

    pub(crate) fn approved(&self, package: &Package) -> Envelope {
        signed(package, &[&self.approver])
    }

    pub(crate) fn delivered(&self, envelope: &Envelope) -> Envelope {
        self.delivery(
            &Digest::of(&envelope.unverified_payload().unwrap()),
            "dev-1",
            &self.orchestrator,
        )
    }

    pub(crate) fn delivery(&self, package: &Digest, device: &str, key: &PrivateKey) -> Envelope {
        let statement = Delivery {
            package: *package,
            device: device.parse().unwrap(),
            deadline: now() + 10.minutes(),
        };
        Envelope::sign(
            PayloadType::Delivery,
            &serde_json::to_vec(&statement).unwrap(),
            &[key],
        )
    }
}

pub(crate) fn signed(package: &Package, keys: &[&PrivateKey]) -> Envelope {
    Envelope::sign(PayloadType::Package, &package.to_payload().unwrap(), keys)
}

pub(crate) fn rehearsal_signed(package: &Package, keys: &[&PrivateKey]) -> Envelope {
    Envelope::sign(PayloadType::Rehearsal, &package.to_payload().unwrap(), keys)
}
