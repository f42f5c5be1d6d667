//! The VLANs that each port of a bridge carries (`RTEXT_FILTER_BRVLAN_COMPRESSED`).

use std::collections::BTreeMap;

use aizen_protocol::record::{Link, Port};

use crate::collect::netlink::attribute::{attributes, put, u32_at};
use crate::collect::netlink::{self, Question};
use crate::collect::{CollectError, Seen};

/// The VLANs of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vlans {
    link: u32,
    pvid: Option<u16>,
    carried: Vec<u16>,
}

/// The VLANs of every port of every bridge.
pub(super) async fn collect() -> Result<Seen<Vec<Vlans>>, CollectError> {
    let mut body = vec![0; HEADER];
    body[0] = AF_BRIDGE;
    put(
        &mut body,
        IFLA_EXT_MASK,
        &RTEXT_FILTER_BRVLAN_COMPRESSED.to_ne_bytes(),
    );
    let question = Question::route(RTM_GETLINK, body);
    let dump =
        netlink::dump_parts(&question, |part| decode(part.payload).map(Some), |_| false).await?;
    Ok(dump.seen("bridge ports"))
}

/// Adds them to the ports of the bridges that look at tags.
pub(super) fn tell(links: &mut [Link], filtering: &[u32], vlans: Vec<Vlans>) {
    let mut vlans: BTreeMap<u32, Vlans> = vlans.into_iter().map(|v| (v.link, v)).collect();
    for link in links {
        let looked_at = link
            .master
            .is_some_and(|bridge| filtering.contains(&bridge));
        if let Some(Port::Bridge {
            pvid,
            vlans: carried,
            ..
        }) = &mut link.port
            && looked_at
            && let Some(told) = vlans.remove(&link.index)
        {
            (*pvid, *carried) = (told.pvid, told.carried);
        }
    }
}

pub(crate) fn decode(message: &[u8]) -> Option<Vlans> {
    let mut vlans = Vlans {
        link: u32_at(message, 4)?,
        ..Vlans::default()
    };
    let mut begun = None;
    let spec = attributes(message.get(HEADER..)?).filter(|a| a.kind == IFLA_AF_SPEC);
    for info in spec
        .flat_map(|spec| spec.inner())
        .filter(|a| a.kind == IFLA_BRIDGE_VLAN_INFO)
    {
        // `struct bridge_vlan_info`: flags, number.
        let Some(&[f0, f1, v0, v1]) = info.value.first_chunk() else {
            continue;
        };
        let (flags, number) = (u16::from_ne_bytes([f0, f1]), u16::from_ne_bytes([v0, v1]));
        if flags & PVID != 0 {
            vlans.pvid = Some(number);
        }
        if flags & RANGE_BEGIN != 0 {
            begun = Some(number);
        } else if flags & RANGE_END != 0 {
            let first = begun.take().unwrap_or(number);
            let room = MOST.saturating_sub(vlans.carried.len());
            vlans.carried.extend((first..=number).take(room));
        } else if vlans.carried.len() < MOST {
            vlans.carried.push(number);
        }
    }
    Some(vlans)
}

const RTM_GETLINK: u16 = 18;
const HEADER: usize = 16;
const AF_BRIDGE: u8 = 7;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const RTEXT_FILTER_BRVLAN_COMPRESSED: u32 = 1 << 2;
const PVID: u16 = 1 << 1;
const RANGE_BEGIN: u16 = 1 << 3;
const RANGE_END: u16 = 1 << 4;
/// As the record promises.
const MOST: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(infos: &[(u16, u16)]) -> Vec<u8> {
        let mut spec = Vec::new();
        for (flags, number) in infos {
            let value = [flags.to_ne_bytes(), number.to_ne_bytes()].concat();
            put(&mut spec, IFLA_BRIDGE_VLAN_INFO, &value);
        }
        let mut bytes = vec![0; HEADER];
        put(&mut bytes, IFLA_AF_SPEC, &spec);
        bytes
    }

    #[test]
    fn a_range_is_told_by_each_number() {
        let vlans = decode(&message(&[
            (PVID, 1),
            (RANGE_BEGIN, 10),
            (RANGE_END, 13),
            (0, 20),
        ]));
        let vlans = vlans.unwrap();
        assert_eq!(vlans.pvid, Some(1));
        assert_eq!(vlans.carried, [1, 10, 11, 12, 13, 20]);
    }

    #[test]
    fn a_trunk_of_all_vlans_is_bounded() {
        let vlans = decode(&message(&[(RANGE_BEGIN, 1), (RANGE_END, 4094), (0, 9)])).unwrap();
        assert_eq!(vlans.carried.len(), MOST);
    }

    proptest! {
        #[test]
        fn any_ranges_stay_bounded(infos in prop::collection::vec(any::<(u16, u16)>(), 0..50)) {
            prop_assert!(decode(&message(&infos)).unwrap().carried.len() <= MOST);
        }

        #[test]
        fn any_bytes_are_vlans_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(decode(&bytes));
        }
    }
}
