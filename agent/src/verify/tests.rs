//! One test a check: exactly its own reason, and the checks come in their order.

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::Digest;
use aizen_protocol::limit;
use aizen_protocol::package::manifest::{Capability, Class, Risk};
use aizen_protocol::package::{DeliveryMode, Package, Script};
use aizen_protocol::reason::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Timestamp, ToSpan as _};

use super::fixture::{Fixture, now, package, rehearsal_signed, signed};
use super::*;

/// What the door says to a package that is signed by the approver and delivered by the orchestrator.
fn judged(fixture: &Fixture, package: &Package) -> Result<Verified<Package>, Reason> {
    let envelope = fixture.approved(package);
    judged_envelope(fixture, &envelope)
}

fn judged_envelope(fixture: &Fixture, envelope: &Envelope) -> Result<Verified<Package>, Reason> {
    let delivery = fixture.delivered(envelope);
    super::package(envelope, Some(&delivery), &fixture.at()).map_err(|refused| refused.reason)
}

fn reason(fixture: &Fixture, change: impl FnOnce(&mut Package)) -> Reason {
    let mut package = package();
    change(&mut package);
    judged(fixture, &package).unwrap_err()
}

fn rehearsal_package() -> Package {
    let mut package = package();
    package.expires = package.issued_at + 10.minutes();
    package
}

#[test]
fn a_package_with_everything_in_order_is_verified_with_the_bytes_that_were_signed() {
    let fixture = Fixture::new();
    let package = package();
    let payload = package.to_payload().unwrap();
    let verified = judged(&fixture, &package).unwrap();
    assert_eq!(verified.script(), b"change sysctl net.ipv4.ip_forward=1\n");
    assert_eq!(verified.digest(), Digest::of(&payload));
    assert_eq!(verified.package(), &package);
    assert_eq!(verified.risk(), Risk::Medium);
}

#[test]
fn without_a_trust_document_nothing_is_believed() {
    let mut fixture = Fixture::new();
    fixture.enrolled = false;
    assert_eq!(reason(&fixture, |_| ()), Reason::NotEnrolled);
}

#[test]
fn a_forged_package_is_a_bad_signature() {
    let fixture = Fixture::new();
    let forged = signed(&package(), &[&fixture.stranger]);
    assert_eq!(
        judged_envelope(&fixture, &forged).unwrap_err(),
        Reason::BadSignature
    );
}

#[test]
fn an_altered_package_is_a_bad_signature() {
    let fixture = Fixture::new();
    let envelope = fixture.approved(&package());
    let mut value = serde_json::to_value(&envelope).unwrap();
    let payload = String::from_utf8(envelope.unverified_payload().unwrap()).unwrap();
    let altered = payload.replace("forward again", "forward agaim");
    value["payload"] = STANDARD.encode(altered).into();
    let altered: Envelope = serde_json::from_value(value).unwrap();
    assert_eq!(
        judged_envelope(&fixture, &altered).unwrap_err(),
        Reason::BadSignature
    );
}

#[test]
fn a_retyped_package_is_a_wrong_type_or_a_bad_signature_at_either_door() {
    let fixture = Fixture::new();
    let rehearsal = rehearsal_signed(&rehearsal_package(), &[&fixture.orchestrator]);
    assert_eq!(
        judged_envelope(&fixture, &rehearsal).unwrap_err(),
        Reason::WrongPayloadType
    );
    let mut value = serde_json::to_value(&rehearsal).unwrap();
    value["payloadType"] = PayloadType::Package.as_str().into();
    let retyped: Envelope = serde_json::from_value(value).unwrap();
    assert_eq!(
        judged_envelope(&fixture, &retyped).unwrap_err(),
        Reason::BadSignature
    );
}

#[test]
fn more_signatures_than_are_looked_at_are_refused() {
    let fixture = Fixture::new();
    let many = signed(&package(), &[&fixture.approver; limit::SIGNATURES + 1]);
    assert_eq!(
        judged_envelope(&fixture, &many).unwrap_err(),
        Reason::TooManySignatures
    );
}

