//! Composition root of the privileged side: socket-activated, verify to report, gone when idle.
//!
//! One task owns everything that can change; connections only carry requests to it and answers back. At a start the
//! journal is recovered before anybody is answered.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use aizen_protocol::id::ChangeId;
use aizen_protocol::reason::Reason;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock;
use crate::control::Guests;
use crate::report::ReportError;
use crate::rollback::SealError;
use crate::rollback::journal::JournalError;
use crate::store::StoreError;
use crate::{execute, keeper, notify};

pub(crate) mod admission;
mod afterwards;
pub(crate) mod closing;
mod desk;
mod door;
pub(crate) mod ledger;
mod login;
mod questions;
mod refusal;
mod rehearsal;
pub(crate) mod rescue;
mod session;
pub(crate) mod shared;
mod standing;
mod watchers;

pub use ledger::LedgerError;
pub use standing::StandingError;

use desk::Desk;
use door::Ask;
use shared::Shared;

/// Connections at once; more wait in the socket's backlog.
const CONNECTIONS: usize = 32;
/// Connections of one user that is not root.
const CONNECTIONS_EACH: usize = 16;
/// Requests that wait for the one owner.
const ASKS: usize = 32;

/// How long a start waits for a keeper or `aizen recover` that has the journal; usually they are done within a second.
const TAKEN: Duration = Duration::from_secs(60);
/// From one look whether it is free to the next.
const TAKEN_LOOK: Duration = Duration::from_millis(50);

/// What the executor needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its own directory (`/var/lib/aizen/executor`).
    pub state: PathBuf,
    /// The key of the pseudonyms (`/var/lib/aizen/sanitizer.key`).
    pub sanitizer_key: PathBuf,
    /// The operator's policy (`/etc/aizen/policy.toml`).
    pub policy: PathBuf,
    /// Where files of changes are (`/`).
    pub root: PathBuf,
    /// The daemon's user id, if it has one of its own.
    pub daemon: Option<u32>,
    /// A name that should resolve, probed around every change.
    pub name: Option<String>,
    /// After a restart the network has so long to come up before it is compared with the state before.
    pub settle: Duration,
    /// How scripts are run.
    pub execute: execute::Settings,
    /// How the second keeper of a deadline waits.
    pub keeper: keeper::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/aizen/executor"),
            sanitizer_key: PathBuf::from("/var/lib/aizen/sanitizer.key"),
            policy: PathBuf::from("/etc/aizen/policy.toml"),
            root: PathBuf::from("/"),
            daemon: None,
            name: None,
            settle: Duration::from_secs(120),
            execute: execute::Settings::default(),
            keeper: keeper::Settings::default(),
        }
    }
}

/// Why the executor can't work. All of these end the process: its supervisor starts it again, and it recovers first.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The state directory can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal can't be used, or a record could not be made durable.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The key of what is kept for the way back.
    #[error("what is kept for undoing can't be sealed: {0}")]
    Seal(#[from] SealError),
    /// The memory of admitted packages can't be read or is gone.
    #[error(
        "the memory of admitted packages can't be used ({0}): enrol the device again, which draws a new epoch"
    )]
    Replay(Reason),
    /// An outcome can't be stored.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The enrollment can't be used.
    #[error(transparent)]
    Standing(#[from] StandingError),
    /// A change is open and the device is not enrolled any more.
    #[error("the device is not enrolled, so an outcome can't be signed")]
    NotEnrolled,
    /// The journal does not know this change.
    #[error("there is no change {0}")]
    NoSuchChange(ChangeId),
    /// The change has not ended.
    #[error("the change {0} has not ended")]
    NotEnded(ChangeId),
    /// The kernel does not say which boot this is.
    #[error("the boot id can't be read: {source}")]
    Boot {
        /// Why.
        source: io::Error,
    },
    /// The socket can't be served.
    #[error("the control socket can't be served: {source}")]
    Socket {
        /// Why.
        source: io::Error,
    },
    /// No randomness for a nonce.
    #[error("the system gave no random bytes: {source}")]
    Random {
        /// Why.
        source: getrandom::Error,
    },
}

impl ExecutorError {
    /// True if somebody else has the journal at this moment.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(
            self,
            Self::Ledger(LedgerError::Journal(JournalError::InUse { .. }))
        )
    }
}

/// A piece of work that the owner drives beside everything else.
type Job = Pin<Box<dyn Future<Output = ()>>>;
/// The pending change.
type Pending = Option<Pin<Box<dyn Future<Output = Result<(), ExecutorError>>>>>;

