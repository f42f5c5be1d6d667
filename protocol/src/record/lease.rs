//! Configuration that the network gives or should give: DHCP, PPPoE, router advertisements, LLDP.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::private::{Mac, Name, Prefix, Text, private_fields};

/// A lease of a DHCP client on this device (RFC 2131).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Interface name.
    pub link: String,
    /// The client program, from the place of its file: `systemd-networkd`, `dhclient`, `dhcpcd`, `NetworkManager`.
    pub client: String,
    /// Leased address.
    pub address: IpAddr,
    /// Server identifier.
    pub server: Option<IpAddr>,
    /// Routers.
    pub routers: Vec<IpAddr>,
    /// Resolvers.
    pub resolvers: Vec<IpAddr>,
    /// When it was obtained, if the file says.
    pub obtained: Option<Timestamp>,
    /// When it ends; none for ever or unknown.
    pub expires: Option<Timestamp>,
}

/// The pool of a DHCP server on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The server program: `dnsmasq`, `odhcpd`, `isc-dhcp-server`, `kea`.
    pub server: String,
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
    /// Addresses in it.
    pub size: u32,
    /// Addresses of it that are leased now.
    pub leased: u32,
}

/// DHCP as client and server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dhcp {
    /// Leases of clients here, the newest of each link.
    pub leases: Vec<Lease>,
    /// Pools of servers here.
    pub pools: Vec<Pool>,
    /// Links that a DHCP client here is set to configure, if that is known.
    pub wanted: Vec<String>,
}

/// A DHCP offer (RFC 2131) to a DISCOVER of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhcpOffer {
    /// Server identifier.
    pub server: IpAddr,
    /// Its hardware address.
    pub server_mac: Option<Mac>,
    /// Offered address; none for a NAK.
    pub address: Option<IpAddr>,
    /// Routers it would give.
    pub routers: Vec<IpAddr>,
    /// Resolvers it would give.
    pub resolvers: Vec<IpAddr>,
}

/// Who offers DHCP on a link, through the executor's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhcpProbe {
    /// Index of the link.
    pub link: u32,
    /// Offers.
    pub offers: Vec<DhcpOffer>,
}

/// Who answers PPPoE discovery on a link (RFC 2516, PADI and PADO), through the executor's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PppoeProbe {
    /// Index of the link.
    pub link: u32,
    /// Hardware addresses of access concentrators.
    pub concentrators: Vec<Mac>,
    /// Their names.
    pub names: Vec<Text>,
}

/// A router advertisement (RFC 4861).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertisement {
    /// Link-local address of the router.
    pub router: IpAddr,
    /// Router lifetime, seconds; 0 is no default router.
    pub lifetime_s: u16,
    /// MTU option.
    pub mtu: Option<u32>,
    /// Prefixes for autoconfiguration.
    pub prefixes: Vec<Prefix>,
    /// Recursive DNS servers (RFC 8106).
    pub resolvers: Vec<IpAddr>,
    /// Addresses come from DHCPv6 (M flag).
    pub managed: bool,
}

/// Who answers a router solicitation on a link, through the executor's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterProbe {
    /// Index of the link.
    pub link: u32,
    /// Advertisements.
    pub advertisements: Vec<Advertisement>,
}

/// What the other end of a cable says of itself (IEEE 802.1AB), through the executor's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lldp {
    /// Index of the link.
    pub link: u32,
    /// Chassis identifier.
    pub chassis: Text,
    /// Port identifier.
    pub port: Text,
    /// System name.
    pub system: Option<Name>,
    /// Port VLAN identifier (802.1 TLV 1).
    pub pvid: Option<u16>,
    /// VLAN names and numbers it announces.
    pub vlans: Vec<u16>,
    /// Largest frame (802.3 TLV 4).
    pub mtu: Option<u16>,
}

private_fields! {
    Lease { address, server, routers, resolvers }
    Pool { first, last }
    Dhcp { leases, pools }
    DhcpOffer { server, server_mac, address, routers, resolvers }
    DhcpProbe { offers }
    PppoeProbe { concentrators, names }
    Advertisement { router, prefixes, resolvers }
    RouterProbe { advertisements }
    Lldp { chassis, port, system }
}
