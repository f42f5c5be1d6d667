//! Interfaces, what their drivers say, bridges and queues.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::private::{Mac, Private, PrivateVisitor, Text, private_fields};

/// Operational state (RFC 2863 `ifOperStatus`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the states are RFC 2863's")]
pub enum OperState {
    #[default]
    Unknown,
    NotPresent,
    Down,
    LowerLayerDown,
    Testing,
    Dormant,
    Up,
}

/// One network interface. Interface names are not private by policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// `veth`, `bridge`, …; none for plain hardware.
    pub driver_kind: Option<String>,
    /// True for `lo`.
    pub loopback: bool,
    /// Administratively up (`IFF_UP`).
    pub admin_up: bool,
    /// Operational state.
    pub oper: OperState,
    /// Carrier; none if the driver doesn't say.
    pub carrier: Option<bool>,
    /// Times the carrier came or went since the link exists.
    pub carrier_changes: Option<u32>,
    /// MTU, bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// Index of the link it runs on: a VLAN's or macvlan's lower link (`IFLA_LINK`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// In promiscuous mode (`IFF_PROMISC`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promiscuous: bool,
    /// What its kind says of itself (`IFLA_INFO_DATA`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<LinkDetail>,
    /// What it is to its bridge or bond (`IFLA_INFO_SLAVE_DATA`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// `net.ipv4.conf.LINK.*` (`IFLA_AF_SPEC`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Settings>,
    /// `net.ipv6.conf.LINK.*` (`IFLA_AF_SPEC`); none without IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Settings>,
    /// Counters since the link exists.
    pub counters: Option<LinkCounters>,
}

/// 64-bit interface counters (`rtnl_link_stats64`), totals: compare two records of one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the counters are the kernel's rtnl_link_stats64"
)]
pub struct LinkCounters {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_crc_errors: u64,
    pub collisions: u64,
    pub multicast: u64,
    #[serde(default)]
    pub rx_length_errors: u64,
    #[serde(default)]
    pub rx_over_errors: u64,
    #[serde(default)]
    pub rx_frame_errors: u64,
    #[serde(default)]
    pub rx_fifo_errors: u64,
    #[serde(default)]
    pub rx_missed_errors: u64,
    #[serde(default)]
    pub rx_nohandler: u64,
    #[serde(default)]
    pub tx_aborted_errors: u64,
    #[serde(default)]
    pub tx_carrier_errors: u64,
    #[serde(default)]
    pub tx_fifo_errors: u64,
    #[serde(default)]
    pub tx_heartbeat_errors: u64,
    #[serde(default)]
    pub tx_window_errors: u64,
}

/// What a link's kind says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum LinkDetail {
    /// A VLAN (IEEE 802.1Q).
    Vlan {
        /// VLAN identifier.
        id: u16,
        /// Tag protocol: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
        protocol: u16,
    },
    /// A bridge (IEEE 802.1D).
    Bridge {
        /// Spanning tree is on, in the kernel or a daemon (`IFLA_BR_STP_STATE`).
        stp: bool,
        /// Priority of its own bridge identifier.
        priority: u16,
        /// The root bridge; itself where it is the root.
        root: Option<Mac>,
        /// Priority of the root's identifier.
        root_priority: u16,
        /// Port number towards the root; 0 on the root itself.
        root_port: u16,
        /// A topology change is under way.
        topology_change: bool,
        /// VLAN filtering is on.
        vlan_filtering: bool,
    },
    /// A bond or team.
    Bond {
        /// `active-backup`, `802.3ad`, … or a number.
        mode: String,
        /// Index of the active port, where the mode has one.
        active: Option<u32>,
    },
    /// A tunnel: `gre`, `ipip`, `sit`, `vxlan`, `wireguard`, …
    Tunnel {
        /// Index of the link under it.
        under: Option<u32>,
        /// Its own end.
        local: Option<IpAddr>,
        /// The other end.
        remote: Option<IpAddr>,
    },
}

/// Spanning tree state of a bridge port (`BR_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the states are the kernel's BR_STATE_*")]
pub enum PortState {
    Disabled,
    Listening,
    Learning,
    Forwarding,
    Blocking,
}

/// What a link is to its bridge or bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub enum Port {
    /// A bridge port.
    Bridge {
        /// Spanning tree state.
        state: PortState,
        /// VLAN of untagged frames; none where the bridge doesn't filter.
        pvid: Option<u16>,
        /// VLANs it carries tagged or untagged; ranges are told by each number, at most 128.
        vlans: Vec<u16>,
    },
    /// A bond's port.
    Bond {
        /// It carries traffic (`BOND_STATE_ACTIVE`).
        active: bool,
        /// MII status is up.
        mii_up: bool,
        /// Times its link failed.
        failures: u32,
    },
}

/// `net.ipv4.conf.LINK.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipv4Settings {
    /// `forwarding`.
    pub forwarding: bool,
    /// `rp_filter`: 0 off, 1 strict, 2 loose (RFC 3704). The higher of this and `all` holds.
    pub rp_filter: u8,
    /// `arp_ignore`.
    pub arp_ignore: u8,
}

