//! The rounds: collect, sanitize, hand to the spool, judge. One after the other, woken by the clock, by the kernel or
//! by somebody who asks.

use std::collections::VecDeque;
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
    pub(super) sanitizer: Arc<Mutex<sanitize::Stage>>,
    pub(super) state: State,
    pub(super) executor: PathBuf,
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
            self.round(trigger).await;
            if Instant::now() >= duplicates_due {
                self.look_for_duplicates().await;
                duplicates_due = Instant::now() + DUPLICATES_EVERY;
            }
            trigger = tokio::select! {
                () = sleep_until(began + self.every) => Trigger::Tick,
                Some(event) = netlink.recv() => {
                    if event.changed.contains(&Changed::Addresses) {
                        duplicates_due = Instant::now();
                    }
                    self.state.kick();
                    self.glance().await;
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
        let records = self.lock().round(observations);
        for record in &records {
            let Some(spool) = &spool else { break };
            if let Err(error) = spool.append_record(record).await {
                tracing::warn!(%error, "a record was dropped and counted");
            }
        }
        self.history.push_back(records);
        while self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
        self.judge(&[]);
        let kept = { self.lock().keep(clock::since_boot()) };
        if let Err(error) = kept {
            tracing::warn!(%error, "the map of pseudonyms is not on storage: it is kept in memory");
        }
    }

    /// A verdict on the kernel's tables at once, seconds before the probes of the round that follows have ended. That
    /// round is what is remembered and sent: a glance only tells again what earlier rounds tried.
    async fn glance(&mut self) {
        let observations = self.collector.glance(Trigger::Event, 0).await;
        let records = self.lock().round(observations);
        self.judge(&records);
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

    fn lock(&self) -> std::sync::MutexGuard<'_, sanitize::Stage> {
        self.sanitizer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
