//! Who offers DHCP on a link: one DISCOVER, and every OFFER or NAK to it (RFC 2131, RFC 2132).
//!
//! No REQUEST follows, so no server leases anything.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use aizen_protocol::private::Mac;
use aizen_protocol::record::{Body, DhcpOffer, DhcpProbe};
use socket2::SockFilter;
use tokio::time::{Instant, timeout_at};

use super::wire::{BROADCAST, LONGEST, Port, checksum, frame, nonce, payload};
use super::{DoorError, Seen};

/// Asks on `dev`, and listens.
pub(super) async fn see(dev: &str) -> Result<Seen, DoorError> {
    let port = Port::of(dev)?;
    let until = Instant::now() + LISTENS;
    let wire = port.open(ETHERTYPE_IPV4, &TO_CLIENT, &[])?;
    let xid = nonce()?;
    wire.send(&discover(port.mac, xid))?;
    let mut probe = DhcpProbe {
        link: port.index,
        offers: Vec::new(),
    };
    let mut gaps = Vec::new();
    let mut buffer = [0; LONGEST];
    while let Ok(heard) = timeout_at(until, wire.hear(&mut buffer)).await {
        let Some(offer) = offer(heard?, port.mac, xid) else {
            continue;
        };
        if probe.offers.contains(&offer) {
            continue;
        }
        if probe.offers.len() == OFFERS {
            gaps.push(format!(
                "more than {OFFERS} DHCP offers on {dev}: the rest was left out"
            ));
            break;
        }
        probe.offers.push(offer);
    }
    Ok(Seen {
        body: Body::DhcpProbes(vec![probe]),
        gaps,
    })
}

/// A DISCOVER in its frame. The broadcast flag: without an address a unicast answer would be lost in our own kernel.
fn discover(mac: Mac, xid: [u8; 4]) -> Vec<u8> {
    let mut message = vec![BOOTREQUEST, ETHERNET, 6, 0];
    message.extend(xid);
    message.extend([0, 0, 0x80, 0]);
    message.extend([0; 16]);
    message.extend(mac.0);
    // The rest of the hardware address, server name and file.
    message.extend([0; 10 + 64 + 128]);
    message.extend(MAGIC);
    message.extend([MESSAGE_TYPE, 1, DISCOVER]);
    message.extend([PARAMETERS, 4, SUBNET, ROUTER, RESOLVER, SERVER]);
    message.push(END);
    // RFC 1542, 2.1: older relays drop what is shorter.
    message.resize(message.len().max(300), 0);
    let udp = u16::try_from(UDP + message.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend((udp + 20).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, PROTOCOL_UDP, 0, 0]);
    packet.extend(Ipv4Addr::UNSPECIFIED.octets());
    packet.extend(Ipv4Addr::BROADCAST.octets());
    let sum = checksum(&[&packet]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(CLIENT_PORT.to_be_bytes());
    packet.extend(SERVER_PORT.to_be_bytes());
    packet.extend(udp.to_be_bytes());
    // UDP over IPv4 may go without a checksum (RFC 768).
    packet.extend([0, 0]);
    packet.extend(message);
    frame(BROADCAST, mac, ETHERTYPE_IPV4, &packet)
}

/// An OFFER or NAK to our DISCOVER; anything else is none.
pub(crate) fn offer(bytes: &[u8], mac: Mac, xid: [u8; 4]) -> Option<DhcpOffer> {
    let (server_mac, packet) = payload(bytes, ETHERTYPE_IPV4)?;
    let message = datagram(packet)?;
    let (head, options) = message.split_first_chunk::<FIXED>()?;
    let ours = head[0] == BOOTREPLY && head[4..8] == xid && head[28..34] == mac.0;
    if !ours || head[236..] != MAGIC {
        return None;
    }
    let options = Options::of(options)?;
    let address = Ipv4Addr::from(*head[16..20].first_chunk()?);
    let address = match options.message_type? {
        OFFER if !address.is_unspecified() => Some(address.into()),
        NAK => None,
        _ => return None,
    };
    Some(DhcpOffer {
        // RFC 2131, table 3: both must name the server.
        server: options.server?.into(),
        server_mac: Some(server_mac),
        address,
        routers: options.routers,
        resolvers: options.resolvers,
    })
}

/// The content of an unfragmented UDP datagram to the client's port. Checksums are not looked at: between virtual links
/// nobody fills them in.
fn datagram(packet: &[u8]) -> Option<&[u8]> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[0] >> 4 != 4 || length < 20 || header[9] != PROTOCOL_UDP || fragment != 0 {
        return None;
    }
    let udp = packet.get(length..total)?;
    let (head, _) = udp.split_first_chunk::<UDP>()?;
    let from = u16::from_be_bytes([head[0], head[1]]);
    let to = u16::from_be_bytes([head[2], head[3]]);
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    if from != SERVER_PORT || to != CLIENT_PORT {
        return None;
    }
    udp.get(UDP..length)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    message_type: Option<u8>,
    server: Option<Ipv4Addr>,
    routers: Vec<IpAddr>,
    resolvers: Vec<IpAddr>,
}

impl Options {
    /// The options up to their end; none if one of them can't be right.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = bytes;
        loop {
            let (value, after) = match rest {
                [PAD, after @ ..] => {
                    rest = after;
                    continue;
                }
                [END, ..] | [] => return Some(options),
                [_, length, after @ ..] => after.split_at_checked(usize::from(*length))?,
                [_] => return None,
            };
            match rest[0] {
                MESSAGE_TYPE => {
                    options.message_type =
                        Some(*<&[u8; 1]>::try_from(value).ok()?).map(|[kind]| kind)
                }
                SERVER => options.server = Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
                ROUTER => options.routers.extend(addresses(value)?),
                RESOLVER => options.resolvers.extend(addresses(value)?),
                _ => {}
            }
            rest = after;
        }
    }
}

/// A list of addresses, at least one.
fn addresses(value: &[u8]) -> Option<Vec<IpAddr>> {
    let (whole, rest) = value.as_chunks::<4>();
    let right = !whole.is_empty() && rest.is_empty();
    right.then(|| whole.iter().map(|a| Ipv4Addr::from(*a).into()).collect())
}

/// Servers first look whether somebody uses the address (RFC 2131, 2.2): dnsmasq(8) waits three to
/// four seconds for an echo.
pub(super) const LISTENS: Duration = Duration::from_millis(4400);
const OFFERS: usize = 16;
const ETHERTYPE_IPV4: u16 = 0x0800;
const PROTOCOL_UDP: u8 = 17;
const UDP: usize = 8;
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Fixed fields and magic.
const FIXED: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
const ETHERNET: u8 = 1;
const PAD: u8 = 0;
const SUBNET: u8 = 1;
const ROUTER: u8 = 3;
const RESOLVER: u8 = 6;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const PARAMETERS: u8 = 55;
const END: u8 = 255;
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const NAK: u8 = 6;
/// UDP, not a later fragment, to port 68.
const TO_CLIENT: [SockFilter; 9] = [
    SockFilter::new(0x30, 0, 0, 23),
    SockFilter::new(0x15, 0, 6, 17),
    SockFilter::new(0x28, 0, 0, 20),
    SockFilter::new(0x45, 4, 0, 0x1fff),
    SockFilter::new(0xb1, 0, 0, 14),
    SockFilter::new(0x48, 0, 0, 16),
    SockFilter::new(0x15, 0, 1, 68),
    SockFilter::new(0x06, 0, 0, 0xffff),
    SockFilter::new(0x06, 0, 0, 0),
];

#[cfg(test)]
mod tests;
