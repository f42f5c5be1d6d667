//! What a link's kind says of itself, and what it is to its bridge or bond (`IFLA_LINKINFO`).

use std::net::IpAddr;

use aizen_protocol::private::Mac;
use aizen_protocol::record::{LinkDetail, Port, PortState};

use crate::collect::netlink::attribute::{Attribute, find};

/// What `IFLA_LINKINFO` holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: Option<String>,
    pub(super) detail: Option<LinkDetail>,
    pub(super) port: Option<Port>,
}

pub(super) fn decode(info: Attribute<'_>) -> Told {
    let kind = find(info.value, IFLA_INFO_KIND).map(Attribute::text);
    let data = find(info.value, IFLA_INFO_DATA).map_or(&[][..], |data| data.value);
    let master = find(info.value, IFLA_INFO_SLAVE_KIND).map(Attribute::text);
    let port = find(info.value, IFLA_INFO_SLAVE_DATA).map_or(&[][..], |data| data.value);
    Told {
        detail: kind.as_deref().and_then(|kind| detail(kind, data)),
        port: master
            .as_deref()
            .and_then(|master| self::port(master, port)),
        kind,
    }
}

/// `data` holds what only this kind has (linux/if_link.h, linux/if_tunnel.h).
fn detail(kind: &str, data: &[u8]) -> Option<LinkDetail> {
    match kind {
        "vlan" => Some(LinkDetail::Vlan {
            id: find(data, 1)?.u16()?,
            protocol: u16::from_be(find(data, 5)?.u16()?),
        }),
        "bridge" => bridge(data),
        "bond" => Some(LinkDetail::Bond {
            mode: bond_mode(find(data, 1)?.u8()?),
            active: find(data, 2).and_then(Attribute::u32),
        }),
        // A team's mode is its daemon's business.
        "team" => Some(LinkDetail::Bond {
            mode: "team".to_owned(),
            active: None,
        }),
        "vxlan" => Some(tunnel(data, Some(3), &[4, 17], &[2, 16])),
        "geneve" => Some(tunnel(data, None, &[], &[2, 7])),
        "gre" | "gretap" | "erspan" | "ip6gre" | "ip6gretap" | "ip6erspan" => {
            Some(tunnel(data, Some(1), &[6], &[7]))
        }
        "ipip" | "sit" | "ip6tnl" => Some(tunnel(data, Some(1), &[2], &[3])),
        "vti" | "vti6" => Some(tunnel(data, Some(1), &[4], &[5])),
        // Its peers come through the executor's door.
        "wireguard" => Some(tunnel(data, None, &[], &[])),
        _ => None,
    }
}

/// The numbers of the attributes for the link below, its own end and the other end, by family.
fn tunnel(data: &[u8], under: Option<u16>, local: &[u16], remote: &[u16]) -> LinkDetail {
    let address = |kinds: &[u16]| -> Option<IpAddr> {
        let mut given = kinds.iter().filter_map(|kind| find(data, *kind)?.ip());
        given.find(|address| !address.is_unspecified())
    };
    LinkDetail::Tunnel {
        under: under
            .and_then(|kind| find(data, kind)?.u32())
            .filter(|index| *index != 0),
        local: address(local),
        remote: address(remote),
    }
}

fn bridge(data: &[u8]) -> Option<LinkDetail> {
    // `struct ifla_bridge_id`: priority as on the wire, hardware address.
    let root = find(data, IFLA_BR_ROOT_ID).and_then(|id| id.value.first_chunk::<8>());
    let (root_priority, root) = root.map_or((0, None), |&[p0, p1, ref mac @ ..]| {
        (u16::from_be_bytes([p0, p1]), Some(Mac(*mac)))
    });
    let flag = |kind| find(data, kind).and_then(Attribute::u8).unwrap_or_default() != 0;
    Some(LinkDetail::Bridge {
        stp: find(data, IFLA_BR_STP_STATE)?.u32()? != 0,
        priority: find(data, IFLA_BR_PRIORITY)?.u16()?,
        root,
        root_priority,
        root_port: find(data, IFLA_BR_ROOT_PORT)
            .and_then(Attribute::u16)
            .unwrap_or_default(),
        topology_change: flag(IFLA_BR_TOPOLOGY_CHANGE),
        vlan_filtering: flag(IFLA_BR_VLAN_FILTERING),
    })
}

/// `BOND_MODE_*` by the names of linux/Documentation/networking/bonding.rst.
fn bond_mode(mode: u8) -> String {
    let name = match mode {
        0 => "balance-rr",
        1 => "active-backup",
        2 => "balance-xor",
        3 => "broadcast",
        4 => "802.3ad",
        5 => "balance-tlb",
        6 => "balance-alb",
        other => return other.to_string(),
    };
    name.to_owned()
}

