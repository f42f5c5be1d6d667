//! One question to rtnetlink, read to its end (rtnetlink(7), netlink(7)).
//!
//! One raw socket a question instead of the `rtnetlink` crate's connection task: a dump costs a fifth of it, and
//! `NLM_F_DUMP_INTR`, the kernel's "this dump is torn", reaches the caller.

pub(crate) mod attribute;
pub(crate) mod ear;
pub(crate) mod generic;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use aizen_protocol::limit;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::sys::socket::MsgFlags;

use super::Seen;
use super::datagram::adopt;

/// Why the kernel's answer couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused the question.
    #[error("the kernel refused: {0}")]
    Refused(io::Error),
}

/// A question in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    protocol: isize,
    kind: u16,
    body: Vec<u8>,
}

impl Question {
    /// A question to rtnetlink: its `RTM_GET…` number, the kind's fixed header and attributes.
    pub(crate) fn route(kind: u16, body: Vec<u8>) -> Self {
        Self {
            protocol: NETLINK_ROUTE,
            kind,
            body,
        }
    }

    fn bytes(&self, flags: u16) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // One question a socket: the sequence number matters to nobody, and the kernel knows the port.
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

/// What a dump brought.
#[derive(Debug)]
pub(crate) struct Dump<T> {
    /// The objects, at most [`limit::OBJECTS`].
    pub(crate) items: Vec<T>,
    /// Objects beyond the bound.
    pub(crate) beyond: usize,
    /// Messages that this program can't decode.
    pub(crate) undecoded: usize,
    /// The kernel gave up before the end.
    pub(crate) cut: Option<io::Error>,
    /// The kernel said each time that the table changed under the dump.
    pub(crate) torn: bool,
}

impl<T> Dump<T> {
    /// The objects, and what is wrong with them as gaps; `what` is their name in the plural.
    pub(crate) fn seen(self, what: &str) -> Seen<Vec<T>> {
        let mut gaps = Vec::new();
        if self.beyond > 0 {
            gaps.push(format!("{} more {what} were left out", self.beyond));
        }
        if self.undecoded > 0 {
            gaps.push(format!(
                "{} {what} have a form that is not known",
                self.undecoded
            ));
        }
        if let Some(error) = self.cut {
            gaps.push(format!("the kernel ended the {what} early: {error}"));
        }
        if self.torn {
            gaps.push(format!(
                "the {what} changed while they were read, {ATTEMPTS} times"
            ));
        }
        Seen {
            value: self.items,
            gaps,
        }
    }
}

/// Asks for all objects of a kind. `decode` picks what is wanted, and returns none for a message that can't be right;
/// what is `urgent` is kept even beyond the bound on the number of objects.
pub(crate) async fn dump_parts<T, I: IntoIterator<Item = T>>(
    question: &Question,
    decode: impl Fn(&Part<'_>) -> Option<I>,
    urgent: impl Fn(&T) -> bool,
) -> Result<Dump<T>, NetlinkError> {
    let mut attempt = 1;
    loop {
        let dump = dump_once(question, &decode, &urgent).await?;
        if !dump.torn || attempt == ATTEMPTS {
            return Ok(dump);
        }
        // A table that changes this fast needs a moment, each time a longer one.
        tokio::time::sleep(Duration::from_millis(10 << attempt)).await;
        attempt += 1;
    }
}

async fn dump_once<T, I: IntoIterator<Item = T>>(
    question: &Question,
    decode: &impl Fn(&Part<'_>) -> Option<I>,
    urgent: &impl Fn(&T) -> bool,
) -> Result<Dump<T>, NetlinkError> {
    let socket = asked_over(shared(question), question, NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut dump = Dump {
        items: Vec::new(),
        beyond: 0,
        undecoded: 0,
        cut: None,
        torn: false,
    };
    let mut datagram = Vec::with_capacity(DATAGRAM);
    let mut number = 0_u64;
    loop {
        answer(&socket, &mut datagram).await?;
        for part in parts(&datagram) {
            dump.torn |= part.header.flags & NLM_F_DUMP_INTR != 0;
            match part.header.message_type {
                NLMSG_DONE => {
                    let dump = ended(dump, part.payload);
                    share(question, socket);
                    return dump;
                }
                NLMSG_ERROR => return Err(NetlinkError::Refused(refusal(part.payload))),
                _ => match decode(&part) {
                    None => dump.undecoded += 1,
                    Some(items) => {
                        for item in items {
                            if dump.items.len() < limit::OBJECTS || urgent(&item) {
                                dump.items.push(item);
                            } else {
                                dump.beyond += 1;
                            }
                        }
                    }
                },
            }
        }
        // A full routing table is hundreds of datagrams that are all there already.
        number += 1;
        if number.is_multiple_of(IN_A_ROW) {
            tokio::task::yield_now().await;
        }
    }
}

tokio::task_local! {
    /// The socket of a question that has ended, for the next one of the same look: making one costs as much as a short
    /// answer.
    static SHARED: RefCell<Option<Socket>>;
}

/// Lets the dumps of `look` follow each other over one socket. The thread stays in its network namespace meanwhile.
pub(crate) async fn sharing<T>(look: impl Future<Output = T>) -> T {
    SHARED.scope(RefCell::default(), look).await
}

fn shared(question: &Question) -> Option<Socket> {
    let own = question.protocol == NETLINK_ROUTE;
    SHARED
        .try_with(RefCell::take)
        .ok()
        .flatten()
        .filter(|_| own)
}

/// Only one of which everything was read.
fn share(question: &Question, socket: Socket) {
    if question.protocol == NETLINK_ROUTE {
        // Nobody shares outside of a look.
        SHARED.try_with(|place| place.replace(Some(socket))).ok();
    }
}

/// Asks for all objects of a kind, and reads only up to the first that `decode` wants: the kernel writes a dump while
/// it is read, so what is behind is never made.
pub(crate) async fn find_part<T>(
    question: &Question,
    decode: impl Fn(&Part<'_>) -> Option<T>,
) -> Result<Option<T>, NetlinkError> {
    let socket = asked(question, NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        answer(&socket, &mut datagram).await?;
        for part in parts(&datagram) {
            match part.header.message_type {
                NLMSG_DONE => return Ok(None),
                NLMSG_ERROR => return Err(NetlinkError::Refused(refusal(part.payload))),
                _ => {
                    if let Some(found) = decode(&part) {
                        return Ok(Some(found));
                    }
                }
            }
        }
    }
}

/// The end of a dump carries an error number, too: one object that can't be read ends the list.
fn ended<T>(mut dump: Dump<T>, payload: &[u8]) -> Result<Dump<T>, NetlinkError> {
    let error = refusal(payload);
    if error.raw_os_error() != Some(0) {
        if dump.items.is_empty() {
            return Err(NetlinkError::Refused(error));
        }
        dump.cut = Some(error);
    }
    Ok(dump)
}

/// The payloads of every message of a dump.
pub(crate) async fn ask_all(question: &Question) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let whole = |part: &Part<'_>| Some([part.payload.to_vec()]);
    Ok(dump_parts(question, whole, |_| true).await?.items)
}

/// Tells the kernel to do something and waits for its word.
pub(crate) async fn tell(order: &Question) -> Result<(), NetlinkError> {
    tell_with(order, 0).await
}

/// The same; `flags` are those of netlink(7) beside `REQUEST` and `ACK`.
pub(crate) async fn tell_with(order: &Question, flags: u16) -> Result<(), NetlinkError> {
    let socket = asked(order, NLM_F_REQUEST | NLM_F_ACK | flags)?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    answer(&socket, &mut datagram).await?;
    let part = parts(&datagram).next();
    let word = part.filter(|part| part.header.message_type == NLMSG_ERROR);
    match word.map(|part| refusal(part.payload)) {
        Some(error) if error.raw_os_error() == Some(0) => Ok(()),
        Some(error) => Err(NetlinkError::Refused(error)),
        None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

/// Asks for one object and reads its message.
pub(crate) async fn ask_part<T>(
    question: &Question,
    decode: impl FnOnce(&[u8]) -> T,
) -> Result<Option<T>, NetlinkError> {
    let socket = asked(question, NLM_F_REQUEST)?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    answer(&socket, &mut datagram).await?;
    let Some(part) = parts(&datagram).next() else {
        return Ok(None);
    };
    if part.header.message_type == NLMSG_ERROR {
        return Err(NetlinkError::Refused(refusal(part.payload)));
    }
    Ok(Some(decode(part.payload)))
}

fn asked(question: &Question, flags: u16) -> io::Result<Socket> {
    asked_over(None, question, flags)
}

fn asked_over(open: Option<Socket>, question: &Question, flags: u16) -> io::Result<Socket> {
    let socket = match open {
        Some(socket) => socket,
        None => Socket::new(question.protocol)?,
    };
    // Sending binds it (netlink(7)).
    let kernel = SocketAddr::new(0, 0);
    socket.send_to(&question.bytes(flags), &kernel, DONT_WAIT)?;
    Ok(socket)
}

/// The next datagram of the kernel's answer. It is there as a rule, as the kernel answers within the call that asks or
/// reads: only a socket that must wait after all is made known to the runtime, which costs more than the answer.
async fn answer(socket: &Socket, datagram: &mut Vec<u8>) -> io::Result<()> {
    loop {
        datagram.clear();
        match socket.recv_from(datagram, DONT_WAIT) {
            Ok((_, from)) if from.port_number() == 0 => return Ok(()),
            // Another process.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let waiting = adopt(socket.as_fd().try_clone_to_owned()?.into())?;
                waiting.readable().await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads one datagram of the kernel's; those of other processes are passed over.
pub(crate) async fn receive(socket: &TokioSocket, datagram: &mut Vec<u8>) -> io::Result<()> {
    loop {
        datagram.clear();
        let from = socket.recv_from(datagram).await?;
        if from.port_number() == 0 {
            return Ok(());
        }
    }
}

fn refusal(payload: &[u8]) -> io::Error {
    let code = payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(code.saturating_neg())
}

/// One message of a datagram.
pub(crate) struct Part<'a> {
    pub(crate) header: NetlinkHeader,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram, up to the first whose length can't be right.
pub(crate) fn parts(datagram: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let fixed: &[u8; HEADER] = rest.first_chunk()?;
        let [
            l0,
            l1,
            l2,
            l3,
            t0,
            t1,
            f0,
            f1,
            s0,
            s1,
            s2,
            s3,
            p0,
            p1,
            p2,
            p3,
        ] = *fixed;
        let mut header = NetlinkHeader::default();
        header.length = u32::from_ne_bytes([l0, l1, l2, l3]);
        header.message_type = u16::from_ne_bytes([t0, t1]);
        header.flags = u16::from_ne_bytes([f0, f1]);
        header.sequence_number = u32::from_ne_bytes([s0, s1, s2, s3]);
        header.port_number = u32::from_ne_bytes([p0, p1, p2, p3]);
        let length = usize::try_from(header.length).ok()?;
        let payload = rest.get(HEADER..length)?;
        // Messages are aligned to 4 bytes; the last may end without its padding.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Part { header, payload })
    })
}

const HEADER: usize = 16;
/// Above the 32 KiB that the kernel fills at most (netlink_dump).
const DATAGRAM: usize = 64 << 10;
const ATTEMPTS: u32 = 4;
/// Datagrams before others get their turn.
const IN_A_ROW: u64 = 16;
const DONT_WAIT: i32 = MsgFlags::MSG_DONTWAIT.bits();
/// `NLM_F_DUMP_INTR` (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_are_split_at_their_padded_length() {
        let datagram = [message(16, b"abcde"), message(17, b"")].concat();
        let seen: Vec<_> = parts(&datagram)
            .map(|p| (p.header.message_type, p.payload.to_vec()))
            .collect();
        assert_eq!(seen, [(16, b"abcde".to_vec()), (17, Vec::new())]);
    }

    #[test]
    fn a_length_shorter_than_a_header_or_longer_than_the_datagram_ends_the_datagram() {
        for length in [0_u32, 15, 4000] {
            let mut datagram = message(16, b"abcd");
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(parts(&datagram).count(), 0, "{length}");
        }
    }

    #[tokio::test]
    async fn dumps_of_one_look_follow_each_other_over_one_socket_and_none_stays_behind() {
        let links = Question::route(18, vec![0; 16]);
        let ask = || dump_parts(&links, |part| Some([part.payload.len()]), |_| true);
        let port = || SHARED.with(|socket| Some(socket.borrow().as_ref()?.as_raw_fd()));
        sharing(async {
            let first = ask().await.unwrap().items;
            let over = port();
            assert!(over.is_some());
            assert_eq!(ask().await.unwrap().items.len(), first.len());
            assert_eq!(port(), over);
            let (one, other) = tokio::join!(ask(), ask());
            assert_eq!(one.unwrap().items.len(), other.unwrap().items.len());
        })
        .await;
        assert!(shared(&links).is_none());
    }

    #[test]
    fn what_a_dump_lacks_is_named() {
        let dump = Dump {
            items: vec![1],
            beyond: 2,
            undecoded: 3,
            cut: Some(io::Error::from_raw_os_error(5)),
            torn: true,
        };
        let seen = dump.seen("routes");
        assert_eq!((seen.value, seen.gaps.len()), (vec![1], 4));
        let whole = Dump::<u8> {
            items: Vec::new(),
            beyond: 0,
            undecoded: 0,
            cut: None,
            torn: false,
        };
        assert_eq!(whole.seen("routes").gaps, Vec::<String>::new());
    }

    #[test]
    fn a_dump_that_ends_with_an_error_is_refused_if_empty_and_cut_otherwise() {
        let dump = |items| Dump {
            items,
            beyond: 0,
            undecoded: 0,
            cut: None,
            torn: false,
        };
        let eio = (-5_i32).to_ne_bytes();
        assert!(ended(dump(Vec::<u8>::new()), &eio).is_err());
        assert!(ended(dump(vec![1]), &eio).unwrap().cut.is_some());
        assert!(ended(dump(vec![1]), &[0; 4]).unwrap().cut.is_none());
    }

    #[test]
    fn a_refusal_carries_the_errno() {
        let error = refusal(&(-19_i32).to_ne_bytes());
        assert_eq!(error.raw_os_error(), Some(19));
        assert_eq!(refusal(b"x").raw_os_error(), Some(0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_panic_and_never_beyond_their_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = parts(&bytes).map(|p| p.payload.len() + HEADER).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
