//! Next-hop objects (`ip nexthop`): routes that name one by its number, where the kernel doesn't spell it out
//! (`net.ipv4.nexthop_compat_mode` 0).

use std::collections::BTreeMap;
use std::net::IpAddr;

use aizen_protocol::record::{NextHop, Route};

use crate::collect::netlink::attribute::{attributes, u32_at};
use crate::collect::netlink::{self, Question};
use crate::collect::{CollectError, Seen};

/// The objects by number.
pub(super) type Objects = BTreeMap<u32, Object>;

/// One object: a way, or a group of other objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object {
    gateway: Option<IpAddr>,
    link: Option<u32>,
    dead: bool,
    group: Vec<(u32, u16)>,
}

/// All objects of this network namespace.
pub(super) async fn collect() -> Result<Seen<Objects>, CollectError> {
    let question = Question::route(RTM_GETNEXTHOP, vec![0; HEADER]);
    let dump =
        netlink::dump_parts(&question, |part| decode(part.payload).map(Some), |_| false).await?;
    let seen = dump.seen("next-hop objects");
    Ok(Seen {
        value: seen.value.into_iter().collect(),
        gaps: seen.gaps,
    })
}

/// Spells a route's object out; false if it isn't known.
pub(super) fn resolve(route: &mut Route, object: u32, objects: &Objects) -> bool {
    let Some(object) = objects.get(&object) else {
        return false;
    };
    let ways = object.group.iter().filter_map(|(member, weight)| {
        let member = objects.get(member)?;
        Some(NextHop {
            gateway: member.gateway,
            link: member.link?,
            weight: *weight,
            dead: member.dead,
        })
    });
    route.next_hops = ways.collect();
    if route.next_hops.is_empty() {
        (route.gateway, route.link, route.dead) = (object.gateway, object.link, object.dead);
    } else {
        super::lead(route);
    }
    true
}

/// Reads one `RTM_NEWNEXTHOP`: `struct nhmsg` and attributes.
pub(crate) fn decode(message: &[u8]) -> Option<(u32, Object)> {
    let mut object = Object {
        dead: u32_at(message, 4)? & super::DEAD != 0,
        ..Object::default()
    };
    let mut id = None;
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            NHA_ID => id = attribute.u32(),
            NHA_OIF => object.link = attribute.u32(),
            NHA_GATEWAY => object.gateway = attribute.ip(),
            NHA_GROUP => {
                // `struct nexthop_grp`: number, weight less one.
                let members = attribute.value.chunks_exact(8);
                let member = |m: &[u8]| Some((u32_at(m, 0)?, u16::from(*m.get(4)?) + 1));
                object.group = members.filter_map(member).collect();
            }
            _ => {}
        }
    }
    Some((id?, object))
}

const RTM_GETNEXTHOP: u16 = 106;
/// `struct nhmsg`: family, scope, protocol, reserved, flags.
const HEADER: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    #[test]
    fn an_object_tells_its_way_and_a_group_its_members() {
        let mut way = vec![2, 0, 0, 0];
        way.extend(1_u32.to_ne_bytes());
        put(&mut way, NHA_ID, &10_u32.to_ne_bytes());
        put(&mut way, NHA_OIF, &3_u32.to_ne_bytes());
        put(&mut way, NHA_GATEWAY, &[192, 0, 2, 1]);
        let mut group = vec![0; HEADER];
        put(&mut group, NHA_ID, &20_u32.to_ne_bytes());
        put(
            &mut group,
            NHA_GROUP,
            &[10_u32.to_ne_bytes(), [4, 0, 0, 0]].concat(),
        );
        let objects: Objects = [decode(&way).unwrap(), decode(&group).unwrap()].into();
        assert_eq!(objects[&10].gateway, "192.0.2.1".parse().ok());
        assert!(objects[&10].dead);
        assert_eq!(objects[&20].group, [(10, 5)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_object_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
        }
    }
}
