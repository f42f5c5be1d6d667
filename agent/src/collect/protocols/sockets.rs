//! TCP sockets: sock_diag(7), or `/proc/net/tcp` where the kernel lacks it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use aizen_protocol::record::Listener;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, send, socket,
};

use crate::collect::{file, netlink};

/// What is told of them.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) states: BTreeMap<String, u32>,
    pub(super) syn_recv_sources: BTreeSet<Ipv6Addr>,
    pub(super) waiting: Vec<Listener>,
}

/// One TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    state: u8,
    port: u16,
    /// An IPv4 address stands mapped.
    remote: Ipv6Addr,
    /// Of a listener: how many wait, and how many may.
    queue: Option<(u32, u32)>,
}

impl Sockets {
    fn add(&mut self, socket: Socket) {
        let Some(name) = STATES.get(usize::from(socket.state)) else {
            return;
        };
        *self.states.entry((*name).to_owned()).or_default() += 1;
        if socket.state == SYN_RECV && self.syn_recv_sources.len() < MAX_SOURCES {
            self.syn_recv_sources.insert(socket.remote);
        }
        if let (LISTEN, Some((queued, backlog))) = (socket.state, socket.queue)
            && queued > 0
            && self.waiting.len() < MAX_LISTENERS
        {
            self.waiting.push(Listener {
                port: socket.port,
                queued,
                backlog,
            });
        }
    }
}

/// Asks the kernel; `net` is its folder of network files.
pub(super) fn see(root: &Path, net: &Path, deadline: Duration, gaps: &mut Vec<String>) -> Sockets {
    // Another root than the kernel's own has sockets of its own.
    let ours = root.join("proc").canonicalize();
    if ours.is_ok_and(|proc| proc == Path::new("/proc")) {
        match diagnose(Instant::now() + deadline) {
            Ok((sockets, complete)) => {
                if !complete {
                    gaps.push("there are more TCP sockets than were counted".to_owned());
                }
                return sockets;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                gaps.push("the kernel did not list its TCP sockets in time".to_owned());
                return Sockets::default();
            }
            // A kernel without CONFIG_INET_DIAG, or one that may not load it.
            Err(_) => {}
        }
    }
    let (sockets, complete) = listed(net);
    if sockets.states.is_empty() {
        gaps.push("TCP sockets can't be listed: neither sock_diag nor /proc/net/tcp".to_owned());
    } else if sockets.states.contains_key("listen") {
        gaps.push("without sock_diag nobody says who waits to be accepted".to_owned());
    }
    if !complete {
        gaps.push("there are more TCP sockets than were counted".to_owned());
    }
    sockets
}

/// Dumps IPv4 and IPv6; false if there were more than are counted.
fn diagnose(until: Instant) -> io::Result<(Sockets, bool)> {
    let mut sockets = Sockets::default();
    let mut left = MAX_SOCKETS;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let asked = ask(u8::try_from(family).unwrap_or_default())?;
        let mut datagram = vec![0; DATAGRAM];
        'dump: loop {
            let length = receive(&asked, &mut datagram, until)?;
            for part in netlink::parts(datagram.get(..length).unwrap_or_default()) {
                match part.header.message_type {
                    NLMSG_DONE => break 'dump,
                    NLMSG_ERROR => match errno(part.payload) {
                        // A kernel without IPv6.
                        libc::ENOENT if family == libc::AF_INET6 => break 'dump,
                        code => return Err(io::Error::from_raw_os_error(code)),
                    },
                    _ if left == 0 => return Ok((sockets, false)),
                    _ => {
                        left -= 1;
                        if let Some(socket) = decode(part.payload) {
                            sockets.add(socket);
                        }
                    }
                }
            }
        }
    }
    Ok((sockets, true))
}

/// `struct inet_diag_req_v2` (linux/inet_diag.h): all states, no extensions.
fn ask(family: u8) -> io::Result<OwnedFd> {
    let asked = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut question = Vec::with_capacity(QUESTION);
    question.extend(u32::try_from(QUESTION).unwrap_or_default().to_ne_bytes());
    question.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    question.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    question.extend(1_u32.to_ne_bytes());
    question.extend(0_u32.to_ne_bytes());
    question.extend([family, IPPROTO_TCP, 0, 0]);
    question.extend(u32::MAX.to_ne_bytes());
    question.resize(QUESTION, 0);
    send(asked.as_raw_fd(), &question, MsgFlags::empty())?;
    Ok(asked)
}

fn receive(asked: &OwnedFd, datagram: &mut [u8], until: Instant) -> io::Result<usize> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(asked.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if left.is_zero() || poll(&mut ready, timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (length, from) = recvfrom::<NetlinkAddr>(asked.as_raw_fd(), datagram)?;
        // Other processes may write to this socket, too.
        if from.is_some_and(|from| from.pid() == 0) {
            return Ok(length);
        }
    }
}

fn errno(payload: &[u8]) -> i32 {
    let code = payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    code.saturating_neg()
}

