//! WireGuard interfaces and their peers (generic netlink "wireguard", linux/wireguard.h).
//!
//! It needs CAP_NET_ADMIN. Keys leave this file as digests; private keys don't leave the buffer, which is wiped.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::private::Prefix;
use aizen_protocol::record::{Body, WireGuard, WireGuardPeer};
use sha2::{Digest as _, Sha256};

use super::attribute::{Attributes, push};
use super::netlink::{GENERIC, NETLINK_GENERIC, dump, generic, generic_family};
use super::{DoorError, Seen};
use crate::clock;
use crate::collect::link;

/// Reads every WireGuard interface.
pub(super) async fn see() -> Result<Seen, DoorError> {
    let mut seen = link::collect().await?;
    seen.value
        .retain(|link| link.driver_kind.as_deref() == Some("wireguard"));
    let mut gaps = seen.gaps;
    let mut interfaces = Vec::new();
    if !seen.value.is_empty() {
        let family = generic_family("wireguard").await?;
        // The links are there, so the module is.
        let family = family.ok_or(DoorError::Absent("netlink family 'wireguard'"))?;
        for link in &seen.value {
            let mut question = generic(WG_CMD_GET_DEVICE, 1);
            push(&mut question, WGDEVICE_A_IFINDEX, &link.index.to_ne_bytes());
            let mut told = Device::new(link.index);
            let now = clock::now().as_second();
            let read = dump(NETLINK_GENERIC, family, &question, |message| {
                told.take(Attributes(message.get(GENERIC..).unwrap_or_default()), now);
            });
            match read.await {
                Ok(_) => interfaces.push(told.end(&link.name, &mut gaps)),
                Err(error) => gaps.push(format!("{}: {error}", link.name)),
            }
        }
    }
    Ok(Seen {
        body: Body::WireGuard(interfaces),
        gaps,
    })
}

/// One interface, put together from several messages.
#[derive(Debug)]
pub(crate) struct Device {
    interface: WireGuard,
    peers_beyond: usize,
    allowed_beyond: usize,
    /// The key of the peer that was read last: its addresses may go on in the next message.
    last: Option<[u8; KEY]>,
}

impl Device {
    pub(crate) fn new(link: u32) -> Self {
        Self {
            interface: WireGuard {
                link,
                port: 0,
                peers: Vec::new(),
            },
            peers_beyond: 0,
            allowed_beyond: 0,
            last: None,
        }
    }

    /// Takes one message. `now` is the wall clock in seconds, as handshakes are told by it.
    pub(crate) fn take(&mut self, message: Attributes<'_>, now: i64) {
        if let Some(port) = message.ne16(WGDEVICE_A_LISTEN_PORT) {
            self.interface.port = port;
        }
        for (_, peer) in message.nest(WGDEVICE_A_PEERS) {
            self.take_peer(Attributes(peer), now);
        }
    }

    fn take_peer(&mut self, told: Attributes<'_>, now: i64) {
        let key = told.find(WGPEER_A_PUBLIC_KEY);
        let Some(key) = key.and_then(|k| <[u8; KEY]>::try_from(k).ok()) else {
            return;
        };
        if self.last != Some(key) {
            self.last = Some(key);
            if self.interface.peers.len() == PEERS {
                self.peers_beyond += 1;
            } else {
                self.interface.peers.push(peer(&key, told, now));
            }
        }
        if self.peers_beyond > 0 {
            return;
        }
        let Some(peer) = self.interface.peers.last_mut() else {
            return;
        };
        for (_, allowed) in told.nest(WGPEER_A_ALLOWEDIPS) {
            let Some(prefix) = allowed_prefix(Attributes(allowed)) else {
                continue;
            };
            if peer.allowed.len() == ALLOWED {
                self.allowed_beyond += 1;
            } else {
                peer.allowed.push(prefix);
            }
        }
    }

    pub(crate) fn end(self, name: &str, gaps: &mut Vec<String>) -> WireGuard {
        if self.peers_beyond > 0 {
            gaps.push(format!(
                "{name}: {} more peers were left out",
                self.peers_beyond
            ));
        }
        if self.allowed_beyond > 0 {
            gaps.push(format!(
                "{name}: {} more allowed addresses were left out",
                self.allowed_beyond
            ));
        }
        self.interface
    }
}

