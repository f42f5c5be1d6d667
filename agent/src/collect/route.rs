//! Routes of all tables, and the way to one target.

pub(crate) mod next_hop;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::record::{NextHop, Route};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteProtocol, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::NetlinkError;
use super::netlink::attribute::prefix;
use super::{CollectError, Seen, netlink};

/// The main routing table (rt_tables).
pub(crate) const MAIN: u32 = 254;

/// All IPv4 and IPv6 routes of this network namespace. A multipath route is one entry: its gateway and link are those
/// of the first next hop that lives.
pub(crate) async fn collect() -> Result<Seen<Vec<Route>>, CollectError> {
    // One question for all families: a kernel without IPv6 answers an IPv6 question with the IPv4 routes.
    let question = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    let dump = netlink::dump(
        question,
        |message| match message {
            RouteNetlinkMessage::NewRoute(route) => decode(&route).into_iter().collect(),
            _ => Vec::new(),
        },
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
    let mut question = RouteMessage::default();
    question.header.address_family = family(target);
    question.header.destination_prefix_length = width(target);
    question.attributes = vec![RouteAttribute::Destination(target.into())];
    match netlink::ask_one(RouteNetlinkMessage::GetRoute(question)).await {
        Ok(Some(RouteNetlinkMessage::NewRoute(route)))
            if route.header.kind == RouteType::Unicast =>
        {
            Ok(route
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Oif(link) => Some(*link),
                    _ => None,
                }))
        }
        // "No route" is an error number here.
        Ok(_) | Err(NetlinkError::Refused(_)) => Ok(None),
        Err(error @ NetlinkError::Socket(_)) => Err(error.into()),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The route, and the number of its next-hop object.
pub(crate) fn decode(message: &RouteMessage) -> Option<(Route, Option<u32>)> {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    // Clones are the kernel's cache (path MTU, redirects), not configuration.
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route {
        destination: prefix(any, header.destination_prefix_length)?,
        gateway: None,
        link: None,
        table: u32::from(header.table),
        metric: None,
        protocol: protocol(header.protocol),
        kind: kind(header.kind),
        source: None,
        next_hops: Vec::new(),
        dead: header.flags.bits() & DEAD != 0,
        expires_s: None,
    };
    let mut object = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                if let Some(address) = address_of(address) {
                    route.destination.address = address;
                }
            }
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::PrefSource(address) => route.source = address_of(address),
            RouteAttribute::MultiPath(ways) => {
                route.next_hops = ways.iter().map(next_hop).collect()
            }
            RouteAttribute::Oif(link) => route.link = Some(*link),
            RouteAttribute::NhId(id) => object = Some(*id),
            RouteAttribute::CacheInfo(cache) => {
                // Negative when it is over and not yet collected.
                let left = cache.expires.cast_signed().max(0).cast_unsigned();
                route.expires_s = (cache.expires != 0).then_some(left / USER_HZ);
            }
            _ => route.gateway = route.gateway.or(gateway(attribute)),
        }
    }
    if !route.next_hops.is_empty() {
        lead(&mut route);
    }
    Some((route, object))
}

