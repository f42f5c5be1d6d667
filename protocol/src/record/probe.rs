//! What was tried over the network.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::private::{Name, Text, private_fields};

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

/// How a TCP connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectOutcome {
    /// The handshake finished.
    Connected,
    /// Reset: the host lives, nothing listens.
    Refused,
    /// Nothing before the deadline.
    Timeout,
    /// No route, or ICMP unreachable.
    Unreachable,
}

/// One TCP connect: tells "ICMP is blocked" from "the host is down".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Target.
    pub target: IpAddr,
    /// Port.
    pub port: u16,
    /// The name that led to the target, if one did.
    pub name: Option<Name>,
    /// How it ended.
    pub outcome: ConnectOutcome,
    /// Time of the handshake.
    pub rtt_us: Option<u32>,
}

/// One hop of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hop {
    /// Time to live of the probes.
    pub ttl: u8,
    /// Who answered, in the order first seen; empty for silence.
    pub addresses: Vec<IpAddr>,
    /// Probes sent.
    pub sent: u16,
    /// Answers.
    pub received: u16,
    /// Round-trip times.
    pub rtt_us: Vec<u32>,
    /// Next-hop MTU that it reported, if it did.
    pub mtu: Option<u16>,
}

/// The path to one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Target.
    pub target: IpAddr,
    /// Hops, the nearest first.
    pub hops: Vec<Hop>,
    /// The target itself answered.
    pub reached: bool,
}

/// Which way a load goes, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadDirection {
    /// To the device: a download.
    Down,
    /// From the device: an upload.
    Up,
}

/// Round-trip times to one target, idle and while the line is loaded (bufferbloat).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Target of the echoes.
    pub target: IpAddr,
    /// Which way the load went; none if it went both ways at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<LoadDirection>,
    /// Idle round-trip times.
    pub idle_us: Vec<u32>,
    /// Round-trip times under load.
    pub loaded_us: Vec<u32>,
    /// Echoes lost under load.
    pub lost: u16,
    /// Traffic of the load, bits a second.
    pub bits_per_second: u64,
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsOutcome {
    /// Finished, the chain leads to a known root, the name fits.
    Trusted,
    /// Finished; not yet valid by the device's clock.
    NotYetValid,
    /// Finished; expired by the device's clock.
    Expired,
    /// Finished; no known root.
    UnknownIssuer,
    /// Finished; for another name.
    WrongName,
    /// Another fault of the chain.
    Invalid,
    /// TCP or TLS failed before a certificate came.
    NoHandshake,
}

/// The TLS certificate of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Host name that was asked for.
    pub host: Name,
    /// Address that answered.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// True for the orchestrator of this device.
    pub uplink: bool,
    /// How it ended.
    pub outcome: TlsOutcome,
    /// Start of validity.
    pub not_before: Option<Timestamp>,
    /// End of validity.
    pub not_after: Option<Timestamp>,
    /// Who signed it (common name or organisation).
    pub issuer: Option<Text>,
    /// What failed, for people.
    pub detail: Option<Text>,
}

/// A question over plain HTTP whose answer is known (RFC 8952 section 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portal {
    /// Host that was asked.
    pub host: Name,
    /// Status of the answer; none without one.
    pub status: Option<u16>,
    /// The answer was the known one.
    pub expected: bool,
    /// Where a redirect leads (host only).
    pub redirect: Option<Name>,
    /// Why there was no answer.
    pub error: Option<Text>,
}

private_fields! {
    Reach { target }
    PathMtu { target }
    Connect { target, name }
    Hop { addresses }
    Trace { target, hops }
    Load { target }
    Certificate { host, address, issuer, detail }
    Portal { host, redirect, error }
}
