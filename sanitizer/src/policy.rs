//! What is private, as far as it can be chosen. Data with reasons; the key decides everything else.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What becomes of the vendor part (the first three bytes) of a MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vendor {
    /// Replaced like the rest; two devices of one vendor still share it.
    #[default]
    Dropped,
    /// Stays, so that an analyst can name the make.
    Kept,
}

/// The choices of an operator. Device and executor must hold the same policy, or their pseudonyms differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Rotation period: another number, other pseudonyms from the same key.
    pub period: u32,
    /// The vendor part of MAC addresses.
    pub vendor: Vendor,
    /// Addresses that stay: the well-known public resolvers. An address that shares bits with one of them keeps these
    /// bits, since the prefix relation is kept towards addresses that stay, too: keep the list short.
    pub keep_addresses: BTreeSet<IpAddr>,
    /// Names that stay, lower case: nobody's own. What stands in front of them is replaced.
    pub keep_names: BTreeSet<String>,
    /// Most values the map holds; the least recently seen go first.
    pub map_entries: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            period: 0,
            vendor: Vendor::Dropped,
            keep_addresses: RESOLVERS4
                .iter()
                .map(|&octets| IpAddr::V4(Ipv4Addr::from(octets)))
                .chain(RESOLVERS6.iter().map(|&s| IpAddr::V6(Ipv6Addr::from(s))))
                .collect(),
            keep_names: EVERYBODYS.map(str::to_owned).into(),
            // 100 to 150 bytes each; one record has at most a few thousand.
            map_entries: 32_768,
        }
    }
}

/// For documentation (RFC 2606), and what every device of a kind asks for.
const EVERYBODYS: [&str; 12] = [
    "debian.org",
    "example",
    "example.com",
    "example.net",
    "example.org",
    "iana.org",
    "ietf.org",
    "kernel.org",
    "openwrt.org",
    "pool.ntp.org",
    "root-servers.net",
    "rfc-editor.org",
];

/// Cloudflare, Google, Quad9, Cisco `OpenDNS`.
const RESOLVERS4: [[u8; 4]; 8] = [
    [1, 1, 1, 1],
    [1, 0, 0, 1],
    [8, 8, 8, 8],
    [8, 8, 4, 4],
    [9, 9, 9, 9],
    [149, 112, 112, 112],
    [208, 67, 222, 222],
    [208, 67, 220, 220],
];

/// The same operators' IPv6 addresses.
const RESOLVERS6: [[u16; 8]; 6] = [
    [0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111],
    [0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1001],
    [0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888],
    [0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844],
    [0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe],
    [0x2620, 0xfe, 0, 0, 0, 0, 0, 0x9],
];
