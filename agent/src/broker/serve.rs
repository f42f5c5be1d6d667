//! The script's side of the broker: descriptor 3 of the sandbox. Each `change` sends one end of a socket pair of its own
//! over it, then its request there, and reads one line of answer.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use aizen_protocol::effect::ObjectChange;
use aizen_protocol::package::manifest::Operation;
use aizen_protocol::private::Text;
use aizen_protocol::{limit, strict};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags,
    SocketType, recvmsg, socketpair, sockopt,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixDatagram, UnixStream};

use super::describe::cut;
use super::{BrokerError, Grants, World, content_of, perform};
use crate::rollback::Inverse;

/// The line of a request, bytes.
pub(crate) const LINE: usize = 16 << 10;
/// Requests that may be on their way at a time; the next ones wait in the socket.
const OPEN: usize = 16;
/// Operations of one run.
const OPERATIONS: usize = 256;
/// Longest wait for the rest of a request, and for an answer to be taken.
const EXCHANGE: Duration = Duration::from_secs(10);
/// One diff that is shown, and all of one run, bytes.
const DIFF: usize = 16 << 10;
const DIFFS: usize = 96 << 10;
/// Refusals that are kept.
const DENIED: usize = 64;

/// What a run did through the broker.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Objects changed, in order.
    pub changes: Vec<ObjectChange>,
    /// What was asked for and not done, with the reason.
    pub denied: Vec<Text>,
}

/// What `change` is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Done; what, in one sentence.
    Done(String),
    /// Not granted, or no operation at all.
    Refused(String),
    /// Granted and tried.
    Failed(String),
}

/// A pair for descriptor 3: the first end stays with the broker, the second goes to the sandbox.
///
/// # Errors
/// No descriptors are left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Does what `change` asks for, one operation after the other, until the sandbox's end is closed.
///
/// `before_act` makes the way back durable; if it fails, the operation fails and nothing is done. `after_act` is told
/// of every object that changed.
pub async fn serve(
    world: &World,
    grants: &[Operation],
    socket: OwnedFd,
    before_act: &mut dyn FnMut(&Inverse) -> io::Result<()>,
    after_act: &mut dyn FnMut(&ObjectChange),
) -> Served {
    let mut served = Served::default();
    let opened = Grants::of(grants)
        .map_err(|e| e.to_string())
        .and_then(|grants| Ok((grants, listen(socket).map_err(|e| e.to_string())?)));
    let (grants, door) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            served.denied.push(Text(error));
            return served;
        }
    };
    let mut reading = FuturesUnordered::new();
    let mut shown = 0;
    loop {
        tokio::select! {
            request = reading.next(), if !reading.is_empty() => {
                let Some(Some((stream, request))) = request else { continue };
                let answer = answer(world, &grants, request, &mut served, &mut shown, before_act, after_act).await;
                reply(stream, &answer).await;
            }
            arrived = accept(&door), if reading.len() < OPEN => match arrived {
                Ok(Some(stream)) => reading.push(read(stream)),
                Ok(None) => {}
                // The last process of the script is gone: what it had half said is not done.
                Err(_) => return served,
            },
        }
    }
}

