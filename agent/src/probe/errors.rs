//! What the network says about packets of ours: the error queue of a socket (`IP_RECVERR`, ip(7), ipv6(7)), and with
//! it the kernel's stamps of sending (Documentation/networking/timestamping.rst).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmmsg,
};
use nix::sys::time::TimeSpec;

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time to live ended on the way.
    TimeExceeded,
    /// It was larger than a link takes (with the next link's MTU).
    TooBig(u16),
    /// Nothing listens on its port: the host itself answered.
    PortUnreachable,
    /// No way to the host or its network.
    Unreachable,
    /// A filter said no.
    Prohibited,
    /// Something else.
    Other,
}

impl Why {
    /// In words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::TimeExceeded => "time to live exceeded",
            Self::TooBig(_) => "packet too big",
            Self::PortUnreachable => "port unreachable",
            Self::Unreachable => "destination unreachable",
            Self::Prohibited => "administratively prohibited",
            Self::Other => "ICMP error",
        }
    }
}

/// One entry of an error queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// ICMP about a packet of ours.
    Error(IcmpError),
    /// The packet with this number (from 0, in order of sending) left at this time since 1970.
    Sent { key: u32, at_ns: u64 },
    /// Something else.
    Noise,
}

/// ICMP about a packet of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpError {
    /// Who says so.
    pub(crate) from: IpAddr,
    pub(crate) why: Why,
    /// Whom the packet was for; the port is that of UDP and TCP.
    pub(crate) to: Option<SocketAddr>,
    /// What is quoted of the packet, behind its IP header (ICMP) or its UDP header.
    pub(crate) quote: Vec<u8>,
    /// When it came, since 1970, if the socket stamps.
    pub(crate) at_ns: Option<u64>,
}

/// Takes the next entry; none if the queue is empty.
pub(crate) fn next(socket: BorrowedFd<'_>) -> io::Result<Option<Entry>> {
    Ok(take(socket, 1)?.pop())
}

/// Takes up to `most` entries; fewer if the queue is empty then.
pub(super) fn take(socket: BorrowedFd<'_>, most: usize) -> io::Result<Vec<Entry>> {
    let mut quotes = vec![0; most * QUOTE];
    let mut slices: Vec<[IoSliceMut<'_>; 1]> = quotes
        .chunks_exact_mut(QUOTE)
        .map(|place| [IoSliceMut::new(place)])
        .collect();
    let control = nix::cmsg_space!(
        libc::sock_extended_err,
        libc::sockaddr_in6,
        [TimeSpec; 3],
        u32
    );
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(most, Some(control));
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    match recvmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter_mut(),
        flags,
        None,
    ) {
        Ok(messages) => Ok(messages.map(|message| entry(&message)).collect()),
        Err(Errno::EAGAIN) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn entry(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Entry {
    let (mut error, mut stamp) = (None, None);
    // A truncated message is judged by what of it came.
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::Ipv4RecvErr(ext, from) => {
                let from = from.map(|a| Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)).into());
                error = Some((ext, from));
            }
            ControlMessageOwned::Ipv6RecvErr(ext, from) => {
                let from = from.map(|a| Ipv6Addr::from(a.sin6_addr.s6_addr).into());
                error = Some((ext, from));
            }
            ControlMessageOwned::ScmTimestampsns(stamps) => stamp = nanos(stamps.system),
            _ => {}
        }
    }
    let to = message.address.as_ref().and_then(socket_addr);
    decode(error, stamp, to, message.iovs().next().unwrap_or_default())
}

