//! Where packets go.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::private::{Prefix, private_fields};

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination; `0.0.0.0/0` and `::/0` are default routes.
    pub destination: Prefix,
    /// Next hop; of a multipath route the first that lives.
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing interface; of a multipath route that of the same next hop.
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
    /// The next hops of a multipath route; empty for a plain one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_hops: Vec<NextHop>,
    /// Its link is down (`RTNH_F_LINKDOWN`) or gone (`RTNH_F_DEAD`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// Seconds until it expires; none for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u32>,
}

/// One way of a multipath route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextHop {
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing interface.
    pub link: u32,
    /// Share, 1 to 256.
    pub weight: u16,
    /// Its link is down or gone.
    pub dead: bool,
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
    /// Incoming interface it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iif: Option<String>,
    /// Outgoing interface it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oif: Option<String>,
    /// Firewall mark it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
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

private_fields! {
    Route { destination, gateway, source, next_hops }
    NextHop { gateway }
    Rule { from, to }
    Forwarding {}
}