fn peer(key: &[u8; KEY], told: Attributes<'_>, now: i64) -> WireGuardPeer {
    let endpoint = told.find(WGPEER_A_ENDPOINT).and_then(endpoint);
    WireGuardPeer {
        key: digest(key),
        endpoint: endpoint.map(|(address, _)| address),
        endpoint_port: endpoint.map(|(_, port)| port),
        handshake_s: told
            .find(WGPEER_A_LAST_HANDSHAKE_TIME)
            .and_then(|time| since(time, now)),
        rx_bytes: told.ne64(WGPEER_A_RX_BYTES).unwrap_or_default(),
        tx_bytes: told.ne64(WGPEER_A_TX_BYTES).unwrap_or_default(),
        keepalive_s: told
            .ne16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL)
            .unwrap_or_default(),
        allowed: Vec::new(),
    }
}

fn digest(key: &[u8; KEY]) -> String {
    let mut digits = String::with_capacity(16);
    for byte in Sha256::digest(key).iter().take(8) {
        // Writing to a string can't fail.
        write!(digits, "{byte:02x}").ok();
    }
    digits
}

/// Seconds since a `struct __kernel_timespec`; its zero is "never".
fn since(time: &[u8], now: i64) -> Option<u64> {
    let seconds = i64::from_ne_bytes(*time.first_chunk()?);
    let age = u64::try_from(now.saturating_sub(seconds)).unwrap_or(0);
    (seconds != 0).then_some(age)
}

