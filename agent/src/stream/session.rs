//! One connection from the first frame to its end, as decisions: no socket, no clock, no storage.

use std::collections::VecDeque;
use std::time::Duration;

use aizen_protocol::envelope::Envelope;
use aizen_protocol::frame::CloudFrame;
use aizen_protocol::id::Sequence;
use jiff::Timestamp;

use crate::clock::BootTime;

/// Bounds of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Frames on their way that are not acknowledged.
    pub window_frames: usize,
    /// Bytes of them, not counting the last.
    pub window_bytes: usize,
    /// The orchestrator must have answered the first frame by then.
    pub welcome_within: Duration,
    /// After so long without a word a ping asks whether the peer is there.
    pub ping_after: Duration,
    /// The peer must have said something by then after a ping.
    pub pong_within: Duration,
    /// The oldest frame on its way must be acknowledged by then.
    pub ack_within: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            window_frames: 64,
            window_bytes: 256 << 10,
            welcome_within: Duration::from_secs(10),
            ping_after: Duration::from_secs(10),
            pong_within: Duration::from_secs(10),
            ack_within: Duration::from_secs(60),
        }
    }
}

impl Bounds {
    /// The same, with a silent peer given up after `wait`: half of it until it is asked, half for its answer.
    #[must_use]
    pub fn dead_after(self, wait: Duration) -> Self {
        Self {
            ping_after: wait / 2,
            pong_within: wait / 2,
            ..self
        }
    }
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SessionError {
    /// Something came before the welcome.
    #[error("the orchestrator sent a frame before its welcome")]
    BeforeWelcome,
    /// A second welcome.
    #[error("the orchestrator said welcome twice")]
    SecondWelcome,
    /// An acknowledgement of what was never sent.
    #[error(
        "the orchestrator acknowledged number {through}, but {sent} is the highest it was sent"
    )]
    NeverSent {
        /// What it acknowledged.
        through: u64,
        /// The highest number sent.
        sent: u64,
    },
    /// It said goodbye.
    #[error("the orchestrator closed the connection: {message}")]
    Closed {
        /// Its words.
        message: String,
    },
    /// No welcome in time.
    #[error("no welcome within {0:?}")]
    NoWelcome(Duration),
    /// Nothing heard in time.
    #[error("nothing heard from the orchestrator for {0:?}")]
    Silent(Duration),
    /// No acknowledgement in time.
    #[error("the orchestrator acknowledged nothing for {0:?}")]
    NoAcknowledgement(Duration),
}

/// What a frame asks to be done.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// The connection is open: everything up to and with `through` is stored.
    Welcomed {
        /// The number.
        through: Sequence,
        /// The orchestrator's clock.
        now: Timestamp,
    },
    /// Everything up to and with this is stored.
    Acknowledged(Sequence),
    /// Nothing new: an older acknowledgement once more.
    Nothing,
    /// A rehearsal package.
    Rehearse(Envelope),
    /// A package and its delivery statement.
    Deliver {
        /// The package.
        package: Envelope,
        /// The statement.
        delivery: Envelope,
    },
    /// A signed confirmation.
    Confirmed(Envelope),
}

/// What time asks to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing until then.
    Until(BootTime),
    /// Send a ping.
    Ping,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    bounds: Bounds,
    welcomed: bool,
    in_flight: VecDeque<(Sequence, usize)>,
    sent: Sequence,
    acknowledged: Sequence,
    began: BootTime,
    heard: BootTime,
    progress: BootTime,
    ping: Ping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    None,
    Wanted,
    Sent { at: BootTime },
}

impl Session {
    /// A connection on which nothing but the first frame was sent.
    #[must_use]
    pub fn new(bounds: Bounds, now: BootTime) -> Self {
        Self {
            bounds,
            welcomed: false,
            in_flight: VecDeque::new(),
            sent: Sequence(0),
            acknowledged: Sequence(0),
            began: now,
            heard: now,
            progress: now,
            ping: Ping::None,
        }
    }

