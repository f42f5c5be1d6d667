//! The two local sockets: who asks (peer credentials) and how lines travel.
//!
//! What may be asked is `aizen_protocol::control`; each program decides with [`Peer`] whether it answers.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::{limit, strict};
use nix::sys::stat::{Mode, umask};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

pub mod guests;
pub mod peer;

pub use guests::Guests;
pub use peer::{Access, Peer};

/// What can go wrong on a local socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens, or this user may not connect.
    #[error("can't reach {}: {source}; {}", path.display(), hint(source))]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else than root listens where the executor should.
    #[error("{} is served by user {uid}, not by root: it is not the executor; look who put it there", path.display())]
    Impostor {
        /// The socket.
        path: PathBuf,
        /// Who listens.
        uid: u32,
    },
    /// The connection broke.
    #[error("the connection to the local socket broke: {0}")]
    Broken(#[from] io::Error),
    /// What came is no message of this protocol.
    #[error("the other side sent something that is {0}")]
    NotAMessage(#[from] strict::StrictError),
    /// The other side closed before it answered.
    #[error("the other side closed the connection before it answered")]
    Closed,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is the service running? see 'systemctl status aizen aizen-executor.socket'"
        }
        io::ErrorKind::PermissionDenied => {
            "run it as root or as a member of the group aizen-operators"
        }
        _ => "see the service's log",
    }
}

/// One connection: a JSON value a line, each way.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    peer: Peer,
}

impl Connection {
    /// Connects to a program's socket.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`] with a hint for people.
    pub async fn connect(path: &Path) -> Result<Self, ControlError> {
        let stream =
            UnixStream::connect(path)
                .await
                .map_err(|source| ControlError::Unreachable {
                    path: path.to_owned(),
                    source,
                })?;
        Ok(Self::accepted(stream)?)
    }

    /// Connects to the executor, and believes it only if root listens there: whoever else got hold of the path would be
    /// told what is to be changed, and could answer that it was.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`], [`ControlError::Impostor`].
    pub async fn to_executor(path: &Path) -> Result<Self, ControlError> {
        let connection = Self::connect(path).await?;
        match connection.peer.uid {
            0 => Ok(connection),
            uid => Err(ControlError::Impostor {
                path: path.to_owned(),
                uid,
            }),
        }
    }

    /// Wraps an accepted stream and asks the kernel who is at its other end (`SO_PEERCRED`, unix(7)).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn accepted(stream: UnixStream) -> io::Result<Self> {
        let peer = Peer::of(&stream)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
            peer,
        })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Receives one message; none when the other side closed. Safe to cancel only between messages.
    ///
    /// # Errors
    /// [`ControlError::NotAMessage`] for a line longer than [`limit::FRAME`] or of another form.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let mut line = Vec::new();
        // One byte more than the bound tells "too long" from "just fits".
        let mut bounded = (&mut self.reader).take(limit::FRAME as u64 + 1);
        if bounded.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(strict::from_slice(&line, limit::FRAME)?))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ControlError::Broken`]; a value that is no JSON counts as broken input of ours.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ControlError> {
        let mut line = serde_json::to_vec(message).map_err(io::Error::from)?;
        line.push(b'\n');
        self.writer.write_all(&line).await?;
        Ok(())
    }

    /// Sends a request and waits for its one answer.
    ///
    /// # Errors
    /// As [`Connection::send`] and [`Connection::recv`]; [`ControlError::Closed`] without an answer.
    pub async fn ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &Q,
    ) -> Result<A, ControlError> {
        self.send(request).await?;
        self.recv().await?.ok_or(ControlError::Closed)
    }
}

/// True if somebody answers there for longer than a dying process can: a child that a killed one was just starting holds
/// its sockets until it is another program, or dead.
fn is_served(path: &Path) -> bool {
    (0..20).all(|attempt| {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::os::unix::net::UnixStream::connect(path).is_ok()
    })
}

/// Listens on a socket path with the given mode; a socket file left behind by a dead process is replaced, a living
/// one is not.
///
/// # Errors
/// `AddrInUse` if somebody answers there; otherwise what the kernel says.
pub fn listen(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    if is_served(path) {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "{} is served by another process: stop it first",
                path.display()
            ),
        ));
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    // By the mask and not by path afterwards: between the two somebody could put a link there.
    let before = umask(Mode::from_bits_truncate(0o777 & !mode));
    let bound = std::os::unix::net::UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_beyond_the_bound_is_refused_and_one_within_it_is_read() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut left, mut right) = (
            Connection::accepted(a).unwrap(),
            Connection::accepted(b).unwrap(),
        );
        left.send(&"x".repeat(1000)).await.unwrap();
        assert_eq!(right.recv::<String>().await.unwrap().unwrap().len(), 1000);
        let flood = tokio::spawn(async move { left.send(&"x".repeat(limit::FRAME)).await });
        assert!(matches!(
            right.recv::<String>().await,
            Err(ControlError::NotAMessage(_))
        ));
        drop(right);
        // The writer ends too, whether it fitted into the socket's buffer or not.
        drop(flood.await.unwrap());
    }

    #[tokio::test]
    async fn the_peer_of_a_connection_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        let connection = Connection::accepted(a).unwrap();
        assert_eq!(connection.peer().uid, nix::unistd::getuid().as_raw());
        assert_eq!(
            connection.peer().pid,
            i32::try_from(std::process::id()).ok()
        );
    }

    #[tokio::test]
    async fn a_dead_socket_file_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(listen(&path, 0o600).unwrap());
        let alive = listen(&path, 0o600).unwrap();
        assert_eq!(
            listen(&path, 0o600).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(alive);
    }
}
