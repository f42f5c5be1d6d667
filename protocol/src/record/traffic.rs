//! What the kernel counts of traffic: protocols, processors, connections, filters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::private::{Prefix, Text, private_fields};

/// Protocol counters and sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocols {
    /// Totals since boot by the kernel's names, `Tcp.RetransSegs`, `TcpExt.ListenOverflows`, `Udp.RcvbufErrors`,
    /// `Ip6.InNoRoutes` (`/proc/net/snmp`, `netstat`, `snmp6`): compare two records of one boot.
    pub counters: BTreeMap<String, u64>,
    /// TCP sockets by state, `syn_recv`, `established`, … (sock_diag(7)).
    pub tcp_states: BTreeMap<String, u32>,
    /// Different remote addresses among those in `syn_recv`.
    pub syn_recv_sources: u32,
    /// Listening TCP sockets with somebody waiting.
    pub waiting: Vec<Listener>,
}

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Port.
    pub port: u16,
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// How many may.
    pub backlog: u32,
}

/// Packets of one processor (`/proc/net/softnet_stat`), totals since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softnet {
    /// Processor.
    pub cpu: u16,
    /// Packets processed. 32-bit in the kernel: it wraps.
    pub processed: u32,
    /// Dropped because the backlog was full. Wraps.
    pub dropped: u32,
    /// Times the work ran out of its budget. Wraps.
    pub squeezed: u32,
}

/// Connection tracking (`/proc/sys/net/netfilter`, `/proc/net/stat/nf_conntrack`); totals summed over processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conntrack {
    /// Tracked connections.
    pub count: u32,
    /// How many fit.
    pub max: u32,
    /// Insertions that failed: no port or tuple was free, or the table was full.
    pub insert_failed: u64,
    /// Packets dropped because no entry could be made.
    pub drop: u64,
    /// Entries dropped early to make room.
    pub early_drop: u64,
    /// Packets that fit no connection.
    pub invalid: u64,
    /// Two entries wanted the same tuple.
    pub clash: u64,
}

/// A chain with a hook, or one that is jumped to (nft(8)), through the executor's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterChain {
    /// `ip`, `ip6`, `inet`, `netdev`, `bridge`, `arp`.
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// `input`, `forward`, …; none for one without a hook.
    pub hook: Option<String>,
    /// `accept` or `drop`, for one with a hook.
    pub policy: Option<String>,
    /// Its rules, in order; at most 256.
    pub rules: Vec<FilterRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRule {
    /// Handle in its table.
    pub handle: u64,
    /// `accept`, `drop`, `reject`, `jump CHAIN`, …; none without a verdict.
    pub verdict: Option<String>,
    /// Packets counted, if it counts.
    pub packets: Option<u64>,
    /// Bytes counted, if it counts.
    pub bytes: Option<u64>,
    /// The rule in words near to nft's, as far as it was understood.
    pub text: Text,
}

/// A WireGuard interface, through the executor's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireGuard {
    /// Index of the link.
    pub link: u32,
    /// UDP port it listens on.
    pub port: u16,
    /// Its peers.
    pub peers: Vec<WireGuardPeer>,
}

/// A peer of a WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireGuardPeer {
    /// SHA-256 of the public key, the first 16 hexadecimal digits.
    pub key: String,
    /// Where it was last heard, or is configured to be.
    pub endpoint: Option<IpAddr>,
    /// Port there.
    pub endpoint_port: Option<u16>,
    /// Seconds since the last handshake; none if there never was one.
    pub handshake_s: Option<u64>,
    /// Received, total bytes.
    pub rx_bytes: u64,
    /// Sent, total bytes.
    pub tx_bytes: u64,
    /// Persistent keepalive, seconds; 0 is off.
    pub keepalive_s: u16,
    /// Addresses that belong to it.
    pub allowed: Vec<Prefix>,
}

private_fields! {
    Protocols {}
    Softnet {}
    Conntrack {}
    FilterChain { rules }
    FilterRule { text }
    WireGuard { peers }
    WireGuardPeer { endpoint, allowed }
}
