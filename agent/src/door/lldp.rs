//! What the other ends of a cable say of themselves (IEEE 802.1AB). Nothing is sent.
//!
//! Stations speak every 30 s: who listens shorter hears some of them.

use std::time::Duration;

use aizen_protocol::private::{Mac, Name, Text};
use aizen_protocol::record::{Body, Lldp};
use tokio::time::{Instant, timeout_at};

use super::attribute::text;
use super::wire::{LONGEST, Port, payload};
use super::{DoorError, Seen};

/// Listens on `dev` for so long, at most [`LONGEST_WAIT`].
pub(super) async fn see(dev: &str, wait: Duration) -> Result<Seen, DoorError> {
    let port = Port::of(dev)?;
    let until = Instant::now() + wait.min(LONGEST_WAIT);
    let wire = port.open(ETHERTYPE_LLDP, &[], &GROUPS)?;
    let mut neighbours: Vec<Lldp> = Vec::new();
    let mut buffer = [0; LONGEST];
    while let Ok(heard) = timeout_at(until, wire.hear(&mut buffer)).await {
        let Some(told) =
            payload(heard?, ETHERTYPE_LLDP).and_then(|(_, data)| decode(data, port.index))
        else {
            continue;
        };
        let same =
            |known: &Lldp| (&known.chassis, &known.port) == (&told.said.chassis, &told.said.port);
        neighbours.retain(|known| !same(known));
        if !told.leaves && neighbours.len() < NEIGHBOURS {
            neighbours.push(told.said);
        }
    }
    Ok(Seen {
        body: Body::Lldp(neighbours),
        gaps: Vec::new(),
    })
}

/// One announcement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    said: Lldp,
    /// A time to live of zero: the station says good-bye (9.2.7.7.3).
    leaves: bool,
}

/// The TLVs of one frame. Chassis, port and time to live come first and in this order (8.2), or it is none.
pub(crate) fn decode(data: &[u8], link: u32) -> Option<Told> {
    let mut tlvs = Tlvs(data);
    let (CHASSIS, chassis) = tlvs.next()? else {
        return None;
    };
    let (PORT, port) = tlvs.next()? else {
        return None;
    };
    let (TIME_TO_LIVE, time_to_live) = tlvs.next()? else {
        return None;
    };
    let mut told = Told {
        said: Lldp {
            link,
            chassis: Text(identifier(chassis, CHASSIS_MAC, CHASSIS_ADDRESS)?),
            port: Text(identifier(port, PORT_MAC, PORT_ADDRESS)?),
            system: None,
            pvid: None,
            vlans: Vec::new(),
            mtu: None,
        },
        leaves: *time_to_live.first_chunk::<2>()? == [0, 0],
    };
    for (kind, value) in tlvs {
        match (kind, value) {
            (END, _) => break,
            (SYSTEM_NAME, _) => {
                told.said.system = Some(Name(text(value))).filter(|n| !n.0.is_empty())
            }
            (ORGANISATION, [0x00, 0x80, 0xc2, subtype, rest @ ..]) => {
                vlan(*subtype, rest, &mut told.said)
            }
            // Of 802.3 the largest frame, header and check sequence included.
            (ORGANISATION, [0x00, 0x12, 0x0f, 4, a, b]) => {
                told.said.mtu = Some(u16::from_be_bytes([*a, *b]));
            }
            _ => {}
        }
    }
    Some(told)
}

/// TLVs of 802.1 (annex D).
fn vlan(subtype: u8, value: &[u8], said: &mut Lldp) {
    match (subtype, value) {
        // Zero says that the port has none.
        (1, [a, b]) => said.pvid = Some(u16::from_be_bytes([*a, *b])).filter(|id| is_vlan(*id)),
        (3, [a, b, length, name @ ..]) if name.len() >= usize::from(*length) => {
            let id = u16::from_be_bytes([*a, *b]);
            if is_vlan(id) && !said.vlans.contains(&id) && said.vlans.len() < VLANS {
                said.vlans.push(id);
            }
        }
        _ => {}
    }
}

fn is_vlan(id: u16) -> bool {
    (1..=4094).contains(&id)
}

/// Chassis and port identifiers: a subtype, then a MAC address, a network address or a text.
fn identifier(value: &[u8], mac: u8, address: u8) -> Option<String> {
    let (subtype, value) = value.split_first()?;
    if value.is_empty() {
        return None;
    }
    if *subtype == mac {
        return <[u8; 6]>::try_from(value)
            .ok()
            .map(|bytes| Mac(bytes).to_string());
    }
    if *subtype == address {
        return match value {
            [1, v4 @ ..] => <[u8; 4]>::try_from(v4)
                .ok()
                .map(|a| std::net::Ipv4Addr::from(a).to_string()),
            [2, v6 @ ..] => <[u8; 16]>::try_from(v6)
                .ok()
                .map(|a| std::net::Ipv6Addr::from(a).to_string()),
            _ => None,
        };
    }
    Some(text(value))
}

