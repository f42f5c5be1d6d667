//! MAC addresses: the same form, the local and multicast bits kept.

use aizen_protocol::private::Mac;

use crate::address::AddressTree;
use crate::policy::Vendor;
use crate::prf::Prf;
use crate::tree::{Block, Inside, Tree};

/// The permutation of 48-bit addresses. Prefix-preserving as well, or interface identifiers made from MACs could not be.
pub(crate) struct MacTree {
    tree: Tree,
    vendor: Vendor,
}

impl MacTree {
    pub(crate) fn new(prf: Prf, vendor: Vendor) -> Self {
        let blocks = KINDS
            .iter()
            .map(|&(bytes, length, inside)| Block {
                bits: u128::from(bits48(bytes)) << 80,
                length,
                inside,
            })
            .collect();
        Self {
            tree: Tree::new(prf, 48, blocks),
            vendor,
        }
    }

    /// The pseudonym of a MAC address; IPv6 multicast follows the solicited-node address (RFC 2464 section 7).
    pub(crate) fn mac(&self, real: Mac, addresses: &AddressTree) -> Mac {
        let bits = bits48(real.0);
        let flips = if bits >> 24 == 0x33_33ff {
            addresses.solicited((bits & 0xff_ffff) as u32).into()
        } else {
            self.flips(bits)
        };
        let [_, _, mapped @ ..] = (bits ^ flips).to_be_bytes();
        Mac(mapped)
    }

    /// True if the address is its own pseudonym by policy.
    pub(crate) fn stays(&self, mac: Mac) -> bool {
        self.tree.fixed_bits(u128::from(bits48(mac.0)) << 80) == 48
    }

    /// The flips of 48 bits.
    pub(crate) fn flips(&self, bits: u64) -> u64 {
        // Individual/group and universal/local (IEEE 802-2014, section 8.4).
        const GROUP_AND_LOCAL: u64 = 0x0300_0000_0000;
        let vendor = match self.vendor {
            Vendor::Dropped => 0,
            Vendor::Kept => !0xff_ffff,
        };
        (self.tree.mask(u128::from(bits) << 80) >> 80) as u64 & !GROUP_AND_LOCAL & !vendor
    }
}

fn bits48(bytes: [u8; 6]) -> u64 {
    bytes.iter().fold(0, |bits, b| bits << 8 | u64::from(*b))
}

/// Addresses that are nobody's own.
const KINDS: &[([u8; 6], u8, Inside)] = &[
    ([0; 6], 48, Inside::Fixed),
    ([0xff; 6], 48, Inside::Fixed),
    // VRRP (RFC 9568): the last byte is the router group's number.
    ([0, 0, 0x5e, 0, 1, 0], 40, Inside::Fixed),
    ([0, 0, 0x5e, 0, 2, 0], 40, Inside::Fixed),
    // Multicast of IPv4, of Cisco's protocols, of IEEE 802.1, of IPv6.
    ([1, 0, 0x5e, 0, 0, 0], 24, Inside::Fixed),
    ([1, 0, 0x0c, 0, 0, 0], 24, Inside::Fixed),
    ([1, 0x80, 0xc2, 0, 0, 0], 24, Inside::Fixed),
    ([0x33, 0x33, 0, 0, 0, 0], 16, Inside::Fixed),
    ([0x33, 0x33, 0xff, 0, 0, 0], 24, Inside::Permuted),
];
