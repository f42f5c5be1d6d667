//! The operations beyond routes, addresses, links, parameters and files: what a manifest grants and `change` asks for.

use serde::{Deserialize, Serialize};

use super::manifest::Value;

/// What is done to a policy rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleOperation {
    /// Fails if it exists.
    Add(Rule),
    /// Fails if it does not exist.
    Delete(Rule),
}

/// A rule that looks up a table, as `ip rule` names it. What is left out is not "any" but "none".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its place: lower ones are asked first.
    pub priority: u32,
    /// Source: a prefix, an address or a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Destination: a prefix, an address or a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// Interface over which packets came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Interface to which their sender bound them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oif: Option<String>,
    /// The whole firewall mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<u32>,
    /// The table that is looked up.
    pub table: u32,
    /// True for IPv6; addresses say it by themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
}

/// What is done to the neighbour table (ARP, NDP).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourOperation {
    /// Makes a permanent entry, or changes the one that is there.
    Replace(Neighbour),
    /// Removes an entry: a permanent one, or what the kernel learned, which it then learns anew.
    Delete(NeighbourName),
}

/// A permanent entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Whose: an address or a variable.
    pub address: Value,
    /// Hardware address, or a variable.
    pub lladdr: Value,
    /// Interface.
    pub dev: String,
}

/// Which entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourName {
    /// Whose: an address or a variable.
    pub address: Value,
    /// Interface.
    pub dev: String,
}

/// What is done to a table of nftables, whole: one batch is one transaction of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NftOperation {
    /// Makes it what the text says that comes with the request, as `nft list table` writes it.
    ReplaceTable(NftTable),
    /// Removes it.
    DeleteTable(NftTable),
}

/// Which table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NftTable {
    /// `ip`, `ip6`, `inet`, `arp`, `bridge` or `netdev`.
    pub family: String,
    /// Its name.
    pub name: String,
}

/// What is done to a service of the system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceOperation {
    /// It runs afterwards.
    Start(String),
    /// It does not.
    Stop(String),
    /// It is ended and started.
    Restart(String),
    /// It reads its configuration again.
    Reload(String),
}

/// What is done to the configuration of OpenWrt, in `/etc/config`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UciOperation {
    /// Gives an option its value, or makes a section of a type.
    Set(UciPair),
    /// Adds a value to a list.
    AddList(UciPair),
    /// Removes a value from a list.
    DelList(UciPair),
    /// Removes an option or a section.
    Delete(String),
    /// Tells the services of a package that its configuration changed.
    Reload(String),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UciPair {
    /// `network.lan.ipaddr`, `network.@route[0].target`, `network.guest`.
    pub key: String,
    /// Literal, or a variable.
    pub value: Value,
}

/// What is done to a peer of a WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireguardOperation {
    /// Adds it, or sets what is given of one that is there. Its preshared key stays.
    SetPeer(WireguardPeer),
    /// Removes it.
    RemovePeer(WireguardPeerName),
}

/// A peer, as `wg set` names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireguardPeer {
    /// Interface.
    pub dev: String,
    /// Its public key, base64.
    pub peer: String,
    /// Where it is: an address or a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Value>,
    /// And its UDP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Seconds between packets that keep the way open; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u16>,
    /// Prefixes that are reached through it; none leaves them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<Value>,
}

/// Which peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireguardPeerName {
    /// Interface.
    pub dev: String,
    /// Its public key, base64.
    pub peer: String,
}
