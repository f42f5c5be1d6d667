//! One connection while it lives: frames out of the spool and onto the wire, frames off the wire and to whom they are for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aizen_protocol::control::UplinkState;
use aizen_protocol::frame::{CloudFrame, DeviceFrame, Hello};
use aizen_protocol::{limit, strict};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::dial::{Connection, Dialer};
use super::frame::OpaqueFrame;
use super::handle::SpoolHandle;
use super::lane::Class;
use super::meter::Meter;
use super::session::{Bounds, Due, Received, Session, SessionError};
use super::spool::SpoolError;
use super::talk::{Talk, Wanted};
use super::uplink::{Command, Event};
use crate::clock;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the orchestrator sent what is no frame: {0}")]
    Malformed(#[from] strict::StrictError),
    #[error("the orchestrator sent a binary message")]
    Binary,
    #[error("the orchestrator sent more than the {limit} bytes of a frame: {0}", limit = limit::FRAME)]
    TooLarge(tungstenite::error::CapacityError),
    #[error("the connection failed: {0}")]
    Socket(tungstenite::Error),
    #[error("the connection ended without a goodbye")]
    Ended,
    #[error("TCP took no byte for {0:?}")]
    Stuck(Duration),
    #[error("the spool can't be used: {0}")]
    Spool(#[from] SpoolError),
    #[error("this program took no event for {0:?}")]
    Deaf(Duration),
    #[error("a frame can't be written: {0}")]
    Form(serde_json::Error),
    #[error("a change asks to be confirmed over a fresh connection")]
    Redial,
    #[error("the program is ending")]
    Ending,
}

impl From<tungstenite::Error> for LinkError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(error) => Self::TooLarge(error),
            tungstenite::Error::ConnectionClosed => Self::Ended,
            other => Self::Socket(other),
        }
    }
}

/// What a connection works with.
pub(super) struct Hands<'u> {
    pub(super) bounds: Bounds,
    pub(super) write_within: Duration,
    pub(super) spool: &'u SpoolHandle,
    pub(super) meter: &'u Meter,
    pub(super) state: &'u watch::Sender<UplinkState>,
    pub(super) dialer: &'u mut Dialer,
    pub(super) talk: &'u mut Talk,
}

/// One connection from the first frame to its end.
pub(super) async fn carry(
    connection: Connection,
    address: SocketAddr,
    hands: Hands<'_>,
) -> LinkError {
    let (sink, source) = connection.split();
    let (outbox, queued) = mpsc::channel(OUTBOX);
    let writing = Arc::new(AtomicBool::new(false));
    let (meter, within) = (hands.meter, hands.write_within);
    let writer = write(sink, queued, Arc::clone(&writing), meter, within);
    let link = Link {
        session: Session::new(hands.bounds, clock::since_boot()),
        address,
        source,
        outbox,
        writing,
        outgoing: VecDeque::new(),
        more: false,
        hands,
    };
    tokio::select! {
        error = writer => error,
        error = link.run() => error,
    }
}

/// A connection while it lives.
struct Link<'u> {
    session: Session,
    address: SocketAddr,
    source: SplitStream<Connection>,
    outbox: mpsc::Sender<Message>,
    writing: Arc<AtomicBool>,
    outgoing: VecDeque<Outgoing>,
    /// The spool may have frames that were not handed out on this connection.
    more: bool,
    hands: Hands<'u>,
}

/// What ended a wait.
enum Happened {
    Message(Option<Result<Message, tungstenite::Error>>),
    Command(Option<Command>),
    Standing,
    Room,
    Grown,
    Nothing,
}

struct Outgoing {
    message: Message,
    frame: Option<(Class, usize)>,
}

