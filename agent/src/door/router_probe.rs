//! Who says to be an IPv6 router on a link: one solicitation, and the advertisements that come (RFC 4861, RFC 8106).
//!
//! Whole frames instead of an ICMPv6 socket: an advertisement that a packet filter drops is on the wire all the same.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aizen_protocol::private::{Mac, Prefix};
use aizen_protocol::record::{Advertisement, Body, RouterProbe};
use socket2::SockFilter;
use tokio::time::{Instant, timeout_at};

use super::wire::{LONGEST, Port, checksum, frame, payload};
use super::{DoorError, Seen};

/// Asks on `dev`, and listens.
pub(super) async fn see(dev: &str) -> Result<Seen, DoorError> {
    let port = Port::of(dev)?;
    let until = Instant::now() + LISTENS;
    let wire = port.open(ETHERTYPE_IPV6, &ADVERTISED, &[ALL_NODES])?;
    wire.send(&solicitation(port.mac, port.link_local))?;
    let mut probe = RouterProbe {
        link: port.index,
        advertisements: Vec::new(),
    };
    let mut buffer = [0; LONGEST];
    while let Ok(heard) = timeout_at(until, wire.hear(&mut buffer)).await {
        let Some(told) = advertisement(heard?) else {
            continue;
        };
        // What a router said last holds.
        let known = &mut probe.advertisements;
        known.retain(|known| known.router != told.router);
        if known.len() < ROUTERS {
            known.push(told);
        }
    }
    Ok(Seen {
        body: Body::RouterProbes(vec![probe]),
        gaps: Vec::new(),
    })
}

/// A router solicitation (4.1). A link without an address of its own asks from the unspecified one, and then must not
/// name its hardware address.
fn solicitation(mac: Mac, from: Option<Ipv6Addr>) -> Vec<u8> {
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let mut message = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    if from.is_some() {
        message.extend([SOURCE_LINK_LAYER, 1]);
        message.extend(mac.0);
    }
    let from = from.unwrap_or(Ipv6Addr::UNSPECIFIED);
    let sum = icmp_checksum(from, to, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(
        u16::try_from(message.len())
            .unwrap_or_default()
            .to_be_bytes(),
    );
    packet.extend([ICMPV6, HOPS]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(message);
    frame(ALL_ROUTERS, mac, ETHERTYPE_IPV6, &packet)
}

/// Zero for a message that carries the right one.
pub(crate) fn icmp_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len())
        .unwrap_or_default()
        .to_be_bytes();
    checksum(&[
        &from.octets(),
        &to.octets(),
        &length,
        &[0, 0, 0, ICMPV6],
        message,
    ])
}

/// An advertisement that passes the checks of 6.1.2.
pub(crate) fn advertisement(bytes: &[u8]) -> Option<Advertisement> {
    let (_, packet) = payload(bytes, ETHERTYPE_IPV6)?;
    let (head, rest) = packet.split_first_chunk::<40>()?;
    let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let message = rest.get(..length)?;
    let router = Ipv6Addr::from(*head[8..24].first_chunk()?);
    let to = Ipv6Addr::from(*head[24..40].first_chunk()?);
    let from_this_link = head[7] == HOPS && router.is_unicast_link_local();
    if head[0] >> 4 != 6 || head[6] != ICMPV6 || !from_this_link {
        return None;
    }
    let (fixed, options) = message.split_first_chunk::<16>()?;
    if fixed[..2] != [ROUTER_ADVERTISEMENT, 0] || icmp_checksum(router, to, message) != 0 {
        return None;
    }
    let mut told = Advertisement {
        router: router.into(),
        lifetime_s: u16::from_be_bytes([fixed[6], fixed[7]]),
        mtu: None,
        prefixes: Vec::new(),
        resolvers: Vec::new(),
        managed: fixed[5] & 0x80 != 0,
    };
    read_options(options, &mut told)?;
    Some(told)
}

/// Reads the options; none if one of them has no length or reaches beyond the end, as then all is to be discarded.
fn read_options(options: &[u8], told: &mut Advertisement) -> Option<()> {
    let mut rest = options;
    while let [kind, units, ..] = rest {
        let (option, after) = rest.split_at_checked(usize::from(*units) * 8)?;
        match (*kind, option) {
            (_, []) => return None,
            (PREFIX, _) => told.prefixes.extend(prefix(option)),
            (MTU, [_, 1, _, _, a, b, c, d]) => {
                told.mtu = Some(u32::from_be_bytes([*a, *b, *c, *d]))
            }
            // A lifetime of zero takes the servers back.
            (RESOLVERS, [_, _, _, _, 0, 0, 0, 0, ..]) => {}
            (RESOLVERS, [_, _, _, _, _, _, _, _, addresses @ ..]) => {
                let (addresses, _) = addresses.as_chunks::<16>();
                let addresses = addresses.iter().map(|a| IpAddr::V6(Ipv6Addr::from(*a)));
                told.resolvers.extend(addresses);
            }
            _ => {}
        }
        rest = after;
    }
    // One byte is left over, which is no option.
    rest.is_empty().then_some(())
}