#[test]
fn a_signed_payload_that_is_no_package_is_malformed() {
    let fixture = Fixture::new();
    for payload in [
        &b"{}"[..],
        b"",
        b"[1,2",
        &[b'['; 10_000],
        &[&package().to_payload().unwrap()[..], b"x"].concat(),
    ] {
        let envelope = Envelope::sign(PayloadType::Package, payload, &[&fixture.approver]);
        assert_eq!(
            judged_envelope(&fixture, &envelope).unwrap_err(),
            Reason::MalformedPayload
        );
    }
}

#[test]
fn a_payload_with_a_key_that_appears_twice_is_malformed() {
    let fixture = Fixture::new();
    let text = String::from_utf8(package().to_payload().unwrap()).unwrap();
    let twice = text.replacen("\"schema\":1", "\"schema\":1,\"schema\":1", 1);
    assert_ne!(text, twice);
    let envelope = Envelope::sign(PayloadType::Package, twice.as_bytes(), &[&fixture.approver]);
    assert_eq!(
        judged_envelope(&fixture, &envelope).unwrap_err(),
        Reason::MalformedPayload
    );
}

#[test]
fn another_schema_is_unsupported() {
    assert_eq!(
        reason(&Fixture::new(), |p| p.schema = 2),
        Reason::UnsupportedSchema
    );
}

#[test]
fn another_trust_document_is_named_as_such() {
    assert_eq!(
        reason(&Fixture::new(), |p| p.trust_version = 2),
        Reason::TrustVersion
    );
    assert_eq!(
        reason(&Fixture::new(), |p| p.trust_version = 4),
        Reason::TrustVersion
    );
}

#[test]
fn a_revoked_device_changes_nothing() {
    let mut fixture = Fixture::new();
    fixture.trust.revoked.push("dev-1".parse().unwrap());
    assert_eq!(reason(&fixture, |_| ()), Reason::Revoked);
}

#[test]
fn an_expired_trust_document_allows_a_diagnosis_and_no_change() {
    let mut fixture = Fixture::new();
    fixture.trust.expires = now() - 1.second();
    assert_eq!(reason(&fixture, |_| ()), Reason::TrustExpired);
    let mut diagnosis = package();
    diagnosis.manifest.class = Class::Diagnose;
    diagnosis.manifest.operations.clear();
    assert!(judged(&fixture, &diagnosis).is_ok());
}

#[test]
fn a_repair_without_a_persons_signature_misses_its_approver() {
    let fixture = Fixture::new();
    let envelope = signed(&package(), &[&fixture.orchestrator]);
    assert_eq!(
        judged_envelope(&fixture, &envelope).unwrap_err(),
        Reason::ApproverMissing
    );
}

#[test]
fn a_key_that_may_not_sign_this_class_or_not_any_more_is_not_authorised() {
    let fixture = Fixture::new();
    for key in [&fixture.diagnosing_approver, &fixture.late_approver] {
        let envelope = signed(&package(), &[key]);
        assert_eq!(
            judged_envelope(&fixture, &envelope).unwrap_err(),
            Reason::KeyNotAuthorised
        );
    }
}

#[test]
fn an_unauthorised_key_does_not_spoil_the_signature_of_an_authorised_one() {
    let fixture = Fixture::new();
    let both = signed(
        &package(),
        &[&fixture.stranger, &fixture.late_approver, &fixture.approver],
    );
    assert!(judged_envelope(&fixture, &both).is_ok());
}

