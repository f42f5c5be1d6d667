//! Names: who is asked, and what they answer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::private::{Name, private_fields};

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

/// How a question travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsTransport {
    /// UDP port 53.
    #[default]
    Udp,
    /// TCP port 53.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
}

/// What a question is to find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsPurpose {
    /// A name that must exist.
    #[default]
    Lookup,
    /// A random name that can't exist: anything but NXDOMAIN is rewriting.
    Nonexistent,
    /// The name once more with validation off (CD bit): tells a DNSSEC failure from a dead server.
    Unvalidated,
    /// The IPv6 address of the name (AAAA).
    Ipv6,
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
    /// The TLS handshake of DoT or DoH failed.
    Tls,
}

/// Questions to one resolver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsProbe {
    /// Who was asked.
    pub resolver: IpAddr,
    /// True if `resolv.conf` names it.
    pub configured: bool,
    /// How it was asked.
    #[serde(default)]
    pub transport: DnsTransport,
    /// What the question is to find out.
    #[serde(default)]
    pub purpose: DnsPurpose,
    /// Name in the question.
    pub name: Name,
    /// Addresses of the last answer that had some, in their order; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The last answer said that it was validated (AD bit, RFC 4035).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub authentic: bool,
    /// Each answer, in the order asked.
    pub answers: Vec<DnsAnswer>,
    /// Round-trip times of those that came.
    pub rtt_us: Vec<u32>,
}

private_fields! {
    Resolvers { configured, alternates, search }
    DnsProbe { resolver, name, addresses }
}