/// A `struct sockaddr_in` or `sockaddr_in6`.
fn endpoint(bytes: &[u8]) -> Option<(IpAddr, u16)> {
    let [f0, f1, p0, p1, rest @ ..] = bytes else {
        return None;
    };
    let port = u16::from_be_bytes([*p0, *p1]);
    let address: IpAddr = match u16::from_ne_bytes([*f0, *f1]) {
        AF_INET => Ipv4Addr::from(*rest.first_chunk::<4>()?).into(),
        // After the flow label.
        AF_INET6 => Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some((address, port))
}

fn allowed_prefix(told: Attributes<'_>) -> Option<Prefix> {
    let bytes = told.find(WGALLOWEDIP_A_IPADDR)?;
    let (address, width): (IpAddr, u8) = match told.ne16(WGALLOWEDIP_A_FAMILY)? {
        AF_INET => (Ipv4Addr::from(*bytes.first_chunk::<4>()?).into(), 32),
        AF_INET6 => (Ipv6Addr::from(*bytes.first_chunk::<16>()?).into(), 128),
        _ => return None,
    };
    let length = *told.find(WGALLOWEDIP_A_CIDR_MASK)?.first()?;
    (length <= width).then_some(Prefix { address, length })
}

const PEERS: usize = 256;
const ALLOWED: usize = 64;
const KEY: usize = 32;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const WG_CMD_GET_DEVICE: u8 = 0;
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL: u16 = 5;
const WGPEER_A_LAST_HANDSHAKE_TIME: u16 = 6;
const WGPEER_A_RX_BYTES: u16 = 7;
const WGPEER_A_TX_BYTES: u16 = 8;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn nest(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in attributes {
            push(&mut bytes, *kind, payload);
        }
        bytes
    }

    fn allowed(family: u16, address: &[u8], length: u8) -> Vec<u8> {
        nest(&[
            (WGALLOWEDIP_A_FAMILY, &family.to_ne_bytes()),
            (WGALLOWEDIP_A_IPADDR, address),
            (WGALLOWEDIP_A_CIDR_MASK, &[length]),
        ])
    }

    fn message(port: Option<u16>, peers: &[Vec<u8>]) -> Vec<u8> {
        let mut list = Vec::new();
        for peer in peers {
            push(&mut list, 0x8000, peer);
        }
        let port = port.map(u16::to_ne_bytes);
        let mut attributes: Vec<(u16, &[u8])> = vec![(WGDEVICE_A_PEERS | 0x8000, &list)];
        if let Some(port) = &port {
            attributes.push((WGDEVICE_A_LISTEN_PORT, port));
        }
        nest(&attributes)
    }

    /// As the kernel writes it: `wg_get_device_dump` in drivers/net/wireguard/netlink.c.
    fn whole_peer(key: u8, allowed: &[Vec<u8>]) -> Vec<u8> {
        let mut list = Vec::new();
        for prefix in allowed {
            push(&mut list, 0x8000, prefix);
        }
        let handshake = [(NOW - 200).to_ne_bytes(), 5_i64.to_ne_bytes()].concat();
        let mut endpoint = AF_INET.to_ne_bytes().to_vec();
        endpoint.extend([0xca, 0x6c, 198, 51, 100, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        nest(&[
            (WGPEER_A_PUBLIC_KEY, &[key; KEY]),
            (2, &[0; KEY]),
            (WGPEER_A_LAST_HANDSHAKE_TIME, &handshake),
            (
                WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL,
                &25_u16.to_ne_bytes(),
            ),
            (WGPEER_A_TX_BYTES, &900_u64.to_ne_bytes()),
            (WGPEER_A_RX_BYTES, &30_u64.to_ne_bytes()),
            (WGPEER_A_ENDPOINT, &endpoint),
            (WGPEER_A_ALLOWEDIPS, &list),
        ])
    }

    /// What follows of a peer whose addresses don't fit into one message.
    fn rest_of_peer(key: u8, allowed: &[Vec<u8>]) -> Vec<u8> {
        let mut list = Vec::new();
        for prefix in allowed {
            push(&mut list, 0x8000, prefix);
        }
        nest(&[
            (WGPEER_A_PUBLIC_KEY, &[key; KEY]),
            (WGPEER_A_ALLOWEDIPS, &list),
        ])
    }

    #[test]
    fn a_peer_whose_addresses_go_on_in_the_next_message_is_one_peer() {
        let mut device = Device::new(7);
        let first = message(
            Some(51820),
            &[whole_peer(1, &[allowed(AF_INET, &[10, 0, 0, 0], 24)])],
        );
        let six = Ipv6Addr::LOCALHOST.octets();
        let second = message(
            None,
            &[
                rest_of_peer(1, &[allowed(AF_INET6, &six, 128)]),
                whole_peer(2, &[]),
            ],
        );
        device.take(Attributes(&first), NOW);
        device.take(Attributes(&second), NOW);
        let mut gaps = Vec::new();
        let told = device.end("wg0", &mut gaps);
        assert_eq!((told.port, told.peers.len(), gaps.len()), (51820, 2, 0));
        let peer = &told.peers[0];
        assert_eq!(
            peer.allowed,
            ["10.0.0.0/24".parse().unwrap(), "::1/128".parse().unwrap()]
        );
        assert_eq!(
            (peer.endpoint, peer.endpoint_port),
            (Some("198.51.100.7".parse().unwrap()), Some(51820))
        );
        assert_eq!(
            (
                peer.handshake_s,
                peer.rx_bytes,
                peer.tx_bytes,
                peer.keepalive_s
            ),
            (Some(200), 30, 900, 25)
        );
        assert_eq!(told.peers[1].allowed, []);
    }

    #[test]
    fn a_key_leaves_as_digest_only() {
        // SHA-256 of 32 bytes of zero begins with 66687aadf862bd77.
        assert_eq!(digest(&[0; KEY]), "66687aadf862bd77");
    }

    #[test]
    fn a_handshake_that_never_was_has_no_age_and_one_from_the_future_is_fresh() {
        assert_eq!(since(&[0; 16], NOW), None);
        assert_eq!(since(&(NOW + 9).to_ne_bytes(), NOW), Some(0));
        assert_eq!(since(&[1; 5], NOW), None);
    }

    #[test]
    fn an_address_with_an_impossible_length_is_left_out() {
        assert_eq!(
            allowed_prefix(Attributes(&allowed(AF_INET, &[1, 2, 3, 4], 33))),
            None
        );
        assert_eq!(
            allowed_prefix(Attributes(&allowed(AF_INET6, &[1, 2, 3, 4], 8))),
            None
        );
    }

    #[test]
    fn peers_and_addresses_beyond_the_bounds_are_counted() {
        let mut device = Device::new(7);
        let many = vec![allowed(AF_INET, &[10, 0, 0, 1], 32); ALLOWED + 1];
        device.take(Attributes(&message(None, &[whole_peer(0, &many)])), NOW);
        for key in 1..=u8::MAX {
            device.take(Attributes(&message(None, &[whole_peer(key, &[])])), NOW);
        }
        device.take(Attributes(&message(None, &[whole_peer(0, &[])])), NOW);
        let mut gaps = Vec::new();
        assert_eq!(device.end("wg0", &mut gaps).peers.len(), PEERS);
        assert_eq!(
            gaps,
            [
                "wg0: 1 more peers were left out",
                "wg0: 1 more allowed addresses were left out"
            ]
        );
    }

    proptest! {
        #[test]
        fn any_messages_become_a_bounded_interface(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6)) {
            let mut device = Device::new(1);
            for message in &messages {
                device.take(Attributes(message), NOW);
            }
            prop_assert!(device.interface.peers.len() <= PEERS);
        }

        #[test]
        fn a_truncated_message_is_read_as_far_as_it_goes(cut in 0_usize..400) {
            let whole = message(Some(1), &[whole_peer(1, &[allowed(AF_INET, &[10, 0, 0, 0], 24)]), whole_peer(2, &[])]);
            let mut device = Device::new(1);
            device.take(Attributes(&whole[..cut.min(whole.len())]), NOW);
            prop_assert!(device.interface.peers.len() <= 2);
        }
    }
}
