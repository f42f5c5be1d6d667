//! Only an exact approve is an approval.

use std::time::Duration;

use serde_json::json;

use crate::device::Device;
use crate::fleet::{Fleet, settings, signature};
use crate::story::until_asked;

fn path(approval: &serde_json::Value, what: &str) -> String {
    format!("/approvals/{}/{what}", approval["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_of_an_unknown_key_or_of_the_wrong_role_approves_nothing() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    let sign = path(&approval, "signatures");
    let refused = [
        (
            signature(&approval, &fleet.key("stranger.key")),
            "bad_signature",
        ),
        (
            signature(&approval, &fleet.key("data/orchestrator.key")),
            "key_not_authorised",
        ),
        (
            signature(&approval, &fleet.key("root.key")),
            "key_not_authorised",
        ),
    ];
    for (body, code) in refused {
        let (status, answer) = fleet.post(&sign, body).await;
        assert_eq!((status, &answer["error"]["code"]), (403, &code.into()));
    }
    // Signed by the right person, over other bytes.
    let mut altered = approval.clone();
    altered["envelope"]["payload"] = json!("e30=");
    let (status, _) = fleet
        .post(&sign, signature(&altered, &fleet.key("anna.key")))
        .await;
    assert_eq!(status, 403);
    let (status, _) = fleet.post(&sign, json!({ "signature": "YWJj" })).await;
    assert_eq!(status, 422);
    assert_eq!(fleet.audited("delivered").await, 0);
    assert_eq!(fleet.audited("approved").await, 0);

    let (status, _) = fleet
        .post(&sign, signature(&approval, &fleet.key("anna.key")))
        .await;
    assert_eq!(status, 200);
    let (status, again) = fleet
        .post(&sign, signature(&approval, &fleet.key("bob.key")))
        .await;
    assert_eq!((status, &again["error"]["code"]), (409, &"decided".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_after_the_end_is_an_error_and_no_approval() {
    let fleet = Fleet::with(aizen_orchestrator::config::Settings {
        approval_life: Duration::from_millis(1500),
        ..settings()
    })
    .await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    fleet.case_in_state("expired").await;
    let (status, answer) = fleet
        .post(
            &path(&approval, "signatures"),
            signature(&approval, &fleet.key("anna.key")),
        )
        .await;
    assert_eq!((status, &answer["error"]["code"]), (410, &"expired".into()));
    let (status, _) = fleet
        .post(&path(&approval, "deny"), json!({ "reason": "late" }))
        .await;
    assert_eq!(status, 410);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_needs_a_reason_and_is_final() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    let deny = path(&approval, "deny");
    let (status, _) = fleet.post(&deny, json!({ "reason": "  " })).await;
    assert_eq!(status, 422);
    let (status, _) = fleet.post(&deny, json!({ "reason": "not today" })).await;
    assert_eq!(status, 200);
    let case = fleet.case_in_state("denied").await;
    assert!(case["note"].as_str().unwrap().contains("not today"));
    let (status, _) = fleet
        .post(
            &path(&approval, "signatures"),
            signature(&approval, &fleet.key("anna.key")),
        )
        .await;
    assert_eq!(status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_sign_where_two_are_needed_and_one_twice_is_one() {
    let fleet = Fleet::with(aizen_orchestrator::config::Settings {
        high_risk_approvers: 2,
        ..settings()
    })
    .await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let id = device.enrolled.device.as_str().to_owned();
    let body = json!({
        "device": id, "intent": "move the default route", "script": "change route replace default dev wan\n",
        "manifest": { "class": "repair", "min_isolation": 2, "timeout_s": 5,
            "operations": [{ "route": { "replace": { "dst": "default", "dev": "wan" } } }] },
    });
    assert_eq!(fleet.post("/proposals", body).await.0, 200);
    let rehearsal = link.rehearse().await;
    let payload = crate::evidence::rehearsed(&device, &rehearsal, crate::evidence::effect());
    let answer = device.signed(aizen_protocol::envelope::PayloadType::Effect, &payload);
    link.send(&answer).await;
    let approval = fleet.pending_approval().await;
    assert_eq!(approval["risk"], "high", "the manifest's risk counts");
    let sign = path(&approval, "signatures");
    let anna = signature(&approval, &fleet.key("anna.key"));
    let (_, first) = fleet.post(&sign, anna.clone()).await;
    assert_eq!(first["missing"], 1);
    let (status, twice) = fleet.post(&sign, anna).await;
    assert_eq!(
        (status, &twice["error"]["code"]),
        (409, &"signed_already".into())
    );
    assert_eq!(fleet.audited("approved").await, 0);
    let (_, second) = fleet
        .post(&sign, signature(&approval, &fleet.key("bob.key")))
        .await;
    assert_eq!(second["missing"], 0);
    let (package, _) = link.deliver().await;
    let people = [
        fleet.key("anna.key").public(),
        fleet.key("bob.key").public(),
    ];
    let opened = package
        .open(
            aizen_protocol::envelope::PayloadType::Package,
            people.iter(),
        )
        .unwrap();
    assert_eq!(opened.signers().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_fails_in_the_shadow_is_shown_to_nobody() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    device
        .send_round(&mut link, crate::evidence::dead_resolver(1))
        .await;
    let rehearsal = link.rehearse().await;
    let mut effect = crate::evidence::effect();
    effect.script.end = aizen_protocol::effect::ScriptEnd::Exited(3);
    let payload = crate::evidence::rehearsed(&device, &rehearsal, effect);
    let answer = device.signed(aizen_protocol::envelope::PayloadType::Effect, &payload);
    link.send(&answer).await;
    let case = fleet.case_in_state("open").await;
    assert!(
        case["note"]
            .as_str()
            .unwrap()
            .contains("failed in the shadow")
    );
    let approvals = fleet.get("/approvals?all=true").await;
    assert!(approvals["approvals"].as_array().unwrap().is_empty());
}
