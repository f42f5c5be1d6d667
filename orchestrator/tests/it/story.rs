//! From the first finding to the last report.

use std::time::Duration;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::frame::{CloudFrame, DeviceFrame};
use aizen_protocol::id::{ChangeId, Digest};
use aizen_protocol::key::PublicKey;
use aizen_protocol::outcome::End;
use aizen_protocol::package::{Package, Rehearsal};
use aizen_protocol::statement::{Confirmation, Delivery};
use aizen_protocol::trust::{Role, TrustDocument};
use serde_json::Value;

use crate::device::{Device, Link};
use crate::evidence;
use crate::fleet::Fleet;

fn keys(device: &Device, role: Role) -> Vec<PublicKey> {
    let payload = device.enrolled.trust.unverified_payload().unwrap();
    let document: TrustDocument = serde_json::from_slice(&payload).unwrap();
    let of_role = document.keys.into_iter().filter(|k| k.role == role);
    of_role.map(|k| k.key).collect()
}

/// Sends the rounds of a dead resolver and answers the rehearsal; gives the pending approval.
pub(crate) async fn until_asked(fleet: &Fleet, device: &mut Device, link: &mut Link) -> Value {
    device.send_round(link, evidence::dead_resolver(1)).await;
    let rehearsal = link.rehearse().await;
    let payload = evidence::rehearsed(device, &rehearsal, evidence::effect());
    let answer = device.signed(PayloadType::Effect, &payload);
    link.send(&answer).await;
    fleet.pending_approval().await
}

/// Approves on the command line as anna.
pub(crate) async fn approve(fleet: &Fleet, approval: &Value) {
    let id = approval["id"].as_str().unwrap();
    let answer = fleet
        .json(&["approve", id, "--key", "anna.key", "--yes"])
        .await;
    assert_eq!(answer["missing"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_resolver_is_found_rehearsed_approved_delivered_confirmed_and_resolved() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, through) = device.connect(&fleet).await;
    assert_eq!(through.0, 0);
    let package = found_to_delivered(&fleet, &mut device, &mut link).await;
    delivered_to_resolved(&fleet, &mut device, link, &package).await;
    let case = fleet.case_in_state("resolved").await;
    let story = fleet
        .get(&format!("/cases/{}", case["id"].as_str().unwrap()))
        .await;
    let kinds: Vec<_> = story["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "case_opened",
            "proposed",
            "rehearsal_sent",
            "rehearsed",
            "approval_asked",
            "signed",
            "approved",
            "delivered",
            "received",
            "confirm_refused",
            "confirm_signed",
            "outcome_stored"
        ]
    );
    assert_eq!(story["outcomes"].as_array().unwrap().len(), 1);
}

async fn found_to_delivered(fleet: &Fleet, device: &mut Device, link: &mut Link) -> Envelope {
    device.send_round(link, evidence::dead_resolver(1)).await;
    let rehearsal = link.rehearse().await;
    let orchestrators = keys(device, Role::Orchestrator);
    let opened = rehearsal
        .open(PayloadType::Rehearsal, orchestrators.iter())
        .unwrap();
    let form = Rehearsal::parse(opened.payload()).unwrap().0;
    assert_eq!(form.target[0].device, device.enrolled.device);
    assert_eq!(form.target[0].epoch, device.epoch);
    let case = fleet.case_in_state("rehearsing").await;
    assert_eq!(case["cause"], "resolver_dead");
    assert_eq!(case["component"], evidence::RESOLVER);

    let payload = evidence::rehearsed(device, &rehearsal, evidence::effect());
    let answer = device.signed(PayloadType::Effect, &payload);
    link.send(&answer).await;
    approve(fleet, &fleet.pending_approval().await).await;

    let (package, delivery) = link.deliver().await;
    let people = keys(device, Role::Approver);
    let opened = package.open(PayloadType::Package, people.iter()).unwrap();
    let form = Package::parse(opened.payload()).unwrap();
    assert_eq!(form.effect, Some(evidence::effect().digest()));
    assert!(!form.evidence.is_empty());
    let statement = delivery
        .open(PayloadType::Delivery, orchestrators.iter())
        .unwrap();
    let statement: Delivery = serde_json::from_slice(statement.payload()).unwrap();
    assert_eq!(statement.package, opened.digest());
    assert_eq!(statement.device, device.enrolled.device);
    package
}

