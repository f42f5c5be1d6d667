//! Peers of WireGuard's interfaces over generic netlink (linux/wireguard.h).
//!
//! Keys are secrets: this module alone sees them, nothing prints them, and what is written down of them is sealed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use aizen_protocol::private::Prefix;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::broker::World;
use crate::collect::netlink::attribute::{NESTED, find, put as attach};
use crate::collect::netlink::generic::{command, family, question};
use crate::collect::netlink::{NetlinkError, ask_all, tell};

/// `WG_KEY_LEN`.
const KEY: usize = 32;
/// Peers and prefixes that are read.
const PEERS: usize = 4096;
const PREFIXES: usize = 65_536;
/// Prefixes in one message: an attribute's length has 16 bits, and a prefix needs 40 bytes of it.
const PREFIXES_A_MESSAGE: usize = 1000;

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const IFNAME: u16 = 2;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;
/// `WGPEER_F_*`.
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;

/// Why WireGuard could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum WireguardError {
    /// The kernel has none.
    #[error("this kernel has no WireGuard (module 'wireguard')")]
    Missing,
    /// Nothing to remove.
    #[error("there is no such peer")]
    NoPeer,
    /// The kernel refused, or the socket failed.
    #[error("WireGuard: {0}")]
    Netlink(#[from] NetlinkError),
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey([u8; KEY]);

impl PublicKey {
    /// Takes the 44 letters that `wg` shows.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(Self(STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a key of WireGuard")
    }
}

/// A key that two peers share: never printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Preshared([u8; KEY]);

impl fmt::Debug for Preshared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// One peer, as it is set up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerState {
    pub(crate) dev: String,
    pub(crate) key: PublicKey,
    pub(crate) preshared: Option<Preshared>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) keepalive: u16,
    pub(crate) allowed: Vec<Prefix>,
}

impl PeerState {
    /// What is compared: an endpoint moves by itself when the peer does.
    pub(crate) fn canonical(&self) -> Self {
        Self {
            endpoint: None,
            ..self.clone()
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} peer {}", self.dev, self.key)?;
        self.endpoint
            .map_or(Ok(()), |endpoint| write!(f, " endpoint {endpoint}"))?;
        if self.keepalive > 0 {
            write!(f, " persistent-keepalive {}", self.keepalive)?;
        }
        let allowed: Vec<String> = self.allowed.iter().map(ToString::to_string).collect();
        write!(f, " allowed-ips {}", allowed.join(","))?;
        f.write_str(if self.preshared.is_some() {
            " with a preshared key"
        } else {
            ""
        })
    }
}

/// What an operation wants of a peer; what it does not name stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerWish {
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) keepalive: Option<u16>,
    pub(crate) allowed: Option<Vec<Prefix>>,
}

impl PeerWish {
    /// The peer as it will be.
    pub(crate) fn of(&self, before: Option<&PeerState>, dev: &str, key: PublicKey) -> PeerState {
        let mut peer = before.cloned().unwrap_or(PeerState {
            dev: dev.to_owned(),
            key,
            preshared: None,
            endpoint: None,
            keepalive: 0,
            allowed: Vec::new(),
        });
        peer.endpoint = self.endpoint.or(peer.endpoint);
        peer.keepalive = self.keepalive.unwrap_or(peer.keepalive);
        if let Some(allowed) = &self.allowed {
            peer.allowed.clone_from(allowed);
        }
        peer
    }
}

impl fmt::Display for PeerWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint
            .map_or(Ok(()), |endpoint| write!(f, " endpoint {endpoint}"))?;
        self.keepalive
            .map_or(Ok(()), |s| write!(f, " persistent-keepalive {s}"))?;
        let Some(allowed) = &self.allowed else {
            return Ok(());
        };
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        write!(f, " allowed-ips {}", allowed.join(","))
    }
}

/// The peers of an interface, or of its shadow.
pub(crate) async fn peers(world: &World, dev: &str) -> Result<Vec<PeerState>, WireguardError> {
    match world.recorded() {
        Some(recorded) => Ok(recorded.peers(dev)),
        None => read(dev).await,
    }
}

