//! IPv4 and IPv6 addresses and prefixes: each kind onto itself, prefix relations kept exactly.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::private::Prefix;

use crate::mac::MacTree;
use crate::prf::Prf;
use crate::tree::Inside::{Fixed, Permuted};
use crate::tree::{Block, Inside, Tree, below};

/// The permutations of both families.
pub(crate) struct AddressTree {
    four: Tree,
    six: Tree,
}

impl AddressTree {
    pub(crate) fn new(four: Prf, six: Prf, keep: &BTreeSet<IpAddr>) -> Self {
        let fixed = |bits, length| Block {
            bits,
            length,
            inside: Inside::Fixed,
        };
        let mut blocks4: Vec<_> = KINDS4.iter().map(|k| block4(*k)).collect();
        let mut blocks6: Vec<_> = KINDS6.iter().map(|k| block6(*k)).collect();
        for address in keep {
            match address {
                IpAddr::V4(a) => blocks4.push(fixed(left4(*a), 32)),
                IpAddr::V6(a) => blocks6.push(fixed((*a).into(), 128)),
            }
        }
        Self {
            four: Tree::new(four, 32, blocks4),
            six: Tree::new(six, 128, blocks6),
        }
    }

    /// The pseudonym of an address. IPv4 inside IPv6 and MAC inside IPv6 follow the inner value's pseudonym.
    pub(crate) fn address(&self, real: IpAddr, macs: &MacTree) -> IpAddr {
        match real {
            IpAddr::V4(a) => {
                let bits = left4(a);
                IpAddr::V4(Ipv4Addr::from_bits(
                    ((bits ^ self.four.mask(bits)) >> 96) as u32,
                ))
            }
            IpAddr::V6(a) => IpAddr::V6((u128::from(a) ^ self.mask6(a.into(), macs)).into()),
        }
    }

    /// The pseudonym of a prefix. A network (no host bit set) stays one; default routes stay.
    pub(crate) fn prefix(&self, real: Prefix, macs: &MacTree) -> Prefix {
        let length = real.length;
        let mapped = self.address(real.address, macs);
        let is_network = !has_two_hosts_only(real) && network(real.address, length) == real.address;
        let mapped_network = network(mapped, length);
        let address = if is_network {
            mapped_network
        } else if !has_two_hosts_only(real) && mapped_network == mapped {
            // A host whose pseudonym has no host bit would be taken for its network: it gets the pseudonym that the
            // network's own address leaves free.
            self.address(network(real.address, length), macs)
        } else {
            mapped
        };
        Prefix { address, length }
    }

    /// True if the address is its own pseudonym by policy.
    pub(crate) fn stays(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.four.fixed_bits(left4(a)) == 32,
            IpAddr::V6(a) => match embedded4(a.into()) {
                Some((inner, true)) => self.four.fixed_bits(left4(inner)) == 32,
                Some((_, false)) | None => self.six.fixed_bits(a.into()) == 128,
            },
        }
    }

    /// True if the prefix is its own pseudonym by policy.
    pub(crate) fn prefix_stays(&self, prefix: Prefix) -> bool {
        let fixed = match prefix.address {
            IpAddr::V4(a) => self.four.fixed_bits(left4(a)),
            IpAddr::V6(a) => self.six.fixed_bits(a.into()),
        };
        let is_network = network(prefix.address, prefix.length) == prefix.address;
        self.stays(prefix.address)
            || (is_network && prefix.length <= fixed && !has_two_hosts_only(prefix))
    }

    fn mask6(&self, bits: u128, macs: &MacTree) -> u128 {
        let own = self.six.mask(bits);
        match embedded4(bits) {
            Some((inner, true)) => self.four.mask(left4(inner)) >> 96,
            Some((inner, false)) => {
                let inner = self.four.mask(left4(inner)) >> 16;
                (own & below(48)) | inner
            }
            None if bits >> 120 == 0xff => own,
            None => {
                let fixed = self.six.fixed_bits(bits);
                let host = interface_mask(bits, own, macs);
                ((own & !below(64)) | (host & below(64))) & below(fixed)
            }
        }
    }

    /// The flips of the last 24 bits of a solicited-node multicast address (RFC 4291 section 2.7.1).
    pub(crate) fn solicited(&self, tail: u32) -> u32 {
        let bits = 0xff02_0000_0000_0000_0000_0001_ff00_0000 | u128::from(tail & 0xff_ffff);
        (self.six.mask(bits) & 0xff_ffff) as u32
    }
}

