//! Network interfaces, with every counter that the kernel keeps for them.

use aizen_protocol::private::Mac;
use aizen_protocol::record::{Link, LinkCounters, OperState};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State, Stats64};

use super::{CollectError, Seen, netlink};

/// All links of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Link>>, CollectError> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let dump = netlink::dump(
        question,
        |message| match message {
            RouteNetlinkMessage::NewLink(link) => vec![decode(link)],
            _ => Vec::new(),
        },
        |_| false,
    )
    .await?;
    Ok(dump.seen("links"))
}

fn decode(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        loopback: flags.contains(LinkFlags::Loopback),
        admin_up: flags.contains(LinkFlags::Up),
        promiscuous: flags.contains(LinkFlags::Promisc),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.oper = oper(state),
            LinkAttribute::Carrier(carrier) => link.carrier = Some(carrier != 0),
            LinkAttribute::CarrierChanges(changes) => link.carrier_changes = Some(changes),
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Address(bytes) if !link.loopback => {
                link.mac = bytes.try_into().ok().map(Mac)
            }
            LinkAttribute::Stats64(stats) => link.counters = Some(counters(&stats)),
            LinkAttribute::LinkInfo(infos) => {
                link.driver_kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    // The kernel keeps the last carrier of a link that is set down; it says nothing about the cable.
    if !link.admin_up {
        link.carrier = None;
    }
    link
}

fn oper(state: State) -> OperState {
    match state {
        State::NotPresent => OperState::NotPresent,
        State::Down => OperState::Down,
        State::LowerLayerDown => OperState::LowerLayerDown,
        State::Testing => OperState::Testing,
        State::Dormant => OperState::Dormant,
        State::Up => OperState::Up,
        _ => OperState::Unknown,
    }
}

fn counters(stats: &Stats64) -> LinkCounters {
    LinkCounters {
        rx_bytes: stats.rx_bytes,
        tx_bytes: stats.tx_bytes,
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        rx_errors: stats.rx_errors,
        tx_errors: stats.tx_errors,
        rx_dropped: stats.rx_dropped,
        tx_dropped: stats.tx_dropped,
        rx_crc_errors: stats.rx_crc_errors,
        collisions: stats.collisions,
        multicast: stats.multicast,
        rx_length_errors: stats.rx_length_errors,
        rx_over_errors: stats.rx_over_errors,
        rx_frame_errors: stats.rx_frame_errors,
        rx_fifo_errors: stats.rx_fifo_errors,
        rx_missed_errors: stats.rx_missed_errors,
        rx_nohandler: stats.rx_nohandler,
        tx_aborted_errors: stats.tx_aborted_errors,
        tx_carrier_errors: stats.tx_carrier_errors,
        tx_fifo_errors: stats.tx_fifo_errors,
        tx_heartbeat_errors: stats.tx_heartbeat_errors,
        tx_window_errors: stats.tx_window_errors,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_set_down_has_no_carrier_to_speak_of() {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::Carrier(1),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        ];
        assert_eq!(decode(message.clone()).carrier, None);
        message.header.flags = LinkFlags::Up;
        let link = decode(message);
        assert_eq!(link.carrier, Some(true));
        assert_eq!(link.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn a_hardware_address_of_another_length_is_no_mac() {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::Address(vec![1; 20])];
        assert_eq!(decode(message).mac, None);
    }
}