/// Makes a peer exactly this, or absent; in a shadow it is recorded.
pub(crate) async fn put(
    world: &World,
    dev: &str,
    key: PublicKey,
    peer: Option<&PeerState>,
) -> Result<(), WireguardError> {
    match (world.recorded(), peer) {
        (Some(recorded), peer) => {
            recorded.set_peer(dev, key, peer);
            Ok(())
        }
        (None, Some(peer)) => set(peer).await,
        (None, None) => remove(dev, key).await,
    }
}

/// True if an operation gave an endpoint to a peer that had none.
pub(crate) fn was_dialled(before: Option<&PeerState>, after: Option<&PeerState>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return false;
    };
    before.endpoint.is_none() && after.endpoint.is_some()
}

/// The peers of an interface.
async fn read(dev: &str) -> Result<Vec<PeerState>, WireguardError> {
    let id = family("wireguard")
        .await?
        .ok_or(WireguardError::Missing)?
        .id;
    let mut body = Vec::new();
    attach(&mut body, IFNAME, format!("{dev}\0").as_bytes());
    let parts = ask_all(&question(id, GET_DEVICE, &body)).await?;
    Ok(decode(dev, parts.iter().map(Vec::as_slice)))
}

/// Peers out of the messages of one answer: one with many prefixes goes on in the next message.
fn decode<'a>(dev: &str, parts: impl Iterator<Item = &'a [u8]>) -> Vec<PeerState> {
    let mut peers: Vec<PeerState> = Vec::new();
    for part in parts {
        let Some((_, body)) = command(part) else {
            continue;
        };
        for peer in find(body, DEVICE_PEERS).into_iter().flat_map(|p| p.inner()) {
            let Some(found) = decode_peer(dev, peer.value).filter(|_| peers.len() < PEERS) else {
                continue;
            };
            let goes_on = peers.last().is_some_and(|last| last.key == found.key);
            match peers.last_mut() {
                Some(last) if goes_on => {
                    let left = PREFIXES.saturating_sub(last.allowed.len());
                    last.allowed.extend(found.allowed.into_iter().take(left));
                }
                _ => peers.push(found),
            }
        }
    }
    for peer in &mut peers {
        peer.allowed.sort();
    }
    peers
}

fn decode_peer(dev: &str, bytes: &[u8]) -> Option<PeerState> {
    let key = PublicKey(find(bytes, PEER_PUBLIC_KEY)?.value.try_into().ok()?);
    let preshared = find(bytes, PEER_PRESHARED_KEY)
        .and_then(|a| <[u8; KEY]>::try_from(a.value).ok())
        // All zeros: none.
        .filter(|key| *key != [0; KEY])
        .map(Preshared);
    let allowed = find(bytes, PEER_ALLOWED)
        .into_iter()
        .flat_map(|a| a.inner());
    let prefix = |bytes: &[u8]| {
        Some(Prefix {
            address: find(bytes, ALLOWED_ADDRESS)?.ip()?,
            length: find(bytes, ALLOWED_LENGTH)?.u8()?,
        })
    };
    Some(PeerState {
        dev: dev.to_owned(),
        key,
        preshared,
        endpoint: find(bytes, PEER_ENDPOINT).and_then(|a| socket_address(a.value)),
        keepalive: find(bytes, PEER_KEEPALIVE)
            .and_then(|a| a.u16())
            .unwrap_or(0),
        allowed: allowed
            .filter_map(|a| prefix(a.value))
            .take(PREFIXES)
            .collect(),
    })
}

/// `struct sockaddr_in` and `sockaddr_in6` (ip(7), ipv6(7)).
fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let address = *bytes.get(4..)?.first_chunk::<4>()?;
            Some(SocketAddr::new(IpAddr::from(address), port))
        }
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(address, port, 0, scope).into())
        }
        _ => None,
    }
}

fn socket_bytes(address: SocketAddr) -> Vec<u8> {
    let family = |family: i32| u16::try_from(family).unwrap_or(0).to_ne_bytes();
    match address {
        SocketAddr::V4(v4) => [
            &family(libc::AF_INET)[..],
            &v4.port().to_be_bytes(),
            &v4.ip().octets(),
            &[0; 8],
        ]
        .concat(),
        SocketAddr::V6(v6) => [
            &family(libc::AF_INET6)[..],
            &v6.port().to_be_bytes(),
            &[0; 4],
            &v6.ip().octets(),
            &v6.scope_id().to_ne_bytes(),
        ]
        .concat(),
    }
}

