//! Answers of ethtool netlink, read without trust.

use std::collections::BTreeMap;

use aizen_protocol::record::{Duplex, Ethernet};

use super::{mode, statistic};
use crate::collect::netlink::attribute::{Attribute, attributes, find, put};
use crate::collect::netlink::generic;

/// One `ETHTOOL_MSG_LINKMODES_GET_REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(super) link: u32,
    speed: Option<u32>,
    duplex: Option<Duplex>,
    autonegotiation: Option<bool>,
    supported: Option<u32>,
    advertised: Option<u32>,
    partner: Option<u32>,
}

impl Modes {
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (_, body) = generic::command(payload)?;
        let mut modes = Self {
            link: link(body, super::HEADER)?,
            ..Self::default()
        };
        for attribute in attributes(body) {
            match attribute.kind {
                // `AUTONEG_DISABLE` and `AUTONEG_ENABLE`.
                AUTONEG => modes.autonegotiation = attribute.u8().map(|on| on == 1),
                OURS => {
                    modes.supported = mode::fastest(bits(attribute, MASK));
                    modes.advertised = mode::fastest(bits(attribute, VALUE));
                }
                PEER => modes.partner = mode::fastest(bits(attribute, VALUE)),
                SPEED => {
                    modes.speed = attribute
                        .u32()
                        .filter(|&mbps| !matches!(mbps, 0 | SPEED_UNKNOWN));
                }
                DUPLEX => {
                    modes.duplex = match attribute.u8() {
                        Some(0) => Some(Duplex::Half),
                        Some(1) => Some(Duplex::Full),
                        _ => None,
                    }
                }
                _ => {}
            }
        }
        Some(modes)
    }

    pub(super) fn tell(self, port: &mut Ethernet) {
        port.speed_mbps = self.speed;
        port.duplex = self.duplex;
        port.autonegotiation = self.autonegotiation;
        port.supported_mbps = self.supported;
        port.advertised_mbps = self.advertised;
        port.partner_mbps = self.partner;
    }
}

/// One `ETHTOOL_MSG_LINKSTATE_GET_REPLY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(super) link: u32,
    pub(super) reason: Option<String>,
}

impl State {
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (_, body) = generic::command(payload)?;
        Some(Self {
            link: link(body, super::HEADER)?,
            reason: find(body, EXT_STATE)
                .and_then(Attribute::u8)
                .map(mode::reason),
        })
    }
}

/// One `ETHTOOL_MSG_STATS_GET_REPLY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statistics {
    pub(super) link: u32,
    pub(super) totals: BTreeMap<String, u64>,
}

impl Statistics {
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (_, body) = generic::command(payload)?;
        let mut totals = BTreeMap::new();
        for group in attributes(body).filter(|a| a.kind == GROUP) {
            let Some(id) = find(group.value, GROUP_ID).and_then(Attribute::u32) else {
                continue;
            };
            // Each total is an attribute of its own number in a nest of its own.
            let given = group.inner().filter(|a| a.kind == STATISTIC);
            for total in given.flat_map(Attribute::inner) {
                if let Some(name) = statistic::name(id, total.kind)
                    && let Some(value) = total.u64()
                {
                    totals.insert(name.to_owned(), value);
                }
            }
        }
        Some(Self {
            link: link(body, super::STATS_HEADER)?,
            totals,
        })
    }
}

/// Asks for every group of statistics that this program has names for.
pub(super) fn every_group() -> Vec<u8> {
    let mut set = Vec::new();
    put(&mut set, NOMASK, &[]);
    put(&mut set, SIZE, &4_u32.to_ne_bytes());
    put(&mut set, VALUE, &0b1111_u32.to_ne_bytes());
    set
}

fn link(body: &[u8], header: u16) -> Option<u32> {
    find(find(body, header)?.value, DEV_INDEX)?.u32()
}

/// The numbers of the bits that are set in a part of a compact bit set: words of 32 bits, the lowest first.
fn bits(set: Attribute<'_>, part: u16) -> impl Iterator<Item = usize> {
    let words = find(set.value, part).map_or(&[][..], |words| words.value);
    let words = words.chunks_exact(4).take(WORDS).enumerate();
    words.flat_map(|(n, word)| {
        let word = word
            .first_chunk()
            .map_or(0, |word| u32::from_ne_bytes(*word));
        (0..32)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| n * 32 + bit)
    })
}

