//! The device's one connection to the orchestrator: dialled, greeted, fed from the spool, watched, and dialled again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aizen_protocol::control::UplinkState;
use aizen_protocol::envelope::Envelope;
use aizen_protocol::frame::{Standing, UPLINK_PATH};
use aizen_protocol::id::{BootId, ChangeId, DeviceId, Digest, Epoch};
use aizen_protocol::statement::Confirmation;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::dial::{Connection, DialError, Dialer, Patience, Server};
use super::handle::SpoolHandle;
use super::link::{self, Hands, LinkError};
use super::meter::Meter;
use super::session::Bounds;
use super::talk::{Talk, Wanted};
use super::tls::{self, TlsError};
use crate::identity::UplinkIdentity;

/// What the uplink needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The orchestrator.
    pub server: Server,
    /// Where addresses that answered are remembered.
    pub remembered: PathBuf,
    /// The longest wait between attempts.
    pub max_backoff: Duration,
    /// Bounds of an attempt.
    pub patience: Patience,
    /// Bounds of a connection.
    pub bounds: Bounds,
    /// A write during which TCP takes no byte for so long ends the connection.
    pub write_within: Duration,
}

impl Settings {
    /// Production values for a server.
    #[must_use]
    pub fn new(server: Server, remembered: PathBuf) -> Self {
        Self {
            server,
            remembered,
            max_backoff: Duration::from_secs(5),
            patience: Patience::default(),
            bounds: Bounds::default(),
            write_within: Duration::from_secs(15),
        }
    }
}

/// What the device says of itself in its first frame, and of its standing whenever that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The device.
    pub device: DeviceId,
    /// Its state generation.
    pub epoch: Epoch,
    /// Its boot.
    pub boot: BootId,
    /// The agent's version.
    pub agent: String,
    /// What it can do and may do.
    pub standing: Standing,
}

/// What the uplink is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The network changed, or a person asks: connect at once; if connected, ask whether the peer is still there.
    Kick,
    /// A package arrived at the executor.
    Received(Digest),
    /// A change asks for its confirmation: over a connection that is dialled from here on, and no other.
    ConfirmWanted(Confirmation),
    /// The change ended: its confirmation is not asked for any more.
    ForgetConfirm(ChangeId),
}

/// What the uplink tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Welcomed by the orchestrator.
    Connected {
        /// The address that answered.
        address: SocketAddr,
    },
    /// The connection ended.
    Disconnected {
        /// Why, for people.
        error: String,
    },
    /// Rehearse this.
    Rehearse(Envelope),
    /// Execute this.
    Deliver {
        /// The package.
        package: Envelope,
        /// The delivery statement.
        delivery: Envelope,
    },
    /// A signed confirmation.
    Confirmed(Envelope),
}

/// The uplink.
pub struct Uplink {
    settings: Settings,
    dialer: Dialer,
    spool: SpoolHandle,
    meter: Meter,
    state: watch::Sender<UplinkState>,
    talk: Talk,
}

impl Uplink {
    /// Prepares the uplink; nothing is dialled before [`Uplink::run`].
    ///
    /// # Errors
    /// [`TlsError`] if key, certificate and CA don't fit.
    pub fn new(
        settings: Settings,
        identity: &UplinkIdentity,
        spool: SpoolHandle,
        about: watch::Receiver<About>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, TlsError> {
        let meter = Meter::default();
        let dialer = Dialer::new(
            settings.server.clone(),
            UPLINK_PATH,
            tls::uplink_config(identity)?,
            settings.patience,
            meter.clone(),
        )
        .remembering(settings.remembered.clone());
        Ok(Self {
            settings,
            dialer,
            spool,
            meter,
            state: watch::Sender::new(UplinkState::Connecting),
            talk: Talk::new(about, commands, events),
        })
    }

    /// Its state, for `aizen status`.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<UplinkState> {
        self.state.subscribe()
    }

