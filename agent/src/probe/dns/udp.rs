//! Questions over UDP (RFC 1035, 4.2.1), from a port that the kernel draws and under a number that we draw.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};

use super::client::{self, Failure, Reply};
use super::question::{Judged, Question};
use crate::clock;
use crate::collect::datagram::Datagram;

/// A socket that hears one server and nobody else.
#[derive(Debug)]
pub struct Udp {
    socket: Datagram,
    /// Drawn and not used yet.
    ids: Vec<u16>,
    earlier: VecDeque<u16>,
    buffer: Vec<u8>,
}

impl Udp {
    /// Opens the socket; nothing is sent yet.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] where the kernel knows no way.
    pub fn connect(server: SocketAddr) -> Result<Self, Failure> {
        Ok(Self {
            socket: Datagram::connect(server).map_err(Failure::from_io)?,
            ids: Vec::new(),
            earlier: VecDeque::new(),
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Asks once and waits until the deadline. What is no answer to this question does not end the wait: whoever
    /// guesses must not end the question.
    ///
    /// # Errors
    /// [`Failure::Garbage`] if nothing but that came; otherwise what the kernel said, or [`Failure::Timeout`].
    pub async fn ask(&mut self, question: &Question, until: Instant) -> Result<Reply, Failure> {
        let id = self.draw_id()?;
        let bytes = question.bytes(id);
        let sent = clock::since_boot();
        self.socket.send(&bytes).map_err(Failure::from_io)?;
        let mut at_the_end = Failure::Timeout;
        let ended = loop {
            let received = timeout_at(until, self.socket.receive(&mut self.buffer)).await;
            let datagram = match received {
                Err(_) => break Err(at_the_end),
                Ok(Err(error)) => break Err(Failure::from_io(error)),
                Ok(Ok(length)) => &self.buffer[..length],
            };
            match question.judge(id, datagram) {
                Judged::Answer(message) => {
                    break Ok(Reply {
                        message,
                        rtt: clock::since_boot().0.saturating_sub(sent.0),
                        bytes: datagram.len(),
                    });
                }
                Judged::Other if self.is_late(datagram) => {}
                Judged::Other | Judged::Malformed => at_the_end = Failure::Garbage,
            }
        };
        self.earlier.push_front(id);
        self.earlier.truncate(REMEMBERED);
        ended
    }

    /// A number that nobody can guess (RFC 5452, 4.3). The first is drawn alone; whoever asks on is given many at once.
    fn draw_id(&mut self) -> Result<u16, Failure> {
        if self.ids.is_empty() {
            let wanted = if self.earlier.is_empty() { 1 } else { DRAWN };
            self.ids = client::draw_ids(wanted)?;
        }
        self.ids.pop().map_or_else(client::draw_id, Ok)
    }

    /// True for what carries the number of an earlier question of this socket.
    fn is_late(&self, datagram: &[u8]) -> bool {
        let id = datagram.first_chunk().map(|b| u16::from_be_bytes(*b));
        id.is_some_and(|id| self.earlier.contains(&id))
    }
}

/// Larger than any answer that we ask for: 1232 with EDNS, 512 without.
const DATAGRAM: usize = 4096;
const REMEMBERED: usize = 32;
/// Numbers of one call of the kernel.
const DRAWN: usize = 64;