    /// The peer sent something, whatever it is.
    pub fn heard(&mut self, now: BootTime) {
        self.heard = now;
        self.ping = Ping::None;
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// A frame that may not come now, or a goodbye: the connection is over.
    pub fn receive(&mut self, frame: CloudFrame, now: BootTime) -> Result<Received, SessionError> {
        self.heard(now);
        match frame {
            CloudFrame::Close { message } => Err(SessionError::Closed {
                message: printable(&message),
            }),
            CloudFrame::Welcome { .. } if self.welcomed => Err(SessionError::SecondWelcome),
            CloudFrame::Welcome {
                through,
                now: clock,
            } => {
                self.welcomed = true;
                self.sent = through;
                self.acknowledged = through;
                self.progress = now;
                Ok(Received::Welcomed {
                    through,
                    now: clock,
                })
            }
            CloudFrame::Ack { .. }
            | CloudFrame::Rehearse { .. }
            | CloudFrame::Deliver { .. }
            | CloudFrame::Confirmed { .. }
                if !self.welcomed =>
            {
                Err(SessionError::BeforeWelcome)
            }
            CloudFrame::Ack { through } => self.acknowledge(through, now),
            CloudFrame::Rehearse { package } => Ok(Received::Rehearse(package)),
            CloudFrame::Deliver { package, delivery } => {
                Ok(Received::Deliver { package, delivery })
            }
            CloudFrame::Confirmed { statement } => Ok(Received::Confirmed(statement)),
        }
    }

    fn acknowledge(&mut self, through: Sequence, now: BootTime) -> Result<Received, SessionError> {
        if through > self.sent {
            return Err(SessionError::NeverSent {
                through: through.0,
                sent: self.sent.0,
            });
        }
        if through <= self.acknowledged {
            return Ok(Received::Nothing);
        }
        self.acknowledged = through;
        self.progress = now;
        while self
            .in_flight
            .front()
            .is_some_and(|(seq, _)| *seq <= through)
        {
            self.in_flight.pop_front();
        }
        Ok(Received::Acknowledged(through))
    }

    /// A frame of the spool went out.
    pub fn sent(&mut self, sequence: Sequence, bytes: usize, now: BootTime) {
        if self.in_flight.is_empty() {
            self.progress = now;
        }
        self.in_flight.push_back((sequence, bytes));
        self.sent = self.sent.max(sequence);
    }

    /// How many frames and bytes of the spool may go out; none before the welcome.
    #[must_use]
    pub fn room(&self) -> Option<(usize, usize)> {
        let bytes: usize = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
        let frames = self
            .bounds
            .window_frames
            .checked_sub(self.in_flight.len())?;
        let bytes = self.bounds.window_bytes.checked_sub(bytes)?;
        (self.welcomed && frames > 0 && bytes > 0).then_some((frames, bytes))
    }

    /// True once the orchestrator answered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.welcomed
    }

    /// Bytes still leave this device: neither silence nor a missing acknowledgement is the peer's fault yet.
    pub fn writing(&mut self, now: BootTime) {
        self.heard = self.heard.max(now);
        self.progress = now;
    }

    /// The network changed under the connection: asks at once whether the peer is still there.
    pub fn probe(&mut self) {
        if self.ping == Ping::None {
            self.ping = Ping::Wanted;
        }
    }

    /// What is due.
    ///
    /// # Errors
    /// The peer was given its time and is taken for dead.
    pub fn due(&mut self, now: BootTime) -> Result<Due, SessionError> {
        let bounds = self.bounds;
        if !self.welcomed {
            return before(self.began, bounds.welcome_within, now)
                .ok_or(SessionError::NoWelcome(bounds.welcome_within))
                .map(Due::Until);
        }
        let mut until = match self.ping {
            Ping::Sent { at } => before(at, bounds.pong_within, now)
                .ok_or(SessionError::Silent(bounds.ping_after + bounds.pong_within))?,
            Ping::None if before(self.heard, bounds.ping_after, now).is_some() => {
                later(self.heard, bounds.ping_after)
            }
            Ping::None | Ping::Wanted => {
                self.ping = Ping::Sent { at: now };
                return Ok(Due::Ping);
            }
        };
        if !self.in_flight.is_empty() {
            let acknowledged = before(self.progress, bounds.ack_within, now)
                .ok_or(SessionError::NoAcknowledgement(bounds.ack_within))?;
            until = until.min(acknowledged);
        }
        Ok(Due::Until(until))
    }
}

fn later(start: BootTime, wait: Duration) -> BootTime {
    BootTime(start.0.saturating_add(wait))
}

/// The end of `wait` after `start`, if it is still to come.
fn before(start: BootTime, wait: Duration, now: BootTime) -> Option<BootTime> {
    let end = later(start, wait);
    (now < end).then_some(end)
}