    /// Bytes sent by purpose.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Connects, carries and connects again, until the commands' sender is gone. Also keeps the spool on storage.
    pub async fn run(mut self) {
        let spool = self.spool.clone();
        tokio::select! {
            () = spool.keep() => {}
            () = self.connect_for_ever() => {}
        }
    }

    async fn connect_for_ever(&mut self) {
        let mut backoff = Backoff::new(self.settings.max_backoff);
        loop {
            self.state.send_replace(UplinkState::Connecting);
            let error = match self.dial(&mut backoff).await {
                None => return,
                Some(Err(error)) => error.to_string(),
                Some(Ok((connection, address))) => {
                    match self.live(connection, address, &mut backoff).await {
                        LinkError::Ending => return,
                        LinkError::Redial => {
                            tracing::info!(%address, "the connection is dialled anew for a confirmation");
                            backoff.reset();
                            continue;
                        }
                        error => format!("{address}: {error}"),
                    }
                }
            };
            if !self.wait(&mut backoff, error).await {
                return;
            }
        }
    }

    /// One connection, and what its end says about the next.
    async fn live(
        &mut self,
        connection: Connection,
        address: SocketAddr,
        backoff: &mut Backoff,
    ) -> LinkError {
        let began = Instant::now();
        let hands = Hands {
            bounds: self.settings.bounds,
            write_within: self.settings.write_within,
            spool: &self.spool,
            meter: &self.meter,
            state: &self.state,
            dialer: &mut self.dialer,
            talk: &mut self.talk,
        };
        let error = link::carry(connection, address, hands).await;
        if !matches!(*self.state.borrow(), UplinkState::Connected { .. }) {
            return error;
        }
        if began.elapsed() >= STABLE {
            backoff.reset();
        }
        let told = self.talk.tell(Event::Disconnected {
            error: error.to_string(),
        });
        match told.await {
            Err(LinkError::Ending) => LinkError::Ending,
            Ok(()) | Err(_) => error,
        }
    }

    /// Dials, and listens to commands meanwhile; none when the program ends.
    async fn dial(
        &mut self,
        backoff: &mut Backoff,
    ) -> Option<Result<(Connection, SocketAddr), DialError>> {
        let Self { dialer, talk, .. } = self;
        loop {
            let began = Instant::now();
            let mut dialled = std::pin::pin!(dialer.dial());
            loop {
                tokio::select! {
                    dialled = &mut dialled => return Some(dialled),
                    command = talk.commands.recv() => {
                        let wanted = talk.note(command?);
                        if wanted != Wanted::Nothing {
                            backoff.reset();
                        }
                        // What was dialled before the change proves nothing; and packets that went into a dead route
                        // are repeated too slowly.
                        if wanted == Wanted::FreshConnection
                            || (wanted == Wanted::Connection && began.elapsed() > FRESH)
                        {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Waits out the backoff; false when the program ends.
    async fn wait(&mut self, backoff: &mut Backoff, error: String) -> bool {
        let wait = backoff.next(random());
        tracing::warn!(error, ?wait, attempts = backoff.attempts(), "no uplink");
        self.state.send_replace(UplinkState::Waiting {
            attempts: backoff.attempts(),
            next_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            last_error: error,
        });
        let mut waited = std::pin::pin!(sleep(wait));
        loop {
            tokio::select! {
                () = &mut waited => return true,
                command = self.talk.commands.recv() => {
                    let Some(command) = command else {
                        return false;
                    };
                    match self.talk.note(command) {
                        Wanted::Nothing => {}
                        Wanted::FreshConnection => {
                            backoff.reset();
                            return true;
                        }
                        Wanted::Connection => {
                            backoff.reset();
                            // A flapping link kicks often: the shortest wait bounds how often that dials.
                            let short = Instant::now() + backoff.next(random());
                            if short < waited.deadline() {
                                waited.as_mut().reset(short);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Jitter needs no secret: without randomness every wait is the longest of its step.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// A connection that lived so long was no accident: the next wait is short again.
const STABLE: Duration = Duration::from_secs(10);
/// An attempt younger than this already knows the network as it is.
const FRESH: Duration = Duration::from_secs(1);
