//! One admitted change from its snapshot to its report: the doing; what may follow what is `change`'s.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aizen_protocol::control::ExecutorAnswer;
use aizen_protocol::effect::{Effect, ScriptRun};
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::ChangeId;
use aizen_protocol::package::DeliveryMode;
use aizen_protocol::package::manifest::{Class, Risk};
use aizen_protocol::private::Text;
use aizen_protocol::statement::Confirmation;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::ExecutorError;
use super::admission::{Admitted, Waiting};
use super::closing::{self, Evidence};
use super::ledger::LedgerError;
use super::rescue;
use super::shared::Shared;
use crate::broker;
use crate::broker::direct::Judged;
use crate::change::{Cause, Event};
use crate::confirm::deadline::Deadline;
use crate::confirm::health::{Health, Watch};
use crate::confirm::probe::{Own, Probes};
use crate::confirm::{self, Confirmed, NotConfirmed};
use crate::control::Peer;
use crate::execute::{Attempt, Ground};
use crate::keeper::Keeper;
use crate::rehearse::way::{self, Ways};
use crate::rollback::checkpoint::{CheckpointError, Network};
use crate::rollback::kernel::Kernel;
use crate::rollback::{Checkpoint, Inverse};

/// How often deadline and commands are looked at while something else runs.
const TICK: Duration = Duration::from_millis(200);
/// Undeclared changes that a journal's record and a report's first line name.
const UNDECLARED: usize = 8;
/// Between the end of one pass of probes and the next.
const PAUSE: Duration = Duration::from_millis(500);

/// What may be said to a pending change.
#[derive(Debug)]
pub(crate) enum Command {
    /// The orchestrator's signed confirmation.
    Confirm {
        statement: Envelope,
        answer: oneshot::Sender<Result<(), NotConfirmed>>,
    },
    /// A person's confirmation at the device.
    OnSite {
        peer: Peer,
        answer: oneshot::Sender<Result<(), NotConfirmed>>,
    },
    /// A person wants it undone.
    RollBack { uid: u32 },
}

mod attempt;
mod confirmation;

/// How a session ends that has something to tell.
type Told = Result<(), ExecutorError>;

/// A change and what it needs.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Rc<Shared>,
    admitted: Admitted,
    commands: mpsc::Receiver<Command>,
    evidence: Evidence,
    keeper: Keeper,
    /// What the device's own probes found before, and the network then.
    known: (Vec<Own>, Option<Network>),
}

