//! What `aizen status` tells of the daemon.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aizen_protocol::control::{DaemonStatus, UplinkState};
use aizen_protocol::finding::Verdict;
use aizen_protocol::id::DeviceId;
use aizen_protocol::limit;
use aizen_protocol::record::{Body, History, Record};
use aizen_sanitizer::Sanitized;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};

use super::thinned::Thinned;
use crate::stream::handle::SpoolHandle;
use crate::stream::meter::Meter;
use crate::stream::uplink::Command;

/// Earlier rounds for people at most, with room for the history in one line of the socket.
const ROUNDS_BYTES: usize = limit::FRAME / 2;

/// Shared by the parts of the daemon; no lock is held while waiting.
#[derive(Clone, Debug, Default)]
pub(super) struct State(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    device: Option<DeviceId>,
    spool: Option<SpoolHandle>,
    uplink: Option<(watch::Receiver<UplinkState>, Meter, mpsc::Sender<Command>)>,
    verdict: Option<Verdict>,
    rounds: Thinned<Arc<Vec<Record>>>,
    /// The newest glance, until a round has seen the same.
    glanced: Vec<Record>,
    sanitized: Arc<Vec<Sanitized<Record>>>,
    /// Somebody changed what this device may do.
    standing: Arc<Notify>,
}

impl State {
    pub(super) fn enrolled(&self, device: DeviceId, spool: SpoolHandle) {
        let mut known = self.lock();
        known.device = Some(device);
        known.spool = Some(spool);
    }

    /// What wakes whoever asks the executor for the device's standing.
    pub(super) fn standing(&self) -> Arc<Notify> {
        Arc::clone(&self.lock().standing)
    }

    pub(super) fn connected_by(
        &self,
        state: watch::Receiver<UplinkState>,
        meter: Meter,
        commands: mpsc::Sender<Command>,
    ) {
        self.lock().uplink = Some((state, meter, commands));
    }

    /// The newest verdict, with real values: it is for this device's screen. True if its health changed.
    pub(super) fn judged(&self, verdict: Verdict) -> bool {
        let before = self.lock().verdict.replace(verdict.clone());
        before.is_none_or(|b| b.health != verdict.health)
    }

    /// The records of the newest round, with real values: they are for this device alone.
    pub(super) fn seen(&self, records: Vec<Record>) {
        let mut known = self.lock();
        known.rounds.push(Arc::new(records));
        known.glanced.clear();
    }

    /// The same, as they may leave.
    pub(super) fn sanitized(&self) -> Arc<Vec<Sanitized<Record>>> {
        Arc::clone(&self.lock().sanitized)
    }

    /// Takes the records of the newest round as they may leave.
    pub(super) fn passed(&self, records: &[Sanitized<Record>]) {
        self.lock().sanitized = Arc::new(records.to_vec());
    }

    /// What the kernel's tables showed when they changed, while the next round is still under way.
    pub(super) fn glanced(&self, records: Vec<Record>) {
        self.lock().glanced = records;
    }

    pub(super) fn newest(&self) -> Arc<Vec<Record>> {
        self.lock().rounds.newest().cloned().unwrap_or_default()
    }

    /// The history, and the records of the earlier rounds: the first that is remembered, and as many of the newest as
    /// fit beside it into one answer.
    pub(super) fn remembered(&self) -> (Option<History>, Vec<Record>) {
        let rounds: Vec<Arc<Vec<Record>>> = self.lock().rounds.iter().cloned().collect();
        let history = rounds.last().and_then(|newest| {
            newest.iter().find_map(|record| match &record.body {
                Body::History(history) => Some(history.clone()),
                _ => None,
            })
        });
        let glanced = Arc::new(self.lock().glanced.clone());
        let mut room = ROUNDS_BYTES;
        let mut kept = Vec::new();
        let (first, newer) = rounds.split_at(rounds.len().min(1));
        let glanced = std::iter::once(&glanced);
        for round in first.iter().chain(glanced).chain(newer.iter().rev()) {
            let told = round
                .iter()
                .filter(|record| !matches!(record.body, Body::History(_)));
            let records: Vec<Record> = told.cloned().collect();
            let size = serde_json::to_vec(&records).map_or(usize::MAX, |json| json.len());
            let Some(left) = room.checked_sub(size) else {
                break;
            };
            room = left;
            kept.extend(records);
        }
        (history, kept)
    }

    /// When the present connection to the orchestrator began; none without one.
    pub(super) fn connection(&self) -> Option<Timestamp> {
        match *self.lock().uplink.as_ref()?.0.borrow() {
            UplinkState::Connected { since, .. } => Some(since),
            _ => None,
        }
    }

    pub(super) fn spool(&self) -> Option<SpoolHandle> {
        self.lock().spool.clone()
    }

    /// Tells the uplink that the network changed; false without an enrollment.
    pub(super) fn kick(&self) -> bool {
        let commands = self
            .lock()
            .uplink
            .as_ref()
            .map(|(_, _, commands)| commands.clone());
        // A full queue holds a kick already.
        commands.map(|c| c.try_send(Command::Kick)).is_some()
    }

    pub(super) async fn status(&self) -> DaemonStatus {
        let (spool, mut status) = {
            let known = self.lock();
            (known.spool.clone(), known.status())
        };
        if let Some(spool) = spool
            && let Ok(now) = spool.status().await
        {
            status.newest = now.newest;
            status.acknowledged = now.acknowledged;
            status.spooled = now.frames;
            status.spooled_bytes = now.bytes;
            status.dropped = now.dropped;
        }
        status
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn status(&self) -> DaemonStatus {
        let uplink = self.uplink.as_ref();
        let findings = |v: &Verdict| v.findings.iter().map(|f| f.summary.0.clone()).collect();
        DaemonStatus {
            device: self.device.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            uplink: uplink.map_or(UplinkState::NotEnrolled, |(state, _, _)| {
                state.borrow().clone()
            }),
            newest: Default::default(),
            acknowledged: Default::default(),
            spooled: 0,
            spooled_bytes: 0,
            dropped: 0,
            sent_bytes: uplink
                .map(|(_, meter, _)| meter.by_purpose())
                .unwrap_or_default(),
            health: self.verdict.as_ref().map(|v| v.health),
            health_at: self.verdict.as_ref().map(|v| v.at),
            findings: self.verdict.as_ref().map(findings).unwrap_or_default(),
        }
    }
}
