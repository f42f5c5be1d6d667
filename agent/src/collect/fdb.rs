//! Forwarding databases of bridges: which address is behind which port, and which addresses wander (bridge(8)).

use std::collections::{BTreeMap, BTreeSet};

use aizen_protocol::limit;
use aizen_protocol::private::Mac;
use aizen_protocol::record::{Fdb, FdbEntry, FdbMoves, Link};

use super::netlink::attribute::{attributes, u32_at};
use super::netlink::ear::Ear;
use super::netlink::{self, Question};
use super::{CollectError, Seen};

/// Where each address was last, and the notices since.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    ear: Option<Ear>,
    places: BTreeMap<Place, u32>,
}

/// A hardware address in one VLAN of one bridge: the same address elsewhere is another matter.
type Place = (Option<u32>, Option<u16>, Mac);

/// The databases of the bridges among `links`. Moves are counted from the kernel's notices and from the round before:
/// at least so many, as the kernel keeps a bounded number of notices.
pub(crate) async fn collect(
    links: &[Link],
    memory: &mut Memory,
) -> Result<Seen<Fdb>, CollectError> {
    if !links
        .iter()
        .any(|link| link.driver_kind.as_deref() == Some("bridge"))
    {
        *memory = Memory::default();
        return Ok(Seen {
            value: Fdb::default(),
            gaps: Vec::new(),
        });
    }
    let mut moves = BTreeMap::new();
    memory.hear(&mut moves)?;
    let mut body = vec![0; HEADER];
    body[0] = AF_BRIDGE;
    let question = Question::route(RTM_GETNEIGH, body);
    let decode = |part: &netlink::Part<'_>| decode(part.payload);
    let dump = netlink::dump_parts(&question, decode, |_| false).await?;
    let all = dump.items.len() + dump.beyond;
    memory.compare(&dump.items, dump.beyond == 0, &mut moves);
    let seen = dump.seen("forwarding entries");
    Ok(Seen {
        value: Fdb {
            entries: seen.value,
            total: u32::try_from(all).unwrap_or(u32::MAX),
            moves: busiest(moves),
        },
        gaps: seen.gaps,
    })
}

impl Memory {
    /// Counts the moves that the kernel told of since the last call; the first call subscribes.
    fn hear(&mut self, moves: &mut BTreeMap<Mac, FdbMoves>) -> Result<(), CollectError> {
        let Some(ear) = self.ear.take() else {
            self.ear = Some(Ear::route(&[RTNLGRP_NEIGH])?);
            return Ok(());
        };
        ear.hear(|part| {
            if part.header.message_type == RTM_NEWNEIGH {
                for entry in decode(part.payload).into_iter().flatten() {
                    self.saw(&entry, moves);
                }
            }
        })?;
        self.ear = Some(ear);
        Ok(())
    }

    fn compare(&mut self, entries: &[FdbEntry], whole: bool, moves: &mut BTreeMap<Mac, FdbMoves>) {
        for entry in entries {
            self.saw(entry, moves);
        }
        // What aged out may come back anywhere.
        if whole {
            let there: BTreeSet<Place> = entries.iter().map(place).collect();
            self.places.retain(|place, _| there.contains(place));
        }
    }

    fn saw(&mut self, entry: &FdbEntry, moves: &mut BTreeMap<Mac, FdbMoves>) {
        let place = place(entry);
        if entry.own || self.places.len() >= limit::OBJECTS && !self.places.contains_key(&place) {
            return;
        }
        let before = self.places.insert(place, entry.link);
        let Some(before) = before.filter(|before| *before != entry.link) else {
            return;
        };
        let known = moves.entry(entry.mac).or_insert_with(|| FdbMoves {
            mac: entry.mac,
            links: Vec::new(),
            moves: 0,
        });
        known.moves = known.moves.saturating_add(1);
        for link in [before, entry.link] {
            if !known.links.contains(&link) {
                known.links.push(link);
            }
        }
    }
}

fn place(entry: &FdbEntry) -> Place {
    (entry.bridge, entry.vlan, entry.mac)
}

