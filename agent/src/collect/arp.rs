//! Who else answers for an IPv4 address of ours: an ARP probe (RFC 5227).
//!
//! It needs CAP_NET_RAW: run by the executor behind its read-only door, or by root on the command line.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aizen_protocol::private::Mac;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, recv, send};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::datagram::{adopt, heard};

/// Asks on interface `dev` who has `address`, and listens until `deadline`; gives every other station that says it is
/// its own. This machine's own interfaces are not "other": Linux answers for an address on all of them.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_RAW; `NotFound` if `dev` has no Ethernet address; what the socket says otherwise.
pub async fn probe(dev: &str, address: Ipv4Addr, deadline: Duration) -> io::Result<Vec<Mac>> {
    let until = Instant::now() + deadline;
    let (at, own) = interfaces(dev)?;
    let mac = at.addr().map(Mac).ok_or(io::ErrorKind::NotFound)?;
    let socket = open(&at)?;
    let mut others = BTreeSet::new();
    let mut frame = [0; 1600];
    for number in 1..=PROBES {
        send(
            socket.as_raw_fd(),
            &request(mac, address),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let wait_until = if number == PROBES {
            until
        } else {
            until.min(Instant::now() + BETWEEN)
        };
        while let Ok(read) = timeout_at(wait_until, hear(&socket, &mut frame)).await {
            if let Some(sender) = claims(&frame[..read?], address)
                && !own.contains(&sender)
            {
                others.insert(sender);
            }
        }
    }
    Ok(others.into_iter().collect())
}

/// The link-layer address of `dev`, and those of all interfaces.
fn interfaces(dev: &str) -> io::Result<(LinkAddr, BTreeSet<Mac>)> {
    let mut at = None;
    let mut own = BTreeSet::new();
    for interface in getifaddrs()? {
        let Some(link) = interface.address.as_ref().and_then(|a| a.as_link_addr()) else {
            continue;
        };
        own.extend(link.addr().map(Mac));
        if interface.interface_name == dev && link.hatype() == ETHERNET {
            at = Some(*link);
        }
    }
    Ok((at.ok_or(io::ErrorKind::NotFound)?, own))
}

fn open(at: &LinkAddr) -> io::Result<UdpSocket> {
    let protocol = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    // The address that the kernel gave for the interface names no protocol; then the socket's own stays (packet(7)).
    bind(socket.as_raw_fd(), at)?;
    adopt(socket)
}

async fn hear(socket: &UdpSocket, frame: &mut [u8]) -> io::Result<usize> {
    heard(socket, |socket| {
        Ok(recv(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?)
    })
    .await
}

/// An ARP probe in its Ethernet frame: the sender's protocol address is zero, so that nobody's cache learns from it.
fn request(mac: Mac, address: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    frame[14..20].copy_from_slice(&FOR_IPV4);
    frame[20..22].copy_from_slice(&REQUEST.to_be_bytes());
    frame[22..28].copy_from_slice(&mac.0);
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

/// The sender of an ARP request or reply who says that `address` is its own.
pub(crate) fn claims(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let frame: &[u8; FRAME] = frame.first_chunk()?;
    let is_arp = frame[12..14] == ETHERTYPE_ARP.to_be_bytes() && frame[14..20] == FOR_IPV4;
    let operation = u16::from_be_bytes([frame[20], frame[21]]);
    if !is_arp || !(REQUEST..=REPLY).contains(&operation) || frame[28..32] != address.octets() {
        return None;
    }
    frame[22..28].first_chunk().map(|bytes| Mac(*bytes))
}

const PROBES: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(200);
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
const ETHERTYPE_ARP: u16 = 0x0806;
const FRAME: usize = 14 + 28;
/// Ethernet, IPv4, and the lengths of their addresses.
const FOR_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn a_probe_claims_nothing() {
        assert_eq!(claims(&request(MAC, ADDRESS), ADDRESS), None);
    }

    #[test]
    fn a_reply_or_an_announcement_for_the_address_claims_it() {
        for operation in [1, 2] {
            let mut frame = request(MAC, ADDRESS);
            frame[21] = operation;
            frame[28..32].copy_from_slice(&ADDRESS.octets());
            assert_eq!(claims(&frame, ADDRESS), Some(MAC));
            assert_eq!(claims(&frame, Ipv4Addr::new(192, 0, 2, 8)), None);
            assert_eq!(claims(&frame[..41], ADDRESS), None);
            frame[21] = 3;
            assert_eq!(claims(&frame, ADDRESS), None);
        }
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_not_found() {
        let error = probe("aizen-none", ADDRESS, Duration::from_millis(10))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn any_frame_is_judged_without_panic(frame in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(frame.len() >= FRAME || claims(&frame, ADDRESS).is_none());
        }
    }
}