/// Type of 7 bits, length of 9.
struct Tlvs<'a>(&'a [u8]);

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        let head = u16::from_be_bytes(*head);
        let (value, after) = rest.split_at_checked(usize::from(head & 0x1ff))?;
        self.0 = after;
        Some((u8::try_from(head >> 9).ok()?, value))
    }
}

/// One announcement period and a second.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(31);
const NEIGHBOURS: usize = 16;
const VLANS: usize = 256;
const ETHERTYPE_LLDP: u16 = 0x88cc;
/// Nearest bridge, nearest non-TPMR bridge, nearest customer bridge (7.1).
const GROUPS: [Mac; 3] = [
    Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]),
    Mac([0x01, 0x80, 0xc2, 0, 0, 0x03]),
    Mac([0x01, 0x80, 0xc2, 0, 0, 0x00]),
];
const END: u8 = 0;
const CHASSIS: u8 = 1;
const PORT: u8 = 2;
const TIME_TO_LIVE: u8 = 3;
const SYSTEM_NAME: u8 = 5;
const ORGANISATION: u8 = 127;
const CHASSIS_MAC: u8 = 4;
const CHASSIS_ADDRESS: u8 = 5;
const PORT_MAC: u8 = 3;
const PORT_ADDRESS: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        let head = u16::from(kind) << 9 | length;
        [&head.to_be_bytes()[..], value].concat()
    }

    fn announcement(more: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = tlv(CHASSIS, &[CHASSIS_MAC, 2, 0, 0, 0, 0, 5]);
        bytes.extend(tlv(PORT, b"\x05ge-0/0/7"));
        bytes.extend(tlv(TIME_TO_LIVE, &[0, 120]));
        bytes.extend(more.concat());
        bytes.extend(tlv(END, &[]));
        bytes
    }

    #[test]
    fn a_switch_says_who_it_is_and_what_its_port_carries() {
        let told = decode(
            &announcement(&[
                tlv(SYSTEM_NAME, b"switch-1"),
                tlv(ORGANISATION, &[0, 0x80, 0xc2, 1, 0, 20]),
                tlv(
                    ORGANISATION,
                    &[0, 0x80, 0xc2, 3, 0, 30, 3, b'l', b'a', b'n'],
                ),
                tlv(ORGANISATION, &[0, 0x12, 0x0f, 4, 0x05, 0xf2]),
            ]),
            9,
        )
        .unwrap();
        assert_eq!(told.said.chassis.0, "02:00:00:00:00:05");
        assert_eq!(told.said.port.0, "ge-0/0/7");
        assert_eq!(told.said.system.unwrap().0, "switch-1");
        assert_eq!((told.said.pvid, told.said.vlans), (Some(20), vec![30]));
        assert_eq!(
            (told.said.mtu, told.said.link, told.leaves),
            (Some(1522), 9, false)
        );
    }

    #[test]
    fn a_port_without_untagged_vlan_has_none() {
        let none = [tlv(ORGANISATION, &[0, 0x80, 0xc2, 1, 0, 0])];
        assert_eq!(decode(&announcement(&none), 9).unwrap().said.pvid, None);
    }

    #[test]
    fn an_announcement_that_does_not_begin_as_it_must_is_none() {
        let whole = announcement(&[]);
        assert_eq!(decode(&whole[9..], 9), None);
        assert_eq!(decode(&tlv(CHASSIS, &[CHASSIS_MAC, 1, 2]), 9), None);
        let mut short_mac = tlv(CHASSIS, &[CHASSIS_MAC, 1, 2]);
        short_mac.extend(&whole[9..]);
        assert_eq!(decode(&short_mac, 9), None);
    }

    #[test]
    fn a_station_that_says_good_bye_leaves() {
        let mut whole = announcement(&[]);
        let place = whole.len() - 3;
        whole[place] = 0;
        assert!(decode(&whole, 9).unwrap().leaves);
    }

    proptest! {
        #[test]
        fn any_frame_is_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decode(&bytes, 1);
            if let Some(told) = decode(&announcement(&[bytes]), 1) {
                prop_assert!(told.said.vlans.len() <= VLANS);
            }
        }
    }
}
