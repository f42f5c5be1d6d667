//! Questions to OpenWrt's message bus (ubus, `ubusmsg.h` of ubus and `blobmsg.h` of libubox): looking an object up and
//! calling a method of it, bounded, on a blocking socket for a thread of its own.

pub(crate) mod wire;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use self::wire::Argument;
use self::wire::{Kind, Message};

/// Why the bus brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UbusError {
    /// The socket failed, or the answer didn't come in time.
    #[error("ubus: {0}")]
    Socket(#[from] io::Error),
    /// The object is not there, or this user may not know of it.
    #[error(
        "ubus shows this user no object '{0}' (root sees all; others what /usr/share/acl.d allows them)"
    )]
    Hidden(String),
    /// The call ended with a status other than 0.
    #[error("ubus refused '{object}': {}", status(*.code))]
    Refused {
        /// What was asked.
        object: String,
        /// `UBUS_STATUS_*`.
        code: u32,
    },
    /// The answer can't be read.
    #[error("ubus sent something that is no message of it")]
    Malformed,
}

/// `UBUS_STATUS_*` in words.
fn status(code: u32) -> String {
    match code {
        3 => "no such method".to_owned(),
        4 => "not found".to_owned(),
        6 => "permission denied".to_owned(),
        7 => "the service behind it does not answer".to_owned(),
        code => format!("status {code}"),
    }
}

/// A connection to the bus.
#[derive(Debug)]
pub(crate) struct Ubus {
    stream: UnixStream,
    until: Instant,
    sequence: u16,
}

/// Where the socket of `ubusd` is, if it is there.
pub(crate) fn socket(root: &Path) -> Option<PathBuf> {
    SOCKETS
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.exists())
}

impl Ubus {
    /// Connects and waits for the greeting; everything on this connection ends at `until`.
    pub(crate) fn connect(socket: &Path, until: Instant) -> Result<Self, UbusError> {
        let mut ubus = Self {
            stream: UnixStream::connect(socket)?,
            until,
            sequence: 0,
        };
        match ubus.receive()?.kind {
            Kind::Hello => Ok(ubus),
            Kind::Status | Kind::Data | Kind::Other => Err(UbusError::Malformed),
        }
    }

    /// Calls a method; the answer is a table.
    pub(crate) fn call(
        &mut self,
        object: &str,
        method: &str,
        arguments: &[(&str, Argument<'_>)],
    ) -> Result<Value, UbusError> {
        let number = self.look_up(object)?;
        let mut answer = None;
        let sequence = self.send(
            &wire::invoke(number, method, arguments),
            number,
            wire::INVOKE,
        )?;
        let code = self.answers(sequence, |message| {
            if let Some(table) = message.attribute(wire::DATA) {
                answer = Some(wire::table(table));
            }
        })?;
        match (code, answer) {
            (0, Some(Some(table))) => Ok(table),
            (0, Some(None)) => Err(UbusError::Malformed),
            // No data is an empty answer (`UBUS_STATUS_NO_DATA`).
            (0 | 5, None) => Ok(Value::Object(serde_json::Map::new())),
            (code, _) => Err(refused(object, code)),
        }
    }

    fn look_up(&mut self, object: &str) -> Result<u32, UbusError> {
        let mut number = None;
        let sequence = self.send(&wire::look_up(object), 0, wire::LOOKUP)?;
        let code = self.answers(sequence, |message| {
            number = message
                .attribute(wire::OBJECT)
                .and_then(wire::u32)
                .or(number);
        })?;
        match (code, number) {
            (0, Some(number)) => Ok(number),
            // Without permission for any method the list is empty.
            (0 | 4, None) => Err(UbusError::Hidden(object.to_owned())),
            (code, _) => Err(refused(object, code)),
        }
    }

    /// Hears every message of one question up to its status.
    fn answers(&mut self, sequence: u16, mut each: impl FnMut(&Message)) -> Result<u32, UbusError> {
        for _ in 0..MAX_MESSAGES {
            let message = self.receive()?;
            if message.sequence != sequence {
                continue;
            }
            match message.kind {
                Kind::Data => each(&message),
                Kind::Status => {
                    let code = message.attribute(wire::STATUS).and_then(wire::u32);
                    return code.ok_or(UbusError::Malformed);
                }
                Kind::Hello | Kind::Other => {}
            }
        }
        Err(UbusError::Malformed)
    }

    fn send(&mut self, body: &[u8], peer: u32, kind: u8) -> Result<u16, UbusError> {
        self.sequence += 1;
        let message = wire::message(kind, self.sequence, peer, body);
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&message).map_err(timely)?;
        Ok(self.sequence)
    }

    fn receive(&mut self) -> Result<Message, UbusError> {
        let mut head = [0; wire::HEAD];
        self.read(&mut head)?;
        let length = wire::length(&head).ok_or(UbusError::Malformed)?;
        let mut body = vec![0; length];
        self.read(&mut body)?;
        Ok(Message::new(&head, body))
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), UbusError> {
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

    fn left(&self) -> Result<Duration, UbusError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timely(io::ErrorKind::WouldBlock.into()));
        }
        Ok(left)
    }
}

fn refused(object: &str, code: u32) -> UbusError {
    UbusError::Refused {
        object: object.to_owned(),
        code,
    }
}

/// A socket's timeout is told as `WouldBlock` (`SO_RCVTIMEO` of socket(7)).
fn timely(error: io::Error) -> UbusError {
    UbusError::Socket(match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    })
}

/// OpenWrt 21.02 and later, and before.
const SOCKETS: &[&str] = &["var/run/ubus/ubus.sock", "var/run/ubus.sock"];
/// Messages that one question is followed by.
const MAX_MESSAGES: usize = 1000;

#[cfg(test)]
pub(crate) mod serve;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_is_not_there_and_a_bus_that_is_not_one_are_told() {
        let root = tempfile::tempdir().unwrap();
        serve::serve(root.path(), |object, _, arguments| {
            let name = arguments["name"].as_str().unwrap_or("nobody");
            (object == "rc").then(|| json!({ name: { "running": true } }))
        });
        let until = Instant::now() + Duration::from_secs(60);
        let mut ubus = Ubus::connect(&socket(root.path()).unwrap(), until).unwrap();
        let error = ubus.call("nothing", "list", &[]).unwrap_err();
        assert!(matches!(error, UbusError::Hidden(_)), "{error}");
        let found = ubus.call("rc", "list", &[("name", Argument::Text("dnsmasq"))]);
        assert_eq!(found.unwrap(), json!({ "dnsmasq": { "running": true } }));

        let other = root.path().join("other");
        let listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
        let liar = std::thread::spawn(move || {
            listener.accept().unwrap().0.write_all(&[0xff; 64]).unwrap();
        });
        let error = Ubus::connect(&other, until).unwrap_err();
        assert!(matches!(error, UbusError::Malformed), "{error}");
        liar.join().unwrap();
    }
}
