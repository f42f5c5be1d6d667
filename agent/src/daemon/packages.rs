//! Carries packages from the uplink to the executor, and what the executor signed back.
//!
//! It decides nothing: the executor checks every signature itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::Digest;
use aizen_protocol::key::PublicKey;
use aizen_protocol::package::Package;
use aizen_protocol::record::Trigger;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::control::{Connection, ControlError};
use crate::sanitize;
use crate::stream::attested::Attested;
use crate::stream::handle::SpoolHandle;
use crate::stream::spool::SpoolError;
use crate::stream::uplink::{Command, Event};

/// Packages that are carried at one time; the orchestrator delivers again what did not fit.
const AT_ONCE: usize = 8;
/// How often the executor's note about waiting outcomes is looked at: a stat(2), no question.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Packages {
    pub(super) executor: PathBuf,
    pub(super) waiting: PathBuf,
    pub(super) spool: SpoolHandle,
    pub(super) result_key: PublicKey,
    pub(super) sanitizer: Arc<Mutex<sanitize::Stage>>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) asked: mpsc::Sender<Trigger>,
}

/// Why something was not carried.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the executor handed in what it did not sign: {0}")]
    NotAttested(aizen_protocol::reason::Reason),
    #[error("{0}")]
    Refused(String),
    #[error("the executor answered another question")]
    OtherAnswer,
}