#[test]
fn where_policy_wants_two_people_for_high_risk_one_is_not_enough() {
    let mut fixture = Fixture::new();
    fixture.policy.approvers_for_high_risk = 2;
    let mut high = package();
    high.manifest.risk = Some(Risk::High);
    assert_eq!(
        judged(&fixture, &high).unwrap_err(),
        Reason::ApproverMissing
    );
    let twice = signed(&high, &[&fixture.approver, &fixture.approver]);
    assert_eq!(
        judged_envelope(&fixture, &twice).unwrap_err(),
        Reason::ApproverMissing
    );
    let two = signed(&high, &[&fixture.approver, &fixture.second_approver]);
    assert!(judged_envelope(&fixture, &two).is_ok());
    assert!(
        judged(&fixture, &package()).is_ok(),
        "medium risk needs one"
    );
}

#[test]
fn a_repair_over_the_uplink_needs_the_orchestrators_delivery_of_exactly_it_to_this_device() {
    let fixture = Fixture::new();
    let envelope = fixture.approved(&package());
    let digest = Digest::of(&envelope.unverified_payload().unwrap());
    let other_type = Envelope::sign(PayloadType::Confirm, b"{}", &[&fixture.orchestrator]);
    let not_a_statement = Envelope::sign(PayloadType::Delivery, b"{}", &[&fixture.orchestrator]);
    let wrong = [
        None,
        Some(fixture.delivery(&Digest::of(b"other"), "dev-1", &fixture.orchestrator)),
        Some(fixture.delivery(&digest, "dev-2", &fixture.orchestrator)),
        Some(fixture.delivery(&digest, "dev-1", &fixture.approver)),
        Some(fixture.delivery(&digest, "dev-1", &fixture.stranger)),
        Some(other_type),
        Some(not_a_statement),
    ];
    for delivery in &wrong {
        let refused = super::package(&envelope, delivery.as_ref(), &fixture.at()).unwrap_err();
        assert_eq!(refused.reason, Reason::DeliveryMissing, "{refused}");
    }
    let mut late = Fixture::new();
    late.now = now() + 11.minutes();
    assert_eq!(reason(&late, |_| ()), Reason::DeliveryMissing);
}

#[test]
fn on_the_spot_no_delivery_is_needed() {
    let fixture = Fixture::new();
    let mut on_site = package();
    on_site.delivery = DeliveryMode::OnSite;
    assert!(super::package(&fixture.approved(&on_site), None, &fixture.at()).is_ok());
}

#[test]
fn a_diagnosis_may_be_signed_by_the_orchestrator_alone() {
    let fixture = Fixture::new();
    let mut diagnosis = package();
    diagnosis.manifest.class = Class::Diagnose;
    diagnosis.manifest.operations.clear();
    let envelope = signed(&diagnosis, &[&fixture.orchestrator]);
    assert_eq!(
        judged_envelope(&fixture, &envelope).unwrap().risk(),
        Risk::None
    );
    let late = signed(&diagnosis, &[&fixture.late_approver]);
    assert_eq!(
        judged_envelope(&fixture, &late).unwrap_err(),
        Reason::KeyNotAuthorised
    );
}

#[test]
fn a_package_for_another_device_or_another_epoch_is_refused() {
    let fixture = Fixture::new();
    let device = reason(&fixture, |p| {
        p.target[0].device = "dev-2".parse().unwrap();
    });
    assert_eq!(device, Reason::WrongTarget);
    let epoch = reason(&fixture, |p| p.target[0].epoch = "ep-0".parse().unwrap());
    assert_eq!(epoch, Reason::WrongEpoch);
}

#[test]
fn a_package_is_refused_before_its_time_and_from_its_end_on() {
    let fixture = Fixture::new();
    let early = reason(&fixture, |p| p.not_before = now() + 2.minutes());
    assert_eq!(early, Reason::NotYetValid);
    let future = reason(&fixture, |p| p.issued_at = now() + 2.minutes());
    assert_eq!(future, Reason::NotYetValid);
    let over = reason(&fixture, |p| p.expires = now());
    assert_eq!(over, Reason::Expired);
    let mut last = package();
    last.expires = now() + 1.second();
    assert!(judged(&fixture, &last).is_ok());
}

