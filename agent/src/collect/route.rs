//! Routes of all tables, and the way to one target.

pub(crate) mod next_hop;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::record::{NextHop, Route};

use super::netlink::attribute::{Attribute, attributes, find, prefix, put, u32_at};
use super::netlink::{self, NetlinkError, Question};
use super::{CollectError, Seen};

/// The main routing table (rt_tables).
pub(crate) const MAIN: u32 = 254;

/// All IPv4 and IPv6 routes of this network namespace. A multipath route is one entry: its gateway and link are those
/// of the first next hop that lives.
pub(crate) async fn collect() -> Result<Seen<Vec<Route>>, CollectError> {
    // One question for all families: a kernel without IPv6 answers an IPv6 question with the IPv4 routes.
    let question = Question::route(RTM_GETROUTE, vec![0; HEADER]);
    let dump = netlink::dump_parts(
        &question,
        |part| decode(part.payload),
        |(route, _)| route.destination.is_default(),
    )
    .await?;
    let found = dump.seen("routes");
    let mut seen = Seen {
        value: Vec::with_capacity(found.value.len()),
        gaps: found.gaps,
    };
    let mut named = Vec::new();
    for (place, (route, object)) in found.value.into_iter().enumerate() {
        let spelt = route.link.is_some() || !route.next_hops.is_empty();
        if let Some(object) = object.filter(|_| !spelt && route.kind == "unicast") {
            named.push((place, object));
        }
        seen.value.push(route);
    }
    if !named.is_empty() {
        spell_out(&mut seen, &named).await;
    }
    Ok(seen)
}

/// Looks up the next-hop objects of routes that only name them.
async fn spell_out(routes: &mut Seen<Vec<Route>>, named: &[(usize, u32)]) {
    let objects = match next_hop::collect().await {
        Ok(objects) => objects,
        Err(error) => {
            let count = named.len();
            routes
                .gaps
                .push(format!("the next-hop objects of {count} routes: {error}"));
            return;
        }
    };
    routes.gaps.extend(objects.gaps);
    let unknown = named
        .iter()
        .filter(|(place, object)| {
            let route = routes.value.get_mut(*place);
            route.is_some_and(|route| !next_hop::resolve(route, *object, &objects.value))
        })
        .count();
    if unknown > 0 {
        routes.gaps.push(format!(
            "{unknown} routes name next-hop objects that are gone"
        ));
    }
}

/// Gateway and link of the first next hop that lives; dead if none does.
fn lead(route: &mut Route) {
    let living = route.next_hops.iter().find(|hop| !hop.dead);
    if let Some(hop) = living.or(route.next_hops.first()) {
        (route.gateway, route.link) = (hop.gateway, Some(hop.link));
        route.dead = living.is_none();
    }
}

/// The interface that a packet to `target` would leave by; none if the kernel has no route or it is our own address.
pub(crate) async fn outgoing(target: IpAddr) -> Result<Option<u32>, CollectError> {
    let mut body = vec![0; HEADER];
    match target {
        IpAddr::V4(ip) => {
            (body[0], body[1]) = (AF_INET, 32);
            put(&mut body, RTA_DST, &ip.octets());
        }
        IpAddr::V6(ip) => {
            (body[0], body[1]) = (AF_INET6, 128);
            put(&mut body, RTA_DST, &ip.octets());
        }
    }
    let leaves_by = |message: &[u8]| {
        let unicast = message.get(KIND) == Some(&RTN_UNICAST);
        let body = message.get(HEADER..).filter(|_| unicast)?;
        find(body, RTA_OIF)?.u32()
    };
    match netlink::ask_part(&Question::route(RTM_GETROUTE, body), leaves_by).await {
        Ok(link) => Ok(link.flatten()),
        // "No route" is an error number here.
        Err(NetlinkError::Refused(_)) => Ok(None),
        Err(error @ NetlinkError::Socket(_)) => Err(error.into()),
    }
}