/// A flood of invented addresses must not hide the one that a loop throws about.
fn busiest(moves: BTreeMap<Mac, FdbMoves>) -> Vec<FdbMoves> {
    let mut moves: Vec<_> = moves.into_values().collect();
    moves.sort_by_key(|known| std::cmp::Reverse(known.moves));
    moves.truncate(MOST_MOVES);
    moves
}

/// Reads one `RTM_NEWNEIGH`: `struct ndmsg` and attributes. None if it can't be right; no entry for what belongs to no
/// bridge (filters of network cards, tunnels) and for groups.
pub(crate) fn decode(message: &[u8]) -> Option<Option<FdbEntry>> {
    let body = message.get(HEADER..)?;
    let state = u16::from_ne_bytes([*message.get(8)?, *message.get(9)?]);
    if message.first() != Some(&AF_BRIDGE) {
        return Some(None);
    }
    let link = u32_at(message, 4)?;
    let (mut mac, mut vlan, mut bridge) = (None, None, None);
    for attribute in attributes(body) {
        match attribute.kind {
            NDA_LLADDR => mac = attribute.mac(),
            NDA_VLAN => vlan = attribute.u16(),
            NDA_MASTER => bridge = attribute.u32(),
            _ => {}
        }
    }
    let entry = mac.filter(|mac| bridge.is_some() && mac.0[0] & 1 == 0);
    Some(entry.map(|mac| FdbEntry {
        link,
        mac,
        vlan,
        bridge,
        own: state & NUD_PERMANENT != 0,
    }))
}

const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const RTNLGRP_NEIGH: u32 = 3;
/// `struct ndmsg`: family, padding, index, state, flags, type.
const HEADER: usize = 12;
const AF_BRIDGE: u8 = 7;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const NUD_PERMANENT: u16 = 0x80;
const MOST_MOVES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(mac: u8, link: u32, vlan: Option<u16>) -> FdbEntry {
        FdbEntry {
            link,
            mac: Mac([2, 0, 0, 0, 0, mac]),
            vlan,
            bridge: Some(9),
            own: false,
        }
    }

    #[test]
    fn an_address_that_changed_its_port_since_the_round_before_moved_once() {
        let mut memory = Memory::default();
        let mut moves = BTreeMap::new();
        memory.compare(&[entry(1, 3, None), entry(2, 3, None)], true, &mut moves);
        assert!(moves.is_empty());
        memory.compare(&[entry(1, 4, None), entry(2, 3, None)], true, &mut moves);
        let expected = FdbMoves {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            links: vec![3, 4],
            moves: 1,
        };
        assert_eq!(busiest(moves), [expected]);
    }

    #[test]
    fn the_same_address_in_two_vlans_does_not_move() {
        let mut memory = Memory::default();
        let mut moves = BTreeMap::new();
        let both = [entry(1, 3, Some(1)), entry(1, 4, Some(2))];
        memory.compare(&both, true, &mut moves);
        memory.compare(&both, true, &mut moves);
        assert!(moves.is_empty());
    }

    #[test]
    fn an_address_that_was_gone_for_a_round_comes_back_without_a_move() {
        let mut memory = Memory::default();
        let mut moves = BTreeMap::new();
        memory.compare(&[entry(1, 3, None)], true, &mut moves);
        memory.compare(&[], true, &mut moves);
        memory.compare(&[entry(1, 4, None)], true, &mut moves);
        assert!(moves.is_empty());
    }

    #[test]
    fn a_flood_of_addresses_stays_bounded() {
        let mut memory = Memory::default();
        let mut moves = BTreeMap::new();
        for link in [1, 2] {
            for n in 0..20_000_u32 {
                let [_, a, b, c] = n.to_be_bytes();
                let flooded = FdbEntry {
                    mac: Mac([2, 1, 0, a, b, c]),
                    ..entry(0, link, None)
                };
                memory.saw(&flooded, &mut moves);
            }
        }
        assert_eq!(memory.places.len(), limit::OBJECTS);
        assert_eq!(busiest(moves).len(), MOST_MOVES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(family) = bytes.first_mut() {
                *family = AF_BRIDGE;
            }
            let entry = decode(&bytes).flatten();
            prop_assert!(entry.is_none_or(|e| e.bridge.is_some() && e.mac.0[0] & 1 == 0));
        }
    }
}
