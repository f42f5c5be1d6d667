//! The orchestrator ends and begins again in the middle of everything.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use aizen_protocol::envelope::PayloadType;
use aizen_protocol::frame::{CloudFrame, DeviceFrame};
use aizen_protocol::id::{ChangeId, Digest, Sequence};
use aizen_protocol::outcome::End;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::device::Device;
use crate::evidence;
use crate::fleet::{Fleet, settings};
use crate::story::{approve, until_asked};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_at_every_step_loses_nothing_and_delivers_once() {
    let mut fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    device
        .send_round(&mut link, evidence::dead_resolver(1))
        .await;
    let rehearsal = link.rehearse().await;
    fleet.restart().await;
    let message = link.farewell().await;
    assert_eq!(message.as_deref(), Some("the orchestrator stops"));

    let (mut link, through) = device.connect(&fleet).await;
    assert_eq!(through, Sequence(device.next - 1), "nothing is lost");
    let payload = evidence::rehearsed(&device, &rehearsal, evidence::effect());
    let answer = device.signed(PayloadType::Effect, &payload);
    link.send(&answer).await;
    let approval = fleet.pending_approval().await;
    fleet.restart().await;
    approve(&fleet, &approval).await;
    fleet.restart().await;

    let (mut link, _) = device.connect(&fleet).await;
    let (package, _) = link.deliver().await;
    let digest = Digest::of(&package.unverified_payload().unwrap());
    link.send(&DeviceFrame::Received { package: digest }).await;
    fleet.case_in_state("running").await;
    fleet.restart().await;

    let (mut link, _) = device.connect(&fleet).await;
    assert!(
        link.is_quiet(Duration::from_millis(700)).await,
        "what was received is not delivered again"
    );
    let wanted = evidence::confirmation(&device, &package, &ChangeId::fresh());
    link.send(&DeviceFrame::ConfirmWanted(wanted)).await;
    assert!(matches!(link.answer().await, CloudFrame::Confirmed { .. }));
    let outcome = evidence::outcome(&device, &package, End::Confirmed);
    let frame = device.outcome(&outcome);
    link.send(&frame).await;
    fleet.case_in_state("resolved").await;
    fleet.restart().await;
    let verified = fleet.json(&["audit", "verify"]).await;
    assert_eq!(verified["intact"], true);
    assert_eq!(fleet.audited("delivered").await, 1);
    assert_eq!(fleet.audited("outcome_stored").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_directory_is_refused() {
    let fleet = Fleet::start().await;
    let second = fleet.command(&["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains("in use by another server"), "{message}");
}

/// The real program as a process; says where it listens.
async fn spawn(fleet: &Fleet, listen: &str) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aizen-orchestrator"))
        .current_dir(fleet.directory())
        .args(["serve", "--data", "data", "--listen", listen])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.strip_prefix("listening on https://").unwrap();
    (child, address.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_and_sigterm_ends_in_order() {
    let mut fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let listen = fleet.address().to_string();
    fleet.stop().await;
    let (mut child, address) = spawn(&fleet, &listen).await;
    fleet.moved_to(address);
    let (mut link, _) = device.connect(&fleet).await;
    device.send_round(&mut link, evidence::healthy(1)).await;
    child.kill().await.unwrap();

    let (mut child, _) = spawn(&fleet, &listen).await;
    let (mut link, through) = device.connect(&fleet).await;
    assert_eq!(through, Sequence(device.next - 1));
    let devices = fleet.json(&["devices"]).await;
    assert_eq!(devices["devices"][0]["records"], device.next - 1);
    let pid = child.id().unwrap().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(told.unwrap().success());
    let message = link.farewell().await;
    assert_eq!(message.as_deref(), Some("the orchestrator stops"));
    let ended = timeout(Duration::from_secs(10), child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    let away = fleet.command(&["devices"]).await;
    assert_eq!(away.status.code(), Some(75), "try again later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_that_was_received_as_the_connection_broke_is_not_delivered_again() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    approve(&fleet, &approval).await;
    let (package, _) = link.deliver().await;
    drop(link);
    let (mut link, _) = device.connect(&fleet).await;
    let digest = Digest::of(&package.unverified_payload().unwrap());
    link.send(&DeviceFrame::Received { package: digest }).await;
    assert!(link.is_quiet(Duration::from_secs(3)).await);
    assert_eq!(fleet.audited("delivered").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_answered_within_its_lease_is_sent_again() {
    let fleet = Fleet::with(aizen_orchestrator::config::Settings {
        lease: Duration::from_millis(700),
        ..settings()
    })
    .await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    device
        .send_round(&mut link, evidence::dead_resolver(1))
        .await;
    let first = link.rehearse().await;
    let second = link.rehearse().await;
    assert_ne!(
        first.unverified_payload(),
        second.unverified_payload(),
        "a rehearsal is a package of its own, or the device would call it replayed"
    );
    // The answer to either counts.
    let payload = evidence::rehearsed(&device, &first, evidence::effect());
    let answer = device.signed(PayloadType::Effect, &payload);
    link.send(&answer).await;
    approve(&fleet, &fleet.pending_approval().await).await;
    let package = loop {
        if let CloudFrame::Deliver { package, .. } = link.answer().await {
            break package;
        }
    };
    let (again, _) = link.deliver().await;
    assert_eq!(package, again);
}
