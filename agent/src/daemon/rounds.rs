//! The rounds: collect, sanitize, hand to the spool, judge. One after the other, woken by the clock, by the kernel or
//! by somebody who asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aizen_protocol::record::{Body, Record, Trigger};
use aizen_sanitizer::Sanitized;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::state::State;
use crate::collect::{Collector, NetEvent};
use crate::{analyze, clock, sanitize};

/// Rounds that the expert sees at once: enough for "since" and for deltas.
const REMEMBERED: usize = 6;

/// Between two tellings of the memory to the orchestrator, which hears of the rounds anyway.
const HISTORY_EVERY: Duration = Duration::from_secs(600);

pub(super) struct Rounds {
    pub(super) every: Duration,
    pub(super) collector: Collector,
    pub(super) sanitizer: Arc<Mutex<sanitize::Stage>>,
    pub(super) state: State,
    pub(super) history: VecDeque<Vec<Sanitized<Record>>>,
    pub(super) history_due: Instant,
    /// Somebody wants the sanitized records as numbers.
    pub(super) exports: bool,
}

fn is_history(record: &Sanitized<Record>) -> bool {
    matches!(record.get().body, Body::History(_))
}

impl Rounds {
    pub(super) async fn run(
        &mut self,
        mut netlink: mpsc::Receiver<NetEvent>,
        mut asks: mpsc::Receiver<Trigger>,
    ) {
        let mut trigger = Trigger::Asked;
        loop {
            let began = Instant::now();
            self.round(trigger).await;
            trigger = tokio::select! {
                () = sleep_until(began + self.every) => Trigger::Tick,
                Some(_) = netlink.recv() => {
                    self.state.kick();
                    Trigger::Event
                }
                Some(trigger) = asks.recv() => trigger,
            };
        }
    }

    async fn round(&mut self, trigger: Trigger) {
        let spool = self.state.spool();
        let dropped = match &spool {
            Some(spool) => spool.status().await.map_or(0, |s| s.dropped),
            None => 0,
        };
        let observations = self.collector.round(trigger, dropped).await;
        let seen = observations.iter().map(|o| Record::clone(&o.local()));
        self.state.seen(seen.collect());
        let records = self.lock().round(observations);
        if self.exports {
            self.state.passed(&records);
        }
        let tells_history = Instant::now() >= self.history_due;
        if tells_history {
            self.history_due = Instant::now() + HISTORY_EVERY;
        }
        for record in &records {
            let Some(spool) = &spool else { break };
            if is_history(record) && !tells_history {
                continue;
            }
            if let Err(error) = spool.append_record(record).await {
                tracing::warn!(%error, "a record was dropped and counted");
            }
        }
        // The newest memory holds what the older ones held.
        for older in &mut self.history {
            older.retain(|record| !is_history(record));
        }
        self.history.push_back(records);
        while self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
        self.judge();
        let kept = { self.lock().keep(clock::since_boot()) };
        if let Err(error) = kept {
            tracing::warn!(%error, "the map of pseudonyms is not on storage: it is kept in memory");
        }
    }

    /// The same expert as in the cloud, on the same sanitized evidence; shown here with real values.
    fn judge(&self) {
        let verdict = analyze::sanitized(self.history.iter().flatten().cloned());
        let revealed = self.lock().reveal(verdict);
        let (health, findings) = (revealed.health, revealed.findings.len());
        if self.state.judged(revealed) {
            tracing::info!(?health, findings, "verdict");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, sanitize::Stage> {
        self.sanitizer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
