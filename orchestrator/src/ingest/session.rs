//! One connection of one device, from its hello to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::frame::{CloudFrame, DeviceFrame, Hello};
use aizen_protocol::{limit, strict};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::SinkExt as _;
use futures_util::stream::{SplitSink, StreamExt as _};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::intake::{self, IntakeError};
use super::presence::{Arrival, Farewell};
use crate::app::App;
use crate::audit::{self, Event, Kind};
use crate::store::devices::{self, Device};
use crate::store::{StoreError, deliveries};
use crate::{analyze, clock, dispatch};

/// Frames stored in one transaction at most.
const BATCH: usize = 16;
/// A peer that takes no bytes for this long is gone.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// After a reconnect the device first says what it received: only then is anything delivered again.
const SETTLE: Duration = Duration::from_secs(2);
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// RFC 6455 section 5.5: a control frame holds 125 bytes, two of them the code.
const CLOSE_REASON: usize = 123;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("the device closed the connection")]
    Closed,
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("the device takes no bytes")]
    Stuck,
    #[error("the first frame must be hello, within {HELLO_WITHIN:?}")]
    NoHello,
    #[error("hello names {named}, the client certificate belongs to {certified}")]
    WrongDevice { named: String, certified: String },
    #[error("a binary message: frames are text")]
    Binary,
    #[error("not a frame: {0}")]
    Malformed(#[from] strict::StrictError),
    #[error("the connection failed: {0}")]
    Transport(#[from] axum::Error),
    #[error("{0}")]
    Told(#[from] Farewell),
    #[error("{0}")]
    Intake(#[from] IntakeError),
}

impl From<StoreError> for Ending {
    fn from(error: StoreError) -> Self {
        Self::Intake(error.into())
    }
}

impl Ending {
    /// The WebSocket close code (RFC 6455 section 7.4.1).
    fn code(&self) -> u16 {
        match self {
            Self::Closed | Self::Silent(_) | Self::Stuck => close_code::NORMAL,
            Self::NoHello | Self::WrongDevice { .. } => close_code::POLICY,
            Self::Binary => close_code::UNSUPPORTED,
            Self::Malformed(_) => close_code::INVALID,
            Self::Transport(_) => close_code::SIZE,
            Self::Told(_) => close_code::AWAY,
            Self::Intake(IntakeError::Store(_)) => close_code::AGAIN,
            Self::Intake(IntakeError::SecondHello | IntakeError::OutOfRange(_)) => {
                close_code::PROTOCOL
            }
        }
    }

    /// What the device is told; the store's own words stay here.
    fn message(&self) -> String {
        match self {
            Self::Intake(IntakeError::Store(_)) => {
                "the orchestrator can't store at the moment: nothing was acknowledged, try again later"
                    .into()
            }
            Self::Transport(_) => format!(
                "{self}; a frame holds at most {} bytes",
                limit::FRAME
            ),
            other => other.to_string(),
        }
    }
}

/// Serves a connection whose certificate belongs to `device`.
pub(super) async fn run(app: Arc<App>, device: Device, address: SocketAddr, socket: WebSocket) {
    let _lasts = app.sessions.clone().read_owned().await;
    let (sink, stream) = socket.split();
    let mut out = Out(sink);
    let mut batches = stream.ready_chunks(BATCH);
    let name = device.device.clone();
    let ending = match greet(&app, &device, &mut out, &mut batches).await {
        Ok((mut session, rest)) => {
            tracing::info!(device = %name, %address, connection = session.connection, "connected");
            let ending = session.serve(&mut out, &mut batches, rest).await;
            app.presence.leave(&name, session.connection);
            ending
        }
        Err(ending) => Err(ending),
    };
    if let Err(ending) = ending {
        tracing::info!(device = %name, reason = %ending, "connection ended");
        out.farewell(&ending).await;
    }
}

type Batches = futures_util::stream::ReadyChunks<futures_util::stream::SplitStream<WebSocket>>;
type Arrived = Vec<Result<Message, axum::Error>>;

/// Takes the hello and welcomes the device; what came in the same batch is handed on.
async fn greet(
    app: &Arc<App>,
    device: &Device,
    out: &mut Out,
    batches: &mut Batches,
) -> Result<(Session, Arrived), Ending> {
    let Ok(Some(mut batch)) = timeout(HELLO_WITHIN, batches.next()).await else {
        return Err(Ending::NoHello);
    };
    let rest = batch.split_off(1.min(batch.len()));
    let first = batch.pop().ok_or(Ending::NoHello)??;
    let Some(DeviceFrame::Hello(hello)) = decode(first)? else {
        return Err(Ending::NoHello);
    };
    if hello.device != device.device {
        return Err(Ending::WrongDevice {
            named: hello.device.to_string(),
            certified: device.device.to_string(),
        });
    }
    let (connection, known) = admit(app, hello).await?;
    let Arrival { work, farewell } = app.presence.arrive(&known.device, connection);
    let session = Session {
        app: app.clone(),
        connection,
        work,
        farewell,
        round_waits: known.round_waits,
        device: known,
    };
    let welcome = CloudFrame::Welcome {
        through: session.device.through,
        now: clock::now(),
    };
    if let Err(ending) = out.send(&welcome).await {
        app.presence.leave(&session.device.device, connection);
        return Err(ending);
    }
    Ok((session, rest))
}

async fn admit(app: &Arc<App>, hello: Hello) -> Result<(i64, Device), Ending> {
    let now = clock::now();
    app.store
        .transact(move |tx| {
            let before = devices::by_id(tx, &hello.device)?;
            if let Some(before) = before.filter(|b| b.epoch != hello.epoch) {
                let event = Event {
                    kind: Kind::EpochChanged,
                    device: Some(&hello.device),
                    case: None,
                    detail: json!({ "from": before.epoch.as_str(), "to": hello.epoch.as_str() }),
                };
                audit::append_bounded(tx, event, now)?;
            }
            let connection = devices::connected(tx, &hello, now)?;
            let until = now.checked_add(SETTLE).unwrap_or(now);
            deliveries::shorten_leases(tx, &hello.device, until)?;
            let known = devices::by_id(tx, &hello.device)?.ok_or(Ending::NoHello)?;
            Ok((connection, known))
        })
        .await
}

/// A welcomed device.
struct Session {
    app: Arc<App>,
    device: Device,
    connection: i64,
    work: Arc<tokio::sync::Notify>,
    farewell: tokio::sync::oneshot::Receiver<Farewell>,
    round_waits: bool,
}

impl Session {
    async fn serve(
        &mut self,
        out: &mut Out,
        batches: &mut Batches,
        rest: Arrived,
    ) -> Result<(), Ending> {
        let settings = &self.app.settings;
        let dead_after = settings.dead_after;
        let mut heartbeat = interval(settings.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        if !rest.is_empty() {
            self.take(out, rest).await?;
        }
        loop {
            if std::mem::take(&mut self.round_waits) {
                self.analyze().await;
            }
            let again = self.send_what_is_due(out).await?;
            tokio::select! {
                batch = batches.next() => {
                    heard = Instant::now();
                    self.take(out, batch.ok_or(Ending::Closed)?).await?;
                }
                () = self.work.notified() => {}
                () = until(again) => {}
                told = &mut self.farewell => {
                    return Err(Ending::Told(told.unwrap_or(Farewell::Stopping)));
                }
                _ = heartbeat.tick() => {
                    if heard.elapsed() >= dead_after {
                        return Err(Ending::Silent(dead_after));
                    }
                    out.ping().await?;
                }
            }
        }
    }

    /// Stores what came, up to the first message that is no frame, and acknowledges it.
    async fn take(&mut self, out: &mut Out, batch: Arrived) -> Result<(), Ending> {
        let mut frames = Vec::new();
        let mut violation = None;
        for message in batch {
            match message.map_err(Ending::from).and_then(decode) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => {}
                Err(ending) => {
                    violation = Some(ending);
                    break;
                }
            }
        }
        if !frames.is_empty() {
            let (app, device, connection) =
                (self.app.clone(), self.device.clone(), self.connection);
            let now = clock::now();
            let taken = self
                .app
                .store
                .transact(move |tx| intake::take(tx, &app, &device, connection, frames, now))
                .await?;
            if let Some(through) = taken.through {
                out.send(&CloudFrame::Ack { through }).await?;
            }
            for answer in &taken.answers {
                out.send(answer).await?;
            }
            self.round_waits |= taken.round;
        }
        violation.map_or(Ok(()), Err)
    }

    /// A failed analysis loses nothing: the next round is analyzed with this one in view.
    async fn analyze(&self) {
        if let Err(error) = analyze::newest_round(&self.app, &self.device.device).await {
            tracing::error!(device = %self.device.device, %error, "a round could not be analyzed");
        }
    }

    /// Sends what is due; gives the moment at which to look again.
    async fn send_what_is_due(&self, out: &mut Out) -> Result<Option<Timestamp>, Ending> {
        let (app, device, connection) = (
            self.app.clone(),
            self.device.device.clone(),
            self.connection,
        );
        let now = clock::now();
        let due = self
            .app
            .store
            .transact(move |tx| dispatch::due(tx, &app, &device, connection, now))
            .await?;
        if let Some(frame) = &due.frame {
            out.send(frame).await?;
        }
        Ok(due.again)
    }
}

/// Waits until a moment, for ever if there is none.
async fn until(moment: Option<Timestamp>) {
    let Some(moment) = moment else {
        return std::future::pending().await;
    };
    // A moment that passed is waited for no longer.
    let left = Duration::try_from(moment.duration_since(clock::now())).unwrap_or_default();
    sleep(left).await;
}

/// A frame, or nothing for WebSocket's own messages.
fn decode(message: Message) -> Result<Option<DeviceFrame>, Ending> {
    match message {
        Message::Text(text) => Ok(Some(strict::from_slice(text.as_bytes(), limit::FRAME)?)),
        Message::Binary(_) => Err(Ending::Binary),
        Message::Ping(_) | Message::Pong(_) => Ok(None),
        Message::Close(_) => Err(Ending::Closed),
    }
}

/// The sending half; nothing waits for a stuck peer.
struct Out(SplitSink<WebSocket, Message>);

impl Out {
    async fn send(&mut self, frame: &CloudFrame) -> Result<(), Ending> {
        let text = serde_json::to_string(frame).map_err(strict::StrictError::from)?;
        self.put(Message::Text(text.into())).await
    }

    async fn ping(&mut self) -> Result<(), Ending> {
        self.put(Message::Ping(Vec::new().into())).await
    }

    async fn put(&mut self, message: Message) -> Result<(), Ending> {
        match timeout(SEND_WITHIN, self.0.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Ending::Stuck),
        }
    }

    /// Says why, if anybody still listens.
    async fn farewell(mut self, ending: &Ending) {
        if matches!(ending, Ending::Closed | Ending::Stuck) {
            return;
        }
        let message = ending.message();
        let mut reason = message.clone();
        let end = reason.floor_char_boundary(CLOSE_REASON);
        reason.truncate(end);
        let close = CloseFrame {
            code: ending.code(),
            reason: reason.into(),
        };
        let said = async {
            self.send(&CloudFrame::Close { message }).await?;
            self.put(Message::Close(Some(close))).await
        };
        // The peer may be gone: there is nobody to tell.
        said.await.ok();
    }
}
