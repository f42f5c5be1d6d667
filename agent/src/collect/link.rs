//! Network interfaces: what they are, what they run on, and every counter that the kernel keeps for them.

mod detail;
mod settings;
pub(crate) mod vlan;

use aizen_protocol::record::{Link, LinkCounters, LinkDetail, OperState};

use super::netlink::attribute::{attributes, u32_at, u64_at};
use super::netlink::{self, Question};
use super::{CollectError, Seen};

/// All links of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Link>>, CollectError> {
    let question = Question::route(RTM_GETLINK, vec![0; HEADER]);
    let dump =
        netlink::dump_parts(&question, |part| decode(part.payload).map(Some), |_| false).await?;
    let mut links = dump.seen("links");
    let filtering = filtering(&links.value);
    if !filtering.is_empty() {
        match vlan::collect().await {
            Ok(ports) => {
                links.gaps.extend(ports.gaps);
                vlan::tell(&mut links.value, &filtering, ports.value);
            }
            Err(error) => links
                .gaps
                .push(format!("the VLANs of bridge ports: {error}")),
        }
    }
    Ok(links)
}

/// The bridges that look at VLAN tags.
fn filtering(links: &[Link]) -> Vec<u32> {
    links
        .iter()
        .filter(|link| {
            matches!(
                link.detail,
                Some(LinkDetail::Bridge {
                    vlan_filtering: true,
                    ..
                })
            )
        })
        .map(|link| link.index)
        .collect()
}

/// Reads one `RTM_NEWLINK`: `struct ifinfomsg` and attributes.
pub(crate) fn decode(message: &[u8]) -> Option<Link> {
    let flags = u32_at(message, 8)?;
    let mut link = Link {
        index: u32_at(message, 4)?,
        loopback: flags & IFF_LOOPBACK != 0,
        admin_up: flags & IFF_UP != 0,
        promiscuous: flags & IFF_PROMISC != 0,
        ..Link::default()
    };
    let (mut lower, mut elsewhere) = (None, false);
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_MTU => link.mtu = attribute.u32().unwrap_or_default(),
            IFLA_OPERSTATE => link.oper = oper(attribute.u8()),
            IFLA_CARRIER => link.carrier = attribute.u8().map(|carrier| carrier != 0),
            IFLA_CARRIER_CHANGES => link.carrier_changes = attribute.u32(),
            IFLA_MASTER => link.master = attribute.u32(),
            IFLA_LINK => lower = attribute.u32(),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_ADDRESS if !link.loopback => link.mac = attribute.mac(),
            IFLA_STATS64 => link.counters = counters(attribute.value),
            IFLA_LINKINFO => {
                let told = detail::decode(attribute);
                (link.driver_kind, link.detail, link.port) = (told.kind, told.detail, told.port);
            }
            IFLA_AF_SPEC => (link.ipv4, link.ipv6) = settings::decode(attribute),
            _ => {}
        }
    }
    // A pair's other end is no link that it runs on; an index of another namespace means something else here.
    let paired = matches!(
        link.driver_kind.as_deref(),
        Some("veth" | "vxcan" | "netkit")
    );
    link.parent =
        lower.filter(|&parent| parent != 0 && parent != link.index && !elsewhere && !paired);
    // The kernel keeps the last carrier of a link that is set down; it says nothing about the cable.
    if !link.admin_up {
        link.carrier = None;
    }
    Some(link)
}

/// RFC 2863 `ifOperStatus` as the kernel counts it (`IF_OPER_*`, linux/if.h).
fn oper(state: Option<u8>) -> OperState {
    match state {
        Some(1) => OperState::NotPresent,
        Some(2) => OperState::Down,
        Some(3) => OperState::LowerLayerDown,
        Some(4) => OperState::Testing,
        Some(5) => OperState::Dormant,
        Some(6) => OperState::Up,
        _ => OperState::Unknown,
    }
}