const DEV_INDEX: u16 = 1;
const AUTONEG: u16 = 2;
const OURS: u16 = 3;
const PEER: u16 = 4;
const SPEED: u16 = 5;
const DUPLEX: u16 = 6;
const EXT_STATE: u16 = 5;
const GROUP: u16 = 4;
const GROUP_ID: u16 = 2;
const STATISTIC: u16 = 4;
const NOMASK: u16 = 1;
const SIZE: u16 = 2;
const VALUE: u16 = 4;
const MASK: u16 = 5;
const SPEED_UNKNOWN: u32 = u32::MAX;
/// 128 link modes are known at the time of writing; this is four times as many.
const WORDS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nest(given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    fn message(header: u16, given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![4, 1, 0, 0];
        let device = nest(&[(DEV_INDEX, &3_u32.to_ne_bytes()), (2, b"eth0\0")]);
        put(&mut bytes, header, &device);
        bytes.extend(nest(given));
        bytes
    }

    #[test]
    fn a_gigabit_port_on_a_fast_ethernet_partner_tells_all_three_limits() {
        // Own modes: 10 to 1000 Mb/s supported, of which up to 100 are advertised; the partner does up to 100.
        let ours = nest(&[
            (SIZE, &92_u32.to_ne_bytes()),
            (VALUE, &0b0000_1111_u32.to_ne_bytes()),
            (MASK, &0b0010_1111_u32.to_ne_bytes()),
        ]);
        let peer = nest(&[(NOMASK, &[]), (VALUE, &0b0100_1000_u32.to_ne_bytes())]);
        let modes = Modes::decode(&message(
            1,
            &[
                (AUTONEG, &[1]),
                (OURS, &ours),
                (PEER, &peer),
                (SPEED, &100_u32.to_ne_bytes()),
                (DUPLEX, &[0]),
            ],
        ));
        let expected = Modes {
            link: 3,
            speed: Some(100),
            duplex: Some(Duplex::Half),
            autonegotiation: Some(true),
            supported: Some(1000),
            advertised: Some(100),
            partner: Some(100),
        };
        assert_eq!(modes, Some(expected));
    }

    #[test]
    fn an_unknown_speed_and_duplex_are_none() {
        let modes = Modes::decode(&message(1, &[(SPEED, &[0xff; 4]), (DUPLEX, &[0xff])])).unwrap();
        assert_eq!((modes.speed, modes.duplex), (None, None));
    }

    #[test]
    fn a_port_without_a_cable_says_so() {
        let state = State::decode(&message(1, &[(2, &[0]), (EXT_STATE, &[4])])).unwrap();
        assert_eq!(state.reason.as_deref(), Some("no cable"));
        assert_eq!(
            State::decode(&message(1, &[(2, &[1])])).unwrap().reason,
            None
        );
    }

    #[test]
    fn late_collisions_and_checksum_errors_have_the_names_of_the_standard() {
        let late = nest(&[(8, &7_u64.to_ne_bytes())]);
        let fcs = nest(&[(4, &9_u64.to_ne_bytes())]);
        let unknown = nest(&[(99, &1_u64.to_ne_bytes())]);
        let mac = nest(&[
            (GROUP_ID, &1_u32.to_ne_bytes()),
            (STATISTIC, &late),
            (STATISTIC, &fcs),
            (STATISTIC, &unknown),
        ]);
        let told = Statistics::decode(&message(2, &[(GROUP, &mac)])).unwrap();
        let totals: Vec<_> = told.totals.into_iter().collect();
        assert_eq!(
            totals,
            [
                ("FrameCheckSequenceErrors".to_owned(), 9),
                ("LateCollisions".to_owned(), 7)
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop((Modes::decode(&bytes), State::decode(&bytes), Statistics::decode(&bytes)));
        }

        #[test]
        fn any_cut_of_an_answer_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u16..8, cut in 0_usize..220) {
            let mut bytes = message(1, &[(kind, &body)]);
            bytes.truncate(cut);
            drop((Modes::decode(&bytes), State::decode(&bytes), Statistics::decode(&bytes)));
        }
    }
}
