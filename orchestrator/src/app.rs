//! The composition root: opens what `serve` needs, joins it, runs it, ends it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::frame::{ENROLL_PATH, UPLINK_PATH};
use aizen_protocol::id::Digest;
use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::Settings;
use crate::data::{DataDir, DataError};
use crate::ingest::presence::Presence;
use crate::sign::Signer;
use crate::store::{Store, StoreError, records};
use crate::tls::listener::{Peer, TlsListener};
use crate::tls::{Authority, AuthorityError};
use crate::{api, approve, clock, dispatch, ingest};

/// A server that stops waits so long for its devices to be told.
const FAREWELL_WITHIN: Duration = Duration::from_secs(5);

/// Everything that requests and sessions share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) authority: Authority,
    pub(crate) signer: Signer,
    pub(crate) settings: Settings,
    pub(crate) presence: Presence,
    /// Read-locked by every session while it lasts, so that the end of all of them can be waited for.
    pub(crate) sessions: Arc<RwLock<()>>,
    /// SHA-256 of the people's bearer token.
    pub(crate) admin: Digest,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The port.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// Another server uses the directory.
    #[error("{path} is in use by another server: {detail}")]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// The system's word.
        detail: String,
    },
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it can be reached from this machine.
    pub url: String,
    app: Arc<App>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
    accepting: JoinHandle<()>,
    housekeeping: JoinHandle<()>,
    _lock: File,
}

/// Starts the server.
///
/// `trust` is a signed trust document; without one, the document of the last start counts. `names` are added to the
/// names of `init` in the server's certificate.
///
/// # Errors
/// Whatever is missing or in the way, in a sentence that says what to do.
pub async fn start(
    data: &DataDir,
    settings: Settings,
    trust: Option<&Path>,
    names: &[String],
) -> Result<Running, StartError> {
    let now = clock::now();
    let (authority, mut all) = data.authority()?;
    all.extend(names.iter().cloned());
    let signer = data.signer(trust, now)?;
    if signer.trust_expires() <= now {
        tracing::warn!(expired = %signer.trust_expires(), "the trust document has expired: devices only diagnose until it is renewed");
    }
    let lock = lock(data)?;
    let listen = |source| StartError::Listen {
        address: settings.listen,
        source,
    };
    let tls = authority.server_config(&all)?;
    let tcp = TcpListener::bind(settings.listen).await.map_err(listen)?;
    let address = tcp.local_addr().map_err(listen)?;
    let url = local_url(address);
    let app = Arc::new(App {
        store: Store::open(&data.database())?,
        authority,
        signer,
        presence: Presence::default(),
        sessions: Arc::default(),
        admin: Digest::of(data.read_admin_token()?.as_bytes()),
        settings,
    });
    let (listener, accepting) = TlsListener::start(tcp, tls, &app.settings)
        .map_err(|source| StartError::Listen { address, source })?;
    let router = Router::new()
        .route(UPLINK_PATH, get(ingest::uplink))
        .route(ENROLL_PATH, get(ingest::enrollment))
        .nest("/api/v1", api::router(&app))
        .with_state(app.clone());
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(
        axum::serve(
            listener,
            router.into_make_service_with_connect_info::<Peer>(),
        )
        .with_graceful_shutdown(async {
            // A handle that was dropped stops the server as well.
            stopped.await.ok();
        })
        .into_future(),
    );
    let housekeeping = tokio::spawn(keep_house(app.clone()));
    data.write_server_url(&url)?;
    tracing::info!(%address, "listening");
    Ok(Running {
        address,
        url,
        app,
        stop,
        serving,
        accepting,
        housekeeping,
        _lock: lock,
    })
}

impl Running {
    /// Ends every session, finishes the requests that were begun, and returns.
    ///
    /// # Errors
    /// If the listener failed.
    pub async fn stop(self) -> io::Result<()> {
        self.housekeeping.abort();
        self.app.presence.stop();
        // The server may have ended by itself.
        self.stop.send(()).ok();
        if timeout(FAREWELL_WITHIN, self.app.sessions.write())
            .await
            .is_err()
        {
            tracing::warn!("some connections did not take their farewell in time");
        }
        let served = self.serving.await.unwrap_or_else(|e| Err(failed(&e)));
        // Only then is the port free.
        self.accepting.await.map_err(|e| failed(&e))?;
        served
    }
}

fn failed(error: &JoinError) -> io::Error {
    io::Error::other(format!("the server's task ended: {error}"))
}

fn lock(data: &DataDir) -> Result<File, StartError> {
    let path = data.database().with_extension("lock");
    let in_use = |detail: String| StartError::InUse {
        path: path.clone(),
        detail,
    };
    let file = File::create(&path).map_err(|e| in_use(e.to_string()))?;
    file.try_lock().map_err(|e| in_use(e.to_string()))?;
    Ok(file)
}

/// A server that listens everywhere is reached by loopback, which its certificate always names.
fn local_url(address: SocketAddr) -> String {
    let host: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(host, address.port()))
}

/// Ends what is overdue and forgets what is too old.
async fn keep_house(app: Arc<App>) {
    let mut ticks = interval(app.settings.housekeeping);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = clock::now();
        let oldest = now.checked_sub(app.settings.records_for).unwrap_or(now);
        let kept = app
            .store
            .transact::<_, StoreError, _>(move |tx| {
                approve::expire(tx, now)?;
                dispatch::expire(tx, now)?;
                records::forget_before(tx, oldest)
            })
            .await;
        if let Err(error) = kept {
            tracing::error!(%error, "housekeeping failed");
        }
    }
}
