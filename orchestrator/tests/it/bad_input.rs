//! What breaks a connection must not break the server.

use std::time::Duration;

use aizen_protocol::frame::DeviceFrame;
use aizen_protocol::limit;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::device::Device;
use crate::evidence;
use crate::fleet::{Fleet, settings};

async fn lives(fleet: &Fleet, device: &Device) {
    let (status, body) = fleet
        .request(reqwest::Method::GET, "/health", None, None)
        .await;
    assert_eq!((status, &body["status"]), (200, &"ok".into()));
    device.connect(fleet).await.0.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_garbage_frame_closes_its_connection_with_a_message_and_the_server_lives() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    for (garbage, said) in [
        (Message::text("{\"frame\":\"what\"}"), "not a frame"),
        (Message::text("\u{0}\u{1}"), "not a frame"),
        (Message::text("[".repeat(100_000)), "not a frame"),
        (
            Message::text(r#"{"frame":"received","frame":"received"}"#),
            "appears twice",
        ),
        (Message::binary(vec![0xff; 100]), "frames are text"),
    ] {
        let (mut link, _) = device.connect(&fleet).await;
        // What came before the garbage is stored and acknowledged.
        let record = device.record(evidence::healthy(1).remove(0));
        link.send(&record).await;
        link.acknowledged(aizen_protocol::id::Sequence(device.next - 1))
            .await;
        link.0.send(garbage).await.unwrap();
        let message = link.farewell().await.expect("no farewell");
        assert!(message.contains(said), "{message}");
    }
    lives(&fleet, &device).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_100_megabytes_closes_its_connection_and_costs_no_memory() {
    let fleet = Fleet::start().await;
    let device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let before = resident_kib();
    // The header alone of a masked text frame of 100 MB (RFC 6455 section 5.2), then as much of it as is taken.
    let stream = link.0.get_mut();
    let mut header = vec![0x81, 0x80 | 127];
    header.extend(100_000_000u64.to_be_bytes());
    header.extend([0; 4]);
    stream.write_all(&header).await.unwrap();
    let chunk = vec![b'x'; 64 << 10];
    for _ in 0..1600 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    drop(link.farewell().await);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 30_000, "{grown} KiB more than before");
    lives(&fleet, &device).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_just_over_the_bound_is_refused_with_a_message() {
    let fleet = Fleet::start().await;
    let device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let large = Message::text("x".repeat(limit::FRAME + 1));
    // The server may stop reading before all is written.
    link.0.send(large).await.ok();
    if let Some(message) = link.farewell().await {
        assert!(message.contains("at most 1048576 bytes"), "{message}");
    }
    lives(&fleet, &device).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_names_another_device_is_refused() {
    let fleet = Fleet::start().await;
    let device = Device::enrolled_in(&fleet).await;
    let other = Device::enrolled_in(&fleet).await;
    let mut link = device.dial(&fleet).await;
    link.send(&DeviceFrame::Hello(other.hello())).await;
    let message = link.farewell().await.unwrap();
    assert!(message.contains("hello names"), "{message}");
    let mut link = device.dial(&fleet).await;
    link.send(&DeviceFrame::Received {
        package: aizen_protocol::id::Digest::of(b"x"),
    })
    .await;
    let message = link.farewell().await.unwrap();
    assert!(message.contains("first frame must be hello"), "{message}");
    lives(&fleet, &device).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_hold_up_nobody_for_long() {
    let fleet = Fleet::with(aizen_orchestrator::config::Settings {
        pending_handshakes: 4,
        handshake_within: Duration::from_millis(300),
        ..settings()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(fleet.address()).await.unwrap());
    }
    let device = Device::enrolled_in(&fleet).await;
    lives(&fleet, &device).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_says_nothing_is_let_go() {
    let fleet = Fleet::with(aizen_orchestrator::config::Settings {
        heartbeat: Duration::from_millis(100),
        dead_after: Duration::from_millis(400),
        ..settings()
    })
    .await;
    let device = Device::enrolled_in(&fleet).await;
    let (mut answering, _) = device.connect(&fleet).await;
    // Reading answers pings, so this one stays.
    assert!(answering.is_quiet(Duration::from_millis(1200)).await);
    let id = device.enrolled.device.to_string();
    let online = |wanted: bool| {
        let id = id.clone();
        move |d: &serde_json::Value| d["device"] == id.as_str() && d["online"] == wanted
    };
    fleet.until("/devices", "devices", online(true)).await;
    // Not reading answers nothing.
    fleet.until("/devices", "devices", online(false)).await;
    while let Some(Ok(_)) = answering.0.next().await {}
    lives(&fleet, &device).await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_certificate_ends_however_slowly_it_speaks() {
    let fleet = Fleet::with(aizen_orchestrator::config::Settings {
        anonymous_life: Duration::from_millis(500),
        ..settings()
    })
    .await;
    let device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let mut slow = crate::device::tls(fleet.address(), &device.enrolled.ca, None)
        .await
        .unwrap();
    let talk = async {
        loop {
            if slow.write_all(b"G").await.is_err() || slow.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), talk)
        .await
        .expect("it is still open");
    assert!(
        link.is_quiet(Duration::from_millis(700)).await,
        "a device's connection stays"
    );
}
