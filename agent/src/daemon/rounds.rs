//! The rounds: collect, sanitize, hand to the spool, judge. One after the other, woken by the clock, by the kernel or
//! by somebody who asks.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest, Question};
use aizen_protocol::record::{Duplicate, DuplicateBy, Record, Trigger};
use aizen_sanitizer::Sanitized;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::state::State;
use crate::collect::{Changed, Collector, NetEvent};
use crate::control::Connection;
use crate::{analyze, clock, sanitize};

/// Rounds that the expert sees at once: enough for "since" and for deltas.
const REMEMBERED: usize = 6;
/// Between two ARP probes for our own addresses: each wakes the executor.
const DUPLICATES_EVERY: Duration = Duration::from_secs(300);

pub(super) struct Rounds {
    pub(super) every: Duration,
    pub(super) collector: Collector,
    pub(super) executor: PathBuf,
    pub(super) bench: Bench,
}

/// What verdicts are made of.
pub(super) struct Bench {
    /// Looks at the kernel's tables while the collector's round may be under way.
    pub(super) onlooker: Collector,
    pub(super) sanitizer: Arc<Mutex<sanitize::Stage>>,
    pub(super) state: State,
    pub(super) history: VecDeque<Vec<Sanitized<Record>>>,
}

impl Rounds {
    pub(super) async fn run(
        &mut self,
        mut netlink: mpsc::Receiver<NetEvent>,
        mut asks: mpsc::Receiver<Trigger>,
    ) {
        let mut trigger = Trigger::Asked;
        let mut duplicates_due = Instant::now();
        loop {
            let began = Instant::now();
            let mut changed = self.round(trigger, &mut netlink).await;
            if Instant::now() >= duplicates_due {
                self.look_for_duplicates().await;
                duplicates_due = Instant::now() + DUPLICATES_EVERY;
            }
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
            if changed.contains(&Changed::Addresses) {
                duplicates_due = Instant::now();
            }
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
        let records = self.bench.lock().round(observations);
        for record in &records {
            let Some(spool) = &spool else { break };
            if let Err(error) = spool.append_record(record).await {
                tracing::warn!(%error, "a record was dropped and counted");
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

    async fn look_for_duplicates(&mut self) {
        let mut found = Vec::new();
        for candidate in self.collector.arp_candidates() {
            let question = Question::ArpProbe {
                dev: candidate.dev.clone(),
                address: candidate.address.into(),
            };
            let asked = timeout(Duration::from_secs(5), async {
                Connection::to_executor(&self.executor)
                    .await?
                    .ask(&ExecutorRequest::See(question))
                    .await
            });
            match asked.await {
                Ok(Ok(ExecutorAnswer::Answering { others })) if !others.is_empty() => {
                    found.push(Duplicate {
                        link: candidate.link,
                        address: candidate.address.into(),
                        others,
                        by: DuplicateBy::Arp,
                    })
                }
                Ok(Ok(ExecutorAnswer::Answering { .. })) => {}
                answer => {
                    tracing::debug!(?answer, dev = candidate.dev, "no ARP probe");
                    return;
                }
            }
        }
        self.collector.learn_duplicates(found);
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
            let records = self.lock().round(observations);
            self.judge(&records);
        }
        event.changed
    }

    fn remember(&mut self, records: Vec<Sanitized<Record>>) {
        self.history.push_back(records);
        while self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
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
