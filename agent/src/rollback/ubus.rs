//! Questions to ubus, OpenWrt's bus (`ubusmsg.h`, libubox `blob.h` and `blobmsg.h`): the few messages that asking
//! needs, bounded, on a blocking socket for a thread of its own.
//!
//! ```text
//! message = version u8 | type u8 | sequence u16 | peer u32 | blob          all big-endian
//! blob    = (extended 1 bit, id 7 bits, length 24 bits with these 4 bytes) | payload | padding to 4
//! blobmsg = a blob whose payload begins with: length of the name u16 | name | 0 | padding to 4
//! ```

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest message (`UBUS_MAX_MSGLEN`), bytes.
const MESSAGE: usize = 1 << 20;
/// Nesting of tables that is read.
const DEPTH: usize = 8;
/// Values of one answer that are read.
const VALUES: usize = 10_000;

const HELLO: u8 = 0;
const STATUS: u8 = 1;
const DATA: u8 = 2;
const LOOKUP: u8 = 4;
const INVOKE: u8 = 5;

const ATTR_STATUS: u8 = 1;
const ATTR_OBJPATH: u8 = 2;
const ATTR_OBJID: u8 = 3;
const ATTR_METHOD: u8 = 4;
const ATTR_DATA: u8 = 7;

const TYPE_TABLE: u8 = 2;
const TYPE_STRING: u8 = 3;
const TYPE_BOOL: u8 = 7;

/// `UBUS_STATUS_*` in words.
const STATUSES: [&str; 14] = [
    "ok",
    "invalid command",
    "invalid argument",
    "method not found",
    "not found",
    "no data",
    "permission denied",
    "timed out",
    "not supported",
    "unknown error",
    "connection failed",
    "out of memory",
    "parse error",
    "system error",
];

/// Why ubus brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UbusError {
    /// The socket failed, or the answer didn't come in time.
    #[error("ubus: {0}")]
    Socket(#[from] io::Error),
    /// It answered with another status than success.
    #[error("ubus answered: {0}")]
    Refused(&'static str),
    /// Not a message of ubus.
    #[error("ubus sent something that is no message of it")]
    Malformed,
}

/// A value that is sent.
pub(crate) enum Value<'a> {
    Text(&'a str),
    Table(&'a [(&'a str, Self)]),
}

/// A value that came, by the names that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: Vec<String>,
    pub(crate) is_true: Option<bool>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Ubus {
    stream: UnixStream,
    until: Instant,
    sequence: u16,
}

impl Ubus {
    /// Connects; everything on this connection ends at `until`.
    pub(crate) fn connect(socket: &Path, until: Instant) -> Result<Self, UbusError> {
        let mut ubus = Self {
            stream: UnixStream::connect(socket)?,
            until,
            sequence: 0,
        };
        let (kind, ..) = ubus.receive()?;
        if kind != HELLO {
            return Err(UbusError::Malformed);
        }
        Ok(ubus)
    }

