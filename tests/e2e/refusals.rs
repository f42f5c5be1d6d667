//! What must not run does not run, and the device says why: one reason code a forgery.

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::package::Package;
use harness::package::{alice, hosts_manifest, key, package, sign, stick};
use harness::world::World;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

fn refused(world: &World, name: &str, envelope: &Envelope) -> String {
    let file = stick(world, name, envelope).unwrap();
    let output = world
        .device
        .try_aizen(&["apply", "--yes", "--json", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(4),
        "{name}: {output:?}\n{}",
        world.said()
    );
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{name}: {e}: {output:?}"));
    answer["reason"].as_str().unwrap().to_owned()
}

/// Signs a package whose fields were changed.
fn with(world: &World, edit: impl FnOnce(&mut Package)) -> Envelope {
    let mut changed = package(world, "true\n", hosts_manifest(5).unwrap()).unwrap();
    edit(&mut changed);
    sign(&changed, &[&alice(world).unwrap()]).unwrap()
}

#[test]
fn a_forged_altered_replayed_expired_misaddressed_or_retyped_package_is_refused_with_its_own_reason()
 {
    let world = World::start(&mut |_, _| {}).unwrap();
    let before = world.device.state_of_network().unwrap();
    let good = package(&world, "true\n", hosts_manifest(5).unwrap()).unwrap();

    let stranger = PrivateKey::generate().unwrap();
    assert_eq!(
        refused(&world, "forged", &sign(&good, &[&stranger]).unwrap()),
        "bad_signature"
    );

    let orchestrator = key(&world.cloud.data().join("orchestrator.key")).unwrap();
    let unapproved = refused(
        &world,
        "unapproved",
        &sign(&good, &[&orchestrator]).unwrap(),
    );
    assert!(
        ["approver_missing", "key_not_authorised"].contains(&unapproved.as_str()),
        "{unapproved}"
    );

    let mut text = serde_json::to_value(sign(&good, &[&alice(&world).unwrap()]).unwrap()).unwrap();
    let evil = Package {
        intent: "something else".to_owned(),
        ..good.clone()
    };
    text["payload"] = serde_json::to_value(Envelope::unsigned(
        PayloadType::Package,
        &evil.to_payload().unwrap(),
    ))
    .unwrap()["payload"]
        .clone();
    assert_eq!(
        refused(&world, "altered", &serde_json::from_value(text).unwrap()),
        "bad_signature"
    );

    let retyped = Envelope::sign(
        PayloadType::Rehearsal,
        &good.to_payload().unwrap(),
        &[&alice(&world).unwrap()],
    );
    assert_eq!(refused(&world, "retyped", &retyped), "wrong_payload_type");

    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let expired = with(&world, |p| {
        (p.issued_at, p.not_before, p.expires) =
            (hour_ago, hour_ago, hour_ago + SignedDuration::from_secs(60))
    });
    assert_eq!(refused(&world, "expired", &expired), "expired");

    let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
    let early = with(&world, |p| {
        (p.not_before, p.expires) = (tomorrow, tomorrow + SignedDuration::from_secs(60))
    });
    assert_eq!(refused(&world, "early", &early), "not_yet_valid");

    let elsewhere = with(&world, |p| {
        p.target[0].device = "dev-somebody-else".parse().unwrap()
    });
    assert_eq!(refused(&world, "elsewhere", &elsewhere), "wrong_target");

    let old = with(&world, |p| {
        p.target[0].epoch = "ep-of-long-ago".parse().unwrap()
    });
    assert_eq!(refused(&world, "old", &old), "wrong_epoch");

    let swapped = with(&world, |p| {
        p.script.sha256 = aizen_protocol::id::Digest::of(b"other")
    });
    assert_eq!(refused(&world, "swapped", &swapped), "checksum_mismatch");

    let longer = with(&world, |p| p.script.length += 1);
    assert_eq!(refused(&world, "longer", &longer), "length_mismatch");

    assert_eq!(world.device.state_of_network().unwrap(), before);
}

#[test]
fn a_package_runs_once_and_is_refused_as_replayed_ever_after() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    let once = package(&world, "true\n", hosts_manifest(3).unwrap()).unwrap();
    let envelope = sign(&once, &[&alice(&world).unwrap()]).unwrap();
    let file = stick(&world, "once", &envelope).unwrap();
    let first = world
        .device
        .try_aizen(&["apply", "--yes", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(
        first.status.code(),
        Some(5),
        "nobody confirms it: {first:?}\n{}",
        world.said()
    );
    assert_eq!(refused(&world, "again", &envelope), "replayed");
    world.device.executor().unwrap().kill().unwrap();
    world.device.start_executor().unwrap();
    assert_eq!(refused(&world, "after a restart", &envelope), "replayed");
}

#[test]
fn a_paused_or_observing_device_refuses_every_change() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    let good = || {
        sign(
            &package(&world, "true\n", hosts_manifest(3).unwrap()).unwrap(),
            &[&alice(&world).unwrap()],
        )
        .unwrap()
    };
    assert!(world.device.try_aizen(&["pause"]).unwrap().status.success());
    assert_eq!(refused(&world, "paused", &good()), "paused");
    world.wait_takes_changes(false).unwrap();
    assert!(
        world
            .device
            .try_aizen(&["resume"])
            .unwrap()
            .status
            .success()
    );
    world.wait_takes_changes(true).unwrap();
    let observed = good();
    world
        .device
        .write_policy("allow_changes = false\n")
        .unwrap();
    world.device.executor().unwrap().kill().unwrap();
    world.device.start_executor().unwrap();
    assert_eq!(refused(&world, "observing", &observed), "observe_only");
}

#[test]
fn an_operation_that_the_manifest_does_not_grant_is_denied_and_changes_nothing() {
    let world = World::start(&mut |_, _| {}).unwrap();
    let before = world.device.state_of_network().unwrap();
    let script = "echo nameserver 192.0.2.66 | change file write /etc/resolv.conf\n";
    let ungranted = package(&world, script, hosts_manifest(3).unwrap()).unwrap();
    let file = stick(
        &world,
        "ungranted",
        &sign(&ungranted, &[&alice(&world).unwrap()]).unwrap(),
    )
    .unwrap();
    let output = world
        .device
        .try_aizen(&["apply", "--yes", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(5),
        "{output:?}\n{}",
        world.said()
    );
    assert_eq!(world.device.state_of_network().unwrap(), before);
}