/// Reads one `RTM_NEWROUTE`, `struct rtmsg` and attributes: the route, and the number of its next-hop object. None if
/// it can't be right; no route for other families and for what the kernel only remembers.
pub(crate) fn decode(message: &[u8]) -> Option<Option<(Route, Option<u32>)>> {
    let &[family, length, _, _, table, protocol, _, kind] = message.first_chunk()?;
    let flags = u32_at(message, 8)?;
    let any: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Some(None),
    };
    // Clones are the kernel's cache (path MTU, redirects), not configuration.
    if flags & RTM_F_CLONED != 0 {
        return Some(None);
    }
    let mut route = Route {
        destination: prefix(any, length)?,
        gateway: None,
        link: None,
        table: u32::from(table),
        metric: None,
        protocol: protocol_name(protocol),
        kind: self::kind(kind),
        source: None,
        next_hops: Vec::new(),
        dead: flags & DEAD != 0,
        expires_s: None,
    };
    let mut object = None;
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            RTA_DST => {
                if let Some(address) = attribute.ip() {
                    route.destination.address = address;
                }
            }
            RTA_TABLE => route.table = attribute.u32()?,
            RTA_PRIORITY => route.metric = attribute.u32(),
            RTA_PREFSRC => route.source = attribute.ip(),
            RTA_MULTIPATH => route.next_hops = next_hops(attribute.value),
            RTA_OIF => route.link = attribute.u32(),
            RTA_NH_ID => object = attribute.u32(),
            // `rta_expires` of `struct rta_cacheinfo`; negative when it is over and not yet collected.
            RTA_CACHEINFO => {
                let expires = u32_at(attribute.value, 8).unwrap_or_default();
                let left = expires.cast_signed().max(0).cast_unsigned();
                route.expires_s = (expires != 0).then_some(left / USER_HZ);
            }
            _ => route.gateway = route.gateway.or(gateway(attribute)),
        }
    }
    if !route.next_hops.is_empty() {
        lead(&mut route);
    }
    Some(Some((route, object)))
}

/// An array of `struct rtnexthop` (length, flags, hops, interface), each with attributes; up to the first whose length
/// can't be right.
fn next_hops(bytes: &[u8]) -> Vec<NextHop> {
    let mut rest = bytes;
    let hop = || {
        let &[l0, l1, flags, hops, ..] = rest.first_chunk::<NEXT_HOP>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let inner = rest.get(NEXT_HOP..length)?;
        let link = u32_at(rest, 4)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NextHop {
            gateway: attributes(inner).find_map(gateway),
            link,
            // `rtnh_hops` is the weight less one.
            weight: u16::from(hops) + 1,
            dead: u32::from(flags) & DEAD != 0,
        })
    };
    std::iter::from_fn(hop).collect()
}

fn gateway(attribute: Attribute<'_>) -> Option<IpAddr> {
    match attribute.kind {
        RTA_GATEWAY => attribute.ip(),
        // `struct rtvia`: family, address.
        RTA_VIA => {
            let value = attribute.value.get(2..)?;
            Attribute { value, ..attribute }.ip()
        }
        _ => None,
    }
}

/// As `ip route` names it (iproute2's rt_protos).
pub(crate) fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        18 => "keepalived",
        42 => "babel",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// `RTN_*` (linux/rtnetlink.h) by the names of ip-route(8).
fn kind(kind: u8) -> String {
    let name = match kind {
        0 => "unspec",
        RTN_UNICAST => "unicast",
        2 => "local",
        3 => "broadcast",
        4 => "anycast",
        5 => "multicast",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        9 => "throw",
        10 => "nat",
        11 => "xresolve",
        other => return other.to_string(),
    };
    name.to_owned()
}

