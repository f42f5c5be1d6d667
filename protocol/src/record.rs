//! Evidence as it travels: a record is an observation after sanitizing, or its raw twin inside the device.
//!
//! Units stand in the field names: `_us` microseconds, `_ms` milliseconds, `_s` seconds, `_bytes` octets.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{BootId, RoundId};
use crate::private::{Mac, Name, Prefix, Private, PrivateVisitor, Text, private_fields};

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

/// The kinds of evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Body {
    /// What the operator says this device is for.
    Profile(Profile),
    /// Network interfaces (`RTM_GETLINK`).
    Links(Vec<Link>),
    /// Interface addresses (`RTM_GETADDR`).
    Addresses(Vec<Address>),
    /// Routes of all tables (`RTM_GETROUTE`).
    Routes(Vec<Route>),
    /// Policy rules (`RTM_GETRULE`).
    Rules(Vec<Rule>),
    /// Neighbour entries (`RTM_GETNEIGH`).
    Neighbours(Vec<Neighbour>),
    /// Whether packets are forwarded.
    Forwarding(Forwarding),
    /// The resolvers that programs of this device use (`resolv.conf`).
    Resolvers(Resolvers),
    /// Questions asked to each resolver.
    Dns(Vec<DnsProbe>),
    /// ICMP echo to gateways and anchors.
    Reach(Vec<Reach>),
    /// Sizes that pass without fragmentation.
    PathMtu(Vec<PathMtu>),
    /// Addresses of ours that somebody else answers for.
    Duplicates(Vec<Duplicate>),
    /// The clock beside a time server's.
    Time(Time),
    /// Load, memory, disks, temperature.
    Host(Host),
    /// The end of the round, with what couldn't be seen.
    Round(Round),
}

impl Body {
    /// The collector's name, as in the folder, the metrics and a [`Gap`].
    #[must_use]
    pub fn collector(&self) -> &'static str {
        match self {
            Self::Profile(_) => "profile",
            Self::Links(_) => "links",
            Self::Addresses(_) => "addresses",
            Self::Routes(_) => "routes",
            Self::Rules(_) => "rules",
            Self::Neighbours(_) => "neighbours",
            Self::Forwarding(_) => "forwarding",
            Self::Resolvers(_) => "resolvers",
            Self::Dns(_) => "dns",
            Self::Reach(_) => "reach",
            Self::PathMtu(_) => "path_mtu",
            Self::Duplicates(_) => "duplicates",
            Self::Time(_) => "time",
            Self::Host(_) => "host",
            Self::Round(_) => "round",
        }
    }
}

/// What the device is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Forwards for others: forwarding that is off is a fault.
    Router,
    /// Forwards nothing.
    Host,
    /// Nobody said.
    #[default]
    Unknown,
}

/// What the operator says about the device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Router or host.
    pub role: Role,
    /// Interfaces towards the provider.
    pub wan: Vec<String>,
    /// Interfaces that must have a carrier.
    pub expected_up: Vec<String>,
    /// The default gateway that the operator expects, for putting a lost default route back.
    pub gateway: Option<IpAddr>,
    /// The agent's version.
    pub agent: String,
}

/// Operational state (RFC 2863 `ifOperStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the states are RFC 2863's")]
pub enum OperState {
    Unknown,
    NotPresent,
    Down,
    LowerLayerDown,
    Testing,
    Dormant,
    Up,
}

/// One network interface. Interface names are not private by policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Index of the interface.
    pub link: u32,
    /// Address and prefix length.
    pub address: Prefix,
    /// `global`, `link`, `host`, `site` or a number (rt_scopes).
    pub scope: String,
    /// Duplicate address detection failed (`IFA_F_DADFAILED`, RFC 4862).
    pub dad_failed: bool,
    /// Detection still runs (`IFA_F_TENTATIVE`).
    pub tentative: bool,
    /// Preferred lifetime is over (`IFA_F_DEPRECATED`).
    pub deprecated: bool,
    /// Not permanent: from DHCP or a router advertisement.
    pub dynamic: bool,
    /// Seconds the address is still valid; none for ever.
    pub valid_s: Option<u32>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination; `0.0.0.0/0` and `::/0` are default routes.
    pub destination: Prefix,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing interface.
    pub link: Option<u32>,
    /// Routing table; 254 is `main`.
    pub table: u32,
    /// Metric; lower wins.
    pub metric: Option<u32>,
    /// Who made it: `kernel`, `boot`, `static`, `dhcp`, `ra` or a number (rt_protos).
    pub protocol: String,
    /// `unicast`, `blackhole`, `unreachable`, …
    pub kind: String,
    /// Preferred source address.
    pub source: Option<IpAddr>,
}

