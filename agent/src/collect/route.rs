//! Routes of all tables, and the way to one target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::private::Prefix;
use aizen_protocol::record::Route;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::NetlinkError;
use super::{CollectError, Seen, netlink};

/// The main routing table (rt_tables).
pub(crate) const MAIN: u32 = 254;

/// All IPv4 and IPv6 routes of this network namespace; one entry for each next hop of a multipath route.
pub(crate) async fn collect() -> Result<Seen<Vec<Route>>, CollectError> {
    // One question for all families: a kernel without IPv6 answers an IPv6 question with the IPv4 routes.
    let question = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    let dump = netlink::dump(
        question,
        |message| match message {
            RouteNetlinkMessage::NewRoute(route) => decode(&route),
            _ => Vec::new(),
        },
        |route| route.destination.is_default(),
    )
    .await?;
    Ok(dump.seen("routes"))
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

fn decode(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Vec::new(),
    };
    // Clones are the kernel's cache (path MTU, redirects), not configuration.
    if header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let mut route = Route {
        destination: Prefix {
            address: any,
            length: header.destination_prefix_length,
        },
        gateway: None,
        link: None,
        table: u32::from(header.table),
        metric: None,
        protocol: protocol(header.protocol),
        kind: kind(header.kind),
        source: None,
        next_hops: Vec::new(),
        dead: false,
        expires_s: None,
    };
    let mut hops = Vec::new();
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
            RouteAttribute::MultiPath(next_hops) => {
                hops = next_hops
                    .iter()
                    .map(|hop| (hop.attributes.iter().find_map(gateway), hop.interface_index))
                    .collect();
            }
            RouteAttribute::Oif(link) => route.link = Some(*link),
            _ => route.gateway = route.gateway.or(gateway(attribute)),
        }
    }
    if hops.is_empty() {
        return vec![route];
    }
    hops.into_iter()
        .map(|(gateway, link)| Route {
            gateway,
            link: Some(link),
            ..route.clone()
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

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
        let routes = decode(&message);
        assert!(routes[0].destination.is_default());
        assert_eq!(routes[0].gateway, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(
            (routes[0].link, routes[0].table, routes[0].protocol.as_str()),
            (Some(3), MAIN, "dhcp")
        );
        message.header.address_family = AddressFamily::Inet6;
        assert_eq!(decode(&message)[0].destination.to_string(), "::/0");
    }

    #[test]
    fn a_multipath_route_is_one_entry_for_each_hop() {
        let mut message = message();
        let hop = |link: u32, last: u8| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = link;
            hop.attributes = vec![RouteAttribute::Gateway(
                Ipv4Addr::new(192, 0, 2, last).into(),
            )];
            hop
        };
        message.attributes = vec![RouteAttribute::MultiPath(vec![hop(2, 1), hop(3, 2)])];
        let routes = decode(&message);
        assert_eq!(
            routes.iter().map(|r| r.link).collect::<Vec<_>>(),
            [Some(2), Some(3)]
        );
        assert_eq!(routes[1].gateway, Some("192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn a_table_above_255_comes_from_its_attribute() {
        let mut message = message();
        message.header.table = 252;
        message.attributes = vec![RouteAttribute::Table(1000)];
        assert_eq!(decode(&message)[0].table, 1000);
    }

    #[test]
    fn cached_clones_and_other_families_are_no_routes() {
        let mut clone = message();
        clone.header.flags = RouteFlags::Cloned;
        assert!(decode(&clone).is_empty());
        let mut multicast = message();
        multicast.header.address_family = AddressFamily::Unspec;
        assert!(decode(&multicast).is_empty());
    }
}
