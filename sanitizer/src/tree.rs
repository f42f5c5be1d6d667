//! A permutation of fixed-width bit strings that keeps every prefix relation (Crypto-PAn's tree, Xu et al. 2002):
//! bit i is flipped by a keyed bit of the i bits before it.
//!
//! Kinds of values are blocks. The flips on the way to a block's root are zero, so each block maps onto itself, and
//! the relation holds across all blocks and exactly. What that costs: a value shares with its pseudonym the bits that
//! it shares with the nearest block.

use crate::prf::Prf;

/// A set of values with a common prefix, left-aligned in 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) bits: u128,
    pub(crate) length: u8,
    pub(crate) inside: Inside,
}

/// What happens inside a block; the longest block that holds a value decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Values stay.
    Fixed,
    /// Values are permuted within the block.
    Permuted,
}

/// One permutation: key, width, blocks.
pub(crate) struct Tree {
    prf: Prf,
    width: u8,
    blocks: Vec<Block>,
}

impl Tree {
    pub(crate) fn new(prf: Prf, width: u8, blocks: Vec<Block>) -> Self {
        Self { prf, width, blocks }
    }

    /// The number of leading bits of this value that are never flipped; the whole width if it stays.
    pub(crate) fn fixed_bits(&self, value: u128) -> u8 {
        let mut fixed = 0;
        let mut longest: Option<Block> = None;
        for block in &self.blocks {
            let shared = ((value ^ block.bits).leading_zeros() as u8).min(self.width);
            if shared >= block.length {
                fixed = fixed.max(block.length);
                if longest.is_none_or(|l| block.length >= l.length) {
                    longest = Some(*block);
                }
            } else {
                fixed = fixed.max(shared + 1);
            }
        }
        match longest.map(|b| b.inside) {
            Some(Inside::Fixed) => self.width,
            Some(Inside::Permuted) | None => fixed,
        }
    }

    /// The flips of a value, blocks ignored.
    pub(crate) fn flips(&self, value: u128) -> u128 {
        let bytes = value.to_be_bytes();
        let mut flips = [0; 16];
        for (at, out) in flips
            .iter_mut()
            .enumerate()
            .take(usize::from(self.width / 8))
        {
            // One digest holds the bits of all 255 nodes below this byte's prefix, numbered as in a heap.
            let digest = self.prf.digest(&[&bytes[..at]]);
            for bit in 0..8 {
                let node = (1_usize << bit) | (usize::from(bytes[at]) >> (8 - bit));
                let flip = digest[node / 8] >> (node % 8) & 1;
                *out |= flip << (7 - bit);
            }
        }
        u128::from_be_bytes(flips)
    }

    /// The flips of a value.
    pub(crate) fn mask(&self, value: u128) -> u128 {
        let fixed = self.fixed_bits(value);
        if fixed >= self.width {
            0
        } else {
            self.flips(value) & below(fixed)
        }
    }
}

/// All bits behind the first `length`.
pub(crate) fn below(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}