/// `net.ipv6.conf.LINK.*` and the flags of the interface's IPv6 side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ipv6Settings {
    /// `disable_ipv6`.
    pub disabled: bool,
    /// `forwarding`.
    pub forwarding: bool,
    /// `accept_ra`: 0 never, 1 unless it forwards, 2 always.
    pub accept_ra: u8,
    /// A router advertisement came since the link is up (`IF_RA_RCVD`).
    pub ra_received: bool,
    /// Router solicitations were sent (`IF_RS_SENT`).
    pub rs_sent: bool,
}

/// Duplex mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "two words that everybody knows")]
pub enum Duplex {
    Half,
    Full,
}

/// What the driver of an Ethernet port says (ethtool netlink).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ethernet {
    /// Index of the link.
    pub link: u32,
    /// Driver name.
    pub driver: Option<String>,
    /// Speed in Mb/s; none without carrier.
    pub speed_mbps: Option<u32>,
    /// Duplex; none without carrier.
    pub duplex: Option<Duplex>,
    /// Autonegotiation is on.
    pub autonegotiation: Option<bool>,
    /// The fastest mode that the port itself can, Mb/s.
    pub supported_mbps: Option<u32>,
    /// The fastest mode that it advertises, Mb/s.
    pub advertised_mbps: Option<u32>,
    /// The fastest mode that the link partner advertises, Mb/s; none if it doesn't negotiate or the driver doesn't say.
    pub partner_mbps: Option<u32>,
    /// Why there is no link, in the kernel's words (`ETHTOOL_A_LINKSTATE_EXT_STATE`).
    pub down_reason: Option<String>,
    /// Statistics of driver and standard groups, by the driver's or the standard's name; at most 256.
    pub statistics: BTreeMap<String, u64>,
}

/// One entry of a bridge's forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbEntry {
    /// Index of the port behind which the address is.
    pub link: u32,
    /// Hardware address.
    pub mac: Mac,
    /// VLAN, where the bridge filters.
    pub vlan: Option<u16>,
    /// Index of the bridge.
    pub bridge: Option<u32>,
    /// An address of the bridge or the port itself.
    pub own: bool,
}

/// The forwarding databases of all bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fdb {
    /// Learned and own entries, the first [`crate::limit::OBJECTS`].
    pub entries: Vec<FdbEntry>,
    /// All entries.
    pub total: u32,
    /// Addresses that were seen to move between ports since the round before, with the number of moves.
    pub moves: Vec<FdbMoves>,
}

/// A hardware address that moves between ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbMoves {
    /// The address.
    pub mac: Mac,
    /// Ports it was seen at.
    pub links: Vec<u32>,
    /// Times it moved.
    pub moves: u32,
}

/// One queueing discipline (tc(8)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Index of the link.
    pub link: u32,
    /// `fq_codel`, `pfifo_fast`, `htb`, `ingress`, …
    pub kind: String,
    /// Handle.
    pub handle: u32,
    /// Parent's handle; 0xffffffff is the root.
    pub parent: u32,
    /// Sent, totals.
    pub bytes: u64,
    /// Sent, totals.
    pub packets: u32,
    /// Dropped, totals.
    pub drops: u32,
    /// Times the rate was exceeded, totals.
    pub overlimits: u32,
    /// Requeued, totals.
    pub requeues: u32,
    /// Waiting now, bytes.
    pub backlog_bytes: u32,
    /// Waiting now, packets.
    pub backlog_packets: u32,
}

/// Diagnostics of a pluggable module (SFF-8472, SFF-8636), through the executor's door.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Index of the link.
    pub link: u32,
    /// Vendor and part, as the module says.
    pub part: Text,
    /// Degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Supply, volts.
    pub voltage_v: Option<f32>,
    /// Laser bias, milliamperes; the first lane.
    pub bias_ma: Option<f32>,
    /// Sent light of the first lane, dBm.
    pub tx_power_dbm: Option<f32>,
    /// Received light, dBm; the weakest lane.
    pub rx_power_dbm: Option<f32>,
    /// Alarm thresholds of received light: low and high, dBm.
    pub rx_alarm_dbm: Option<[f32; 2]>,
    /// Loss of signal.
    pub rx_los: Option<bool>,
    /// Alarms and warnings that are set, in the standard's words.
    pub alarms: Vec<String>,
}

private_fields! {
    Link { mac, detail }
    Ethernet {}
    FdbEntry { mac }
    FdbMoves { mac }
    Fdb { entries, moves }
    Queue {}
    Module { part }
}

impl Private for LinkDetail {
    fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor) {
        match self {
            Self::Bridge { root, .. } => root.visit_private(visitor),
            Self::Tunnel { local, remote, .. } => {
                local.visit_private(visitor);
                remote.visit_private(visitor);
            }
            Self::Vlan { .. } | Self::Bond { .. } => {}
        }
    }
}