    /// Calls a method of an object and gives all values that it answers with.
    pub(crate) fn call(
        &mut self,
        object: &str,
        method: &str,
        arguments: &[(&str, Value<'_>)],
    ) -> Result<Vec<Found>, UbusError> {
        let mut body = Vec::new();
        blob(&mut body, ATTR_OBJPATH, &text(object));
        let answers = self.ask(LOOKUP, 0, &body)?;
        let id = answers
            .iter()
            .find_map(|data| number(attribute(data, ATTR_OBJID)?))
            .ok_or(UbusError::Refused(STATUSES[4]))?;
        let mut body = Vec::new();
        blob(&mut body, ATTR_OBJID, &id.to_be_bytes());
        blob(&mut body, ATTR_METHOD, &text(method));
        let mut data = Vec::new();
        table(&mut data, arguments);
        blob(&mut body, ATTR_DATA, &data);
        let answers = self.ask(INVOKE, id, &body)?;
        let mut found = Vec::new();
        for answer in &answers {
            if let Some(data) = attribute(answer, ATTR_DATA) {
                values(data, &mut Vec::new(), &mut found).ok_or(UbusError::Malformed)?;
            }
        }
        Ok(found)
    }

    /// Sends a request and collects what comes until its status.
    fn ask(&mut self, kind: u8, peer: u32, body: &[u8]) -> Result<Vec<Vec<u8>>, UbusError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = vec![0, kind];
        message.extend(self.sequence.to_be_bytes());
        message.extend(peer.to_be_bytes());
        blob(&mut message, 0, body);
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&message)?;
        let mut answers = Vec::new();
        loop {
            let (kind, sequence, body) = self.receive()?;
            if sequence != self.sequence {
                continue;
            }
            match kind {
                DATA if answers.len() < VALUES => answers.push(body),
                STATUS => {
                    let status = attribute(&body, ATTR_STATUS).and_then(number);
                    return match status.ok_or(UbusError::Malformed)? {
                        0 => Ok(answers),
                        status => {
                            let word = usize::try_from(status).ok().and_then(|s| STATUSES.get(s));
                            Err(UbusError::Refused(word.unwrap_or(&"an unknown error")))
                        }
                    };
                }
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<(u8, u16, Vec<u8>), UbusError> {
        let mut head = [0; 12];
        self.read(&mut head)?;
        let [_, kind, s0, s1, ..] = head;
        let length = number(&head[8..]).ok_or(UbusError::Malformed)? & 0x00ff_ffff;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(4..=MESSAGE).contains(&length) {
            return Err(UbusError::Malformed);
        }
        let mut body = vec![0; length.next_multiple_of(4) - 4];
        self.read(&mut body)?;
        body.truncate(length - 4);
        Ok((kind, u16::from_be_bytes([s0, s1]), body))
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), UbusError> {
        while !bytes.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(length) => bytes = bytes.get_mut(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        Ok(left)
    }
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

fn blob(to: &mut Vec<u8>, id: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len() + 4).unwrap_or(0) & 0x00ff_ffff;
    to.extend(((u32::from(id) << 24) | length).to_be_bytes());
    to.extend(payload);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn table(to: &mut Vec<u8>, pairs: &[(&str, Value<'_>)]) {
    for (name, value) in pairs {
        let mut payload = Vec::new();
        payload.extend(u16::try_from(name.len()).unwrap_or(0).to_be_bytes());
        payload.extend(text(name));
        payload.resize(payload.len().next_multiple_of(4), 0);
        let kind = match value {
            Value::Text(value) => {
                payload.extend(text(value));
                TYPE_STRING
            }
            Value::Table(pairs) => {
                table(&mut payload, pairs);
                TYPE_TABLE
            }
        };
        blob(to, 0x80 | kind, &payload);
    }
}

/// One blob: its id with the extended bit, its payload, and what follows it.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let head = number(bytes)?;
    let length = usize::try_from(head & 0x00ff_ffff).ok()?;
    let payload = bytes.get(4..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u8::try_from(head >> 24).ok()?, payload, rest))
}

fn attribute(mut bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    while let Some((id, payload, rest)) = next(bytes) {
        if id & 0x7f == wanted {
            return Some(payload);
        }
        bytes = rest;
    }
    None
}

fn values(mut bytes: &[u8], path: &mut Vec<String>, found: &mut Vec<Found>) -> Option<()> {
    while !bytes.is_empty() {
        let (id, payload, rest) = next(bytes)?;
        let name_length = usize::from(u16::from_be_bytes(*payload.first_chunk()?));
        let name = payload.get(2..2 + name_length)?;
        let value = payload.get((2 + name_length + 1).next_multiple_of(4)..)?;
        path.push(String::from_utf8_lossy(name).into_owned());
        match id & 0x7f {
            TYPE_TABLE if path.len() < DEPTH => values(value, path, found)?,
            kind if found.len() < VALUES => found.push(Found {
                path: path.clone(),
                is_true: (kind == TYPE_BOOL).then(|| value.first().is_some_and(|b| *b != 0)),
            }),
            _ => return None,
        }
        path.pop();
        bytes = rest;
    }
    Some(())
}

#[cfg(test)]
pub(crate) mod serve {
    //! A bus of a test's own, which speaks as `ubusd` does.

    use std::os::unix::net::UnixListener;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What it was asked to do: object, method, texts of the arguments.
    pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

    fn said(mut bytes: &[u8], words: &mut String) {
        while let Some((id, payload, rest)) = next(bytes) {
            let length = usize::from(u16::from_be_bytes(*payload.first_chunk().unwrap()));
            let value = &payload[(3 + length).next_multiple_of(4)..];
            match id & 0x7f {
                TYPE_TABLE => said(value, words),
                _ => {
                    let value = value.strip_suffix(&[0]).unwrap();
                    *words += &format!(" {}", String::from_utf8_lossy(value));
                }
            }
            bytes = rest;
        }
    }

    fn send(stream: &mut UnixStream, kind: u8, sequence: [u8; 2], body: &[u8]) {
        let mut message = vec![0, kind, sequence[0], sequence[1], 0, 0, 0, 9];
        blob(&mut message, 0, body);
        stream.write_all(&message).unwrap();
    }

    /// The answer to `list` about one service.
    fn listed(name: &str, runs: bool) -> Vec<u8> {
        let mut payload = vec![0, 7];
        payload.extend(b"running\0");
        payload.resize(12, 0);
        payload.push(u8::from(runs));
        let mut inner = Vec::new();
        blob(&mut inner, 0x80 | TYPE_BOOL, &payload);
        let mut payload = Vec::from(u16::try_from(name.len()).unwrap().to_be_bytes());
        payload.extend(text(name));
        payload.resize(payload.len().next_multiple_of(4), 0);
        payload.extend(inner);
        let mut outer = Vec::new();
        blob(&mut outer, 0x80 | TYPE_TABLE, &payload);
        let mut answer = Vec::new();
        blob(&mut answer, ATTR_DATA, &outer);
        answer
    }

    /// Serves the objects `rc` and `service`. A service of `rc` runs from `start` to `stop`.
    pub(crate) fn start(socket: &Path, running: &'static [&'static str]) -> Asked {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let asked = Asked::default();
        let told = Arc::clone(&asked);
        let state = Mutex::new(
            running
                .iter()
                .map(|s| ((*s).to_owned(), true))
                .collect::<std::collections::BTreeMap<_, _>>(),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                send(&mut stream, HELLO, [0, 0], &[]);
                let mut ubus = Ubus {
                    stream: stream.try_clone().unwrap(),
                    until: Instant::now() + Duration::from_secs(600),
                    sequence: 0,
                };
                while let Ok((kind, sequence, body)) = ubus.receive() {
                    let sequence = sequence.to_be_bytes();
                    let mut status = 0_u32;
                    if kind == LOOKUP {
                        let name = attribute(&body, ATTR_OBJPATH).unwrap();
                        let id: u32 = match name {
                            b"rc\0" => 1,
                            b"service\0" => 2,
                            _ => 0,
                        };
                        let mut answer = Vec::new();
                        blob(&mut answer, ATTR_OBJID, &id.to_be_bytes());
                        if id > 0 {
                            send(&mut stream, DATA, sequence, &answer);
                        } else {
                            status = 4;
                        }
                    } else {
                        let method = attribute(&body, ATTR_METHOD).unwrap();
                        let mut words =
                            String::from_utf8_lossy(&method[..method.len() - 1]).into_owned();
                        said(attribute(&body, ATTR_DATA).unwrap(), &mut words);
                        let parts: Vec<&str> = words.split(' ').collect();
                        let mut state = state.lock().unwrap();
                        match parts.as_slice() {
                            ["list", name] => {
                                if let Some(runs) = state.get(*name) {
                                    send(&mut stream, DATA, sequence, &listed(name, *runs));
                                }
                            }
                            ["init", name, deed] => {
                                match (state.get_mut(*name), *deed) {
                                    (None, _) => status = 4,
                                    (Some(runs), "stop") => *runs = false,
                                    (Some(runs), _) => *runs = true,
                                }
                                told.lock().unwrap().push(words.clone());
                            }
                            _ => told.lock().unwrap().push(words.clone()),
                        }
                    }
                    let mut answer = Vec::new();
                    blob(&mut answer, ATTR_STATUS, &status.to_be_bytes());
                    send(&mut stream, STATUS, sequence, &answer);
                }
            }
        });
        asked
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_has_the_bytes_of_the_headers() {
        let mut bytes = Vec::new();
        table(&mut bytes, &[("name", Value::Text("dnsmasq"))]);
        let want = [
            &[0x83, 0, 0, 20][..],
            &[0, 4],
            b"name\0",
            &[0],
            b"dnsmasq\0",
        ]
        .concat();
        assert_eq!(bytes, want);
        let mut whole = Vec::new();
        blob(&mut whole, ATTR_METHOD, b"init\0");
        assert_eq!(whole, b"\x04\0\0\x09init\0\0\0\0");
    }

    #[test]
    fn an_object_that_is_not_there_and_a_bus_that_is_not_one_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ubus/ubus.sock");
        serve::start(&socket, &["dnsmasq"]);
        let mut ubus = Ubus::connect(&socket, Instant::now() + Duration::from_secs(60)).unwrap();
        let error = ubus.call("nothing", "list", &[]).unwrap_err();
        assert_eq!(error.to_string(), "ubus answered: not found");
        let found = ubus
            .call("rc", "list", &[("name", Value::Text("dnsmasq"))])
            .unwrap();
        assert_eq!(found[0].path, ["dnsmasq", "running"]);
        assert_eq!(found[0].is_true, Some(true));
        let other = folder.path().join("other");
        let listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
        let liar = std::thread::spawn(move || {
            listener.accept().unwrap().0.write_all(&[0xff; 64]).unwrap();
        });
        let error = Ubus::connect(&other, Instant::now() + Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, UbusError::Malformed), "{error}");
        liar.join().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            values(&bytes, &mut Vec::new(), &mut Vec::new());
            attribute(&bytes, ATTR_DATA);
        }
    }
}