pub(crate) fn decode(
    error: Option<(libc::sock_extended_err, Option<IpAddr>)>,
    stamp: Option<u64>,
    to: Option<SocketAddr>,
    quote: &[u8],
) -> Entry {
    let Some((error, from)) = error else {
        return Entry::Noise;
    };
    match (error.ee_origin, stamp, from) {
        (libc::SO_EE_ORIGIN_TIMESTAMPING, Some(at_ns), _) => Entry::Sent {
            key: error.ee_data,
            at_ns,
        },
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, at_ns, Some(from)) => {
            let ipv4 = error.ee_origin == libc::SO_EE_ORIGIN_ICMP;
            Entry::Error(IcmpError {
                from: from.to_canonical(),
                why: why(ipv4, error.ee_type, error.ee_code, error.ee_info),
                to,
                quote: quote.to_vec(),
                at_ns,
            })
        }
        _ => Entry::Noise,
    }
}

/// Type and code (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3).
fn why(ipv4: bool, kind: u8, code: u8, info: u32) -> Why {
    let mtu = || {
        u16::try_from(info)
            .ok()
            .filter(|mtu| *mtu > 0)
            .map_or(Why::Other, Why::TooBig)
    };
    match (ipv4, kind, code) {
        (true, 11, _) | (false, 3, _) => Why::TimeExceeded,
        (true, 3, 4) | (false, 2, _) => mtu(),
        (true, 3, 3) | (false, 1, 4) => Why::PortUnreachable,
        (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6) => Why::Prohibited,
        (true, 3, _) | (false, 1, _) => Why::Unreachable,
        _ => Why::Other,
    }
}

/// A kernel's stamp; zero means that there is none.
pub(super) fn nanos(stamp: TimeSpec) -> Option<u64> {
    let seconds = u64::try_from(stamp.tv_sec()).ok().filter(|s| *s > 0)?;
    let below = u64::try_from(stamp.tv_nsec()).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(below)
}

/// A socket address of the Internet.
pub(super) fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|a: &SockaddrIn| SocketAddrV4::from(*a).into());
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|a: &SockaddrIn6| SocketAddrV6::from(*a).into())
    })
}

/// Of a quote the first bytes are looked at.
const QUOTE: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extended(origin: u8, kind: u8, code: u8, info: u32, data: u32) -> libc::sock_extended_err {
        libc::sock_extended_err {
            ee_errno: 0,
            ee_origin: origin,
            ee_type: kind,
            ee_code: code,
            ee_pad: 0,
            ee_info: info,
            ee_data: data,
        }
    }

    #[test]
    fn an_error_names_who_sent_it_and_why() {
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let error = extended(libc::SO_EE_ORIGIN_ICMP, 3, 4, 1400, 0);
        let Entry::Error(told) = decode(Some((error, Some(from))), None, None, &[1, 2]) else {
            panic!("no error");
        };
        assert_eq!(
            (told.from, told.why, told.quote),
            (from, Why::TooBig(1400), vec![1, 2])
        );
    }

    #[test]
    fn a_mtu_of_zero_is_no_mtu_and_a_local_error_is_noise() {
        assert_eq!(why(true, 3, 4, 0), Why::Other);
        let local = extended(libc::SO_EE_ORIGIN_LOCAL, 0, 0, 1500, 0);
        assert_eq!(decode(Some((local, None)), None, None, &[]), Entry::Noise);
        assert_eq!(decode(None, Some(5), None, &[]), Entry::Noise);
    }

    #[test]
    fn a_stamp_of_sending_names_its_packet() {
        let stamp = extended(libc::SO_EE_ORIGIN_TIMESTAMPING, 0, 0, 0, 77);
        assert_eq!(
            decode(Some((stamp, None)), Some(5), None, &[]),
            Entry::Sent { key: 77, at_ns: 5 }
        );
    }

    proptest! {
        #[test]
        fn any_entry_is_decoded_without_panic(
            origin: u8, kind: u8, code: u8, info: u32, data: u32, stamp: Option<u64>,
            quote in prop::collection::vec(any::<u8>(), 0..QUOTE),
        ) {
            let from = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            decode(Some((extended(origin, kind, code, info, data), from)), stamp, None, &quote);
        }
    }
}