async fn delivered_to_resolved(
    fleet: &Fleet,
    device: &mut Device,
    mut link: Link,
    package: &Envelope,
) {
    let received = Digest::of(&package.unverified_payload().unwrap());
    link.send(&DeviceFrame::Received { package: received })
        .await;
    fleet.case_in_state("running").await;

    let wanted = evidence::confirmation(device, package, &ChangeId::fresh());
    link.send(&DeviceFrame::ConfirmWanted(wanted.clone())).await;
    assert!(
        link.is_quiet(Duration::from_millis(500)).await,
        "a connection as old as the delivery confirms nothing"
    );
    link.close().await;
    let (mut link, _) = device.connect(fleet).await;
    link.send(&DeviceFrame::ConfirmWanted(wanted.clone())).await;
    let CloudFrame::Confirmed { statement } = link.answer().await else {
        panic!("no confirmation");
    };
    let orchestrators = keys(device, Role::Orchestrator);
    let signed = statement
        .open(PayloadType::Confirm, orchestrators.iter())
        .unwrap();
    let signed: Confirmation = serde_json::from_slice(signed.payload()).unwrap();
    assert_eq!(signed, wanted);

    let outcome = evidence::outcome(device, package, End::Confirmed);
    let frame = device.outcome(&outcome);
    link.send(&frame).await;
    fleet.case_in_state("resolved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_goes_away_takes_its_question_back() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    for record in evidence::healthy(2) {
        let frame = device.record(record);
        link.send(&frame).await;
    }
    fleet.case_in_state("cleared").await;
    let id = approval["id"].as_str().unwrap();
    let refused = fleet
        .command(&["approve", id, "--key", "anna.key", "--yes"])
        .await;
    assert_eq!(refused.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("withdrawn"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_repair_is_not_proposed_again_at_once() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    approve(&fleet, &approval).await;
    let (package, _) = link.deliver().await;
    let frame = device.outcome(&evidence::outcome(&device, &package, End::RolledBack));
    link.send(&frame).await;
    fleet.case_in_state("rolled_back").await;
    for record in evidence::dead_resolver(2) {
        let frame = device.record(record);
        link.send(&frame).await;
    }
    let frame = device.record(evidence::dead_resolver(3).remove(0));
    link.send(&frame).await;
    link.acknowledged(aizen_protocol::id::Sequence(device.next - 1))
        .await;
    let cases = fleet.get("/cases").await;
    assert_eq!(cases["cases"].as_array().unwrap().len(), 1, "{cases:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_outcome_settles_nothing_and_blocks_nothing() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    approve(&fleet, &approval).await;
    let (package, _) = link.deliver().await;
    let outcome = evidence::outcome(&device, &package, End::Confirmed);
    let genuine = std::mem::replace(&mut device.result, fleet.key("stranger.key"));
    let forged = device.outcome(&outcome);
    link.send(&forged).await;
    link.acknowledged(aizen_protocol::id::Sequence(device.next - 1))
        .await;
    assert_eq!(fleet.audited("signed_refused").await, 1);
    assert_eq!(fleet.audited("outcome_stored").await, 0);
    fleet.case_in_state("delivering").await;

    device.result = genuine;
    let frame = device.outcome(&outcome);
    link.send(&frame).await;
    // The same outcome under another number is the same outcome.
    let again = device.outcome(&outcome);
    link.send(&again).await;
    fleet.case_in_state("resolved").await;
    link.acknowledged(aizen_protocol::id::Sequence(device.next - 1))
        .await;
    assert_eq!(fleet.audited("outcome_stored").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_another_key_signed_asks_nobody() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    device
        .send_round(&mut link, evidence::dead_resolver(1))
        .await;
    let rehearsal = link.rehearse().await;
    let payload = evidence::rehearsed(&device, &rehearsal, evidence::effect());
    device.result = fleet.key("stranger.key");
    let answer = device.signed(PayloadType::Effect, &payload);
    link.send(&answer).await;
    link.acknowledged(aizen_protocol::id::Sequence(device.next - 1))
        .await;
    assert_eq!(fleet.audited("signed_refused").await, 1);
    let approvals = fleet.get("/approvals").await;
    assert!(approvals["approvals"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_for_another_package_or_change_is_not_signed() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    approve(&fleet, &approval).await;
    let (package, _) = link.deliver().await;
    link.close().await;
    let (mut link, _) = device.connect(&fleet).await;
    // What was sent and not received is sent again.
    link.deliver().await;
    let change = ChangeId::fresh();
    let wanted = evidence::confirmation(&device, &package, &change);
    let mut foreign = wanted.clone();
    foreign.package = Digest::of(b"another package");
    let mut of_another = wanted.clone();
    of_another.device = aizen_protocol::id::DeviceId::fresh();
    for refused in [foreign, of_another] {
        link.send(&DeviceFrame::ConfirmWanted(refused)).await;
        assert!(link.is_quiet(Duration::from_millis(300)).await);
    }
    link.send(&DeviceFrame::ConfirmWanted(wanted)).await;
    assert!(matches!(link.answer().await, CloudFrame::Confirmed { .. }));
    let other_change = evidence::confirmation(&device, &package, &ChangeId::fresh());
    link.send(&DeviceFrame::ConfirmWanted(other_change)).await;
    assert!(link.is_quiet(Duration::from_millis(300)).await);
    assert_eq!(fleet.audited("confirm_refused").await, 3);
}