/// `struct rtnl_link_stats64` (linux/if_link.h); an older kernel's ends earlier.
fn counters(stats: &[u8]) -> Option<LinkCounters> {
    let at = |place: usize| u64_at(stats, place * 8);
    let or_zero = |place| at(place).unwrap_or_default();
    Some(LinkCounters {
        rx_packets: at(0)?,
        tx_packets: at(1)?,
        rx_bytes: at(2)?,
        tx_bytes: at(3)?,
        rx_errors: at(4)?,
        tx_errors: at(5)?,
        rx_dropped: at(6)?,
        tx_dropped: at(7)?,
        multicast: at(8)?,
        collisions: at(9)?,
        rx_length_errors: or_zero(10),
        rx_over_errors: or_zero(11),
        rx_crc_errors: or_zero(12),
        rx_frame_errors: or_zero(13),
        rx_fifo_errors: or_zero(14),
        rx_missed_errors: or_zero(15),
        tx_aborted_errors: or_zero(16),
        tx_carrier_errors: or_zero(17),
        tx_fifo_errors: or_zero(18),
        tx_heartbeat_errors: or_zero(19),
        tx_window_errors: or_zero(20),
        // 21 and 22 count compressed packets.
        rx_nohandler: or_zero(23),
    })
}

const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`: family, padding, type, index, flags, change mask.
const HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_PROMISC: u32 = 1 << 8;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_CARRIER: u16 = 33;
const IFLA_CARRIER_CHANGES: u16 = 35;
const IFLA_LINK_NETNSID: u16 = 37;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    fn message(flags: u32, given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 4]);
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    #[test]
    fn a_link_that_is_set_down_has_no_carrier_to_speak_of() {
        let given: [(u16, &[u8]); 2] = [(IFLA_CARRIER, &[1]), (IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1])];
        assert_eq!(decode(&message(0, &given)).unwrap().carrier, None);
        let link = decode(&message(IFF_UP, &given)).unwrap();
        assert_eq!((link.index, link.carrier), (7, Some(true)));
        assert_eq!(link.mac.unwrap().to_string(), "02:00:00:00:00:01");
    }

    #[test]
    fn a_hardware_address_of_another_length_is_no_mac() {
        let link = decode(&message(0, &[(IFLA_ADDRESS, &[1; 20])])).unwrap();
        assert_eq!(link.mac, None);
    }

    #[test]
    fn a_name_that_is_no_utf8_loses_no_link() {
        let link = decode(&message(IFF_UP, &[(IFLA_IFNAME, b"up\xfflink\0")])).unwrap();
        assert_eq!(link.name, "up\u{fffd}link");
    }

    #[test]
    fn a_link_of_another_namespace_is_no_parent_and_neither_is_itself() {
        let lower = 3_u32.to_ne_bytes();
        let parent = |given: &[(u16, &[u8])]| decode(&message(0, given)).unwrap().parent;
        assert_eq!(parent(&[(IFLA_LINK, &lower)]), Some(3));
        assert_eq!(parent(&[(IFLA_LINK, &7_u32.to_ne_bytes())]), None);
        let there: [(u16, &[u8]); 2] = [(IFLA_LINK, &lower), (IFLA_LINK_NETNSID, &[0; 4])];
        assert_eq!(parent(&there), None);
    }

    #[test]
    fn counters_of_a_kernel_that_knows_fewer_are_zero_and_of_a_torn_message_none() {
        let stats: Vec<u8> = (1_u64..=10).flat_map(u64::to_ne_bytes).collect();
        let told = counters(&stats).unwrap();
        assert_eq!(
            (told.rx_packets, told.collisions, told.rx_nohandler),
            (1, 10, 0)
        );
        assert_eq!(counters(&stats[..79]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_link_or_none(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(decode(&bytes));
        }

        #[test]
        fn any_nesting_is_a_link(kind in 0_u16..60, body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&message(IFF_UP, &[(kind, &body)])).is_some());
        }
    }
}
