//! A route as a message of rtnetlink(7), both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::private::Prefix;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags,
};

use super::{Attributes, Hop, RouteKey, RouteState};
use crate::rollback::kernel::{KernelError, raw};
use crate::rollback::link::Names;

const ONLINK: u8 = 4;
/// Attributes of linux/rtnetlink.h that are not carried: they move by themselves or only answer a query.
const NOT_CARRIED: [u16; 5] = [RTA_CACHEINFO, RTA_EXPIRES, 3, 17, 25];
const RTA_CACHEINFO: u16 = 12;
const RTA_EXPIRES: u16 = 23;
pub(super) const RTA_NH_ID: u16 = 30;
/// `rta_expires` counts in `USER_HZ`.
const USER_HZ: u32 = 100;

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

pub(super) fn parse(message: &RouteMessage, names: &Names) -> RouteState {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let prefix = |address, length| Prefix { address, length };
    let mut route = RouteState {
        key: RouteKey {
            destination: prefix(any, header.destination_prefix_length),
            table: header.table.into(),
            metric: 0,
            tos: header.tos,
        },
        kind: header.kind.into(),
        scope: header.scope.into(),
        protocol: header.protocol.into(),
        source: None,
        preferred: None,
        hops: Vec::new(),
        other: Attributes::new(),
        expires_s: None,
    };
    let mut single = Hop {
        via: None,
        dev: None,
        weight: 0,
        onlink: header.flags.bits() & u32::from(ONLINK) != 0,
        other: Attributes::new(),
    };
    let mut several = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => {
                if let Some(a) = ip(a) {
                    route.key.destination.address = a;
                }
            }
            RouteAttribute::Source(a) => {
                route.source = ip(a).map(|a| prefix(a, header.source_prefix_length))
            }
            RouteAttribute::Table(table) => route.key.table = *table,
            RouteAttribute::Priority(metric) => route.key.metric = *metric,
            RouteAttribute::PrefSource(a) => route.preferred = ip(a),
            RouteAttribute::Gateway(a) => single.via = ip(a),
            RouteAttribute::Oif(index) => single.dev = Some(names.name(*index)),
            RouteAttribute::MultiPath(hops) => {
                several = hops.iter().map(|h| parse_hop(h, names)).collect()
            }
            RouteAttribute::CacheInfo(cache) if cache.expires != 0 => {
                route.expires_s = Some(cache.expires / USER_HZ);
            }
            other => {
                let (kind, bytes) = raw(other);
                if !NOT_CARRIED.contains(&kind) {
                    route.other.push((kind, bytes));
                }
            }
        }
    }
    route.hops = match several {
        hops if !hops.is_empty() => hops,
        _ if single.via.is_some() || single.dev.is_some() => vec![single],
        _ => Vec::new(),
    };
    route.other.sort();
    route
}

fn parse_hop(hop: &RouteNextHop, names: &Names) -> Hop {
    let mut parsed = Hop {
        via: None,
        dev: (hop.interface_index != 0).then(|| names.name(hop.interface_index)),
        weight: hop.hops,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        other: Attributes::new(),
    };
    for attribute in &hop.attributes {
        match attribute {
            RouteAttribute::Gateway(a) => parsed.via = ip(a),
            other => {
                let (kind, bytes) = raw(other);
                parsed.other.push((kind, bytes));
            }
        }
    }
    parsed.other.sort();
    parsed
}

fn carried(other: &Attributes) -> impl Iterator<Item = RouteAttribute> {
    other
        .iter()
        .map(|(kind, bytes)| RouteAttribute::Other(DefaultNla::new(*kind, bytes.clone())))
}

pub(super) fn message(route: &RouteState, names: &Names) -> Result<RouteMessage, KernelError> {
    let mut message = RouteMessage::default();
    let mut header = RouteHeader {
        address_family: if route.key.destination.address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        },
        destination_prefix_length: route.key.destination.length,
        tos: route.key.tos,
        table: u8::try_from(route.key.table).unwrap_or(0),
        protocol: route.protocol.into(),
        scope: route.scope.into(),
        kind: route.kind.into(),
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    if route.key.destination.length > 0 {
        attributes.push(RouteAttribute::Destination(
            route.key.destination.address.into(),
        ));
    }
    if let Some(source) = route.source {
        header.source_prefix_length = source.length;
        attributes.push(RouteAttribute::Source(source.address.into()));
    }
    attributes.push(RouteAttribute::Table(route.key.table));
    if route.key.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.key.metric));
    }
    attributes.extend(
        route
            .preferred
            .map(|a| RouteAttribute::PrefSource(a.into())),
    );
    attributes.extend(route.expires_s.map(|s| RouteAttribute::Expires(s.max(1))));
    attributes.extend(carried(&route.other));
    // A next hop object stands for all the ways; naming both is refused.
    if !route.other.iter().any(|(kind, _)| *kind == RTA_NH_ID) {
        match route.hops.as_slice() {
            [] => {}
            [hop] => {
                attributes.extend(hop.via.map(|a| RouteAttribute::Gateway(a.into())));
                if let Some(dev) = &hop.dev {
                    attributes.push(RouteAttribute::Oif(names.require(dev)?));
                }
                attributes.extend(carried(&hop.other));
                if hop.onlink {
                    header.flags = RouteFlags::from_bits_retain(u32::from(ONLINK));
                }
            }
            hops => {
                let hops: Result<Vec<_>, _> = hops.iter().map(|hop| next_hop(hop, names)).collect();
                attributes.push(RouteAttribute::MultiPath(hops?));
            }
        }
    }
    message.header = header;
    Ok(message)
}

fn next_hop(hop: &Hop, names: &Names) -> Result<RouteNextHop, KernelError> {
    let mut next = RouteNextHop::default();
    next.hops = hop.weight;
    if let Some(dev) = &hop.dev {
        next.interface_index = names.require(dev)?;
    }
    if hop.onlink {
        next.flags = RouteNextHopFlags::Onlink;
    }
    next.attributes
        .extend(hop.via.map(|a| RouteAttribute::Gateway(a.into())));
    next.attributes.extend(carried(&hop.other));
    Ok(next)
}
