//! The packet that gave a lease, as dhcpcd keeps it (RFC 2131, RFC 2132).

use std::net::{IpAddr, Ipv4Addr};

/// What is read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(super) address: Ipv4Addr,
    pub(super) server: Option<IpAddr>,
    pub(super) routers: Vec<IpAddr>,
    pub(super) resolvers: Vec<IpAddr>,
    /// Seconds.
    pub(super) life: Option<u32>,
}

/// Reads a packet; none if it is none.
pub(crate) fn read(packet: &[u8]) -> Option<Given> {
    let is_reply = packet.first() == Some(&BOOTREPLY);
    let has_cookie = packet.get(COOKIE..OPTIONS)? == [99, 130, 83, 99];
    let address = Ipv4Addr::from(*packet.get(YIADDR..)?.first_chunk::<4>()?);
    if !is_reply || !has_cookie || address.is_unspecified() {
        return None;
    }
    let mut given = Given {
        address,
        server: None,
        routers: Vec::new(),
        resolvers: Vec::new(),
        life: None,
    };
    for (code, value) in options(packet.get(OPTIONS..)?) {
        match code {
            3 => given.routers = addresses(value),
            6 => given.resolvers = addresses(value),
            51 => given.life = value.first_chunk().map(|b| u32::from_be_bytes(*b)),
            54 => given.server = addresses(value).first().copied(),
            _ => {}
        }
    }
    Some(given)
}

fn options(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (code, behind) = rest.split_first()?;
            match code {
                // Padding, and the end.
                0 => rest = behind,
                255 => return None,
                _ => {
                    let (length, behind) = behind.split_first()?;
                    let (value, behind) = behind.split_at_checked(usize::from(*length))?;
                    rest = behind;
                    return Some((*code, value));
                }
            }
        }
    })
}

fn addresses(value: &[u8]) -> Vec<IpAddr> {
    value
        .chunks_exact(4)
        .filter_map(|four| Some(Ipv4Addr::from(*four.first_chunk::<4>()?).into()))
        .take(super::lease::MAX_ADDRESSES)
        .collect()
}

const BOOTREPLY: u8 = 2;
const YIADDR: usize = 16;
const COOKIE: usize = 236;
const OPTIONS: usize = 240;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An acknowledgement of 192.0.2.7 for an hour.
    pub(in crate::collect::dhcp) fn acknowledgement() -> Vec<u8> {
        let mut packet = vec![0; OPTIONS];
        packet[0] = BOOTREPLY;
        packet[YIADDR..YIADDR + 4].copy_from_slice(&[192, 0, 2, 7]);
        packet[COOKIE..].copy_from_slice(&[99, 130, 83, 99]);
        packet.extend([53, 1, 5, 0, 51, 4, 0, 0, 14, 16, 54, 4, 192, 0, 2, 1]);
        packet.extend([3, 4, 192, 0, 2, 1, 6, 8, 192, 0, 2, 2, 192, 0, 2, 3, 255]);
        packet
    }

    #[test]
    fn an_acknowledgement_is_read() {
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        let want = Given {
            address: Ipv4Addr::new(192, 0, 2, 7),
            server: Some(ip(1)),
            routers: vec![ip(1)],
            resolvers: vec![ip(2), ip(3)],
            life: Some(3600),
        };
        assert_eq!(read(&acknowledgement()), Some(want));
    }

    proptest! {
        #[test]
        fn any_bytes_and_any_cut_are_read_without_panic(
            tail in prop::collection::vec(any::<u8>(), 0..400),
            cut in any::<prop::sample::Index>(),
        ) {
            drop(read(&tail));
            let mut packet = acknowledgement();
            packet.truncate(OPTIONS);
            packet.extend(tail);
            prop_assert!(read(&packet).is_some());
            drop(read(&packet[..cut.index(packet.len())]));
        }
    }
}
