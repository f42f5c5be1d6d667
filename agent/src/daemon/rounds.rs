//! The rounds: collect, sanitize, hand to the spool, judge. One after the other, woken by the clock, by the kernel or
//! by somebody who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aizen_protocol::record::{Again, Body, Record, Trigger};
use aizen_sanitizer::{Observation, Sanitized};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::state::State;
use super::tell::Teller;
use super::thinned::Thinned;
use crate::collect::{Changed, Collector, NetEvent};
use crate::{analyze, clock, sanitize};

pub(super) struct Rounds {
    pub(super) every: Duration,
    pub(super) collector: Collector,
    pub(super) bench: Bench,
    pub(super) teller: Teller,
    /// Somebody wants the sanitized records as numbers.
    pub(super) exports: bool,
}

fn is_history(record: &Sanitized<Record>) -> bool {
    matches!(record.get().body, Body::History(_))
}

/// What verdicts are made of.
pub(super) struct Bench {
    /// Looks at the kernel's tables while the collector's round may be under way.
    pub(super) onlooker: Collector,
    pub(super) sanitizer: Arc<Mutex<sanitize::Stage>>,
    pub(super) state: State,
    pub(super) history: Thinned<Vec<Sanitized<Record>>>,
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
            let mut changed = self.round(trigger, &mut netlink).await;
            trigger = if changed.is_empty() {
                tokio::select! {
                    () = sleep_until(began + self.every) => Trigger::Tick,
                    Some(event) = netlink.recv() => {
                        changed.extend(self.bench.glance(event).await);
                        Trigger::Event
                    }
                    Some(trigger) = asks.recv() => trigger,
                }
            } else {
                // The round may have looked before the change.
                Trigger::Event
            };
        }
    }

    /// One round; what the kernel tells meanwhile is looked at and judged at once. Returns what changed.
    async fn round(
        &mut self,
        trigger: Trigger,
        netlink: &mut mpsc::Receiver<NetEvent>,
    ) -> BTreeSet<Changed> {
        let spool = self.bench.state.spool();
        let dropped = match &spool {
            Some(spool) => spool.status().await.map_or(0, |s| s.dropped),
            None => 0,
        };
        let mut changed = BTreeSet::new();
        let observations = {
            let round = self.collector.round(trigger, dropped);
            tokio::pin!(round);
            loop {
                tokio::select! {
                    observations = &mut round => break observations,
                    Some(event) = netlink.recv() => changed.extend(self.bench.glance(event).await),
                }
            }
        };
        self.bench.onlooker.recall(&self.collector);
        let seen: Vec<Record> = observations
            .iter()
            .map(|o| Record::clone(&o.local()))
            .collect();
        let end = seen.last().cloned();
        self.bench.state.seen(seen);
        let records = self.bench.lock().round(observations);
        if self.exports {
            self.bench.state.passed(&records);
        }
        if let Some(spool) = &spool {
            let connection = self.bench.state.connection();
            let again = self.teller.tell(spool, connection, &records).await;
            if let Some(end) = end.and_then(|end| self.bench.ended(end, again)) {
                self.teller.end(spool, &end).await;
            }
        }
        self.bench.remember(records);
        self.bench.judge(&[]);
        let kept = { self.bench.lock().keep(clock::since_boot()) };
        if let Err(error) = kept {
            tracing::warn!(%error, "the map of pseudonyms is not on storage: it is kept in memory");
        }
        changed
    }
}

impl Bench {
    /// A verdict on the kernel's tables at once, seconds before the probes of a round have ended. The round that follows
    /// is what is remembered and sent: a glance only tells again what earlier rounds tried.
    async fn glance(&mut self, event: NetEvent) -> BTreeSet<Changed> {
        self.state.kick();
        // Without a round there is nothing to tell again: half the evidence would make a wrong verdict.
        if !self.history.is_empty() {
            let observations = self.onlooker.glance(Trigger::Event, 0).await;
            let glanced = observations.iter().map(|o| Record::clone(&o.local()));
            self.state.glanced(glanced.collect());
            let records = self.lock().round(observations);
            self.judge(&records);
        }
        event.changed
    }

    /// A round's end as it leaves, with what earlier rounds told.
    fn ended(&self, mut end: Record, told: BTreeMap<String, Again>) -> Option<Sanitized<Record>> {
        if let Body::Round(round) = &mut end.body {
            round.again = told;
        }
        self.lock().round(vec![Observation::new(end)]).pop()
    }

    fn remember(&mut self, records: Vec<Sanitized<Record>>) {
        // The newest memory holds what the older ones held.
        for older in self.history.iter_mut() {
            older.retain(|record| !is_history(record));
        }
        self.history.push(records);
    }

    /// The same expert as in the cloud, on the same sanitized evidence; shown here with real values.
    fn judge(&self, latest: &[Sanitized<Record>]) {
        let evidence = self.history.iter().flatten().chain(latest);
        let verdict = analyze::sanitized(evidence.cloned());
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
