//! Peers that say nothing, waits that somebody ends, names that nobody knows.

use super::*;

#[tokio::test]
async fn a_peer_that_says_nothing_any_more_is_found_by_pings() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let mut device = Device::start_with(&ca.identity(), &cloud, "localhost", |s| {
        s.bounds.ping_after = Duration::from_millis(100);
        s.bounds.pong_within = Duration::from_millis(200);
    });
    let mut silent = soon("the device", cloud.accept()).await;
    welcome(&mut silent, 0).await;
    let error = device.disconnected().await;
    assert!(error.contains("nothing heard"), "{error}");
    let mut alive = soon("the device", cloud.accept()).await;
    welcome(&mut alive, 0).await;
    device.event("connection").await;
    let talk = tokio::time::timeout(Duration::from_secs(1), alive.next());
    assert!(matches!(talk.await, Ok(Some(Ok(Message::Ping(_))))));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_ends_the_write_in_time_and_the_spool_keeps_everything() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    // Filled before the device dials: on a slow disk that takes longer than an attempt may.
    let filled = SpoolHandle::new(Spool::open(
        &dir.path().join("spool"),
        SpoolLimits::default(),
    ));
    for _ in 0..15 {
        let record = evidence::record(limit::FRAME - 1000);
        filled.append_record(&record).await.unwrap();
    }
    drop(filled);
    let mut device = Device::start_in(dir, &ca.identity(), &cloud, "localhost", |s| {
        s.write_within = Duration::from_millis(500);
        s.bounds.window_bytes = 64 << 20;
    });
    let mut deaf = soon("the device", cloud.accept()).await;
    welcome(&mut deaf, 0).await;
    let error = device.disconnected().await;
    assert!(error.contains("TCP took no byte"), "{error}");
    assert_eq!(device.frames().await, 15);
}

#[tokio::test]
async fn a_kick_ends_a_long_wait() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let address = cloud.address();
    drop(cloud);
    let cloud = Cloud::at(&ca, ([127, 0, 0, 2], address.port()).into()).await;
    let device = Device::start_with(&ca.identity(), &cloud, "localhost", |s| {
        s.max_backoff = Duration::from_secs(3600);
    });
    // Nobody listens where the device dials; after some attempts it waits for long.
    let mut state = device.state.clone();
    let waits = |state: &UplinkState| matches!(state, UplinkState::Waiting { next_ms, .. } if *next_ms >= 4000);
    soon("a long wait", state.wait_for(waits)).await.unwrap();
    let began = std::time::Instant::now();
    let cloud = Cloud::at(&ca, address).await;
    device.command(Command::Kick).await;
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn with_a_dead_resolver_the_address_that_last_authenticated_is_dialled() {
    let ca = Ca::new();
    // RFC 6761 section 6.4: no resolver knows this name.
    let name = "orchestrator.invalid";
    let tls = ca.server(name, Validity::Always, &[&TLS13], Clients::Certified);
    let cloud = Cloud::listen(tls).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("addresses.json");
    let port = cloud.address().port();
    let memory =
        format!(r#"{{"server":"wss://{name}:{port}","addresses":["127.0.0.9","127.0.0.1"]}}"#);
    std::fs::write(&file, memory).unwrap();
    let remembered = file.clone();
    let mut device = Device::start_with(&ca.identity(), &cloud, name, move |s| {
        s.remembered = remembered;
    });
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
    device.event("connection").await;
    let memory = std::fs::read_to_string(&file).unwrap();
    assert!(memory.contains(r#"["127.0.0.1","127.0.0.9"]"#), "{memory}");
}

#[tokio::test]
async fn an_uplink_that_never_had_an_answer_says_what_is_wrong_with_the_name() {
    let ca = Ca::new();
    let cloud = Cloud::with_ca(&ca).await;
    let dir = tempfile::tempdir().unwrap();
    let mut dialer = crate::stream::dial::Dialer::new(
        format!("orchestrator.invalid:{}", cloud.address().port())
            .parse()
            .unwrap(),
        "/",
        crate::stream::tls::uplink_config(&ca.identity()).unwrap(),
        crate::stream::dial::Patience::default(),
        crate::stream::meter::Meter::default(),
    )
    .remembering(dir.path().join("none"));
    let error = soon("an error", dialer.dial())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("its name can't be resolved"), "{error}");
}
