use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::control::UplinkState;
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::frame::{CloudFrame, DeviceFrame, Standing};
use aizen_protocol::id::{ChangeId, Digest, Sequence};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::limit;
use aizen_protocol::outcome::Isolation;
use aizen_protocol::statement::{Confirmation, Nonce};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::attested::Attested;
use super::cloud::{Ca, Clients, Cloud, Peer, Validity, hear, say, soon, welcome};
use super::evidence;
use super::handle::SpoolHandle;
use super::spool::{Spool, SpoolLimits};
use super::uplink::{About, Command, Event, Settings, Uplink};
use crate::identity::UplinkIdentity;

/// A device with a spool in a folder of its own and an uplink that runs.
struct Device {
    spool: SpoolHandle,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
    meter: super::meter::Meter,
    state: watch::Receiver<UplinkState>,
    running: JoinHandle<()>,
    dir: Arc<tempfile::TempDir>,
}

fn settings(dir: &std::path::Path, host: &str, port: u16) -> Settings {
    let server = format!("{host}:{port}").parse().unwrap();
    let mut settings = Settings::new(server, dir.join("addresses.json"));
    settings.max_backoff = Duration::from_millis(300);
    settings.patience.attempt = Duration::from_secs(3);
    settings
}

impl Device {
    fn start(identity: &UplinkIdentity, cloud: &Cloud) -> Self {
        Self::start_with(identity, cloud, "localhost", |_| {})
    }

    fn start_with(
        identity: &UplinkIdentity,
        cloud: &Cloud,
        host: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::start_in(
            Arc::new(tempfile::tempdir().unwrap()),
            identity,
            cloud,
            host,
            change,
        )
    }

    fn start_in(
        dir: Arc<tempfile::TempDir>,
        identity: &UplinkIdentity,
        cloud: &Cloud,
        host: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = settings(dir.path(), host, cloud.address().port());
        change(&mut settings);
        let spool = SpoolHandle::new(Spool::open(
            &dir.path().join("spool"),
            SpoolLimits::default(),
        ));
        let (commands, command_queue) = mpsc::channel(16);
        let (event_queue, events) = mpsc::channel(64);
        // The sender may go: what a device says of itself doesn't change in these tests.
        let (_, about) = watch::channel(About {
            device: "dev-1".parse().unwrap(),
            epoch: "ep-1".parse().unwrap(),
            boot: "boot-1".parse().unwrap(),
            agent: "0.1.0".to_owned(),
            standing: Standing {
                isolation: Isolation {
                    level: 0,
                    layers: Vec::new(),
                },
                trust_version: 1,
                takes_changes: false,
            },
        });
        let uplink = Uplink::new(
            settings,
            identity,
            spool.clone(),
            about,
            command_queue,
            event_queue,
        )
        .unwrap();
        Self {
            spool,
            commands,
            events,
            meter: uplink.meter(),
            state: uplink.state(),
            running: tokio::spawn(uplink.run()),
            dir,
        }
    }

    async fn command(&self, command: Command) {
        self.commands.send(command).await.unwrap();
    }

    async fn append(&self, records: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for i in 0..records {
            let record = evidence::record(100 + i);
            numbers.push(self.spool.append_record(&record).await.unwrap().0);
        }
        numbers
    }

    async fn event(&mut self, what: &str) -> Event {
        soon(what, self.events.recv()).await.unwrap()
    }

    async fn disconnected(&mut self) -> String {
        loop {
            if let Event::Disconnected { error } = self.event("disconnection").await {
                return error;
            }
        }
    }

    async fn frames(&self) -> u64 {
        self.spool.status().await.unwrap().frames
    }