#[test]
fn a_clock_behind_a_signed_time_allows_changes_on_the_spot_only() {
    let mut fixture = Fixture::new();
    fixture.now = Timestamp::UNIX_EPOCH;
    assert_eq!(reason(&fixture, |_| ()), Reason::ClockUntrusted);
    let mut on_site = package();
    on_site.delivery = DeliveryMode::OnSite;
    let envelope = fixture.approved(&on_site);
    assert!(super::package(&envelope, None, &fixture.at()).is_ok());
    // Even then, what ended before the newest signed time is over.
    let mut old = package();
    old.delivery = DeliveryMode::OnSite;
    old.issued_at = now() - 3.hours();
    old.not_before = old.issued_at;
    old.expires = now() - 2.hours();
    let refused = super::package(&fixture.approved(&old), None, &fixture.at()).unwrap_err();
    assert_eq!(refused.reason, Reason::Expired);
}

#[test]
fn a_package_that_was_admitted_is_replayed_however_it_is_encoded() {
    let mut fixture = Fixture::new();
    let package = package();
    let envelope = fixture.approved(&package);
    let first = judged_envelope(&fixture, &envelope).unwrap();
    fixture.replay.admit(&package, first.digest()).unwrap();
    assert_eq!(
        judged_envelope(&fixture, &envelope).unwrap_err(),
        Reason::Replayed
    );
    let mut value = serde_json::to_value(&envelope).unwrap();
    let url_safe = value["payload"]
        .as_str()
        .unwrap()
        .replace('+', "-")
        .replace('/', "_");
    value["payload"] = url_safe.trim_end_matches('=').into();
    value["signatures"][0]["keyid"] = "key-other".into();
    let reencoded: Envelope = serde_json::from_value(value).unwrap();
    assert_eq!(
        judged_envelope(&fixture, &reencoded).unwrap_err(),
        Reason::Replayed
    );
    let mut same_id = package;
    same_id.intent = "something else".into();
    assert_eq!(judged(&fixture, &same_id).unwrap_err(), Reason::Replayed);
}

#[test]
fn a_script_of_another_length_or_checksum_is_refused() {
    let fixture = Fixture::new();
    assert_eq!(
        reason(&fixture, |p| p.script.length += 1),
        Reason::LengthMismatch
    );
    assert_eq!(
        reason(&fixture, |p| p.script.sha256 = Digest::of(b"other")),
        Reason::ChecksumMismatch
    );
    let large = reason(&fixture, |p| {
        p.script = Script::of(&vec![b'#'; limit::SCRIPT + 3]);
    });
    assert_eq!(large, Reason::TooLarge);
}

#[test]
fn a_direct_script_holds_what_the_policy_gives_and_is_of_an_unsupported_class_without() {
    let mut fixture = Fixture::new();
    for key in &mut fixture.trust.keys {
        key.classes.push(Class::Direct);
    }
    let direct = |package: &mut Package| {
        package.manifest.class = Class::Direct;
        package.manifest.capabilities = vec![Capability::NetAdmin];
    };
    assert_eq!(reason(&fixture, direct), Reason::UnsupportedClass);
    fixture.policy.capabilities = vec![Capability::NetRaw];
    assert_eq!(reason(&fixture, direct), Reason::PolicyDenied);
    fixture.policy.capabilities = vec![Capability::NetAdmin];
    let mut package = package();
    direct(&mut package);
    assert!(judged(&fixture, &package).is_ok());
    fixture.policy.protected_links = vec!["mgmt".to_owned()];
    assert_eq!(reason(&fixture, direct), Reason::PolicyDenied);
}

#[test]
fn an_observing_or_paused_device_changes_nothing_and_still_diagnoses() {
    let mut diagnosis = package();
    diagnosis.manifest.class = Class::Diagnose;
    diagnosis.manifest.operations.clear();
    let mut observing = Fixture::new();
    observing.policy.allow_changes = false;
    assert_eq!(reason(&observing, |_| ()), Reason::ObserveOnly);
    assert!(judged(&observing, &diagnosis).is_ok());
    let mut paused = Fixture::new();
    paused.paused = true;
    assert_eq!(reason(&paused, |_| ()), Reason::Paused);
    assert!(judged(&paused, &diagnosis).is_ok());
}

