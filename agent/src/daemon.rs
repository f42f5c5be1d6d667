//! The composition root of the unprivileged side: builds the stages, joins them, supervises, drains.
//!
//! It has no capability. What it can't do it asks of the executor, which believes signatures and not the daemon.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest, ExecutorStatus};
use aizen_protocol::frame::Standing;
use aizen_protocol::record::Trigger;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::collect::{self, Collector};
use crate::config::Config;
use crate::control::{self, Connection, ControlError};
use crate::identity::{DeviceFile, IdentityError, Layout, UplinkIdentity};
use crate::sanitize;
use crate::stream::dial::{InvalidServer, Server};
use crate::stream::handle::SpoolHandle;
use crate::stream::spool::{Spool, SpoolLimits};
use crate::stream::tls::TlsError;
use crate::stream::uplink::{self, About, Uplink};
use crate::{clock, metrics, notify};

mod answer;
mod packages;
mod rounds;
mod state;
mod tell;
mod thinned;

use packages::Packages;
use rounds::{Bench, Rounds};
use state::State;

/// Why the daemon can't work.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its socket can't be opened.
    #[error("can't listen on {path}: {source}")]
    Socket {
        /// The path.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Enrollment files are there and can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server's name in the enrollment.
    #[error(transparent)]
    Server(#[from] InvalidServer),
    /// Certificate and key don't fit.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The sanitizer has no key: without it nothing may leave.
    #[error(transparent)]
    Sanitize(#[from] sanitize::SanitizeError),
    /// The system refused a signal handler or a clock.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

/// Runs until told to stop (`SIGTERM`, `SIGINT`).
///
/// # Errors
/// [`DaemonError`] if a part can't be built; what fails later is retried, logged and told in the status.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let layout = Layout::new(&config.paths.state);
    let mut stop = Stop::new()?;
    let mut tasks = JoinSet::new();
    let here = Here::start(&config, &mut tasks)?;
    notify::ready("collecting");
    tasks.spawn(watchdog());
    let device = tokio::select! {
        () = stop.asked() => return Ok(()),
        device = enrolled(&layout) => device?,
    };
    let spool = here.connect(&config, &layout, device, &mut tasks).await?;
    tokio::select! {
        () = stop.asked() => {}
        ended = tasks.join_next() => tracing::error!(?ended, "a part of the daemon ended: restarting is the service manager's part"),
    }
    notify::stopping();
    tasks.shutdown().await;
    if let Err(error) = spool.close().await {
        tracing::warn!(%error, "the spool was not closed cleanly; it repairs itself at the next start");
    }
    Ok(())
}

/// What works without an enrollment: rounds, the local verdict, answers to people.
struct Here {
    state: State,
    sanitizer: Arc<Mutex<sanitize::Stage>>,
    asked: mpsc::Sender<Trigger>,
}

impl Here {
    fn start(config: &Config, tasks: &mut JoinSet<()>) -> Result<Self, DaemonError> {
        let path = config.paths.daemon_socket();
        let listener = control::listen(&path, 0o666)
            .and_then(tokio::net::UnixListener::from_std)
            .map_err(|source| DaemonError::Socket { path, source })?;
        let sanitizer = Arc::new(Mutex::new(sanitize::Stage::open(config)?));
        let state = State::default();
        let (asked, asks) = mpsc::channel(4);
        tasks.spawn(answer::serve(
            listener,
            state.clone(),
            Arc::clone(&sanitizer),
            asked.clone(),
        ));
        if let Some(at) = config.metrics.listen {
            let newest = state.clone();
            tasks.spawn(async move {
                if let Err(error) = metrics::serve::serve(at, move || newest.newest()).await {
                    let at = at.address();
                    tracing::warn!(%error, %at, "no metrics: the port of [metrics] listen can't be opened");
                }
                std::future::pending().await
            });
        }
        if let Some(to) = config.metrics.otlp.clone() {
            let (newest, every) = (state.clone(), config.metrics.otlp_every);
            tasks.spawn(metrics::export::export(to, every, move || {
                newest.sanitized()
            }));
        }
        let (events, netlink) = mpsc::channel(16);
        tasks.spawn(async move {
            if let Err(error) = collect::watch(events).await {
                tracing::warn!(%error, "changes of the network are seen at the next round only");
            }
            std::future::pending().await
        });
        let settings = collect::Settings::from(config);
        let mut rounds = Rounds {
            every: config.collect.every,
            collector: Collector::new(settings.clone()),
            bench: Bench {
                onlooker: Collector::new(settings),
                sanitizer: Arc::clone(&sanitizer),
                state: state.clone(),
                history: Default::default(),
            },
            exports: config.metrics.otlp.is_some(),
            teller: Default::default(),
        };
        tasks.spawn(async move { rounds.run(netlink, asks).await });
        Ok(Self {
            state,
            sanitizer,
            asked,
        })
    }

    /// Adds what an enrollment makes possible: spool, uplink, packages.
    async fn connect(
        self,
        config: &Config,
        layout: &Layout,
        device: DeviceFile,
        tasks: &mut JoinSet<()>,
    ) -> Result<SpoolHandle, DaemonError> {
        let server: Server = device.server.parse()?;
        // Before the enrollment the pseudonyms came from a key that nobody keeps.
        *self
            .sanitizer
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = sanitize::Stage::open(config)?;
        let spool = open_spool(config, layout).await;
        self.state.enrolled(device.device.clone(), spool.clone());
        let (about, told) = watch::channel(about(&device, None));
        let (commands, orders) = mpsc::channel(16);
        let (happened, happenings) = mpsc::channel(16);
        let settings = uplink_settings(config, server, layout);
        let uplink = Uplink::new(
            settings,
            &UplinkIdentity::load(layout)?,
            spool.clone(),
            told,
            orders,
            happened,
        )?;
        self.state
            .connected_by(uplink.state(), uplink.meter(), commands.clone());
        let packages = Packages {
            executor: config.paths.executor_socket(),
            waiting: config.paths.outcomes_waiting(),
            spool: spool.clone(),
            result_key: device.result_key.clone(),
            sanitizer: self.sanitizer,
            commands,
            asked: self.asked,
        };
        tasks.spawn(packages.run(happenings));
        let asked = self.state.standing();
        tasks.spawn(introduce(
            config.paths.executor_socket(),
            device,
            about,
            asked,
        ));
        tasks.spawn(uplink.run());
        Ok(spool)
    }
}

/// Waits until somebody enrols this device.
async fn enrolled(layout: &Layout) -> Result<DeviceFile, IdentityError> {
    let mut told = false;
    loop {
        match DeviceFile::load(layout) {
            Err(IdentityError::NotEnrolled(_)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(
                        "not enrolled: diagnosing for this device alone; see 'aizen enroll --help'"
                    );
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            known => return known,
        }
    }
}

async fn open_spool(config: &Config, layout: &Layout) -> SpoolHandle {
    let (dir, limits) = (
        layout.spool(),
        SpoolLimits {
            records: config.spool.bytes,
            ..SpoolLimits::default()
        },
    );
    let opened = tokio::task::spawn_blocking(move || Spool::open(&dir, limits)).await;
    #[expect(
        clippy::expect_used,
        reason = "opening a spool does not panic; if it does there is no daemon"
    )]
    SpoolHandle::new(opened.expect("the spool opens whatever its files hold"))
}

fn uplink_settings(config: &Config, server: Server, layout: &Layout) -> uplink::Settings {
    let mut settings = uplink::Settings::new(server, layout.remembered());
    settings.max_backoff = config.uplink.max_backoff;
    settings.bounds = settings.bounds.dead_after(config.uplink.dead_after);
    settings
}

/// Keeps what the device says of itself as the executor sees it.
async fn introduce(
    executor: std::path::PathBuf,
    device: DeviceFile,
    about: watch::Sender<About>,
    asked: Arc<Notify>,
) {
    // Asked seldom: each question wakes the executor.
    const EVERY: Duration = Duration::from_secs(300);
    loop {
        let wait = match executor_status(&executor).await {
            Ok(status) => {
                let fresh = self::about(&device, Some(status));
                about.send_if_modified(|told| std::mem::replace(told, fresh.clone()) != fresh);
                EVERY
            }
            Err(error) => {
                tracing::debug!(%error, "the executor does not say what this device is capable of");
                Duration::from_secs(2)
            }
        };
        tokio::time::timeout(wait, asked.notified()).await.ok();
    }
}

async fn executor_status(socket: &std::path::Path) -> Result<ExecutorStatus, ControlError> {
    match Connection::to_executor(socket)
        .await?
        .ask(&ExecutorRequest::Status)
        .await?
    {
        ExecutorAnswer::Status(status) => Ok(status),
        _ => Err(ControlError::Closed),
    }
}

fn about(device: &DeviceFile, executor: Option<ExecutorStatus>) -> About {
    let standing = executor.map(|s| Standing {
        isolation: s.isolation,
        trust_version: s.trust_version,
        takes_changes: s.changes_allowed && !s.paused,
    });
    About {
        device: device.device.clone(),
        epoch: device.epoch.clone(),
        boot: clock::boot(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        standing: standing.unwrap_or_default(),
    }
}

/// Says to the service manager that the main loop turns, as long as it does.
async fn watchdog() {
    let Some(every) = notify::interval() else {
        return std::future::pending().await;
    };
    loop {
        notify::alive();
        tokio::time::sleep(every).await;
    }
}

/// The signals that end a program on purpose.
struct Stop {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