/// Recovers, then serves the socket until it is idle for `idle_exit` (for ever without one). On a current-thread
/// runtime.
///
/// # Errors
/// [`ExecutorError`]; the supervisor starts the executor again, and it recovers first.
pub async fn run(
    settings: Settings,
    listener: std::os::unix::net::UnixListener,
    idle_exit: Option<Duration>,
) -> Result<(), ExecutorError> {
    let (shared, recovered) = alive_during(async {
        let shared = open(settings).await?;
        let recovered = crate::recover::recover(&shared).await?;
        measure_isolation(&shared).await;
        Ok::<_, ExecutorError>((Rc::new(shared), recovered))
    })
    .await?;
    let waits = afterwards::begin(&shared, recovered.waits);
    let socket = |source| ExecutorError::Socket { source };
    listener.set_nonblocking(true).map_err(socket)?;
    let listener = UnixListener::from_std(listener).map_err(socket)?;
    alive_during(serve(shared, listener, idle_exit, waits)).await
}

/// Opens the state directory, as soon as who recovers at the moment is done.
async fn open(settings: Settings) -> Result<Shared, ExecutorError> {
    let until = clock::since_boot().0.saturating_add(TAKEN);
    let mut told = false;
    loop {
        match Shared::open(settings.clone()) {
            Err(error) if error.is_in_use() && clock::since_boot().0 < until => {
                if !told {
                    tracing::warn!(%error, "waiting until it is free");
                }
                told = true;
                tokio::time::sleep(TAKEN_LOOK).await;
            }
            opened => return opened,
        }
    }
}

async fn measure_isolation(shared: &Shared) {
    let helper = shared.settings.execute.helper.clone();
    match tokio::task::spawn_blocking(move || aizen_sandbox::check_with(&helper)).await {
        Ok(found) => *shared.isolation.borrow_mut() = execute::attempt::isolation(found),
        // Level 0 stands: every package is refused.
        Err(error) => tracing::error!(%error, "the sandbox could not be tried"),
    }
}

/// Tells the service manager's watchdog that the loop turns, for as long as `work` takes. It is this loop that says so
/// and nobody else: one that hangs is ended, and the next start undoes what hung.
async fn alive_during<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut due = notify::interval().map(tokio::time::interval);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            () = beat(&mut due) => notify::alive(),
        }
    }
}

async fn beat(due: &mut Option<tokio::time::Interval>) {
    match due {
        Some(due) => drop(due.tick().await),
        None => std::future::pending().await,
    }
}

async fn serve(
    shared: Rc<Shared>,
    listener: UnixListener,
    idle_exit: Option<Duration>,
    waits: Pending,
) -> Result<(), ExecutorError> {
    let (asks_tx, mut asks) = mpsc::channel::<Ask>(ASKS);
    let mut connections = JoinSet::new();
    let guests = Guests::new(CONNECTIONS_EACH);
    let mut jobs: FuturesUnordered<Job> = FuturesUnordered::new();
    let mut change = waits;
    let mut keeping: Option<Job> =
        Some(Box::pin(rescue::keep_known_good(Rc::clone(&shared), false)));
    let desk = RefCell::new(Desk::new(Rc::clone(&shared)));
    loop {
        let idle =
            connections.is_empty() && jobs.is_empty() && change.is_none() && keeping.is_none();
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => match guests.enter(&stream) {
                    Some(guest) => {
                        connections.spawn(door::converse(stream, guest, asks_tx.clone()));
                    }
                    None => tracing::debug!("a user who has all its connections open was turned away"),
                },
                Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            Some(()) = jobs.next(), if !jobs.is_empty() => desk.borrow_mut().job_ended(),
            ended = ended(&mut change) => {
                change = None;
                desk.borrow_mut().change_ended();
                ended?;
                keeping = Some(Box::pin(rescue::keep_known_good(Rc::clone(&shared), true)));
            }
            () = done(&mut keeping) => keeping = None,
            Some(ask) = asks.recv() => {
                let begun = desk.borrow_mut().take(ask)?;
                match begun {
                    desk::Begun::Nothing => {}
                    desk::Begun::Job(job) => jobs.push(job),
                    desk::Begun::Change(session) => change = Some(Box::pin(session.run())),
                }
            }
            () = wait(idle_exit), if idle => return Ok(()),
        }
        if shared.failed.get() && change.is_none() {
            return Err(LedgerError::from(JournalError::Failed {
                path: shared.store.path("journal"),
            })
            .into());
        }
    }
}

async fn ended(change: &mut Pending) -> Result<(), ExecutorError> {
    match change {
        Some(change) => change.await,
        None => std::future::pending().await,
    }
}

async fn done(job: &mut Option<Job>) {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

async fn wait(idle_exit: Option<Duration>) {
    match idle_exit {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
