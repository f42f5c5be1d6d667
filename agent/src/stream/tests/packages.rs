//! Confirmations and packages, between the daemon and the orchestrator.

use super::*;

fn confirmation() -> Confirmation {
    Confirmation {
        device: "dev-1".parse().unwrap(),
        package: Digest::of(b"package"),
        change: "chg-1".parse::<ChangeId>().unwrap(),
        nonce: Nonce(Digest::of(b"nonce")),
    }
}

#[tokio::test]
async fn a_confirmation_is_asked_for_first_on_a_connection_dialled_after_it_and_on_no_other() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let mut device = Device::start(&ca.identity(), &cloud);
    let mut old = soon("the device", cloud.accept()).await;
    welcome(&mut old, 0).await;
    device.event("connection").await;
    let numbers = device.append(1).await;
    device.command(Command::ConfirmWanted(confirmation())).await;
    let mut fresh = soon("a fresh connection", cloud.accept()).await;
    welcome(&mut fresh, 0).await;
    assert_eq!(
        soon("the question", hear(&mut fresh)).await,
        Some(DeviceFrame::ConfirmWanted(confirmation()))
    );
    assert_eq!(store_until(&mut fresh, numbers[0]).await, numbers);
    drop(fresh);
    while let Some(frame) = soon("the old connection's end", hear(&mut old)).await {
        assert!(!matches!(frame, DeviceFrame::ConfirmWanted(_)));
    }
    // Not answered: asked for again.
    let mut again = soon("the device", cloud.accept()).await;
    welcome(&mut again, numbers[0]).await;
    assert_eq!(
        soon("the question", hear(&mut again)).await,
        Some(DeviceFrame::ConfirmWanted(confirmation()))
    );
    let orchestrator = PrivateKey::generate().unwrap();
    let statement = Envelope::sign(
        PayloadType::Confirm,
        &serde_json::to_vec(&confirmation()).unwrap(),
        &[&orchestrator],
    );
    let confirmed = CloudFrame::Confirmed {
        statement: statement.clone(),
    };
    assert!(say(&mut again, &confirmed).await);
    loop {
        if let Event::Confirmed(signed) = device.event("confirmation").await {
            assert_eq!(signed, statement);
            break;
        }
    }
    drop(again);
    let mut last = soon("the device", cloud.accept()).await;
    welcome(&mut last, numbers[0]).await;
    let next = device.append(1).await;
    assert_eq!(store_until(&mut last, next[0]).await, next);
}

#[tokio::test]
async fn the_arrival_of_a_package_is_told_until_it_was_read() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let device = Device::start_with(&ca.identity(), &cloud, "localhost", |s| {
        s.bounds.ping_after = Duration::from_millis(100);
    });
    let package = Digest::of(b"package");
    device.command(Command::Received(package)).await;
    let received = Some(DeviceFrame::Received { package });
    for _ in 0..2 {
        let mut peer = soon("the device", cloud.accept()).await;
        welcome(&mut peer, 0).await;
        assert_eq!(soon("the arrival", hear(&mut peer)).await, received);
    }
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    assert_eq!(soon("the arrival", hear(&mut peer)).await, received);
    // Reading answers the pings.
    let quiet = tokio::time::timeout(Duration::from_millis(400), hear(&mut peer)).await;
    assert!(quiet.is_err(), "{quiet:?} came");
    drop(peer);
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    let quiet = tokio::time::timeout(Duration::from_millis(200), hear(&mut peer)).await;
    assert!(quiet.is_err(), "{quiet:?} came");
}

#[tokio::test]
async fn packages_reach_the_daemon_as_they_came() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let mut device = Device::start(&ca.identity(), &cloud);
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    device.event("connection").await;
    let envelope = |kind| Envelope::unsigned(kind, b"{}");
    let (package, delivery) = (
        envelope(PayloadType::Package),
        envelope(PayloadType::Delivery),
    );
    let rehearsal = envelope(PayloadType::Rehearsal);
    let frames = [
        CloudFrame::Rehearse {
            package: rehearsal.clone(),
        },
        CloudFrame::Deliver {
            package: package.clone(),
            delivery: delivery.clone(),
        },
        CloudFrame::Close {
            message: "maintenance".to_owned(),
        },
    ];
    for frame in &frames {
        assert!(say(&mut peer, frame).await);
    }
    assert_eq!(device.event("rehearsal").await, Event::Rehearse(rehearsal));
    assert_eq!(
        device.event("delivery").await,
        Event::Deliver { package, delivery }
    );
    let error = device.disconnected().await;
    assert!(
        error.ends_with("closed the connection: maintenance"),
        "{error}"
    );
}