/// `struct inet_diag_msg`.
pub(crate) fn decode(message: &[u8]) -> Option<Socket> {
    let (family, state) = (*message.first()?, *message.get(1)?);
    let word = |at: usize| {
        let bytes = message.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let remote = message.get(24..)?;
    Some(Socket {
        state,
        port: u16::from_be_bytes(*message.get(4..)?.first_chunk()?),
        remote: if i32::from(family) == libc::AF_INET {
            std::net::Ipv4Addr::from(*remote.first_chunk::<4>()?).to_ipv6_mapped()
        } else {
            Ipv6Addr::from(*remote.first_chunk::<16>()?)
        },
        // For a listener these are sk_ack_backlog and sk_max_ack_backlog (inet_diag_msg_common_fill).
        queue: Some((word(56)?, word(60)?)),
    })
}

/// Both files of `/proc/net`; false if there were more sockets than are counted.
fn listed(net: &Path) -> (Sockets, bool) {
    let mut sockets = Sockets::default();
    let mut complete = true;
    for name in ["tcp", "tcp6"] {
        let text = file::text(&net.join(name), MAX_LIST).unwrap_or_default();
        complete &= u64::try_from(text.len()).is_ok_and(|length| length < MAX_LIST);
        for socket in text.lines().skip(1).filter_map(line) {
            sockets.add(socket);
        }
    }
    (sockets, complete)
}

/// `0: LOCAL:PORT REMOTE:PORT STATE …`, hexadecimal, addresses in words of the machine's byte order.
pub(crate) fn line(line: &str) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (_, port) = words.next()?.split_once(':')?;
    let (remote, _) = words.next()?.split_once(':')?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let mut address = Vec::with_capacity(16);
    for at in (0..remote.len()).step_by(8) {
        let word = u32::from_str_radix(remote.get(at..at + 8)?, 16).ok()?;
        address.extend(word.to_ne_bytes());
    }
    Some(Socket {
        state,
        port: u16::from_str_radix(port, 16).ok()?,
        remote: match <[u8; 4]>::try_from(&address[..]) {
            Ok(four) => std::net::Ipv4Addr::from(four).to_ipv6_mapped(),
            Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&address[..]).ok()?),
        },
        queue: None,
    })
}

/// By number (net/tcp_states.h); 0 is none, 12 is what the kernel calls a half-open one inside.
const STATES: [&str; 13] = [
    "unknown",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "syn_recv",
];
const SYN_RECV: u8 = 3;
const LISTEN: u8 = 10;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
/// A netlink header and `struct inet_diag_req_v2`.
const QUESTION: usize = 16 + 56;
const DATAGRAM: usize = 64 << 10;
const MAX_SOCKETS: usize = 200_000;
const MAX_SOURCES: usize = 10_000;
const MAX_LISTENERS: usize = 64;
/// About 50,000 sockets: that file costs the kernel far more than sock_diag does.
const MAX_LIST: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn somebody_who_waits_to_be_accepted_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waits = TcpStream::connect(address).unwrap();
        let (sockets, complete) = diagnose(Instant::now() + Duration::from_secs(60)).unwrap();
        assert!(complete);
        let told: Vec<_> = sockets
            .waiting
            .iter()
            .filter(|l| l.port == address.port())
            .collect();
        let [told] = told[..] else {
            panic!("{sockets:?}")
        };
        assert!(told.queued == 1 && told.backlog >= 1, "{told:?}");
        assert!(sockets.states["established"] >= 2);
        assert!(sockets.states["listen"] >= 1);
    }

    #[test]
    fn the_files_of_an_older_kernel_are_read_instead() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("proc/net");
        std::fs::create_dir_all(&net).unwrap();
        std::fs::write(
            net.join("tcp"),
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20  0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n\
             \x20  1: 020200C0:0050 010200C0:C350 03 00000000:00000000 01:00000000 00000000     0        0 0 1 0\n\
             \x20  2: 020200C0:0050 010200C0:C351 03 00000000:00000000 01:00000000 00000000     0        0 0 1 0\n",
        )
        .unwrap();
        let mut gaps = Vec::new();
        let sockets = see(root.path(), &net, Duration::from_secs(1), &mut gaps);
        assert_eq!(
            (sockets.states["listen"], sockets.states["syn_recv"]),
            (1, 2)
        );
        assert_eq!(sockets.syn_recv_sources.len(), 1);
        assert!(sockets.waiting.is_empty() && gaps.len() == 1, "{gaps:?}");
    }

    #[test]
    fn a_deadline_that_has_passed_is_told_as_such() {
        let error = diagnose(Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    proptest! {
        #[test]
        fn any_message_is_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(socket) = decode(&bytes) {
                Sockets::default().add(socket);
            }
        }

        #[test]
        fn any_line_is_read_without_panic(text in ".{0,120}", words in "[0-9A-F: ]{0,80}") {
            for socket in [line(&text), line(&words)].into_iter().flatten() {
                Sockets::default().add(socket);
            }
        }
    }
}
