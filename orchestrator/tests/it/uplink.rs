//! Numbers, acknowledgements, and one connection a device.

use aizen_protocol::frame::DeviceFrame;
use aizen_protocol::id::Sequence;
use aizen_protocol::record::{Body, Gap};

use crate::device::Device;
use crate::evidence;
use crate::fleet::Fleet;

async fn records_held(fleet: &Fleet, device: &Device) -> i64 {
    let id = &device.enrolled.device;
    let shown = fleet.get(&format!("/devices/{id}")).await;
    shown["records"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_twice_is_stored_once() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    device.send_round(&mut link, evidence::healthy(1)).await;
    let count = records_held(&fleet, &device).await;
    assert_eq!(count, evidence::healthy(1).len() as i64);
    // As if the acknowledgement was lost: the same numbers on this connection and on a fresh one.
    device.next = 1;
    device.send_round(&mut link, evidence::healthy(1)).await;
    link.close().await;
    let (mut link, through) = device.connect(&fleet).await;
    assert_eq!(through, Sequence(device.next - 1));
    device.next = 3;
    device.send_round(&mut link, evidence::healthy(1)).await;
    // Two of them were beyond what was stored.
    assert_eq!(records_held(&fleet, &device).await, count + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_the_numbers_is_the_devices_loss_and_stops_nothing() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    device.next = 1000;
    device.send_round(&mut link, evidence::healthy(1)).await;
    link.close().await;
    let (_, through) = device.connect(&fleet).await;
    assert_eq!(through, Sequence(device.next - 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_replaces_the_older() {
    let fleet = Fleet::start().await;
    let device = Device::enrolled_in(&fleet).await;
    let (mut first, _) = device.connect(&fleet).await;
    let (second, _) = device.connect(&fleet).await;
    let message = first.farewell().await.unwrap();
    assert!(message.contains("newer connection"), "{message}");
    let devices = fleet.get("/devices").await;
    assert_eq!(devices["devices"][0]["online"], true);
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_takes_no_changes_is_asked_for_none() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let mut link = device.dial(&fleet).await;
    let mut hello = device.hello();
    let allowed = hello.standing.clone();
    hello.standing.takes_changes = false;
    link.send(&DeviceFrame::Hello(hello)).await;
    link.next().await;
    device
        .send_round(&mut link, evidence::dead_resolver(1))
        .await;
    let case = fleet.case_in_state("open").await;
    assert!(case["note"].as_str().unwrap().contains("takes no changes"));
    let id = device.enrolled.device.as_str();
    let body = serde_json::json!({
        "device": id, "intent": "x", "script": "true\n",
        "manifest": { "class": "repair", "min_isolation": 2, "timeout_s": 5 },
    });
    let (status, refused) = fleet.post("/proposals", body.clone()).await;
    assert_eq!(status, 409);
    assert_eq!(refused["error"]["code"], "observe_only");

    link.send(&DeviceFrame::Standing(allowed)).await;
    device
        .send_round(&mut link, evidence::dead_resolver(2))
        .await;
    fleet.case_in_state("rehearsing").await;
    let (status, _) = fleet.post("/proposals", body).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_holds_a_secret_is_acknowledged_counted_and_never_stored() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let mut round = evidence::healthy(1);
    let Some(Body::Round(end)) = round.last_mut().map(|record| &mut record.body) else {
        panic!("a round ends with its end");
    };
    end.gaps.push(Gap {
        collector: "host".into(),
        reason: "login failed: password=Tr0ub4dor-and-3".into(),
    });
    device.send_round(&mut link, round).await;
    assert_eq!(fleet.audited("leak_caught").await, 1);
    assert_eq!(
        records_held(&fleet, &device).await,
        evidence::healthy(1).len() as i64 - 1
    );
    link.close().await;
    for entry in std::fs::read_dir(fleet.path("data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let found = bytes.windows(9).any(|window| window == b"Tr0ub4dor");
        assert!(!found, "the secret is on disk");
    }
}