impl Link<'_> {
    async fn run(mut self) -> LinkError {
        if let Err(error) = self.greet().await {
            return error;
        }
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    async fn step(&mut self) -> Result<(), LinkError> {
        self.draw().await?;
        let pause = self.watch_time()?;
        let happened = tokio::select! {
            message = self.source.next() => Happened::Message(message),
            command = self.hands.talk.commands.recv() => Happened::Command(command),
            Ok(permit) = self.outbox.reserve(), if !self.outgoing.is_empty() => {
                drop(permit);
                Happened::Room
            }
            Ok(()) = self.hands.talk.about.changed() => Happened::Standing,
            () = self.hands.spool.grown(), if !self.more => Happened::Grown,
            () = sleep(pause) => Happened::Nothing,
        };
        match happened {
            Happened::Message(message) => self.read(message.ok_or(LinkError::Ended)??).await,
            Happened::Command(command) => self.obey(command.ok_or(LinkError::Ending)?),
            Happened::Standing => {
                let standing = self.hands.talk.about.borrow_and_update().standing.clone();
                self.say(&DeviceFrame::Standing(standing))
            }
            Happened::Room => self.hand_over(),
            Happened::Grown => {
                self.more = true;
                Ok(())
            }
            Happened::Nothing => Ok(()),
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), LinkError> {
        match self.hands.talk.note(command) {
            Wanted::FreshConnection => Err(LinkError::Redial),
            Wanted::Connection => {
                self.session.probe();
                Ok(())
            }
            Wanted::Nothing => self.tell_receipts(),
        }
    }

    /// Gives the writer what it has room for.
    fn hand_over(&mut self) -> Result<(), LinkError> {
        while self.outbox.capacity() > 0
            && let Some(next) = self.outgoing.pop_front()
        {
            if let Some((class, bytes)) = next.frame {
                self.hands.meter.frame(class, bytes);
            }
            self.writing.store(true, Ordering::Relaxed);
            self.outbox
                .try_send(next.message)
                .map_err(|_| LinkError::Ended)?;
        }
        Ok(())
    }

    /// The first frame.
    async fn greet(&mut self) -> Result<(), LinkError> {
        let spool = self.hands.spool.rewind().await?;
        let about = self.hands.talk.about.borrow_and_update().clone();
        self.say(&DeviceFrame::Hello(Hello {
            device: about.device,
            epoch: about.epoch,
            boot: about.boot,
            agent: about.agent,
            oldest: spool.oldest,
            standing: about.standing,
        }))
    }

    fn say(&mut self, frame: &DeviceFrame) -> Result<(), LinkError> {
        let text = serde_json::to_string(frame).map_err(LinkError::Form)?;
        self.outgoing.push_back(Outgoing {
            message: Message::text(text),
            frame: None,
        });
        Ok(())
    }

    /// Takes frames out of the spool while the window is open.
    async fn draw(&mut self) -> Result<(), LinkError> {
        while self.more && self.outgoing.is_empty() {
            let Some((frames, bytes)) = self.session.room() else {
                return Ok(());
            };
            let batch = self
                .hands
                .spool
                .next_frames(frames.min(BATCH), bytes)
                .await?;
            self.more = !batch.is_empty();
            for frame in batch {
                self.send(frame)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, frame: OpaqueFrame) -> Result<(), LinkError> {
        let (class, bytes) = (frame.class(), frame.size());
        self.session
            .sent(frame.sequence(), bytes, clock::since_boot());
        let text = Utf8Bytes::try_from(frame.into_text())
            .map_err(|e| LinkError::Socket(tungstenite::Error::Utf8(e.to_string())))?;
        self.outgoing.push_back(Outgoing {
            message: Message::Text(text),
            frame: Some((class, bytes)),
        });
        Ok(())
    }

    /// Pings if it is time; how long nothing is due otherwise.
    fn watch_time(&mut self) -> Result<Duration, LinkError> {
        let now = clock::since_boot();
        let writing = self.writing.load(Ordering::Relaxed) || !self.outgoing.is_empty();
        if writing && self.session.is_open() {
            self.session.writing(now);
        }
        match self.session.due(now)? {
            Due::Until(then) => {
                let pause = then.0.saturating_sub(now.0);
                Ok(if writing { pause.min(GLANCE) } else { pause })
            }
            Due::Ping => {
                self.hands.talk.pinged();
                self.outgoing.push_back(Outgoing {
                    message: Message::Ping(tungstenite::Bytes::new()),
                    frame: None,
                });
                Ok(GLANCE)
            }
        }
    }

    async fn read(&mut self, message: Message) -> Result<(), LinkError> {
        let now = clock::since_boot();
        self.session.heard(now);
        match message {
            Message::Text(text) => {
                let frame: CloudFrame = strict::from_slice(text.as_bytes(), limit::FRAME)?;
                let received = self.session.receive(frame, now)?;
                self.act(received).await
            }
            Message::Pong(_) => {
                self.hands.talk.ponged();
                Ok(())
            }
            Message::Ping(_) | Message::Frame(_) => Ok(()),
            Message::Binary(_) => Err(LinkError::Binary),
            Message::Close(None) => Err(LinkError::Ended),
            Message::Close(Some(close)) => Err(SessionError::Closed {
                message: format!("{} {}", close.code, close.reason.escape_default()),
            }
            .into()),
        }
    }

    async fn act(&mut self, received: Received) -> Result<(), LinkError> {
        match received {
            Received::Nothing => Ok(()),
            Received::Acknowledged(through) => Ok(self.hands.spool.acknowledge(through).await?),
            Received::Welcomed { through, .. } => {
                self.hands.spool.welcome(through).await?;
                self.open().await
            }
            Received::Rehearse(package) => self.hands.talk.tell(Event::Rehearse(package)).await,
            Received::Deliver { package, delivery } => {
                self.hands
                    .talk
                    .tell(Event::Deliver { package, delivery })
                    .await
            }
            Received::Confirmed(statement) => {
                self.hands.talk.settle(&statement);
                self.hands.talk.tell(Event::Confirmed(statement)).await
            }
        }
    }

    /// Welcomed: a change that waits for its confirmation goes first.
    async fn open(&mut self) -> Result<(), LinkError> {
        let address = self.address;
        tracing::info!(%address, "uplink connected");
        self.hands.state.send_replace(UplinkState::Connected {
            since: clock::now(),
            address: address.to_string(),
        });
        self.hands.dialer.answered(address).await;
        if let Some(confirmation) = self.hands.talk.confirm.clone() {
            self.say(&DeviceFrame::ConfirmWanted(confirmation))?;
        }
        self.hands.talk.tell_again();
        self.tell_receipts()?;
        self.more = true;
        self.hands.talk.tell(Event::Connected { address }).await
    }

    fn tell_receipts(&mut self) -> Result<(), LinkError> {
        if !self.session.is_open() {
            return Ok(());
        }
        let untold = self.hands.talk.untold();
        untold.iter().try_for_each(|frame| self.say(frame))
    }
}

/// Writes what is queued, in batches; ends when the connection does.
async fn write(
    mut sink: SplitSink<Connection, Message>,
    mut queued: mpsc::Receiver<Message>,
    writing: Arc<AtomicBool>,
    meter: &Meter,
    within: Duration,
) -> LinkError {
    while let Some(message) = queued.recv().await {
        writing.store(true, Ordering::Relaxed);
        let batch = async {
            sink.feed(message).await?;
            while let Ok(message) = queued.try_recv() {
                sink.feed(message).await?;
            }
            sink.flush().await
        };
        let mut batch = std::pin::pin!(batch);
        loop {
            let before = meter.total();
            match timeout(within, &mut batch).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => return error.into(),
                // A slow line may need longer than this for one frame; a dead one takes nothing.
                Err(_) if meter.total() == before => return LinkError::Stuck(within),
                Err(_) => {}
            }
        }
        writing.store(false, Ordering::Relaxed);
    }
    LinkError::Ended
}

/// How often a connection that is busy writing looks at the time.
const GLANCE: Duration = Duration::from_secs(1);
/// A daemon that takes no event for so long has lost it; what mattered is delivered again.
pub(super) const EVENT_WITHIN: Duration = Duration::from_secs(10);
const OUTBOX: usize = 16;
const BATCH: usize = 16;