/// Any socket that keeps what a sendmsg(2) carried together will do; tokio has a name for the datagram kind.
fn listen(socket: OwnedFd) -> io::Result<UnixDatagram> {
    let socket = std::os::unix::net::UnixDatagram::from(socket);
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// The next request's socket; none if what came is not one.
async fn accept(door: &UnixDatagram) -> io::Result<Option<UnixStream>> {
    let received = door.async_io(Interest::READABLE, || receive(door)).await?;
    let Some(fd) = received else { return Ok(None) };
    // Any descriptor may come; only a stream socket can neither block nor be something of ours.
    let stream = sockopt::socket_domain(&fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(&fd) == Ok(SocketType::STREAM);
    if !stream {
        return Ok(None);
    }
    let stream = std::os::unix::net::UnixStream::from(fd);
    Ok(stream
        .set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(stream))
        .ok())
}

fn receive(door: &UnixDatagram) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = recvmsg(
        door,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.bytes == 0 && fds.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let whole = !message.flags.contains(ReturnFlags::CTRUNC) && fds.len() == 1;
    Ok(if whole { fds.pop() } else { None })
}

/// A request as it came.
pub(super) type Request = Result<(Operation, Vec<u8>), String>;

async fn read(mut stream: UnixStream) -> Option<(UnixStream, Request)> {
    let bound = LINE + limit::FILE_CONTENT.max(limit::NFT_TABLE);
    let mut bytes = Vec::new();
    let whole = async {
        (&mut stream)
            .take(bound as u64 + 1)
            .read_to_end(&mut bytes)
            .await
    };
    match tokio::time::timeout(EXCHANGE, whole).await {
        Ok(Ok(_)) => {}
        // Who does not finish a request is not answered.
        Ok(Err(_)) | Err(_) => return None,
    }
    let request = parse(&bytes);
    Some((stream, request))
}

pub(super) fn parse(bytes: &[u8]) -> Request {
    let end = bytes.iter().take(LINE).position(|b| *b == b'\n');
    let end =
        end.ok_or_else(|| format!("a request begins with one line of at most {LINE} bytes"))?;
    let operation: Operation =
        strict::from_slice(&bytes[..end], LINE).map_err(|e| format!("not an operation: {e}"))?;
    let content = &bytes[end + 1..];
    let bound = content_of(&operation).unwrap_or(0);
    if content.len() > bound {
        return Err(format!("more than {bound} bytes of content"));
    }
    Ok((operation, content.to_vec()))
}

async fn answer(
    world: &World,
    grants: &Grants,
    request: Request,
    served: &mut Served,
    shown: &mut usize,
    before_act: &mut dyn FnMut(&Inverse) -> io::Result<()>,
    after_act: &mut dyn FnMut(&ObjectChange),
) -> Answer {
    let outcome = match request {
        Err(error) => Err(Answer::Refused(error)),
        Ok(_) if served.changes.len() >= OPERATIONS => Err(Answer::Refused(
            BrokerError::TooMany(OPERATIONS).to_string(),
        )),
        Ok((operation, content)) => perform(world, grants, &operation, content, before_act)
            .await
            .map_err(|error| match error {
                BrokerError::NotGranted { .. } | BrokerError::Grant(_) => {
                    Answer::Refused(error.to_string())
                }
                error => Answer::Failed(error.to_string()),
            }),
    };
    match outcome {
        Ok(done) => {
            for mut change in done.changes {
                let bound = DIFF.min(DIFFS.saturating_sub(*shown));
                change.diff = Text(cut(change.diff.0, bound));
                *shown += change.diff.0.len();
                after_act(&change);
                served.changes.push(change);
            }
            Answer::Done(done.sentence)
        }
        Err(answer) => {
            if let (Answer::Refused(why) | Answer::Failed(why), true) =
                (&answer, served.denied.len() < DENIED)
            {
                served
                    .denied
                    .push(Text(cut(super::describe::visible(why), 1000)));
            }
            answer
        }
    }
}

async fn reply(mut stream: UnixStream, answer: &Answer) {
    let Ok(mut line) = serde_json::to_vec(answer) else {
        return;
    };
    line.push(b'\n');
    // Whether the script hears it changes nothing of what was done.
    drop(tokio::time::timeout(EXCHANGE, stream.write_all(&line)).await);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_one_line_and_its_content() {
        let (operation, content) = parse(b"{\"file\":{\"write\":\"/etc/x\"}}\na\nb").unwrap();
        assert_eq!(content, b"a\nb");
        assert!(matches!(operation, Operation::File(_)));
        for bad in [
            &b""[..],
            b"{}\n",
            b"{\"file\":{\"write\":\"/x\"}}",
            b"{\"file\":{\"write\":\"/x\",\"write\":\"/y\"}}\n",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let mut long = b"{\"file\":{\"write\":\"/x\"}}\n".to_vec();
        long.resize(long.len() + limit::FILE_CONTENT, 0);
        assert!(parse(&long).is_ok());
        long.push(0);
        assert!(parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(parse(&bytes));
        }
    }
}
