//! Neighbour entries: who answered ARP or neighbour solicitation, and who didn't.

use std::net::IpAddr;

use aizen_protocol::private::Mac;
use aizen_protocol::record::{Neighbour, NeighbourState};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
    NeighbourState as KernelState,
};

use super::{CollectError, Seen, netlink};

/// The IPv4 and IPv6 neighbours of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Neighbour>>, CollectError> {
    let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let dump = netlink::dump(
        question,
        |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => {
                decode(&neighbour).into_iter().collect()
            }
            _ => Vec::new(),
        },
        |neighbour| neighbour.state == NeighbourState::Failed,
    )
    .await?;
    Ok(dump.seen("neighbours"))
}

pub(crate) fn decode(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address: Option<IpAddr> = None;
    let (mut mac, mut confirmed) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => {
                address = Some((*a).into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => {
                address = Some((*a).into())
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac)
            }
            NeighbourAttribute::CacheInfo(cache) => confirmed = Some(cache.confirmed),
            _ => {}
        }
    }
    let address = address?;
    let state = state(message.header.state);
    // The kernel's own entries for groups and for `lo` say nothing about anybody.
    if state == NeighbourState::Noarp
        && (address.is_multicast() || address.is_loopback() || mac.is_none_or(is_zero))
    {
        return None;
    }
    Some(Neighbour {
        link: message.header.ifindex,
        address,
        mac,
        state,
        router: message.header.flags.contains(NeighbourFlags::Router),
        // An entry that never answered carries a time all the same.
        confirmed_ms: confirmed
            .filter(|_| mac.is_some() && state != NeighbourState::Permanent)
            .map(|ticks| u64::from(ticks) * 1000 / USER_HZ),
    })
}

fn is_zero(mac: Mac) -> bool {
    mac.0 == [0; 6]
}

fn state(state: KernelState) -> NeighbourState {
    match state {
        KernelState::Incomplete => NeighbourState::Incomplete,
        KernelState::Reachable => NeighbourState::Reachable,
        KernelState::Stale => NeighbourState::Stale,
        KernelState::Delay => NeighbourState::Delay,
        KernelState::Probe => NeighbourState::Probe,
        KernelState::Failed => NeighbourState::Failed,
        KernelState::Noarp => NeighbourState::Noarp,
        KernelState::Permanent => NeighbourState::Permanent,
        _ => NeighbourState::None,
    }
}

/// Ticks a second of times that the kernel tells programs (`USER_HZ`): 100 wherever this program runs.
const USER_HZ: u64 = 100;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::neighbour::NeighbourCacheInfo;

    use super::*;

    fn message(address: [u8; 4], state: KernelState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        message.attributes = vec![NeighbourAttribute::Destination(
            Ipv4Addr::from(address).into(),
        )];
        message
    }

    #[test]
    fn a_failed_neighbour_has_no_mac() {
        let neighbour = decode(&message([192, 0, 2, 1], KernelState::Failed)).unwrap();
        assert_eq!(
            (neighbour.state, neighbour.mac),
            (NeighbourState::Failed, None)
        );
    }

    #[test]
    fn a_router_says_so_and_its_last_sign_of_life_is_told_in_milliseconds() {
        let mut router = message([192, 0, 2, 1], KernelState::Stale);
        router.header.flags = NeighbourFlags::Router;
        let mut cache = [0; 16];
        cache[..4].copy_from_slice(&150_u32.to_ne_bytes());
        let cache = NeighbourCacheInfo::parse(&cache).unwrap();
        router.attributes.extend([
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
            NeighbourAttribute::CacheInfo(cache),
        ]);
        let neighbour = decode(&router).unwrap();
        assert_eq!(
            (neighbour.router, neighbour.confirmed_ms),
            (true, Some(1500))
        );
    }

    #[test]
    fn entries_for_groups_are_passed_over() {
        assert_eq!(decode(&message([224, 0, 0, 22], KernelState::Noarp)), None);
    }
}
