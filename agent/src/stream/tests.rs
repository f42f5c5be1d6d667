//! Uplinks that run, against orchestrators of the test.

mod delivery;
mod packages;
mod refusal;
mod silence;

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