impl Session {
    pub(crate) fn new(
        shared: Rc<Shared>,
        admitted: Admitted,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            shared,
            admitted,
            commands,
            evidence: Evidence::default(),
            keeper: Keeper::None,
            known: (Vec::new(), None),
        }
    }

    /// Runs to the end. An error means that the journal can't be trusted to hold what happens: the executor ends, and
    /// its next start recovers.
    pub(crate) async fn run(mut self) -> Told {
        self.evidence.isolation = self.shared.isolation.borrow().clone();
        let change = self.change().clone();
        let lived = match self.admitted.package.package().manifest.class {
            Class::Diagnose => self.diagnose().await,
            Class::Repair | Class::Direct => self.repair().await,
        };
        if let Err(error) = lived {
            closing::put_back_unrecorded(&self.shared, &change).await;
            return Err(error);
        }
        rescue::after(&self.shared, &change, &mut self.evidence.notes).await?;
        self.evidence.notes.extend(self.keeper.note());
        let (local, signed) = closing::report(&self.shared, &change, self.evidence)?;
        self.keeper.end().await;
        self.shared
            .watchers
            .borrow_mut()
            .end(&ExecutorAnswer::Ended {
                local: Box::new(local),
                signed,
            });
        Ok(())
    }

    fn change(&self) -> &ChangeId {
        &self.admitted.change
    }

    fn record(&self, event: Event) -> Told {
        Ok(self.shared.record(self.change(), event)?)
    }

    async fn diagnose(&mut self) -> Told {
        self.record(Event::Started)?;
        match self.attempt(None).await {
            Ok((attempt, _)) => {
                let run = self.keep(attempt);
                self.record(Event::Diagnosed { run })
            }
            Err(cause) => self.record(Event::Interrupted { cause }),
        }
    }

    async fn repair(&mut self) -> Told {
        self.keeper = Keeper::start(&self.shared.settings, self.change());
        // The probes are out while the state is read and stored.
        let (state, (probes, own, mut watch)) = tokio::join!(self.snapshot(), self.baseline());
        let (before, ways, network) = match state {
            Ok(state) => state,
            Err(detail) => {
                if let Ok(waiting) = self.waiting() {
                    waiting.sandbox.dismiss().await;
                }
                let cause = Cause::Storage { detail };
                return self.record(Event::Interrupted { cause });
            }
        };
        self.admitted.probes = probes;
        self.record(Event::Snapshotted {
            before: before.digest(),
        })?;
        self.known = (own, network);
        let confirm = &self.admitted.package.package().manifest.confirm;
        let within = Duration::from_secs(confirm.within_s.into());
        let now = self.shared.moment();
        let deadline = Deadline::after(now.boot, now.since_boot, within);
        self.keeper.arm(&deadline).await;
        self.record(Event::Armed {
            deadline: deadline.clone(),
        })?;
        let cause = match self.apply(&deadline, &before, ways).await? {
            Some(cause) => cause,
            None => match self.probe(&mut watch, &deadline).await? {
                Ok(confirmed) => {
                    self.evidence.probes = watch.results();
                    return self.keep_change(&confirmed).await;
                }
                Err(cause) => cause,
            },
        };
        self.evidence.probes = watch.results();
        self.commands.close();
        let change = self.change().clone();
        closing::roll_back(&self.shared, &change, cause, &mut self.evidence).await
    }

    /// All that the change can reach.
    async fn state(&self) -> Result<Checkpoint, CheckpointError> {
        let (world, grants) = (&self.shared.world, &self.admitted.grants);
        if self.is_direct() {
            Checkpoint::take_whole(world, grants).await
        } else {
            Checkpoint::take(world, grants).await
        }
    }

    /// The script that waits, once.
    fn waiting(&mut self) -> std::io::Result<Waiting> {
        let gone = Err(std::io::ErrorKind::NotFound.into());
        std::mem::replace(&mut self.admitted.waiting, gone)
    }

    /// Stores the state before; and says how packets leave for the orchestrator in it.
    async fn snapshot(&self) -> Result<(Checkpoint, Option<Ways>, Option<Network>), String> {
        let before = self
            .state()
            .await
            .map_err(|e| format!("the state before can't be read: {e}"))?;
        let bytes = Zeroizing::new(serde_json::to_vec(&before).map_err(|e| e.to_string())?);
        if bytes.len() as u64 > closing::SNAPSHOT {
            return Err(format!(
                "the state before has {} bytes, at most {} are kept",
                bytes.len(),
                closing::SNAPSHOT
            ));
        }
        let change = self.change().as_str();
        let sealed = self.shared.seal.seal(change, &bytes);
        let sealed = sealed.map_err(|e| format!("the state before can't be stored: {e}"))?;
        self.shared
            .snapshots
            .write(change, &sealed)
            .map_err(|e| format!("the state before can't be stored: {e}"))?;
        let ways = self.ways(before.network.as_ref()).await;
        let network = rescue::network_of(&before).await;
        Ok((before, ways, network))
    }

    /// What is probed, and how it is before the change.
    async fn baseline(&self) -> (Probes, Vec<Own>, Watch) {
        let name = self.shared.settings.name.clone();
        let probes = self.admitted.probes.clone();
        let probes = probes
            .with_ambient(&self.admitted.grants, name.as_deref())
            .await;
        let samples = probes.sample().await;
        let own = probes.owns(&samples);
        let baseline = probes
            .names()
            .zip(samples)
            .map(|((name, wanted), sample)| (name, wanted, sample))
            .collect();
        let confirm = &self.admitted.package.package().manifest.confirm;
        let stable = Duration::from_secs(confirm.stable_s.into());
        (probes, own, Watch::new(baseline, stable))
    }

    /// Runs the script; a cause if it must be undone.
    async fn apply(
        &mut self,
        deadline: &Deadline,
        state: &Checkpoint,
        before: Option<Ways>,
    ) -> Result<Option<Cause>, ExecutorError> {
        self.record(Event::Started)?;
        let network = self.known.1.take();
        let known = &self.known.0;
        let keeping = rescue::keep_before(&self.shared, self.change(), known, network, state);
        let modules = broker::direct::modules();
        if self.is_direct() {
            self.record_reach(&Judged::default())?;
        }
        let (mut attempt, stopped) = match self.attempt(Some(deadline)).await {
            Ok(ended) => ended,
            Err(cause) => return Ok(Some(cause)),
        };
        if let Some(keeping) = keeping {
            keeping.await.ok();
        }
        let violation = if self.is_direct() {
            // Whoever may set something up may have the kernel load what it needs for it.
            let loaded = broker::direct::modules();
            let told =
                |name| format!("the kernel loaded the module {name} meanwhile, and keeps it");
            let new = loaded.difference(&modules).map(told);
            self.evidence.notes.extend(new);
            self.judge(state, &mut attempt).await?
        } else {
            None
        };
        let succeeded = attempt.succeeded();
        self.evidence.effect = Some(self.effect(before, &attempt).await);
        let run = self.keep(attempt);
        let end = run.end;
        self.record(Event::Applied { run })?;
        if stopped.is_some() || violation.is_some() {
            return Ok(stopped.or(violation));
        }
        if !succeeded {
            return Ok(Some(Cause::Script { end }));
        }
        if self.admitted.effect_must_match && self.deviates() {
            return Ok(Some(Cause::Deviation));
        }
        Ok(None)
    }

    fn is_direct(&self) -> bool {
        self.admitted.package.package().manifest.class == Class::Direct
    }
}