/// A prefix that hosts may make addresses of (4.6.2).
fn prefix(option: &[u8]) -> Option<Prefix> {
    let option: &[u8; 32] = option.try_into().ok()?;
    let (length, autonomous) = (option[2], option[3] & 0x40 != 0);
    let lives = option[4..8] != [0; 4];
    let address = Ipv6Addr::from(*option[16..].first_chunk()?);
    (autonomous && lives && length <= 128).then(|| Prefix {
        address: address.into(),
        length,
    })
}

/// Routers wait up to half a second, and may answer only every 3 s.
pub(super) const LISTENS: Duration = Duration::from_millis(3200);
const ROUTERS: usize = 16;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const HOPS: u8 = 255;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RESOLVERS: u8 = 25;
const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const ALL_ROUTERS: Mac = Mac([0x33, 0x33, 0, 0, 0, 2]);
/// ICMPv6 without extension headers, of the type of an advertisement.
const ADVERTISED: [SockFilter; 6] = [
    SockFilter::new(0x30, 0, 0, 20),
    SockFilter::new(0x15, 0, 3, 58),
    SockFilter::new(0x30, 0, 0, 54),
    SockFilter::new(0x15, 0, 1, 134),
    SockFilter::new(0x06, 0, 0, 0xffff),
    SockFilter::new(0x06, 0, 0, 0),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn router() -> Ipv6Addr {
        "fe80::1".parse().unwrap()
    }

    fn frame_of(from: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mut message = vec![
            ROUTER_ADVERTISEMENT,
            0,
            0,
            0,
            64,
            0x80,
            7,
            8,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        message.extend(options);
        let sum = icmp_checksum(from, to, &message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        packet.extend([ICMPV6, HOPS]);
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(message);
        frame(ALL_NODES, MAC, ETHERTYPE_IPV6, &packet)
    }

    fn options() -> Vec<u8> {
        let network: Ipv6Addr = "2001:db8:1::".parse().unwrap();
        let server: Ipv6Addr = "2001:db8:1::53".parse().unwrap();
        let mut options = vec![PREFIX, 4, 64, 0xc0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        options.extend(network.octets());
        options.extend([MTU, 1, 0, 0, 0, 0, 5, 0xd4]);
        options.extend([RESOLVERS, 3, 0, 0, 0, 0, 0, 60]);
        options.extend(server.octets());
        options.extend([SOURCE_LINK_LAYER, 1, 2, 0, 0, 0, 0, 1]);
        options
    }

    #[test]
    fn an_advertisement_is_read_with_its_options() {
        let told = advertisement(&frame_of(router(), &options())).unwrap();
        assert_eq!(
            (told.router, told.lifetime_s, told.managed),
            (router().into(), 0x0708, true)
        );
        assert_eq!((told.mtu, told.prefixes.len()), (Some(1492), 1));
        assert_eq!(told.prefixes[0], "2001:db8:1::/64".parse().unwrap());
        assert_eq!(
            told.resolvers,
            ["2001:db8:1::53".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn what_comes_from_beyond_the_link_or_is_damaged_is_no_advertisement() {
        let whole = frame_of(router(), &options());
        assert_eq!(
            advertisement(&frame_of("2001:db8::1".parse().unwrap(), &[])),
            None
        );
        let mut far = whole.clone();
        far[14 + 7] = 64;
        assert_eq!(advertisement(&far), None);
        let mut damaged = whole;
        damaged[14 + 40 + 7] ^= 1;
        assert_eq!(advertisement(&damaged), None);
        assert_eq!(
            advertisement(&frame_of(router(), &[PREFIX, 0, 0, 0, 0, 0, 0, 0])),
            None
        );
        assert_eq!(
            advertisement(&frame_of(router(), &[MTU, 4, 0, 0, 0, 0, 0, 0])),
            None
        );
    }

    #[test]
    fn a_prefix_that_makes_no_addresses_or_is_taken_back_is_left_out() {
        for (flags, valid) in [(0x80, 1), (0xc0, 0)] {
            let mut options = options();
            (options[3], options[6]) = (flags, valid);
            let told = advertisement(&frame_of(router(), &options)).unwrap();
            assert_eq!(told.prefixes, []);
        }
    }

    #[test]
    fn a_solicitation_checks_out_and_names_its_sender_only_if_it_has_an_address() {
        for (from, length) in [(Some(router()), 16), (None, 8)] {
            let question = solicitation(MAC, from);
            let message = &question[54..54 + length];
            let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
            assert_eq!(
                icmp_checksum(from.unwrap_or(Ipv6Addr::UNSPECIFIED), to, message),
                0
            );
            assert_eq!(usize::from(question[19]), length);
            assert_eq!(advertisement(&question), None);
        }
    }

    proptest! {
        #[test]
        fn any_frame_and_any_options_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            advertisement(&bytes);
            if let Some(told) = advertisement(&frame_of(router(), &bytes)) {
                prop_assert!(told.resolvers.len() * 16 <= bytes.len());
            }
        }

        #[test]
        fn a_truncated_advertisement_is_none(cut in 0_usize..140) {
            let whole = frame_of(router(), &options());
            prop_assert_eq!(advertisement(&whole[..cut.min(whole.len() - 1)]), None);
        }
    }
}
