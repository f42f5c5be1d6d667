//! What counters did between two readings of one boot. Totals say nothing; only growth does.

use aizen_protocol::record::{Link, LinkCounters};

/// What a link did since the pass before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Packets received; none if the counter can't be compared.
    pub(crate) rx_packets: Option<u64>,
    /// Packets sent.
    pub(crate) tx_packets: Option<u64>,
    /// Times the carrier came or went.
    pub(crate) carrier_changes: Option<u32>,
}

/// Compares two readings of one link in one boot, the older first.
pub(crate) fn growth(before: &Link, after: &Link) -> Growth {
    let counters = before.counters.zip(after.counters);
    Growth {
        rx_packets: counters.and_then(|(b, a)| grown(b.rx_packets, a.rx_packets)),
        tx_packets: counters.and_then(|(b, a)| grown(b.tx_packets, a.tx_packets)),
        carrier_changes: before
            .carrier_changes
            .zip(after.carrier_changes)
            .and_then(|(b, a)| a.checked_sub(b)),
    }
}

/// Growth of one counter of a link in one boot, the older reading first; none if it can't be compared.
pub(crate) fn counted(
    before: &Link,
    after: &Link,
    which: impl Fn(&LinkCounters) -> u64,
) -> Option<u64> {
    let (before, after) = (before.counters.as_ref()?, after.counters.as_ref()?);
    grown(which(before), which(after))
}

/// Growth of one counter. Old drivers wrap at 32 bits: a fall is taken for a wrap only where that makes less than half
/// the range, otherwise for a reset (the link was made anew), which tells nothing.
pub(crate) fn grown(before: u64, after: u64) -> Option<u64> {
    const RANGE: u64 = 1 << 32;
    if after >= before {
        return Some(after - before);
    }
    if before >= RANGE {
        return None;
    }
    Some(after + RANGE - before).filter(|&growth| growth < RANGE / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_that_wrapped_at_32_bits_grew_and_one_that_was_reset_tells_nothing() {
        assert_eq!(grown(10, 25), Some(15));
        assert_eq!(grown(u64::from(u32::MAX) - 4, 5), Some(10));
        assert_eq!(grown(1_000_000, 3), None);
        assert_eq!(grown(1 << 40, 3), None);
    }

    proptest! {
        #[test]
        fn growth_over_a_wrap_is_the_number_of_steps(start in 0..=u32::MAX, steps in 0..(1_u32 << 31)) {
            let after = start.wrapping_add(steps);
            prop_assert_eq!(grown(start.into(), after.into()), Some(steps.into()));
        }
    }
}