impl Packages {
    pub(super) async fn run(self, mut events: mpsc::Receiver<Event>) {
        let mut carried = JoinSet::new();
        // A change may be pending from before this daemon's start.
        carried.spawn(self.clone().resume());
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut noted = None;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) if carried.len() < AT_ONCE => self.begin(event, &mut carried),
                    Some(event) => tracing::warn!(?event, "too much at once: the orchestrator will say it again"),
                    None => return,
                },
                Some(ended) = carried.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "carrying a package ended unexpectedly");
                    }
                }
                _ = look.tick() => {
                    let note = modified(&self.waiting);
                    if note.is_some() && note != noted && carried.len() < AT_ONCE {
                        noted = note;
                        carried.spawn(self.clone().fetch_logged());
                    }
                }
            }
        }
    }

    fn begin(&self, event: Event, carried: &mut JoinSet<()>) {
        let packages = self.clone();
        match event {
            Event::Connected { address } => tracing::info!(%address, "uplink connected"),
            Event::Disconnected { error } => tracing::info!(error, "uplink lost"),
            Event::Rehearse(package) => {
                carried.spawn(async move { logged("rehearsal", packages.rehearse(package).await) });
            }
            Event::Deliver { package, delivery } => {
                carried.spawn(async move { packages.execute(package, delivery).await });
            }
            Event::Confirmed(statement) => {
                carried.spawn(
                    async move { logged("confirmation", packages.confirm(statement).await) },
                );
            }
        }
    }

    async fn rehearse(&self, package: Envelope) -> Result<(), CarryError> {
        let bindings = self.bindings(&package);
        let mut executor = Connection::to_executor(&self.executor).await?;
        match executor
            .ask(&ExecutorRequest::Rehearse { package, bindings })
            .await?
        {
            ExecutorAnswer::Rehearsed { signed, .. } => self.keep(signed).await.map(drop),
            ExecutorAnswer::Refused(refusal) => match refusal.signed {
                Some(signed) => self.keep(signed).await.map(drop),
                None => Err(CarryError::Refused(format!(
                    "{} ({})",
                    refusal.reason, refusal.detail
                ))),
            },
            ExecutorAnswer::Failed { message } => Err(CarryError::Refused(message)),
            _ => Err(CarryError::OtherAnswer),
        }
    }

    async fn execute(&self, package: Envelope, delivery: Envelope) {
        if let Ok(payload) = package.unverified_payload() {
            self.tell(Command::Received(Digest::of(&payload))).await;
        }
        let bindings = self.bindings(&package);
        let began = async {
            let mut executor = Connection::to_executor(&self.executor).await?;
            executor
                .send(&ExecutorRequest::Execute {
                    package,
                    delivery: Some(delivery),
                    bindings,
                })
                .await?;
            Ok::<_, CarryError>(executor)
        };
        match began.await {
            Ok(executor) => self.follow(executor).await,
            Err(error) => {
                tracing::warn!(%error, "the executor took no package: the orchestrator will deliver it again")
            }
        }
    }

    async fn confirm(&self, statement: Envelope) -> Result<(), CarryError> {
        let mut executor = Connection::to_executor(&self.executor).await?;
        match executor
            .ask(&ExecutorRequest::Confirm { statement })
            .await?
        {
            ExecutorAnswer::Done => Ok(()),
            ExecutorAnswer::Refused(refusal) => Err(CarryError::Refused(format!(
                "{} ({})",
                refusal.reason, refusal.detail
            ))),
            ExecutorAnswer::Failed { message } => Err(CarryError::Refused(message)),
            _ => Err(CarryError::OtherAnswer),
        }
    }

    /// Carries a change's wishes until it ended; over an executor that dies in between as well.
    async fn follow(&self, mut executor: Connection) {
        loop {
            match self.watch(&mut executor).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::info!(%error, "the executor went away in the middle of a change: it recovers at its next start")
                }
            }
            executor = self.reconnect().await;
            if let Err(error) = executor.send(&ExecutorRequest::Watch).await {
                tracing::debug!(%error, "the executor went away again");
            }
        }
        self.clone().fetch_logged().await;
        // What a change did is evidence: look at once.
        self.asked.send(Trigger::Change).await.ok();
    }

    async fn watch(&self, executor: &mut Connection) -> Result<(), CarryError> {
        loop {
            match executor
                .recv::<ExecutorAnswer>()
                .await?
                .ok_or(ControlError::Closed)?
            {
                ExecutorAnswer::ConfirmWanted { confirmation } => {
                    self.tell(Command::ConfirmWanted(confirmation)).await
                }
                ExecutorAnswer::Reached { change, stage, .. } => {
                    tracing::info!(%change, ?stage, "change")
                }
                ExecutorAnswer::Ended { local, signed } => {
                    if let Some(change) = local.change {
                        self.tell(Command::ForgetConfirm(change)).await;
                    }
                    return self.store(signed).await;
                }
                ExecutorAnswer::Refused(refusal) => {
                    tracing::info!(reason = refusal.reason.code(), "package refused");
                    return match refusal.signed {
                        Some(signed) => self.store(signed).await,
                        None => Ok(()),
                    };
                }
                ExecutorAnswer::Done => return Ok(()),
                ExecutorAnswer::Failed { message } => {
                    tracing::warn!(message, "the executor could not");
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    async fn reconnect(&self) -> Connection {
        loop {
            match Connection::to_executor(&self.executor).await {
                Ok(executor) => return executor,
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    async fn resume(self) {
        let mut executor = self.reconnect().await;
        if executor.send(&ExecutorRequest::Watch).await.is_ok() {
            self.follow(executor).await;
        }
    }

    async fn fetch_logged(self) {
        logged("outcomes", self.fetch().await);
    }

    /// Takes over what the executor signed and nobody acknowledged yet.
    async fn fetch(&self) -> Result<(), CarryError> {
        let mut executor = Connection::to_executor(&self.executor).await?;
        match executor.ask(&ExecutorRequest::Outcomes).await? {
            ExecutorAnswer::Outcomes { outcomes } => {
                for signed in outcomes {
                    self.store(signed).await?;
                }
                Ok(())
            }
            _ => Err(CarryError::OtherAnswer),
        }
    }

    /// First durable in the spool, then acknowledged: an outcome is in one of the two at every moment.
    async fn store(&self, signed: Envelope) -> Result<(), CarryError> {
        let outcome = self.keep(signed).await?;
        let mut executor = Connection::to_executor(&self.executor).await?;
        match executor
            .ask(&ExecutorRequest::Acknowledge { outcome })
            .await?
        {
            ExecutorAnswer::Done => Ok(()),
            _ => Err(CarryError::OtherAnswer),
        }
    }

    async fn keep(&self, signed: Envelope) -> Result<Digest, CarryError> {
        let digest = signed
            .unverified_payload()
            .map(|p| Digest::of(&p))
            .map_err(CarryError::NotAttested)?;
        let attested =
            Attested::check(signed, &self.result_key).map_err(CarryError::NotAttested)?;
        self.spool.append_signed(&attested).await?;
        Ok(digest)
    }

    /// Real values for the pseudonyms that a package names; the executor recomputes and refuses what does not fit.
    fn bindings(&self, package: &Envelope) -> Bindings {
        let Some(package) = package
            .unverified_payload()
            .ok()
            .and_then(|p| Package::parse(&p).ok())
        else {
            return Bindings::new();
        };
        let sanitizer = self
            .sanitizer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = package
            .bindings
            .into_iter()
            .filter_map(|b| Some((b.pseudonym.clone(), sanitizer.value(b.kind, &b.pseudonym)?)));
        known.collect()
    }

    async fn tell(&self, command: Command) {
        // The uplink ends only with the daemon.
        self.commands.send(command).await.ok();
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

fn logged(what: &'static str, done: Result<(), CarryError>) {
    if let Err(error) = done {
        tracing::warn!(%error, what, "not carried");
    }
}
