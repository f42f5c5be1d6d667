//! What is in the spool reaches the orchestrator, in order and once.

use super::*;

#[tokio::test]
async fn what_is_appended_arrives_in_order_and_is_forgotten_once_acknowledged() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let mut device = Device::start(&ca.identity(), &cloud);
    let first = device.append(100).await;
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    assert_eq!(
        device.event("connection").await,
        Event::Connected {
            address: cloud.address()
        }
    );
    let mut stored = Vec::new();
    // The window is smaller than what waits.
    for half in [&first[..50], &first[50..]] {
        stored.extend(store_until(&mut peer, *half.last().unwrap()).await);
    }
    assert_eq!(stored, first);
    device.until_acknowledged().await;
    let key = PrivateKey::generate().unwrap();
    let outcome = Envelope::sign(PayloadType::Outcome, b"{}", &[&key]);
    let outcome = Attested::check(outcome, &key.public()).unwrap();
    let number = device.spool.append_signed(&outcome).await.unwrap();
    assert_eq!(store_until(&mut peer, number.0).await, [number.0]);
    device.until_acknowledged().await;
    let sent = device.meter.by_purpose();
    assert!(sent["telemetry"] > 100 * 100);
    assert!(sent["results"] > 100 && sent["overhead"] > 500, "{sent:?}");
}

#[tokio::test]
async fn over_server_restarts_nothing_is_lost_and_nothing_is_stored_twice() {
    let ca = Ca::new();
    let mut cloud = Cloud::with_ca(&ca).await;
    let address = cloud.address();
    let device = Device::start_with(&ca.identity(), &cloud, "localhost", |s| {
        s.bounds.window_frames = 8;
    });
    let spool = device.spool.clone();
    let producer = tokio::spawn(async move {
        let mut numbers = Vec::new();
        for i in 0..300 {
            let record = evidence::record(i * 7 % 900);
            numbers.push(spool.append_record(&record).await.unwrap().0);
            if i % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        numbers
    });
    let mut stored: BTreeMap<u64, DeviceFrame> = BTreeMap::new();
    let mut resent = 0;
    let mut random = 7_u64;
    for connection in 0.. {
        let mut peer = soon("the device", cloud.accept()).await;
        let through = stored.last_key_value().map_or(0, |(seq, _)| *seq);
        welcome(&mut peer, through).await;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // From some connection on it stays, so that the test ends.
        let stays = connection >= 30;
        // Stored and then killed before any acknowledgement, now and then; the window lets no more than 8 through.
        let acknowledges = stays || random >> 40 & 3 != 0;
        let life = match (stays, acknowledges) {
            (true, _) => u64::MAX,
            (false, true) => random >> 33 & 15,
            (false, false) => random >> 33 & 7,
        };
        let mut heard = 0;
        while heard < life && (stored.len() < 300 || !producer.is_finished()) {
            let Some(frame) = soon("a frame", hear(&mut peer)).await else {
                break;
            };
            let DeviceFrame::Record { seq, .. } = frame else {
                panic!("{frame:?} came");
            };
            heard += 1;
            let newest = stored.last_key_value().map_or(0, |(seq, _)| *seq);
            match stored.get(&seq.0) {
                Some(known) => {
                    assert_eq!(*known, frame, "number {} was used twice", seq.0);
                    resent += 1;
                }
                None => {
                    assert!(seq.0 > newest, "{} came after {newest}", seq.0);
                    stored.insert(seq.0, frame);
                }
            }
            if acknowledges && !say(&mut peer, &ack(seq.0)).await {
                break;
            }
        }
        if stored.len() == 300 && producer.is_finished() {
            let last = *stored.last_key_value().unwrap().0;
            assert!(say(&mut peer, &ack(last)).await);
            device.until_acknowledged().await;
            break;
        }
        drop(peer);
        if connection % 7 == 3 {
            // A restart: nobody listens for a while.
            drop(cloud);
            tokio::time::sleep(Duration::from_millis(50)).await;
            cloud = Cloud::at(&ca, address).await;
        }
    }
    let produced = producer.await.unwrap();
    assert_eq!(stored.into_keys().collect::<Vec<_>>(), produced);
    assert_eq!(resent, 0, "the welcome says what is stored");
    assert_eq!(device.spool.status().await.unwrap().dropped, 0);
}

#[tokio::test]
async fn a_device_that_is_killed_goes_on_where_the_orchestrator_stands() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let identity = ca.identity();
    let mut device = Device::start(&identity, &cloud);
    let before = device.append(20).await;
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    store_until(&mut peer, before[9]).await;
    device.event("connection").await;
    let dir = Arc::clone(&device.dir);
    // Killed: nothing is closed, nothing is synced.
    drop(device);
    while soon("the end of the old connection", hear(&mut peer))
        .await
        .is_some()
    {}
    let device = Device::start_in(dir, &identity, &cloud, "localhost", |_| {});
    let after = device.append(5).await;
    assert!(after[0] > before[19]);
    let mut peer = soon("the device", cloud.accept()).await;
    // It stored more than it could acknowledge.
    welcome(&mut peer, before[12]).await;
    let expected = [&before[13..], &after[..]].concat();
    assert_eq!(store_until(&mut peer, after[4]).await, expected);
    device.until_acknowledged().await;
}

#[tokio::test]
async fn a_frame_of_100_mb_or_of_garbage_ends_the_connection_and_costs_nothing_else() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let mut device = Device::start(&ca.identity(), &cloud);
    let numbers = device.append(3).await;
    let garbage: [(Message, &str); 6] = [
        (Message::text("garbage"), "what is no frame"),
        (
            Message::text(r#"{"frame":"ack","through":1,"through":2}"#),
            "twice",
        ),
        (
            Message::text(r#"{"frame":"unheard_of"}"#),
            "what is no frame",
        ),
        (Message::binary(vec![0; 10]), "binary"),
        (Message::text("[".repeat(1000)), "nested deeper"),
        (
            Message::text(serde_json::to_string(&ack(999_999)).unwrap()),
            "acknowledged number 999999",
        ),
    ];
    for (message, expected) in garbage {
        let mut peer = soon("the device", cloud.accept()).await;
        welcome(&mut peer, 0).await;
        peer.send(message).await.unwrap();
        let error = device.disconnected().await;
        assert!(error.contains(expected), "{error}");
        assert_eq!(device.frames().await, 3);
    }
    for (head, expected) in [
        // A text frame that says it has 100 MB, and one whose text is no UTF-8.
        (
            &[0x81, 127, 0, 0, 0, 0, 6, 0, 0, 0][..],
            "more than the 1048576 bytes",
        ),
        (&[0x81, 2, 0xff, 0xff][..], "the connection failed"),
        (&[0xff, 0xff, 0xff, 0xff][..], "the connection failed"),
    ] {
        let mut peer = soon("the device", cloud.accept()).await;
        welcome(&mut peer, 0).await;
        let tls = peer.get_mut();
        tls.write_all(head).await.unwrap();
        tls.write_all(&vec![b'x'; limit::FRAME]).await.ok();
        let error = device.disconnected().await;
        assert!(error.contains(expected), "{error}");
    }
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    assert_eq!(store_until(&mut peer, numbers[2]).await, numbers);
    device.until_acknowledged().await;
}