/// Makes the peer exactly this; its prefixes may need several messages, the first of which takes the old ones away.
async fn set(peer: &PeerState) -> Result<(), WireguardError> {
    for message in encode_peer(peer) {
        send(&peer.dev, &message).await?;
    }
    Ok(())
}

/// Removes a peer; one that is gone is removed already.
async fn remove(dev: &str, key: PublicKey) -> Result<(), WireguardError> {
    let mut peer = Vec::new();
    attach(&mut peer, PEER_PUBLIC_KEY, &key.0);
    attach(&mut peer, PEER_FLAGS, &REMOVE.to_ne_bytes());
    send(dev, &peer).await
}

/// The peer in one or more messages.
fn encode_peer(peer: &PeerState) -> Vec<Vec<u8>> {
    let first = peer.allowed.len().min(PREFIXES_A_MESSAGE);
    let (first, rest) = peer.allowed.split_at(first);
    let mut bytes = Vec::new();
    attach(&mut bytes, PEER_PUBLIC_KEY, &peer.key.0);
    attach(&mut bytes, PEER_FLAGS, &REPLACE_ALLOWED.to_ne_bytes());
    let preshared = peer.preshared.as_ref().map_or([0; KEY], |key| key.0);
    attach(&mut bytes, PEER_PRESHARED_KEY, &preshared);
    if let Some(endpoint) = peer.endpoint {
        attach(&mut bytes, PEER_ENDPOINT, &socket_bytes(endpoint));
    }
    attach(&mut bytes, PEER_KEEPALIVE, &peer.keepalive.to_ne_bytes());
    attach(&mut bytes, PEER_ALLOWED | NESTED, &encode_prefixes(first));
    let mut messages = vec![bytes];
    for more in rest.chunks(PREFIXES_A_MESSAGE) {
        let mut bytes = Vec::new();
        attach(&mut bytes, PEER_PUBLIC_KEY, &peer.key.0);
        attach(&mut bytes, PEER_ALLOWED | NESTED, &encode_prefixes(more));
        messages.push(bytes);
    }
    messages
}

fn encode_prefixes(prefixes: &[Prefix]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for prefix in prefixes {
        let mut one = Vec::new();
        let (family, address) = match prefix.address {
            IpAddr::V4(a) => (libc::AF_INET, a.octets().to_vec()),
            IpAddr::V6(a) => (libc::AF_INET6, a.octets().to_vec()),
        };
        let family = u16::try_from(family).unwrap_or(0);
        attach(&mut one, ALLOWED_FAMILY, &family.to_ne_bytes());
        attach(&mut one, ALLOWED_ADDRESS, &address);
        attach(&mut one, ALLOWED_LENGTH, &[prefix.length]);
        attach(&mut bytes, NESTED, &one);
    }
    bytes
}

