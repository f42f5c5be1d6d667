//! Questions to the system bus (D-Bus Specification 0.43): the few kinds of message that asking needs, bounded, on a
//! blocking socket for a thread of its own.
//!
//! Not `zbus`: with its executor, derive types and name checks it is larger than everything else that collects.

pub(crate) mod wire;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use self::wire::{Reader, Writer};

/// Why the bus brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbusError {
    /// The socket failed, or the answer didn't come in time.
    #[error("the system bus: {0}")]
    Socket(#[from] io::Error),
    /// The bus doesn't let this user in.
    #[error("the system bus refused this user")]
    Unwelcome,
    /// The other side answered with an error, by its name.
    #[error("the answer was {0}")]
    Refused(String),
    /// The answer can't be read.
    #[error("the system bus sent something that is no message of D-Bus")]
    Malformed,
}

/// A connection to a bus.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    until: Instant,
    serial: u32,
}

/// Who is asked for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// A message that came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) header: wire::Header,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Its body, from the beginning.
    pub(crate) fn body(&self) -> Reader<'_> {
        Reader::new(&self.body, self.header.big)
    }
}

impl Bus {
    /// Connects and says hello; everything on this connection ends at `until`.
    pub(crate) fn connect(socket: &Path, until: Instant) -> Result<Self, DbusError> {
        let mut bus = Self {
            stream: UnixStream::connect(socket)?,
            until,
            serial: 0,
        };
        bus.authenticate()?;
        let hello = Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
        };
        bus.ask(hello, "", Writer::default())?;
        Ok(bus)
    }

    /// `AUTH EXTERNAL`: the kernel vouches for the user number.
    fn authenticate(&mut self) -> Result<(), DbusError> {
        let number = geteuid().to_string();
        let hex: String = number.bytes().map(|b| format!("{b:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.extend(byte);
            if line.len() > MAX_LINE {
                return Err(DbusError::Malformed);
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(DbusError::Unwelcome);
        }
        self.write(b"BEGIN\r\n")
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(
        &mut self,
        call: Call<'_>,
        signature: &str,
        body: Writer,
    ) -> Result<Message, DbusError> {
        let serial = self.send(call, signature, body)?;
        self.answer(serial)
    }

    /// Sends a question; several may be under way.
    pub(crate) fn send(
        &mut self,
        call: Call<'_>,
        signature: &str,
        body: Writer,
    ) -> Result<u32, DbusError> {
        let mut fields = Writer::default();
        fields.field(wire::PATH, "o").text(call.path);
        fields.field(wire::INTERFACE, "s").text(call.interface);
        fields.field(wire::MEMBER, "s").text(call.member);
        fields.field(wire::DESTINATION, "s").text(call.destination);
        self.post(wire::CALL, fields, signature, &body)
    }

    fn post(
        &mut self,
        kind: u8,
        fields: Writer,
        signature: &str,
        body: &Writer,
    ) -> Result<u32, DbusError> {
        self.serial += 1;
        self.write(&wire::message(kind, self.serial, fields, signature, body))?;
        Ok(self.serial)
    }

    /// Waits for the answer to a question; signals and answers to others are passed over.
    pub(crate) fn answer(&mut self, serial: u32) -> Result<Message, DbusError> {
        loop {
            let message = self.receive()?;
            if message.header.reply_to == Some(serial) {
                return match message.header.kind {
                    wire::ERROR => {
                        let name = message.header.text(wire::ERROR_NAME);
                        Err(DbusError::Refused(name.unwrap_or_default().to_owned()))
                    }
                    _ => Ok(message),
                };
            }
        }
    }

    fn receive(&mut self) -> Result<Message, DbusError> {
        let mut fixed = [0; wire::FIXED];
        self.read(&mut fixed)?;
        let lengths = wire::lengths(&fixed).ok_or(DbusError::Malformed)?;
        let mut fields = vec![0; lengths.fields];
        self.read(&mut fields)?;
        let mut body = vec![0; lengths.body];
        self.read(&mut body)?;
        let header = wire::header(&fixed, &fields).ok_or(DbusError::Malformed)?;
        Ok(Message { header, body })
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), DbusError> {
        while !bytes.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(length) => bytes = bytes.get_mut(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timely(error)),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DbusError> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes).map_err(timely)
    }

    fn left(&self) -> Result<Duration, DbusError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timely(io::ErrorKind::WouldBlock.into()));
        }
        Ok(left)
    }
}

/// A socket's timeout is told as `WouldBlock` (`SO_RCVTIMEO` of socket(7)).
fn timely(error: io::Error) -> DbusError {
    DbusError::Socket(match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    })
}

/// The bus answers with one short line.
const MAX_LINE: usize = 512;

#[cfg(test)]
pub(crate) mod serve;
