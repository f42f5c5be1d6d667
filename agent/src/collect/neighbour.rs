//! Neighbour entries: who answered ARP or neighbour solicitation, and who didn't.

use aizen_protocol::private::Mac;
use aizen_protocol::record::{Neighbour, NeighbourState};

use super::netlink::attribute::{attributes, u32_at};
use super::netlink::{self, Question};
use super::{CollectError, Seen};

/// The IPv4 and IPv6 neighbours of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Neighbour>>, CollectError> {
    let question = Question::route(RTM_GETNEIGH, vec![0; HEADER]);
    let dump = netlink::dump_parts(
        &question,
        |part| decode(part.payload),
        |neighbour: &Neighbour| neighbour.state == NeighbourState::Failed,
    )
    .await?;
    Ok(dump.seen("neighbours"))
}

/// Reads one `RTM_NEWNEIGH`: `struct ndmsg` and attributes. None if it can't be right; no neighbour for what says
/// nothing about anybody.
pub(crate) fn decode(message: &[u8]) -> Option<Option<Neighbour>> {
    let (mut address, mut mac, mut confirmed) = (None, None, None);
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            NDA_DST => address = attribute.ip(),
            NDA_LLADDR => mac = attribute.mac(),
            // `ndm_confirmed` of `struct nda_cacheinfo`.
            NDA_CACHEINFO => confirmed = attribute.u32(),
            _ => {}
        }
    }
    let Some(address) = address else {
        return Some(None);
    };
    let state = state(u16::from_ne_bytes([*message.get(8)?, *message.get(9)?]));
    // The kernel's own entries for groups and for `lo` say nothing about anybody.
    if state == NeighbourState::Noarp
        && (address.is_multicast() || address.is_loopback() || mac.is_none_or(is_zero))
    {
        return Some(None);
    }
    Some(Some(Neighbour {
        link: u32_at(message, 4)?,
        address,
        mac,
        state,
        router: message.get(10)? & NTF_ROUTER != 0,
        // An entry that never answered carries a time all the same.
        confirmed_ms: confirmed
            .filter(|_| mac.is_some() && state != NeighbourState::Permanent)
            .map(|ticks| u64::from(ticks) * 1000 / USER_HZ),
    }))
}

fn is_zero(mac: Mac) -> bool {
    mac.0 == [0; 6]
}

/// `NUD_*` (linux/neighbour.h).
fn state(state: u16) -> NeighbourState {
    match state {
        0x01 => NeighbourState::Incomplete,
        0x02 => NeighbourState::Reachable,
        0x04 => NeighbourState::Stale,
        0x08 => NeighbourState::Delay,
        0x10 => NeighbourState::Probe,
        0x20 => NeighbourState::Failed,
        0x40 => NeighbourState::Noarp,
        0x80 => NeighbourState::Permanent,
        _ => NeighbourState::None,
    }
}

const RTM_GETNEIGH: u16 = 30;
/// `struct ndmsg`: family, padding, index, state, flags, type.
const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_CACHEINFO: u16 = 3;
const NTF_ROUTER: u8 = 0x80;
/// Ticks a second of times that the kernel tells programs (`USER_HZ`): 100 wherever this program runs.
const USER_HZ: u64 = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    fn message(address: [u8; 4], state: u16, flags: u8, given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([flags, 0]);
        put(&mut bytes, NDA_DST, &address);
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    #[test]
    fn a_failed_neighbour_has_no_mac() {
        let failed = message([192, 0, 2, 1], 0x20, 0, &[]);
        let neighbour = decode(&failed).unwrap().unwrap();
        assert_eq!(
            (neighbour.link, neighbour.state, neighbour.mac),
            (7, NeighbourState::Failed, None)
        );
    }

    #[test]
    fn a_router_says_so_and_its_last_sign_of_life_is_told_in_milliseconds() {
        let mut cache = [0; 16];
        cache[..4].copy_from_slice(&150_u32.to_ne_bytes());
        let given: [(u16, &[u8]); 2] = [(NDA_LLADDR, &[2, 0, 0, 0, 0, 1]), (NDA_CACHEINFO, &cache)];
        let router = message([192, 0, 2, 1], 0x04, NTF_ROUTER, &given);
        let neighbour = decode(&router).unwrap().unwrap();
        assert_eq!(
            (neighbour.router, neighbour.confirmed_ms),
            (true, Some(1500))
        );
    }

    #[test]
    fn entries_for_groups_are_passed_over() {
        assert_eq!(decode(&message([224, 0, 0, 22], 0x40, 0, &[])), Some(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_neighbour_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            decode(&bytes);
        }
    }
}
