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

    /// Journals how far a script's own hands reached: anything, until it is known.
    fn record_reach(&self, judged: &Judged) -> Told {
        let change = self.change().as_str();
        let inverse = self.shared.seal.seal_inverse(change, &judged.inverse())?;
        match self.shared.record(self.change(), Event::Acting { inverse }) {
            // Without it, what stands in the journal holds: anything.
            Err(LedgerError::Long) => Ok(()),
            recorded => Ok(recorded?),
        }
    }

    /// Compares what the script did itself with its manifest; a cause if it did more.
    async fn judge(
        &self,
        before: &Checkpoint,
        attempt: &mut Attempt,
    ) -> Result<Option<Cause>, ExecutorError> {
        let unread = |detail: String| Ok(Some(Cause::Storage { detail }));
        let now = match before.again(&self.shared.world).await {
            Ok(now) => now,
            Err(error) => return unread(format!("the state after can't be read: {error}")),
        };
        let brokered = closing::inverses(&self.shared, self.change());
        let brokered = match brokered {
            Ok(brokered) => brokered,
            Err(error) => return unread(error),
        };
        let judged = broker::direct::judge(
            &self.shared.world,
            &self.admitted.grants,
            before,
            &now,
            &brokered,
        );
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => return unread(error.to_string()),
        };
        self.record_reach(&judged)?;
        attempt.changes.extend(judged.changes);
        attempt.undeclared = judged.undeclared;
        let count = attempt.undeclared.len();
        let first = attempt.undeclared.iter().take(UNDECLARED);
        Ok((count > 0).then(|| Cause::PolicyViolation {
            undeclared: first.map(|text| text.0.clone()).collect(),
            count,
        }))
    }

    /// One run, watched: the deadline and a person may end it.
    async fn attempt(
        &mut self,
        deadline: Option<&Deadline>,
    ) -> Result<(Attempt, Option<Cause>), Cause> {
        let lost = |error: std::io::Error| Cause::Storage {
            detail: format!("the sandbox was lost: {error}"),
        };
        // Only now: that it runs is durable.
        let Waiting { sandbox, cancel } = self.waiting().map_err(lost)?;
        let change = self.admitted.change.clone();
        let shared = Rc::clone(&self.shared);
        let mut before_act = |inverse: &Inverse| {
            let inverse = shared
                .seal
                .seal_inverse(change.as_str(), inverse)
                .map_err(std::io::Error::other)?;
            shared
                .record(&change, Event::Acting { inverse })
                .map_err(std::io::Error::other)
        };
        let ground = Ground {
            package: &self.admitted.package,
            values: &self.admitted.values,
            grants: &self.admitted.grants,
            min_isolation: self.admitted.min_isolation,
            world: &self.shared.world,
            settings: &self.shared.settings.execute,
        };
        let mut stopped = None;
        let running = sandbox.run(ground, &mut before_act);
        tokio::pin!(running);
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                command = self.commands.recv(), if stopped.is_none() => match command {
                    Some(Command::RollBack { uid }) => stopped = Some(Cause::Asked { uid }),
                    Some(Command::Confirm { answer, .. } | Command::OnSite { answer, .. }) => {
                        // Whoever asked may be gone; the change does not depend on it.
                        answer.send(Err(NotConfirmed::TooEarly)).ok();
                    }
                    None => stopped = Some(Cause::Storage { detail: "the executor is stopping".to_owned() }),
                },
                () = tokio::time::sleep(TICK) => {
                    let now = self.shared.moment();
                    if stopped.is_none() && deadline.is_some_and(|d| d.passed(&now.boot, now.since_boot)) {
                        stopped = Some(Cause::Deadline { missing: "the end of the script".to_owned() });
                    }
                }
            }
            if stopped.is_some() {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        match ended {
            Ok(attempt) => Ok((attempt, stopped)),
            Err(error) => Err(lost(error)),
        }
    }

    /// How packets leave for the orchestrator, in a network that was read just now or is read for this; none if the
    /// kernel doesn't say.
    async fn ways(&self, network: Option<&Network>) -> Option<Ways> {
        let kernel = Kernel::open().ok()?;
        let read;
        let network = match network {
            Some(network) => network,
            None => {
                read = Network::read(&kernel).await.ok()?;
                &read
            }
        };
        Ways::read(&kernel, network, &self.shared.uplink())
            .await
            .ok()
    }

    /// What really changed.
    async fn effect(&self, before: Option<Ways>, attempt: &Attempt) -> Effect {
        let management_path = match (before, self.ways(None).await) {
            (Some(before), Some(after)) => way::touched(&before, &after, &attempt.changes),
            (None, _) | (_, None) => true,
        };
        let risk = self.admitted.package.risk();
        Effect {
            changes: attempt.changes.clone(),
            undeclared: attempt.undeclared.clone(),
            not_rehearsed: Vec::new(),
            lock_outs: Vec::new(),
            irreversible: crate::rehearse::irreversible(&attempt.changes),
            management_path,
            risk: if management_path { Risk::High } else { risk },
            script: bare(&attempt.run),
        }
    }

    /// Keeps what a run showed for the report; gives its run without the output, for the journal.
    fn keep(&mut self, attempt: Attempt) -> ScriptRun {
        let bare = bare(&attempt.run);
        for denied in &attempt.denied {
            self.evidence.notes.push(format!("denied: {denied}"));
        }
        if attempt.isolation.level > 0 {
            self.evidence.isolation = attempt.isolation;
        }
        self.evidence.script = Some(attempt.run);
        bare
    }

    /// True if what changed, as the approver would see it, is not what was approved.
    fn deviates(&self) -> bool {
        let (Some(effect), Some(_)) = (
            self.evidence.effect.clone(),
            self.admitted.package.package().effect,
        ) else {
            return false;
        };
        let Some(approved) = self.admitted.approved_changes else {
            return true;
        };
        let Some(mut sanitizer) = self.shared.sanitizer() else {
            return true;
        };
        sanitizer
            .sanitize_value(effect)
            .map_or(true, |effect| effect.get().changes_digest() != approved)
    }

    /// Probes and waits for the confirmation, until both are there or a cause to undo it.
    async fn probe(
        &mut self,
        watch: &mut Watch,
        deadline: &Deadline,
    ) -> Result<Result<Confirmed, Cause>, ExecutorError> {
        let nonce = confirm::nonce().map_err(|source| ExecutorError::Random { source })?;
        self.record(Event::Probing {
            nonce: nonce.clone(),
        })?;
        let wanted = self.ask_for_confirmation(nonce, deadline)?;
        let probes = self.admitted.probes.clone();
        let sample = async |pause| {
            tokio::time::sleep(pause).await;
            probes.sample().await
        };
        let mut sampling = Box::pin(sample(Duration::ZERO));
        let mut holds = false;
        let mut confirmed: Option<Confirmed> = None;
        loop {
            tokio::select! {
                samples = &mut sampling => {
                    match watch.take(samples, self.shared.moment().since_boot) {
                        Health::Holds => holds = true,
                        Health::Unsettled => holds = false,
                        Health::Broken { probe } => return Ok(Err(Cause::Broken { probe })),
                    }
                    sampling = Box::pin(sample(PAUSE));
                }
                command = self.commands.recv() => match command {
                    Some(Command::RollBack { uid }) => return Ok(Err(Cause::Asked { uid })),
                    Some(Command::Confirm { statement, answer }) => {
                        let checked = self.check_statement(&statement, &wanted);
                        Self::answer(checked, answer, &mut confirmed);
                    }
                    Some(Command::OnSite { peer, answer }) => {
                        let checked = self.check_on_site(&peer);
                        Self::answer(checked, answer, &mut confirmed);
                    }
                    None => return Ok(Err(Cause::Storage { detail: "the executor is stopping".to_owned() })),
                },
                () = tokio::time::sleep(TICK) => {}
            }
            let now = self.shared.moment();
            if deadline.passed(&now.boot, now.since_boot) {
                let missing = missing(watch, confirmed.is_some());
                return Ok(Err(Cause::Deadline { missing }));
            }
            if holds && let Some(confirmed) = confirmed.take() {
                return Ok(Ok(confirmed));
            }
        }
    }

    fn answer(
        checked: Result<Confirmed, NotConfirmed>,
        answer: oneshot::Sender<Result<(), NotConfirmed>>,
        confirmed: &mut Option<Confirmed>,
    ) {
        let told = match checked {
            Ok(by) => {
                *confirmed = Some(by);
                Ok(())
            }
            Err(not) => Err(not),
        };
        // Whoever asked may be gone; the change does not depend on it.
        answer.send(told).ok();
    }

    fn ask_for_confirmation(
        &self,
        nonce: aizen_protocol::statement::Nonce,
        deadline: &Deadline,
    ) -> Result<Confirmation, ExecutorError> {
        let device = {
            let standing = self.shared.standing.borrow();
            let standing = standing.as_ref().ok_or(ExecutorError::NotEnrolled)?;
            standing.device.clone()
        };
        let confirmation = Confirmation {
            device,
            package: self.admitted.package.digest(),
            change: self.change().clone(),
            nonce,
        };
        let now = self.shared.moment();
        let left = deadline.left(&now.boot, now.since_boot).as_secs();
        let ask = match self.admitted.package.package().delivery {
            DeliveryMode::Uplink => ExecutorAnswer::ConfirmWanted {
                confirmation: confirmation.clone(),
            },
            DeliveryMode::OnSite => ExecutorAnswer::ConfirmOnSiteWanted {
                change: self.change().clone(),
                within_s: u32::try_from(left).unwrap_or(u32::MAX),
            },
        };
        self.shared.watchers.borrow_mut().tell(&ask);
        Ok(confirmation)
    }

    fn check_statement(
        &self,
        statement: &Envelope,
        wanted: &Confirmation,
    ) -> Result<Confirmed, NotConfirmed> {
        if self.admitted.package.package().delivery != DeliveryMode::Uplink {
            return Err(NotConfirmed::OtherWay);
        }
        let standing = self.shared.standing.borrow();
        let standing = standing.as_ref().ok_or(NotConfirmed::OtherChange)?;
        confirm::by_statement(statement, wanted, &standing.trust, self.shared.moment().at)
    }

    fn check_on_site(&self, peer: &Peer) -> Result<Confirmed, NotConfirmed> {
        if self.admitted.package.package().delivery != DeliveryMode::OnSite {
            return Err(NotConfirmed::OtherWay);
        }
        let ledger = self.shared.ledger.borrow();
        let asked_by = ledger
            .find(self.change())
            .and_then(|change| change.admission().asked_by);
        confirm::on_site(peer, asked_by)
    }

    /// Journals the confirmation: from here on the change stays.
    async fn keep_change(&mut self, confirmed: &Confirmed) -> Told {
        let after = self.state().await;
        let after = after.map(|state| state.digest());
        if let Err(error) = &after {
            self.evidence
                .notes
                .push(format!("the state after can't be read: {error}"));
        }
        self.record(Event::Confirmed {
            by: confirmed.by().clone(),
            after: after.ok(),
        })
    }
}

/// A run without its output: that stands in the outcome once, and not in the journal.
fn bare(run: &ScriptRun) -> ScriptRun {
    ScriptRun {
        output: Text::default(),
        end: run.end,
        took_ms: run.took_ms,
        output_bytes: run.output_bytes,
        leftover_processes: run.leftover_processes,
    }
}

fn missing(watch: &Watch, confirmed: bool) -> String {
    let mut missing = watch.failing();
    if !confirmed {
        missing.push("a confirmation".to_owned());
    }
    if missing.is_empty() {
        missing.push("the probes' whole window".to_owned());
    }
    missing.join(", ")
}