fn next_hop(way: &RouteNextHop) -> NextHop {
    NextHop {
        gateway: way.attributes.iter().find_map(gateway),
        link: way.interface_index,
        // `rtnh_hops` is the weight less one.
        weight: u16::from(way.hops) + 1,
        dead: u32::from(way.flags.bits()) & DEAD != 0,
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => address_of(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The names of iproute2's rt_protos.
fn protocol(protocol: RouteProtocol) -> String {
    let name = match protocol {
        RouteProtocol::Unspec => "unspec",
        RouteProtocol::IcmpRedirect => "redirect",
        RouteProtocol::Kernel => "kernel",
        RouteProtocol::Boot => "boot",
        RouteProtocol::Static => "static",
        RouteProtocol::Ra => "ra",
        RouteProtocol::Dhcp => "dhcp",
        RouteProtocol::Zebra => "zebra",
        RouteProtocol::Bird => "bird",
        RouteProtocol::KeepAlived => "keepalived",
        RouteProtocol::Babel => "babel",
        RouteProtocol::Bgp => "bgp",
        RouteProtocol::Isis => "isis",
        RouteProtocol::Ospf => "ospf",
        RouteProtocol::Rip => "rip",
        RouteProtocol::Eigrp => "eigrp",
        other => return u8::from(other).to_string(),
    };
    name.to_owned()
}

fn kind(kind: RouteType) -> String {
    let name = match kind {
        RouteType::Unspec => "unspec",
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        RouteType::ExternalResolve => "xresolve",
        other => return u8::from(other).to_string(),
    };
    name.to_owned()
}

/// `RTNH_F_DEAD` and `RTNH_F_LINKDOWN` (linux/rtnetlink.h).
const DEAD: u32 = 1 | 16;
/// Ticks a second of times that the kernel tells programs: 100 wherever this program runs.
const USER_HZ: u32 = 100;

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::{RouteCacheInfo, RouteNextHop, RouteNextHopFlags};

    use super::*;

    fn message() -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = 254;
        message.header.kind = RouteType::Unicast;
        message.header.protocol = RouteProtocol::Dhcp;
        message
    }

    #[test]
    fn a_route_without_destination_is_the_default_route_of_its_family() {
        let mut message = message();
        message.attributes = vec![
            RouteAttribute::Gateway(Ipv4Addr::new(192, 0, 2, 1).into()),
            RouteAttribute::Oif(3),
        ];
        let (route, _) = decode(&message).unwrap();
        assert!(route.destination.is_default());
        assert_eq!(route.gateway, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(
            (route.link, route.table, route.protocol.as_str()),
            (Some(3), MAIN, "dhcp")
        );
        message.header.address_family = AddressFamily::Inet6;
        let (route, _) = decode(&message).unwrap();
        assert_eq!(route.destination.to_string(), "::/0");
    }

    fn hop(link: u32, last: u8, flags: RouteNextHopFlags) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = link;
        hop.hops = last - 1;
        hop.flags = flags;
        hop.attributes = vec![RouteAttribute::Gateway(
            Ipv4Addr::new(192, 0, 2, last).into(),
        )];
        hop
    }

    #[test]
    fn a_multipath_route_is_one_entry_that_leads_to_the_first_hop_alive() {
        let (dead, alive) = (RouteNextHopFlags::Linkdown, RouteNextHopFlags::empty());
        let mut message = message();
        let ways = vec![hop(2, 1, dead), hop(3, 2, alive)];
        message.attributes = vec![RouteAttribute::MultiPath(ways)];
        let (route, _) = decode(&message).unwrap();
        assert_eq!((route.link, route.dead), (Some(3), false));
        assert_eq!(route.gateway, Some("192.0.2.2".parse().unwrap()));
        let told: Vec<_> = route
            .next_hops
            .iter()
            .map(|h| (h.link, h.weight, h.dead))
            .collect();
        assert_eq!(told, [(2, 1, true), (3, 2, false)]);
        message.attributes = vec![RouteAttribute::MultiPath(vec![hop(2, 1, dead)])];
        assert!(decode(&message).unwrap().0.dead);
    }

    #[test]
    fn a_route_from_an_advertisement_counts_down_and_one_that_is_over_is_at_zero() {
        let mut message = message();
        let mut left = |expires: i32| {
            let mut cache = [0; 32];
            cache[8..12].copy_from_slice(&expires.to_ne_bytes());
            let cache = RouteCacheInfo::parse(&cache).unwrap();
            message.attributes = vec![RouteAttribute::CacheInfo(cache)];
            decode(&message).unwrap().0.expires_s
        };
        assert_eq!(
            (left(180_000), left(-100), left(0)),
            (Some(1800), Some(0), None)
        );
    }

    #[test]
    fn a_table_above_255_comes_from_its_attribute() {
        let mut message = message();
        message.header.table = 252;
        message.attributes = vec![RouteAttribute::Table(1000)];
        assert_eq!(decode(&message).unwrap().0.table, 1000);
    }

    #[test]
    fn cached_clones_and_other_families_are_no_routes() {
        let mut clone = message();
        clone.header.flags = RouteFlags::Cloned;
        assert_eq!(decode(&clone), None);
        let mut multicast = message();
        multicast.header.address_family = AddressFamily::Unspec;
        assert_eq!(decode(&multicast), None);
    }
}