const RTM_GETROUTE: u16 = 26;
/// `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, kind, flags.
const HEADER: usize = 12;
/// Where the kind is.
const KIND: usize = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
/// Bytes of `struct rtnexthop`.
const NEXT_HOP: usize = 8;
/// `RTNH_F_DEAD` and `RTNH_F_LINKDOWN` (linux/rtnetlink.h).
const DEAD: u32 = 1 | 16;
/// Ticks a second of times that the kernel tells programs: 100 wherever this program runs.
const USER_HZ: u32 = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A route of the main table from DHCP.
    fn message(family: u8, given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![family, 0, 0, 0, 254, 16, 0, RTN_UNICAST, 0, 0, 0, 0];
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    fn told(message: &[u8]) -> Route {
        decode(message).unwrap().unwrap().0
    }

    #[test]
    fn a_route_without_destination_is_the_default_route_of_its_family() {
        let link = 3_u32.to_ne_bytes();
        let given: [(u16, &[u8]); 2] = [(RTA_GATEWAY, &[192, 0, 2, 1]), (RTA_OIF, &link)];
        let route = told(&message(AF_INET, &given));
        assert!(route.destination.is_default());
        assert_eq!(route.gateway, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(
            (route.link, route.table, route.protocol.as_str()),
            (Some(3), MAIN, "dhcp")
        );
        let route = told(&message(AF_INET6, &given));
        assert_eq!(route.destination.to_string(), "::/0");
    }

    #[test]
    fn a_gateway_of_the_other_family_is_told() {
        let mut via = AF_INET6.to_ne_bytes().to_vec();
        via.push(0);
        via.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        let route = told(&message(AF_INET, &[(RTA_VIA, &via)]));
        assert_eq!(route.gateway, "fe80::1".parse().ok());
    }

    fn hop(link: u32, last: u8, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, flags, last - 1];
        bytes.extend(link.to_ne_bytes());
        put(&mut bytes, RTA_GATEWAY, &[192, 0, 2, last]);
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[..2].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_multipath_route_is_one_entry_that_leads_to_the_first_hop_alive() {
        let (linkdown, alive) = (16, 0);
        let ways = [hop(2, 1, linkdown), hop(3, 2, alive)].concat();
        let route = told(&message(AF_INET, &[(RTA_MULTIPATH, &ways)]));
        assert_eq!((route.link, route.dead), (Some(3), false));
        assert_eq!(route.gateway, Some("192.0.2.2".parse().unwrap()));
        let hops: Vec<_> = route
            .next_hops
            .iter()
            .map(|h| (h.link, h.weight, h.dead))
            .collect();
        assert_eq!(hops, [(2, 1, true), (3, 2, false)]);
        let dead = message(AF_INET, &[(RTA_MULTIPATH, &hop(2, 1, linkdown))]);
        assert!(told(&dead).dead);
    }

    #[test]
    fn a_route_from_an_advertisement_counts_down_and_one_that_is_over_is_at_zero() {
        let left = |expires: i32| {
            let mut cache = [0; 32];
            cache[8..12].copy_from_slice(&expires.to_ne_bytes());
            told(&message(AF_INET6, &[(RTA_CACHEINFO, &cache)])).expires_s
        };
        assert_eq!(
            (left(180_000), left(-100), left(0)),
            (Some(1800), Some(0), None)
        );
    }

    #[test]
    fn a_table_above_255_comes_from_its_attribute() {
        let mut long = message(AF_INET, &[(RTA_TABLE, &1000_u32.to_ne_bytes())]);
        long[4] = 252;
        assert_eq!(told(&long).table, 1000);
    }

    #[test]
    fn cached_clones_and_other_families_are_no_routes() {
        let mut clone = message(AF_INET, &[]);
        clone[8..12].copy_from_slice(&RTM_F_CLONED.to_ne_bytes());
        assert_eq!(decode(&clone), Some(None));
        assert_eq!(decode(&message(128, &[])), Some(None));
    }

    #[test]
    fn a_route_with_an_impossible_prefix_or_a_torn_header_is_refused() {
        let mut long = message(AF_INET, &[]);
        long[1] = 33;
        assert_eq!(decode(&long), None);
        assert_eq!(decode(&message(AF_INET, &[])[..11]), None);
    }

    #[tokio::test]
    async fn the_way_to_a_local_address_is_no_way_out() {
        assert_eq!(outgoing(Ipv4Addr::LOCALHOST.into()).await.unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_route_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300), ipv4: bool) {
            drop(decode(&bytes));
            let family = if ipv4 { AF_INET } else { AF_INET6 };
            drop(decode(&[message(family, &[]), bytes.clone()].concat()));
            drop(decode(&message(family, &[(RTA_MULTIPATH, &bytes), (RTA_VIA, &bytes)])));
        }
    }
}
