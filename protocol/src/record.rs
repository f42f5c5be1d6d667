//! Evidence as it travels: a record is an observation after sanitizing, or its raw twin inside the device.
//!
//! Units stand in the field names: `_us` microseconds, `_ms` milliseconds, `_s` seconds, `_bytes` octets.

mod address;
mod dns;
mod history;
mod host;
mod lease;
mod link;
mod probe;
mod round;
mod route;
mod traffic;
mod wireless;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{BootId, RoundId};
use crate::private::{Private, PrivateVisitor, private_fields};

pub use self::address::*;
pub use self::dns::*;
pub use self::history::*;
pub use self::host::*;
pub use self::lease::*;
pub use self::link::*;
pub use self::probe::*;
pub use self::round::*;
pub use self::route::*;
pub use self::traffic::*;
pub use self::wireless::*;

/// What one collector saw in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The pass this belongs to; the record with [`Body::Round`] ends it.
    pub round: RoundId,
    /// When it was seen, by the device's clock.
    pub at: Timestamp,
    /// Counters of different boots are not comparable.
    pub boot: BootId,
    /// What was seen.
    pub body: Body,
}

macro_rules! bodies {
    ($($(#[doc = $doc:literal])* $name:ident($value:ty) = $collector:literal,)*) => {
        /// The kinds of evidence.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case", tag = "kind", content = "value")]
        pub enum Body {
            $($(#[doc = $doc])* $name($value),)*
        }

        /// Every collector's name, from the cable upwards.
        pub const COLLECTORS: &[&str] = &[$($collector),*];

        impl Body {
            /// The collector's name, as in the folder, the metrics and a [`Gap`].
            #[must_use]
            pub fn collector(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $collector,)*
                }
            }
        }

        impl Private for Body {
            fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor) {
                match self {
                    $(Self::$name(value) => value.visit_private(visitor),)*
                }
            }
        }
    };
}

bodies! {
    /// What the operator says this device is for.
    Profile(Profile) = "profile",
    /// Network interfaces (`RTM_GETLINK`).
    Links(Vec<Link>) = "links",
    /// What drivers of Ethernet ports say (ethtool netlink).
    Ethernet(Vec<Ethernet>) = "ethernet",
    /// Forwarding databases of bridges.
    Fdb(Fdb) = "fdb",
    /// Queueing disciplines (`RTM_GETQDISC`).
    Queues(Vec<Queue>) = "queues",
    /// Pluggable modules, through the executor's door.
    Modules(Vec<Module>) = "modules",
    /// Wi-Fi (nl80211).
    Wireless(Radio) = "wireless",
    /// Interface addresses (`RTM_GETADDR`).
    Addresses(Vec<Address>) = "addresses",
    /// Routes of all tables (`RTM_GETROUTE`).
    Routes(Vec<Route>) = "routes",
    /// Policy rules (`RTM_GETRULE`).
    Rules(Vec<Rule>) = "rules",
    /// Neighbour entries (`RTM_GETNEIGH`).
    Neighbours(Vec<Neighbour>) = "neighbours",
    /// Neighbour tables (`RTM_GETNEIGHTBL`).
    NeighbourTables(Vec<NeighbourTable>) = "neighbour_tables",
    /// Whether packets are forwarded.
    Forwarding(Forwarding) = "forwarding",
    /// The resolvers that programs of this device use (`resolv.conf`).
    Resolvers(Resolvers) = "resolvers",
    /// Questions asked to each resolver.
    Dns(Vec<DnsProbe>) = "dns",
    /// ICMP echo to gateways and anchors.
    Reach(Vec<Reach>) = "reach",
    /// Sizes that pass without fragmentation.
    PathMtu(Vec<PathMtu>) = "path_mtu",
    /// TCP connects.
    Connects(Vec<Connect>) = "connects",
    /// Paths, hop by hop.
    Traces(Vec<Trace>) = "traces",
    /// Round-trip times under load.
    Load(Vec<Load>) = "load",
    /// TLS certificates.
    Certificates(Vec<Certificate>) = "certificates",
    /// Whether the web is walled off.
    Portal(Portal) = "portal",
    /// Addresses of ours that somebody else answers for.
    Duplicates(Vec<Duplicate>) = "duplicates",
    /// Leases and pools.
    Dhcp(Dhcp) = "dhcp",
    /// Who offers DHCP, through the executor's door.
    DhcpProbes(Vec<DhcpProbe>) = "dhcp_probes",
    /// Who answers PPPoE discovery, through the executor's door.
    PppoeProbes(Vec<PppoeProbe>) = "pppoe_probes",
    /// Who advertises itself as IPv6 router, through the executor's door.
    RouterProbes(Vec<RouterProbe>) = "router_probes",
    /// The other ends of cables, through the executor's door.
    Lldp(Vec<Lldp>) = "lldp",
    /// Protocol counters and sockets.
    Protocols(Protocols) = "protocols",
    /// Packet work of each processor.
    Softnet(Vec<Softnet>) = "softnet",
    /// Connection tracking.
    Conntrack(Conntrack) = "conntrack",
    /// The packet filter, through the executor's door.
    Filter(Vec<FilterChain>) = "filter",
    /// WireGuard interfaces, through the executor's door.
    WireGuard(Vec<WireGuard>) = "wireguard",
    /// The clock beside a time server's.
    Time(Time) = "time",
    /// Load, memory, disks, temperature.
    Host(Host) = "host",
    /// Time of each processor by kind.
    Cpu(Vec<CpuTimes>) = "cpu",
    /// Pressure stall information.
    Pressure(Pressure) = "pressure",
    /// Services, as their manager sees them.
    Services(Vec<Service>) = "services",
    /// Recent lines of log.
    Log(Vec<LogLine>) = "log",
    /// Files of network configuration.
    Configuration(Vec<ConfigFile>) = "configuration",
    /// What the device remembers of the last hours.
    History(History) = "history",
    /// The end of the round, with what couldn't be seen.
    Round(Round) = "round",
}

private_fields! {
    Record { body }
}
