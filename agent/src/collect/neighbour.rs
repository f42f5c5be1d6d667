//! Neighbour entries: who answered ARP or neighbour solicitation, and who didn't.

use std::net::IpAddr;

use aizen_protocol::private::Mac;
use aizen_protocol::record::{Neighbour, NeighbourState};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as KernelState,
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

fn decode(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address: Option<IpAddr> = None;
    let mut mac = None;
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
        router: false,
        confirmed_ms: None,
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
    fn entries_for_groups_are_passed_over() {
        assert_eq!(decode(&message([224, 0, 0, 22], KernelState::Noarp)), None);
    }
}
