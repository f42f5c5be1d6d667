//! How full the neighbour tables are (arp(7), linux/neighbour.h).

use aizen_protocol::record::NeighbourTable;

use super::netlink::attribute::{attributes, u32_at, u64_at};
use super::netlink::{self, Part, Question};
use super::{CollectError, Seen};

/// The tables of both families. Each begins with a message of its own; behind it stand as many as there are interfaces,
/// which nobody reads.
pub(crate) async fn collect() -> Result<Seen<Vec<NeighbourTable>>, CollectError> {
    let mut seen = Seen {
        value: Vec::new(),
        gaps: Vec::new(),
    };
    for family in [AF_INET, AF_INET6] {
        let mut body = vec![0; HEADER];
        body[0] = family;
        let question = Question::route(RTM_GETNEIGHTBL, body);
        let whole = |part: &Part<'_>| match decode(part.payload) {
            Some(Some(table)) => Some(Some(table)),
            Some(None) => None,
            None => Some(None),
        };
        match netlink::find_part(&question, whole).await? {
            Some(Some(table)) => seen.value.push(table),
            Some(None) => seen
                .gaps
                .push("a neighbour table has a form that is not known".to_owned()),
            // A kernel without this family.
            None => {}
        }
    }
    Ok(seen)
}

/// Reads one `RTM_NEWNEIGHTBL`: `struct ndtmsg` and attributes. None if it can't be right; no table for another family
/// or for what is about one interface.
pub(crate) fn decode(message: &[u8]) -> Option<Option<NeighbourTable>> {
    let family = match *message.first()? {
        AF_INET => 4,
        AF_INET6 => 6,
        _ => return Some(None),
    };
    let mut table = NeighbourTable {
        family,
        ..NeighbourTable::default()
    };
    let mut whole = false;
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            NDTA_THRESH1..=NDTA_THRESH3 => {
                let place = usize::from(attribute.kind - NDTA_THRESH1);
                table.thresholds[place] = attribute.u32()?;
            }
            NDTA_CONFIG => {
                whole = true;
                table.entries = u32_at(attribute.value, CONFIG_ENTRIES)?;
            }
            // Kernels before 4.3 end earlier.
            NDTA_STATS => {
                table.overflows = u64_at(attribute.value, STATS_TABLE_FULLS).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(whole.then_some(table))
}

const RTM_GETNEIGHTBL: u16 = 66;
/// `struct ndtmsg`: family, padding.
const HEADER: usize = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NDTA_THRESH1: u16 = 2;
const NDTA_THRESH3: u16 = 4;
const NDTA_CONFIG: u16 = 5;
const NDTA_STATS: u16 = 7;
/// `ndtc_entries` of `struct ndt_config`.
const CONFIG_ENTRIES: usize = 4;
/// `ndts_table_fulls` of `struct ndt_stats`.
const STATS_TABLE_FULLS: usize = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    #[test]
    fn a_table_tells_its_thresholds_its_entries_and_how_often_it_was_full() {
        let mut message = vec![AF_INET6, 0, 0, 0];
        for (kind, threshold) in [(2, 128_u32), (3, 512), (4, 1024)] {
            put(&mut message, kind, &threshold.to_ne_bytes());
        }
        let mut config = [0; 32];
        config[4..8].copy_from_slice(&1000_u32.to_ne_bytes());
        put(&mut message, NDTA_CONFIG, &config);
        let mut stats = [0; 88];
        stats[80..].copy_from_slice(&7_u64.to_ne_bytes());
        put(&mut message, NDTA_STATS, &stats);
        let expected = NeighbourTable {
            family: 6,
            entries: 1000,
            thresholds: [128, 512, 1024],
            overflows: 7,
        };
        assert_eq!(decode(&message), Some(Some(expected)));
    }

    #[test]
    fn the_parameters_of_one_interface_are_no_table() {
        let mut message = vec![AF_INET, 0, 0, 0];
        put(&mut message, 6, &[0; 8]);
        assert_eq!(decode(&message), Some(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let table = decode(&bytes).flatten();
            prop_assert!(table.is_none_or(|t| matches!(t.family, 4 | 6)));
        }
    }
}