/// A stranger's words for the log: one line, bounded.
fn printable(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    fn ack(through: u64) -> CloudFrame {
        CloudFrame::Ack {
            through: Sequence(through),
        }
    }

    fn open(through: u64) -> Session {
        let mut session = Session::new(Bounds::default(), at(0));
        let welcome = CloudFrame::Welcome {
            through: Sequence(through),
            now: Timestamp::UNIX_EPOCH,
        };
        session.receive(welcome, at(0)).unwrap();
        session
    }

    #[test]
    fn nothing_goes_out_and_nothing_comes_in_before_the_welcome() {
        let mut session = Session::new(Bounds::default(), at(0));
        assert_eq!(session.room(), None);
        assert_eq!(
            session.receive(ack(0), at(1)).unwrap_err(),
            SessionError::BeforeWelcome
        );
        assert_eq!(
            session.due(at(10)).unwrap_err(),
            SessionError::NoWelcome(Duration::from_secs(10))
        );
        assert!(open(3).room().is_some());
    }

    #[test]
    fn the_window_closes_when_it_is_full_and_opens_with_the_acknowledgement() {
        let mut session = open(10);
        for i in 0..64 {
            assert!(session.room().is_some(), "closed after {i}");
            session.sent(Sequence(11 + i), 100, at(1));
        }
        assert_eq!(session.room(), None);
        assert_eq!(
            session.receive(ack(20), at(2)),
            Ok(Received::Acknowledged(Sequence(20)))
        );
        assert_eq!(session.room().unwrap().0, 10);
        session.sent(Sequence(100), 1 << 20, at(3));
        assert_eq!(session.room(), None, "one large frame fills the window");
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_ends_the_connection() {
        let mut session = open(10);
        session.sent(Sequence(12), 100, at(1));
        assert_eq!(session.receive(ack(9), at(1)), Ok(Received::Nothing));
        assert_eq!(
            session.receive(ack(13), at(1)).unwrap_err(),
            SessionError::NeverSent {
                through: 13,
                sent: 12
            }
        );
    }

    #[test]
    fn a_silent_peer_is_pinged_and_given_up() {
        let mut session = open(0);
        assert_eq!(session.due(at(3)), Ok(Due::Until(at(10))));
        assert_eq!(session.due(at(10)), Ok(Due::Ping));
        assert_eq!(session.due(at(11)), Ok(Due::Until(at(20))));
        session.heard(at(12));
        assert_eq!(session.due(at(13)), Ok(Due::Until(at(22))));
        assert_eq!(session.due(at(22)), Ok(Due::Ping));
        assert_eq!(
            session.due(at(32)).unwrap_err(),
            SessionError::Silent(Duration::from_secs(20))
        );
    }

    #[test]
    fn a_change_of_the_network_asks_at_once_and_once() {
        let mut session = open(0);
        session.probe();
        assert_eq!(session.due(at(1)), Ok(Due::Ping));
        session.probe();
        assert_eq!(session.due(at(2)), Ok(Due::Until(at(11))));
    }

    #[test]
    fn a_peer_that_answers_pings_and_acknowledges_nothing_is_given_up() {
        let mut session = open(0);
        session.sent(Sequence(1), 10, at(5));
        for second in 6..65 {
            session.heard(at(second));
            assert!(session.due(at(second)).is_ok(), "at {second}");
        }
        session.heard(at(65));
        assert_eq!(
            session.due(at(65)).unwrap_err(),
            SessionError::NoAcknowledgement(Duration::from_secs(60))
        );
    }

    #[test]
    fn while_a_slow_line_still_takes_bytes_nobody_is_given_up() {
        let mut session = open(0);
        session.sent(Sequence(1), 1 << 20, at(0));
        for second in 0..300 {
            session.writing(at(second));
            assert!(matches!(session.due(at(second)), Ok(Due::Until(_))));
        }
    }

    #[test]
    fn a_goodbye_is_one_printable_line() {
        let mut session = open(0);
        let frame = CloudFrame::Close {
            message: format!("a\nb\u{1b}[2J{}", "x".repeat(1000)),
        };
        let SessionError::Closed { message } = session.receive(frame, at(1)).unwrap_err() else {
            panic!("not closed");
        };
        assert!(message.starts_with("a b [2J") && message.len() == 200);
    }
}