#[test]
fn what_the_operator_did_not_allow_is_denied_whoever_signed() {
    let fixture = Fixture::new();
    type Change = fn(&mut Package);
    let cases: [(&str, Change); 7] = [
        ("interpreter", |p| p.interpreter = "/usr/bin/python3".into()),
        ("file", |p| {
            p.manifest.operations =
                serde_json::from_str(r#"[{"file":{"write":"/etc/aizen/policy.toml"}}]"#).unwrap();
        }),
        ("read", |p| p.manifest.read = vec!["/etc/shadow".into()]),
        ("read by detour", |p| {
            p.manifest.read = vec!["/proc/net/../../etc/shadow".into()];
        }),
        ("sysctl", |p| {
            p.manifest.operations = serde_json::from_str(
                r#"[{"sysctl":{"set":{"key":"kernel.core_pattern","value":"x"}}}]"#,
            )
            .unwrap();
        }),
        ("deadline", |p| p.manifest.confirm.within_s = 3600),
        ("timeout", |p| p.manifest.timeout_s = 3600),
    ];
    for (what, change) in cases {
        assert_eq!(reason(&fixture, change), Reason::PolicyDenied, "{what}");
    }
    let mut careful = Fixture::new();
    careful.policy.max_risk = Risk::Low;
    assert_eq!(reason(&careful, |_| ()), Reason::PolicyDenied);
    let mut remote = Fixture::new();
    remote.policy.on_site = false;
    let on_site = reason(&remote, |p| p.delivery = DeliveryMode::OnSite);
    assert_eq!(on_site, Reason::PolicyDenied);
}

#[test]
fn a_stated_risk_below_the_computed_one_is_understated() {
    let stated = reason(&Fixture::new(), |p| p.manifest.risk = Some(Risk::Low));
    assert_eq!(stated, Reason::RiskUnderstated);
}

#[test]
fn below_the_wanted_isolation_the_missing_layers_are_named() {
    let mut fixture = Fixture::new();
    fixture.isolation.level = 1;
    let envelope = fixture.approved(&package());
    let delivery = fixture.delivered(&envelope);
    let refused = super::package(&envelope, Some(&delivery), &fixture.at()).unwrap_err();
    assert_eq!(refused.reason, Reason::IsolationUnreachable);
    assert!(
        refused.detail.contains("landlock (no such kernel)"),
        "{refused}"
    );
    let mut strict = Fixture::new();
    strict.policy.min_isolation = 4;
    assert_eq!(reason(&strict, |_| ()), Reason::IsolationUnreachable);
}

#[test]
fn a_rehearsal_needs_the_orchestrators_key_and_ends_in_minutes() {
    let fixture = Fixture::new();
    let package = rehearsal_package();
    let good = rehearsal_signed(&package, &[&fixture.orchestrator]);
    let verified = rehearsal(&good, &fixture.at()).unwrap();
    assert_eq!(verified.package(), &package);
    for key in [&fixture.approver, &fixture.late_approver] {
        let envelope = rehearsal_signed(&package, &[key]);
        assert_eq!(
            rehearsal(&envelope, &fixture.at()).unwrap_err().reason,
            Reason::KeyNotAuthorised
        );
    }
    let long = rehearsal_signed(&super::fixture::package(), &[&fixture.orchestrator]);
    assert_eq!(
        rehearsal(&long, &fixture.at()).unwrap_err().reason,
        Reason::MalformedPayload
    );
}

#[test]
fn the_shadow_takes_rehearsals_and_packages_on_an_observing_device_and_any_number_of_times() {
    let mut fixture = Fixture::new();
    fixture.policy.allow_changes = false;
    fixture.paused = true;
    let package = package();
    let envelope = fixture.approved(&package);
    fixture
        .replay
        .admit(&package, Digest::of(&package.to_payload().unwrap()))
        .unwrap();
    assert!(matches!(
        shadow(&envelope, &fixture.at()),
        Ok(Shadow::Package(_))
    ));
    let rehearsal = rehearsal_signed(&rehearsal_package(), &[&fixture.orchestrator]);
    assert!(matches!(
        shadow(&rehearsal, &fixture.at()),
        Ok(Shadow::Rehearsal(_))
    ));
    let unapproved = signed(&package, &[&fixture.orchestrator]);
    assert_eq!(
        shadow(&unapproved, &fixture.at()).unwrap_err().reason,
        Reason::ApproverMissing
    );
    let mut denied = rehearsal_package();
    denied.manifest.read = vec!["/etc/shadow".into()];
    let denied = rehearsal_signed(&denied, &[&fixture.orchestrator]);
    assert_eq!(
        shadow(&denied, &fixture.at()).unwrap_err().reason,
        Reason::PolicyDenied
    );
}

#[test]
fn the_checks_come_in_their_order() {
    // Everything is wrong at once; each step mends what was told and meets the next check.
    let mut fixture = Fixture::new();
    let mut bad = package();
    bad.schema = 2;
    bad.trust_version = 2;
    bad.target[0].device = "dev-2".parse().unwrap();
    bad.target[0].epoch = "ep-2".parse().unwrap();
    bad.not_before = now() + 10.minutes();
    bad.script.length += 1;
    bad.script.sha256 = Digest::of(b"other");
    bad.interpreter = "/usr/bin/perl".into();
    bad.manifest.min_isolation = 4;
    fixture.policy.allow_changes = false;
    fixture.paused = true;
    fixture.replay.admit(&bad, Digest::of(b"x")).unwrap();

    let mut key = &fixture.stranger;
    let mut told = Vec::new();
    let mut delivery = false;
    let stages = Reason::ALL.len();
    for _ in 0..stages {
        let envelope = signed(&bad, &[key]);
        let statement = fixture.delivered(&envelope);
        let Err(refused) = super::package(&envelope, delivery.then_some(&statement), &fixture.at())
        else {
            break;
        };
        told.push(refused.reason);
        match refused.reason {
            Reason::BadSignature => key = &fixture.orchestrator,
            Reason::UnsupportedSchema => bad.schema = 1,
            Reason::TrustVersion => bad.trust_version = 3,
            Reason::ApproverMissing => key = &fixture.late_approver,
            Reason::KeyNotAuthorised => key = &fixture.approver,
            Reason::DeliveryMissing => delivery = true,
            Reason::WrongTarget => bad.target[0].device = "dev-1".parse().unwrap(),
            Reason::WrongEpoch => bad.target[0].epoch = "ep-1".parse().unwrap(),
            Reason::NotYetValid => bad.not_before = now(),
            Reason::Replayed => fixture.replay = Replay::default(),
            Reason::LengthMismatch => bad.script.length -= 1,
            Reason::ChecksumMismatch => bad.script = Script::of(b"true\n"),
            Reason::ObserveOnly => fixture.policy.allow_changes = true,
            Reason::Paused => fixture.paused = false,
            Reason::PolicyDenied => bad.interpreter = "/bin/sh".into(),
            Reason::IsolationUnreachable => fixture.isolation.level = 4,
            other => panic!("unexpected: {other}"),
        }
    }
    assert_eq!(
        told,
        [
            Reason::BadSignature,
            Reason::UnsupportedSchema,
            Reason::TrustVersion,
            Reason::ApproverMissing,
            Reason::KeyNotAuthorised,
            Reason::DeliveryMissing,
            Reason::WrongTarget,
            Reason::WrongEpoch,
            Reason::NotYetValid,
            Reason::Replayed,
            Reason::LengthMismatch,
            Reason::ChecksumMismatch,
            Reason::ObserveOnly,
            Reason::Paused,
            Reason::PolicyDenied,
            Reason::IsolationUnreachable,
        ]
    );
}
