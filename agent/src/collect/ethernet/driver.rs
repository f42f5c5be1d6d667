//! What drivers count by names of their own (`ETHTOOL_GSTATS`): of hundreds, those whose names speak of something that
//! went wrong, and that are not zero.

use std::collections::BTreeMap;
use std::io;

use aizen_sandbox::driver;

use crate::collect::aside;

/// Counters of one port, by name; at most [`MOST`], in the driver's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(super) told: BTreeMap<String, u64>,
    /// Others of the same kind that were left out.
    pub(super) more: usize,
}

/// Asks the driver of each port; one that can't be asked costs the others nothing.
pub(super) async fn read(
    names: Vec<(u32, String)>,
) -> io::Result<Vec<(u32, String, io::Result<Counters>)>> {
    let ask = move || {
        let ports = names.into_iter().map(|(link, name)| {
            let counted = driver::statistics(&name).map(pick);
            (link, name, counted)
        });
        ports.collect()
    };
    aside::run("aizen-driver-counters", ask).await
}

pub(crate) fn pick(all: Vec<(String, u64)>) -> Counters {
    let mut counters = Counters::default();
    for (name, total) in all {
        if total == 0 || !is_trouble(&name) {
            continue;
        }
        if counters.told.len() >= MOST {
            counters.more += 1;
            continue;
        }
        let plain = name.chars().filter(|c| !c.is_control());
        counters.told.insert(plain.take(NAME).collect(), total);
    }
    counters
}

/// Drivers agree on no names, but on how they call trouble.
fn is_trouble(name: &str) -> bool {
    let small = name.to_ascii_lowercase();
    TROUBLE.iter().any(|word| small.contains(word))
}

const TROUBLE: &[&str] = &[
    "err",
    "drop",
    "discard",
    "crc",
    "fcs",
    "fifo",
    "timeout",
    "miss",
    "overrun",
    "underrun",
    "overflow",
    "underflow",
    "no_buf",
    "nobuf",
    "no_mem",
    "nomem",
    "no_desc",
    "alloc_fail",
    "fail",
    "abort",
    "collision",
    "jabber",
    "fragment",
    "undersize",
    "oversize",
    "runt",
    "too_long",
    "too_short",
    "align",
    "symbol",
    "carrier",
    "bad",
    "invalid",
    "corrupt",
    "fault",
    "hang",
    "stall",
    "reset",
    "lost",
    "pause",
    "xoff",
    "flow_control",
];
/// Beside some thirty of the standard groups, a record holds so many.
const MOST: usize = 192;
/// `ETH_GSTRING_LEN`, in characters.
const NAME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trouble_that_happened_is_told() {
        let all = [
            ("rx_packets", 9_000),
            ("rx_crc_errors", 3),
            ("tx_timeout_count", 1),
            ("rx_fifo_errors", 0),
            ("RxMissed", 4),
            ("port.tx_xoff\u{1b}", 2),
        ];
        let all = all.map(|(name, total)| (name.to_owned(), total)).to_vec();
        let told = pick(all).told;
        let expected = [
            ("RxMissed", 4),
            ("port.tx_xoff", 2),
            ("rx_crc_errors", 3),
            ("tx_timeout_count", 1),
        ];
        let told: Vec<_> = told
            .iter()
            .map(|(name, total)| (name.as_str(), *total))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_driver_with_thousands_of_queues_is_cut_and_says_so() {
        let all = (0..4000).map(|n| (format!("rx_queue_{n}_drops"), 1));
        let counters = pick(all.collect());
        assert_eq!((counters.told.len(), counters.more), (MOST, 4000 - MOST));
    }
}