    async fn until_acknowledged(&self) {
        soon("everything acknowledged", async {
            while self.frames().await > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn ack(through: u64) -> CloudFrame {
    CloudFrame::Ack {
        through: Sequence(through),
    }
}

/// Reads frames of the spool until `last`, then acknowledges it.
async fn store_until(peer: &mut Peer, last: u64) -> Vec<u64> {
    let mut stored = Vec::new();
    while stored.last() != Some(&last) {
        match soon("a frame", hear(peer)).await.unwrap() {
            DeviceFrame::Record { seq, .. } | DeviceFrame::Signed { seq, .. } => stored.push(seq.0),
            other => panic!("{other:?} came"),
        }
    }
    assert!(say(peer, &ack(last)).await);
    stored
}

fn confirmation() -> Confirmation {
    Confirmation {
        device: "dev-1".parse().unwrap(),
        package: Digest::of(b"package"),
        change: "chg-1".parse::<ChangeId>().unwrap(),
        nonce: Nonce(Digest::of(b"nonce")),
    }
}

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

/// The uplink's last error, once it has one.
async fn last_error(uplink: &mut watch::Receiver<UplinkState>) -> String {
    let waiting = |state: &UplinkState| matches!(state, UplinkState::Waiting { .. });
    let state = soon("a failure", uplink.wait_for(waiting))
        .await
        .unwrap()
        .clone();
    match state {
        UplinkState::Waiting { last_error, .. } => last_error,
        other => panic!("{other:?}"),
    }
}

/// Runs an uplink against a server that it must refuse, or that must refuse it.
async fn refused(identity: &UplinkIdentity, cloud: Cloud) -> String {
    let dir = tempfile::tempdir().unwrap();
    let spool = SpoolHandle::new(Spool::open(dir.path(), SpoolLimits::default()));
    spool.append_record(&evidence::record(1)).await.unwrap();
    let (_commands, command_queue) = mpsc::channel(1);
    let (event_queue, mut events) = mpsc::channel(1);
    let (_, about) = watch::channel(About {
        device: "dev-1".parse().unwrap(),
        epoch: "ep-1".parse().unwrap(),
        boot: "boot-1".parse().unwrap(),
        agent: String::new(),
        standing: Standing {
            isolation: Isolation {
                level: 0,
                layers: Vec::new(),
            },
            trust_version: 1,
            takes_changes: false,
        },
    });
    let uplink = Uplink::new(
        settings(dir.path(), "localhost", cloud.address().port()),
        identity,
        spool.clone(),
        about,
        command_queue,
        event_queue,
    )
    .unwrap();
    let mut state = uplink.state();
    let running = tokio::spawn(uplink.run());
    let server = tokio::spawn(async move {
        let mut heard = Vec::new();
        loop {
            if let Some(mut peer) = cloud.try_accept().await {
                heard.extend(hear(&mut peer).await);
                return heard;
            }
        }
    });
    let error = last_error(&mut state).await;
    assert!(!server.is_finished() || server.await.unwrap().is_empty());
    assert!(events.try_recv().is_err());
    assert_eq!(spool.status().await.unwrap().frames, 1);
    running.abort();
    error
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused() {
    let cloud = Cloud::with_ca(&Ca::new()).await;
    let error = refused(&Ca::new().identity(), cloud).await;
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_server_for_another_name_is_refused() {
    let ca = Ca::new();
    let tls = ca.server(
        "other.example",
        Validity::Always,
        &[&TLS13],
        Clients::Certified,
    );
    let error = refused(&ca.identity(), Cloud::listen(tls).await).await;
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_1_3_is_refused() {
    let ca = Ca::new();
    let tls = ca.server("localhost", Validity::Always, &[&TLS12], Clients::Certified);
    let error = refused(&ca.identity(), Cloud::listen(tls).await).await;
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn a_server_refuses_a_device_with_a_certificate_of_another_ca() {
    let (ours, other) = (Ca::new(), Ca::new());
    let mut identity = other.identity();
    identity.ca = ours.der();
    let error = refused(&identity, Cloud::with_ca(&ours).await).await;
    assert!(error.contains("alert"), "{error}");
}

#[tokio::test]
async fn an_expired_server_is_refused_and_one_from_the_future_is_not() {
    let ca = Ca::new();
    let tls = ca.server("localhost", Validity::Past, &[&TLS13], Clients::Certified);
    let error = refused(&ca.identity(), Cloud::listen(tls).await).await;
    assert!(error.contains("expired"), "{error}");
    let tls = ca.server("localhost", Validity::Future, &[&TLS13], Clients::Certified);
    let cloud = Cloud::listen(tls).await;
    let _device = Device::start(&ca.identity(), &cloud);
    let mut peer = soon("the device", cloud.accept()).await;
    welcome(&mut peer, 0).await;
}

#[test]
fn a_certificate_for_another_key_is_no_identity() {
    let ca = Ca::new();
    let mut identity = ca.identity();
    identity.key = PrivateKey::generate().unwrap();
    assert!(super::tls::uplink_config(&identity).is_err());
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
    let mut dialer = super::dial::Dialer::new(
        format!("orchestrator.invalid:{}", cloud.address().port())
            .parse()
            .unwrap(),
        "/",
        super::tls::uplink_config(&ca.identity()).unwrap(),
        super::dial::Patience::default(),
        super::meter::Meter::default(),
    )
    .remembering(dir.path().join("none"));
    let error = soon("an error", dialer.dial())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("its name can't be resolved"), "{error}");
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