/// One policy rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Priority; lower is asked first.
    pub priority: u32,
    /// 4 or 6.
    pub family: u8,
    /// Source it matches.
    pub from: Option<Prefix>,
    /// Destination it matches.
    pub to: Option<Prefix>,
    /// Table it leads to.
    pub table: u32,
    /// `to_table`, `blackhole`, …
    pub action: String,
}

/// Neighbour unreachability state (RFC 4861, `NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the states are the kernel's NUD_*")]
pub enum NeighbourState {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    Noarp,
    Permanent,
    None,
}

/// One neighbour entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Index of the interface.
    pub link: u32,
    /// Protocol address.
    pub address: IpAddr,
    /// Hardware address, once known.
    pub mac: Option<Mac>,
    /// State.
    pub state: NeighbourState,
}

/// `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forwarding {
    /// IPv4; none if unreadable.
    pub ipv4: Option<bool>,
    /// IPv6; none if unreadable.
    pub ipv6: Option<bool>,
}

/// The resolver configuration of the device itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolvers {
    /// `nameserver` lines, in order.
    pub configured: Vec<IpAddr>,
    /// Other resolvers the operator named in the agent's configuration.
    pub alternates: Vec<IpAddr>,
    /// `search` and `domain` names.
    pub search: Vec<Name>,
    /// True if `/etc/resolv.conf` is a regular file: only then a change can own it.
    pub regular_file: bool,
}

/// How one DNS question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsAnswer {
    /// An answer with this RCODE (RFC 1035: 0 NOERROR, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED).
    Rcode(u8),
    /// Nothing before the deadline.
    Timeout,
    /// ICMP port unreachable: the host lives, nothing listens.
    PortUnreachable,
    /// No route, or ICMP host/net unreachable.
    Unreachable,
    /// Bytes that are no answer to the question.
    Garbage,
}

/// Questions to one resolver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsProbe {
    /// Who was asked.
    pub resolver: IpAddr,
    /// True if `resolv.conf` names it.
    pub configured: bool,
    /// Name in the question.
    pub name: Name,
    /// Each answer, in the order asked.
    pub answers: Vec<DnsAnswer>,
    /// Round-trip times of those that came.
    pub rtt_us: Vec<u32>,
}

/// What an echo target is to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReachRole {
    /// Next hop of a default route.
    Gateway,
    /// A resolver, configured or alternate.
    Resolver,
    /// A far target that the operator named.
    Anchor,
}

/// ICMP echo to one target (RFC 792, RFC 4443).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Target.
    pub target: IpAddr,
    /// What it is to the device.
    pub role: ReachRole,
    /// Requests that left.
    pub sent: u16,
    /// Replies before the deadline.
    pub received: u16,
    /// Round-trip times of the replies.
    pub rtt_us: Vec<u32>,
    /// True if the kernel refused to send for want of a route.
    pub no_route: bool,
}

/// Sizes (IP packet, bytes) sent with "don't fragment" to one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathMtu {
    /// Target.
    pub target: IpAddr,
    /// MTU of the outgoing link.
    pub link_mtu: u16,
    /// Largest size that was answered.
    pub largest_answered: Option<u16>,
    /// Smallest size that was not, after repeats.
    pub smallest_lost: Option<u16>,
    /// MTU that a router reported ("fragmentation needed", RFC 1191; "packet too big", RFC 8201).
    pub reported: Option<u16>,
}