fn port(master: &str, data: &[u8]) -> Option<Port> {
    match master {
        "bridge" => Some(Port::Bridge {
            state: port_state(find(data, IFLA_BRPORT_STATE)?.u8()?)?,
            pvid: None,
            vlans: Vec::new(),
        }),
        "bond" => Some(Port::Bond {
            // `BOND_STATE_ACTIVE` and `BOND_LINK_UP` are 0.
            active: find(data, 1)?.u8()? == 0,
            mii_up: find(data, 2)?.u8()? == 0,
            failures: find(data, 3).and_then(Attribute::u32).unwrap_or_default(),
        }),
        _ => None,
    }
}

/// `BR_STATE_*` (linux/if_bridge.h).
fn port_state(state: u8) -> Option<PortState> {
    match state {
        0 => Some(PortState::Disabled),
        1 => Some(PortState::Listening),
        2 => Some(PortState::Learning),
        3 => Some(PortState::Forwarding),
        4 => Some(PortState::Blocking),
        _ => None,
    }
}

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_PRIORITY: u16 = 6;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_ROOT_ID: u16 = 10;
const IFLA_BR_ROOT_PORT: u16 = 12;
const IFLA_BR_TOPOLOGY_CHANGE: u16 = 14;
const IFLA_BRPORT_STATE: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::netlink::attribute::put;

    fn packed(given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    fn told(kind: &str, data: &[(u16, &[u8])]) -> Told {
        let data = packed(data);
        let info = packed(&[(IFLA_INFO_KIND, kind.as_bytes()), (IFLA_INFO_DATA, &data)]);
        decode(Attribute {
            kind: 18,
            value: &info,
        })
    }

    #[test]
    fn a_vlan_tells_its_number_and_the_protocol_of_its_tag() {
        let vlan = told("vlan", &[(1, &100_u16.to_ne_bytes()), (5, &[0x81, 0x00])]);
        let (id, protocol) = (100, 0x8100);
        assert_eq!(vlan.detail, Some(LinkDetail::Vlan { id, protocol }));
        assert_eq!(told("vlan", &[(1, &[1])]).detail, None);
    }

    #[test]
    fn a_bridge_tells_its_root_from_the_bytes_of_the_wire() {
        let bridge = told(
            "bridge",
            &[
                (IFLA_BR_STP_STATE, &1_u32.to_ne_bytes()),
                (IFLA_BR_PRIORITY, &0x8000_u16.to_ne_bytes()),
                (IFLA_BR_ROOT_ID, &[0x10, 0x00, 2, 0, 0, 0, 0, 9]),
                (IFLA_BR_ROOT_PORT, &2_u16.to_ne_bytes()),
                (IFLA_BR_TOPOLOGY_CHANGE, &[1]),
            ],
        );
        assert_eq!(
            bridge.detail,
            Some(LinkDetail::Bridge {
                stp: true,
                priority: 0x8000,
                root: Some(Mac([2, 0, 0, 0, 0, 9])),
                root_priority: 0x1000,
                root_port: 2,
                topology_change: true,
                vlan_filtering: false,
            })
        );
    }

    #[test]
    fn a_bond_names_its_mode_and_a_mode_of_tomorrow_is_a_number() {
        let bond = |mode: u8| told("bond", &[(1, &[mode]), (2, &5_u32.to_ne_bytes())]).detail;
        let expected = |mode: &str| {
            Some(LinkDetail::Bond {
                mode: mode.to_owned(),
                active: Some(5),
            })
        };
        assert_eq!(bond(4), expected("802.3ad"));
        assert_eq!(bond(77), expected("77"));
    }

    #[test]
    fn a_tunnel_tells_both_ends_and_an_unset_end_is_none() {
        let tunnel = told(
            "gre",
            &[
                (1, &4_u32.to_ne_bytes()),
                (6, &[0; 4]),
                (7, &[192, 0, 2, 9]),
            ],
        );
        assert_eq!(
            tunnel.detail,
            Some(LinkDetail::Tunnel {
                under: Some(4),
                local: None,
                remote: "192.0.2.9".parse().ok(),
            })
        );
    }

    #[test]
    fn a_port_belongs_to_a_bridge_or_a_bond_and_an_unknown_state_is_none() {
        let of = |master: &str, data: &[(u16, &[u8])]| {
            let data = packed(data);
            let info = packed(&[
                (IFLA_INFO_SLAVE_KIND, master.as_bytes()),
                (IFLA_INFO_SLAVE_DATA, &data),
            ]);
            let told = decode(Attribute {
                kind: 18,
                value: &info,
            });
            told.port
        };
        assert!(matches!(
            of("bridge", &[(1, &[4])]),
            Some(Port::Bridge {
                state: PortState::Blocking,
                ..
            })
        ));
        assert_eq!(of("bridge", &[(1, &[9])]), None);
        assert_eq!(
            of("bond", &[(1, &[1]), (2, &[2]), (3, &7_u32.to_ne_bytes())]),
            Some(Port::Bond {
                active: false,
                mii_up: false,
                failures: 7
            })
        );
    }
}
