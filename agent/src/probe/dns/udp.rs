//! Questions over UDP (RFC 1035, 4.2.1), from a port that the kernel draws and under a number that we draw.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

use super::client::{Failure, Reply};
use super::question::{Judged, Question};
use crate::clock;
use crate::collect::datagram::Datagram;

/// A socket that hears one server and nobody else.
#[derive(Debug)]
pub struct Udp {
    socket: Datagram,
    earlier: VecDeque<u16>,
    buffer: Vec<u8>,
    /// Ends the wait. One for all questions: to set it later costs nothing, a new one wakes the runtime.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Udp {
    /// Opens the socket; nothing is sent yet.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] where the kernel knows no way.
    pub fn connect(server: SocketAddr) -> Result<Self, Failure> {
        Ok(Self {
            socket: Datagram::connect(server).map_err(Failure::from_io)?,
            earlier: VecDeque::new(),
            buffer: vec![0; DATAGRAM],
            deadline: None,
        })
    }

    /// Asks once and waits until the deadline. What is no answer to this question does not end the wait: whoever
    /// guesses must not end the question.
    ///
    /// # Errors
    /// [`Failure::Garbage`] if nothing but that came; otherwise what the kernel said, or [`Failure::Timeout`].
    pub async fn ask(&mut self, question: &Question, until: Instant) -> Result<Reply, Failure> {
        let id = super::client::draw_id()?;
        let bytes = question.bytes(id);
        let sent = clock::since_boot();
        self.socket.send(&bytes).map_err(Failure::from_io)?;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        deadline.as_mut().reset(until);
        let mut at_the_end = Failure::Timeout;
        let ended = loop {
            // A flood of other datagrams must not keep the timer from being looked at.
            if Instant::now() >= until {
                break Err(at_the_end);
            }
            let received = tokio::select! {
                biased;
                received = self.socket.receive(&mut self.buffer) => received,
                () = deadline.as_mut() => break Err(at_the_end),
            };
            let datagram = match received {
                Err(error) => break Err(Failure::from_io(error)),
                Ok(length) => &self.buffer[..length],
            };
            match question.judge(id, datagram) {
                Judged::Answer(message) => {
                    break Ok(Reply {
                        message,
                        rtt: clock::since_boot().0.saturating_sub(sent.0),
                        bytes: datagram.len(),
                    });
                }
                Judged::Other if is_late(&self.earlier, datagram) => {}
                Judged::Other | Judged::Malformed => at_the_end = Failure::Garbage,
            }
        };
        self.earlier.push_front(id);
        self.earlier.truncate(REMEMBERED);
        ended
    }
}

/// True for what carries the number of an earlier question of this socket.
fn is_late(earlier: &VecDeque<u16>, datagram: &[u8]) -> bool {
    let id = datagram.first_chunk().map(|b| u16::from_be_bytes(*b));
    id.is_some_and(|id| earlier.contains(&id))
}

/// Larger than any answer that we ask for: 1232 with EDNS, 512 without.
const DATAGRAM: usize = 4096;
const REMEMBERED: usize = 32;
