//! Ethernet frames of one kind on one link (packet(7)): what a probe sends, and what answers.
//!
//! It needs CAP_NET_RAW. A link without an address is as good as any: nothing here asks the kernel's IP.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;

use aizen_protocol::private::Mac;
use nix::ifaddrs::getifaddrs;
use nix::setsockopt_impl;
use nix::sys::socket::sockopt::SetStruct;
use nix::sys::socket::{LinkAddr, MsgFlags, SetSockOpt as _, bind, recvfrom, send};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use super::DoorError;
use crate::collect::datagram::{adopt, heard};

/// An Ethernet link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    at: LinkAddr,
    /// Its index.
    pub(super) index: u32,
    /// Its hardware address.
    pub(super) mac: Mac,
    /// Its link-local IPv6 address.
    pub(super) link_local: Option<Ipv6Addr>,
}

impl Port {
    /// Looks an interface up by its name.
    ///
    /// # Errors
    /// [`DoorError::NoEthernet`] if there is none, or it is no Ethernet link.
    pub(super) fn of(dev: &str) -> Result<Self, DoorError> {
        let mut at = None;
        let mut link_local = None;
        for interface in getifaddrs()
            .map_err(io::Error::from)?
            .filter(|i| i.interface_name == dev)
        {
            let Some(address) = interface.address else {
                continue;
            };
            if let Some(link) = address.as_link_addr()
                && link.hatype() == ARPHRD_ETHER
            {
                at = Some(*link);
            }
            if let Some(address) = address.as_sockaddr_in6()
                && address.ip().is_unicast_link_local()
            {
                link_local = Some(address.ip());
            }
        }
        let none = || DoorError::NoEthernet(dev.to_owned());
        let at = at.ok_or_else(none)?;
        Ok(Self {
            at,
            index: u32::try_from(at.ifindex()).map_err(|_| none())?,
            mac: at.addr().map(Mac).ok_or_else(none)?,
            link_local,
        })
    }

    /// Opens a socket for frames of one type; `filter` is a classic BPF program (bpf(4)) that keeps other traffic of a
    /// busy link away.
    pub(super) fn open(
        &self,
        ethertype: u16,
        filter: &[SockFilter],
        groups: &[Mac],
    ) -> Result<Wire, DoorError> {
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).map_err(permitted)?;
        if !filter.is_empty() {
            socket.attach_filter(filter)?;
        }
        // The address that the kernel gave for the interface names no protocol; then the socket's own stays (packet(7)).
        bind(socket.as_raw_fd(), &self.at).map_err(io::Error::from)?;
        for group in groups {
            Membership
                .set(&socket, &self.membership(*group))
                .map_err(io::Error::from)?;
        }
        Ok(Wire {
            socket: adopt(socket)?,
            index: self.at.ifindex(),
        })
    }

    /// The link hears a multicast group for as long as the socket lives.
    fn membership(&self, group: Mac) -> libc::packet_mreq {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group.0);
        libc::packet_mreq {
            // The kernel gave this number for this link.
            mr_ifindex: i32::try_from(self.index).unwrap_or_default(),
            mr_type: PACKET_MR_MULTICAST,
            mr_alen: 6,
            mr_address: address,
        }
    }
}

/// `PACKET_ADD_MEMBERSHIP` (packet(7)).
#[derive(Clone, Copy, Debug)]
struct Membership;

setsockopt_impl!(
    Membership,
    libc::SOL_PACKET,
    libc::PACKET_ADD_MEMBERSHIP,
    libc::packet_mreq,
    SetStruct<libc::packet_mreq>
);

/// An open link.
#[derive(Debug)]
pub(super) struct Wire {
    socket: UdpSocket,
    index: usize,
}

impl Wire {
    /// Sends one whole frame.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// The next frame that came in on this link. Safe to cancel.
    pub(super) async fn hear<'a>(&self, frame: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = heard(&self.socket, |socket| {
            loop {
                let (length, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), frame)?;
                // Between its making and its binding a socket hears every link.
                let ours = from.is_some_and(|from| {
                    from.ifindex() == self.index && from.pkttype() != PACKET_OUTGOING
                });
                if ours {
                    return Ok(length);
                }
            }
        })
        .await?;
        Ok(frame.get(..length).unwrap_or_default())
    }
}

fn permitted(error: io::Error) -> DoorError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => DoorError::Capability("CAP_NET_RAW"),
        _ => error.into(),
    }
}

/// An Ethernet frame; short ones are filled up to the least size.
pub(super) fn frame(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(LEAST), 0);
    frame
}

/// Sender and payload of a frame of this type.
pub(super) fn payload(frame: &[u8], ethertype: u16) -> Option<(Mac, &[u8])> {
    let (header, payload) = frame.split_first_chunk::<HEADER>()?;
    let [_, _, _, _, _, _, a, b, c, d, e, f, k0, k1] = *header;
    (u16::from_be_bytes([k0, k1]) == ethertype).then_some((Mac([a, b, c, d, e, f]), payload))
}

/// The internet checksum (RFC 1071).
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Random bytes for a number that only we know.
pub(super) fn nonce<const N: usize>() -> io::Result<[u8; N]> {
    let mut nonce = [0; N];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

pub(super) const BROADCAST: Mac = Mac([0xff; 6]);
/// More than an Ethernet frame without jumbo holds.
pub(super) const LONGEST: usize = 2048;
const HEADER: usize = 14;
const LEAST: usize = 60;
const ARPHRD_ETHER: u16 = 1;
const PACKET_OUTGOING: u8 = 4;
const PACKET_MR_MULTICAST: u16 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_frame_is_filled_up_and_read_by_its_type() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let bytes = frame(BROADCAST, mac, 0x8863, b"abc");
        assert_eq!(bytes.len(), LEAST);
        let (from, told) = payload(&bytes, 0x8863).unwrap();
        assert_eq!((from, &told[..3]), (mac, &b"abc"[..]));
        assert_eq!(payload(&bytes, 0x0800), None);
        assert_eq!(payload(&bytes[..13], 0x8863), None);
    }

    #[test]
    fn the_checksum_is_that_of_the_standards_example() {
        // RFC 1071, 3: the sum of 00 01 f2 03 f4 f5 f6 f7 is ddf2.
        let bytes = [0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes]), !0xddf2);
        assert_eq!(checksum(&[&bytes[..4], &bytes[4..]]), !0xddf2);
    }

    #[test]
    fn the_loopback_and_what_is_not_there_are_no_ethernet() {
        for dev in ["lo", "aizen-none"] {
            assert!(
                matches!(Port::of(dev), Err(DoorError::NoEthernet(_))),
                "{dev}"
            );
        }
    }
}