/// The flips of an interface identifier. Its first 24 bits flip as a MAC's do, whatever follows, and the path to
/// `ff:fe` is free of flips: so an EUI-64 identifier (RFC 4291 appendix A) follows its MAC, and the prefix relation
/// holds between all identifiers.
fn interface_mask(bits: u128, own: u128, macs: &MacTree) -> u128 {
    const INVERTED_LOCAL: u64 = 0x0200_0000_0000_0000;
    let id = (bits as u64) ^ INVERTED_LOCAL;
    let vendor = id >> 40;
    let middle = (id >> 24 & 0xffff) as u16;
    let shared = (middle ^ 0xfffe).leading_zeros().min(15);
    let free_middle = u64::from(0xffff_u16.checked_shr(shared + 1).unwrap_or(0)) << 24;
    let own = own as u64;
    let (tail, mac) = if middle == 0xfffe {
        let mac = macs.flips(vendor << 24 | (id & 0xff_ffff));
        (mac & 0xff_ffff, mac)
    } else {
        (own & 0xff_ffff, macs.flips(vendor << 24))
    };
    ((mac >> 24) << 40 | (own & free_middle) | tail).into()
}

/// The IPv4 address inside an IPv6 one, and whether it is the whole rest: mapped (RFC 4291), NAT64 (RFC 6052), or in
/// the middle: 6to4 (RFC 3056).
fn embedded4(bits: u128) -> Option<(Ipv4Addr, bool)> {
    if bits >> 32 == 0xffff || bits >> 32 == 0x0064_ff9b_0000_0000_0000_0000 {
        Some((Ipv4Addr::from_bits(bits as u32), true))
    } else if bits >> 112 == 0x2002 {
        Some((Ipv4Addr::from_bits((bits >> 80) as u32), false))
    } else {
        None
    }
}

/// Clears the host bits.
pub(crate) fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(
            ((left4(a) & !below(length)) >> 96) as u32,
        )),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(u128::from(a) & !below(length))),
    }
}

/// On a /31 or /127 (RFC 3021, RFC 6164) and in a host prefix no address is the network's.
fn has_two_hosts_only(prefix: Prefix) -> bool {
    prefix.length >= if prefix.address.is_ipv4() { 31 } else { 127 }
}

fn left4(address: Ipv4Addr) -> u128 {
    u128::from(address.to_bits()) << 96
}

fn block4((octets, length, inside): ([u8; 4], u8, Inside)) -> Block {
    Block {
        bits: left4(octets.into()),
        length,
        inside,
    }
}

fn block6((segments, length, inside): ([u16; 8], u8, Inside)) -> Block {
    Block {
        bits: Ipv6Addr::from(segments).to_bits(),
        length,
        inside,
    }
}

/// IANA IPv4 special-purpose registry (RFC 6890), as far as a kind means something to an analyst.
const KINDS4: &[([u8; 4], u8, Inside)] = &[
    // "This network", and wildcard masks.
    ([0, 0, 0, 0], 8, Fixed),
    ([10, 0, 0, 0], 8, Permuted),
    ([100, 64, 0, 0], 10, Permuted),
    ([127, 0, 0, 0], 8, Fixed),
    // The mask /1, and the upper half of a default route cut in two.
    ([128, 0, 0, 0], 32, Fixed),
    ([169, 254, 0, 0], 16, Permuted),
    ([172, 16, 0, 0], 12, Permuted),
    // Protocol assignments, the same everywhere.
    ([192, 0, 0, 0], 24, Fixed),
    ([192, 0, 2, 0], 24, Permuted),
    ([192, 88, 99, 0], 24, Fixed),
    ([192, 168, 0, 0], 16, Permuted),
    ([198, 18, 0, 0], 15, Permuted),
    ([198, 51, 100, 0], 24, Permuted),
    ([203, 0, 113, 0], 24, Permuted),
    ([224, 0, 0, 0], 4, Permuted),
    // Well-known multicast groups.
    ([224, 0, 0, 0], 23, Fixed),
    ([239, 0, 0, 0], 8, Permuted),
    ([239, 255, 255, 250], 32, Fixed),
    // Masks and broadcast.
    ([240, 0, 0, 0], 4, Fixed),
];

/// IANA IPv6 special-purpose and multicast registries.
const KINDS6: &[([u16; 8], u8, Inside)] = &[
    ([0; 8], 128, Fixed),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Fixed),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, Permuted),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, Permuted),
    ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Permuted),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Permuted),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Permuted),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Permuted),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Permuted),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 8, Permuted),
    ([0xfd00, 0, 0, 0, 0, 0, 0, 0], 8, Permuted),
    // Link-local: RFC 4291 has zeros up to the identifier.
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Permuted),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 64, Permuted),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Permuted),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Permuted),
    // Well-known groups of the usual scopes; the solicited-node ones hold 24 bits of somebody's address.
    ([0xff01, 0, 0, 0, 0, 0, 0, 0], 104, Fixed),
    ([0xff02, 0, 0, 0, 0, 0, 0, 0], 104, Fixed),
    ([0xff02, 0, 0, 0, 0, 1, 0, 0], 112, Fixed),
    ([0xff02, 0, 0, 0, 0, 1, 0xff00, 0], 104, Permuted),
    ([0xff05, 0, 0, 0, 0, 0, 0, 0], 104, Fixed),
];