/// How a duplicate was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateBy {
    /// ARP probe (RFC 5227).
    Arp,
    /// IPv6 duplicate address detection (RFC 4862).
    Dad,
}

/// An address of ours that somebody else has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicate {
    /// Index of the interface.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Who else answered; empty if the kernel doesn't say.
    pub others: Vec<Mac>,
    /// How it was seen.
    pub by: DuplicateBy,
}

/// The device's clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// True if the kernel says a daemon disciplines the clock (`adjtimex`, not `STA_UNSYNC`).
    pub kernel_synchronised: Option<bool>,
    /// One SNTP exchange (RFC 4330) with each configured server.
    pub servers: Vec<TimeServer>,
}

/// One SNTP exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeServer {
    /// Who was asked.
    pub server: IpAddr,
    /// Server's clock minus the device's, milliseconds; none without a usable answer.
    pub offset_ms: Option<i64>,
    /// Round trip.
    pub rtt_us: Option<u32>,
    /// Stratum (RFC 5905); 0 is a kiss-of-death.
    pub stratum: Option<u8>,
}

/// Load, memory, disks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Processors.
    pub cpus: u16,
    /// 1, 5 and 15 minute load.
    pub load: [f32; 3],
    /// Busy share of all CPUs since the round before, percent.
    pub cpu_percent: Option<f32>,
    /// Memory.
    pub memory_total_bytes: u64,
    /// `MemAvailable`.
    pub memory_available_bytes: u64,
    /// Processes killed for want of memory since boot (`oom_kill` of /proc/vmstat).
    pub oom_kills: Option<u64>,
    /// Hottest sensor, degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Mounted file systems that hold data.
    pub disks: Vec<Disk>,
}

/// One file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Mount point.
    pub mount: Text,
    /// File system type.
    pub fs: String,
    /// Size.
    pub total_bytes: u64,
    /// Free for unprivileged users.
    pub available_bytes: u64,
    /// Inodes; 0 if the file system has no such bound.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Why a round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The cadence.
    Tick,
    /// A netlink event.
    Event,
    /// Somebody asked.
    Asked,
    /// A change ended.
    Change,
}

/// Something that couldn't be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The collector.
    pub collector: String,
    /// Why, for people.
    pub reason: Text,
}

/// The end of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Why it began.
    pub trigger: Trigger,
    /// How long it took, milliseconds.
    pub took_ms: u32,
    /// What couldn't be seen.
    pub gaps: Vec<Gap>,
    /// Records that were dropped before they were sent, since the device enrolled.
    pub dropped: u64,
}

private_fields! {
    Record { body }
    Profile { gateway }
    Link { mac }
    Address { address }
    Route { destination, gateway, source }
    Rule { from, to }
    Neighbour { address, mac }
    Forwarding {}
    Resolvers { configured, alternates, search }
    DnsProbe { resolver, name }
    Reach { target }
    PathMtu { target }
    Duplicate { address, others }
    Time { servers }
    TimeServer { server }
    Host { disks }
    Disk { mount }
    Round { gaps }
    Gap { reason }
}

impl Private for Body {
    fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor) {
        match self {
            Self::Profile(v) => v.visit_private(visitor),
            Self::Links(v) => v.visit_private(visitor),
            Self::Addresses(v) => v.visit_private(visitor),
            Self::Routes(v) => v.visit_private(visitor),
            Self::Rules(v) => v.visit_private(visitor),
            Self::Neighbours(v) => v.visit_private(visitor),
            Self::Forwarding(v) => v.visit_private(visitor),
            Self::Resolvers(v) => v.visit_private(visitor),
            Self::Dns(v) => v.visit_private(visitor),
            Self::Reach(v) => v.visit_private(visitor),
            Self::PathMtu(v) => v.visit_private(visitor),
            Self::Duplicates(v) => v.visit_private(visitor),
            Self::Time(v) => v.visit_private(visitor),
            Self::Host(v) => v.visit_private(visitor),
            Self::Round(v) => v.visit_private(visitor),
        }
    }
}