async fn send(dev: &str, peer: &[u8]) -> Result<(), WireguardError> {
    let id = family("wireguard")
        .await?
        .ok_or(WireguardError::Missing)?
        .id;
    let mut body = Vec::new();
    attach(&mut body, IFNAME, format!("{dev}\0").as_bytes());
    let mut peers = Vec::new();
    attach(&mut peers, NESTED, peer);
    attach(&mut body, DEVICE_PEERS | NESTED, &peers);
    Ok(tell(&question(id, SET_DEVICE, &body)).await?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer() -> PeerState {
        PeerState {
            dev: "wg0".into(),
            key: PublicKey([7; KEY]),
            preshared: Some(Preshared([9; KEY])),
            endpoint: Some("[2001:db8::1]:51820".parse().unwrap()),
            keepalive: 25,
            allowed: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()],
        }
    }

    /// A message of the kernel with these peers.
    fn message(peers: &[Vec<u8>]) -> Vec<u8> {
        let mut list = Vec::new();
        for peer in peers {
            attach(&mut list, NESTED, peer);
        }
        let mut bytes = vec![GET_DEVICE, 1, 0, 0];
        attach(&mut bytes, IFNAME, b"wg0\0");
        attach(&mut bytes, DEVICE_PEERS | NESTED, &list);
        bytes
    }

    #[test]
    fn what_is_sent_for_a_peer_is_what_is_read_of_it() {
        for endpoint in ["192.0.2.7:51820", "[2001:db8::1]:51820"] {
            let peer = PeerState {
                endpoint: Some(endpoint.parse().unwrap()),
                ..peer()
            };
            let message = message(&encode_peer(&peer));
            assert_eq!(decode("wg0", [message.as_slice()].into_iter()), [peer]);
        }
        let bare = PeerState {
            preshared: None,
            endpoint: None,
            keepalive: 0,
            allowed: Vec::new(),
            ..peer()
        };
        let message = message(&encode_peer(&bare));
        assert_eq!(decode("wg0", [message.as_slice()].into_iter()), [bare]);
    }

    #[test]
    fn more_prefixes_than_one_message_holds_are_sent_in_several_and_only_the_first_replaces() {
        let many = (0..5000_u32).map(|n| Prefix {
            address: IpAddr::from(n.to_be_bytes()),
            length: 32,
        });
        let peer = PeerState {
            allowed: many.collect(),
            ..peer()
        };
        let parts = encode_peer(&peer);
        assert_eq!(parts.len(), 5);
        let flags = |part: &[u8]| find(part, PEER_FLAGS).and_then(|a| a.u32());
        assert_eq!(flags(&parts[0]), Some(REPLACE_ALLOWED));
        assert!(parts[1..].iter().all(|part| flags(part).is_none()));
        let messages: Vec<Vec<u8>> = parts.into_iter().map(|part| message(&[part])).collect();
        let read = decode("wg0", messages.iter().map(Vec::as_slice));
        assert_eq!(read, [peer]);
    }

    #[test]
    fn who_was_waited_for_and_is_dialled_must_be_added_anew_to_be_waited_for_again() {
        let waited = PeerState {
            endpoint: None,
            ..peer()
        };
        assert!(was_dialled(Some(&waited), Some(&peer())));
        for (before, after) in [
            (Some(peer()), Some(peer())),
            (Some(waited.clone()), Some(waited.clone())),
            (None, Some(peer())),
            (Some(waited), None),
        ] {
            assert!(!was_dialled(before.as_ref(), after.as_ref()));
        }
    }

    #[test]
    fn an_endpoint_has_the_bytes_of_the_headers() {
        let v4 = socket_bytes("192.0.2.7:258".parse().unwrap());
        assert_eq!(v4[2..], [1, 2, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(socket_bytes("[::1]:1".parse().unwrap()).len(), 28);
    }

    #[test]
    fn a_peer_that_goes_on_in_the_next_message_is_one() {
        let rest = PeerState {
            allowed: vec!["172.16.0.0/12".parse().unwrap()],
            ..peer()
        };
        let parts = [message(&encode_peer(&peer())), message(&encode_peer(&rest))];
        let peers = decode("wg0", parts.iter().map(Vec::as_slice));
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].allowed.len(), 3);
    }

    #[test]
    fn what_is_set_keeps_what_was_not_named_and_the_preshared_key() {
        let wish = PeerWish {
            keepalive: Some(0),
            ..PeerWish::default()
        };
        let set = wish.of(Some(&peer()), "wg0", peer().key);
        assert_eq!(
            set,
            PeerState {
                keepalive: 0,
                ..peer()
            }
        );
        let fresh = wish.of(None, "wg0", peer().key);
        assert_eq!((fresh.preshared, fresh.allowed), (None, Vec::new()));
    }

    #[test]
    fn no_secret_key_is_ever_shown() {
        let shown = format!("{} {:?}", peer(), peer());
        assert!(
            shown.contains("with a preshared key") && shown.contains("(secret)"),
            "{shown}"
        );
        assert!(
            !shown.contains(&STANDARD.encode([9; KEY])) && !shown.contains("9, 9"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn a_kernel_without_wireguard_is_said() {
        if family("wireguard").await.unwrap().is_some() {
            return;
        }
        let error = read("wg0").await.unwrap_err();
        assert!(error.to_string().contains("no WireGuard"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_peers_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(decode("wg0", [bytes.as_slice()].into_iter()));
            let framed = message(&[bytes]);
            drop(decode("wg0", [framed.as_slice()].into_iter()));
        }
    }
}
