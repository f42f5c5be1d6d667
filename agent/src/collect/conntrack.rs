//! Connection tracking: `/proc/sys/net/netfilter` and `/proc/net/stat/nf_conntrack` (nf_conntrack-sysctl.rst).

use std::path::Path;

use aizen_protocol::record::Conntrack;

use super::{Seen, file};

/// Reads both; none where the kernel tracks no connections, which is no fault.
pub(crate) fn collect(root: &Path) -> Option<Seen<Conntrack>> {
    let folder = root.join("proc/sys/net/netfilter");
    let count = file::word(&folder.join("nf_conntrack_count"))?;
    let mut gaps = Vec::new();
    let max = file::word(&folder.join("nf_conntrack_max")).unwrap_or_else(|| {
        gaps.push("net.netfilter.nf_conntrack_max can't be read".to_owned());
        0
    });
    let stat = file::proc_net(root).join("stat/nf_conntrack");
    let totals = match file::text(&stat, file::MAX_KERNEL_FILE) {
        Ok(text) => totals(&text),
        Err(error) => {
            gaps.push(format!(
                "/proc/net/stat/nf_conntrack can't be read: {error}"
            ));
            Conntrack::default()
        }
    };
    let value = Conntrack {
        count,
        max,
        ..totals
    };
    Some(Seen { value, gaps })
}

/// A header of names, then one line a processor, hexadecimal.
pub(crate) fn totals(text: &str) -> Conntrack {
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .take(MAX_COLUMNS)
        .collect();
    let mut totals = Conntrack::default();
    for line in lines.take(MAX_CPUS) {
        for (name, word) in header.iter().zip(line.split_ascii_whitespace()) {
            let total = match *name {
                "insert_failed" => &mut totals.insert_failed,
                "drop" => &mut totals.drop,
                "early_drop" => &mut totals.early_drop,
                "invalid" => &mut totals.invalid,
                "clashres" => &mut totals.clash,
                _ => continue,
            };
            *total = total.saturating_add(u64::from_str_radix(word, 16).unwrap_or_default());
        }
    }
    totals
}

const MAX_COLUMNS: usize = 32;
const MAX_CPUS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
        00000005  00000001 00000000 00000000 0000000a 00000000 00000000 00000000 00000000 000000ff 00000002 00000003 00000000  00000000 00000000 00000000 00000000\n\
        00000005  00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000000  00000000 00000000 00000000 00000009\n";

    #[test]
    fn totals_are_summed_over_processors_by_the_names_of_the_header() {
        let want = Conntrack {
            insert_failed: 256,
            drop: 2,
            early_drop: 3,
            invalid: 10,
            clash: 2,
            ..Conntrack::default()
        };
        assert_eq!(totals(STAT), want);
        let swapped = totals("drop insert_failed\n1 2\n");
        assert_eq!((swapped.drop, swapped.insert_failed), (1, 2));
    }

    #[test]
    fn a_kernel_without_connection_tracking_is_no_gap() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(collect(root.path()), None);
        let folder = root.path().join("proc/sys/net/netfilter");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("nf_conntrack_count"), "7\n").unwrap();
        fs::write(folder.join("nf_conntrack_max"), "65536\n").unwrap();
        let seen = collect(root.path()).unwrap();
        assert_eq!((seen.value.count, seen.value.max), (7, 65536));
        assert_eq!(seen.gaps.len(), 1, "{:?}", seen.gaps);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[0-9a-f a-z_\n]{0,300}") {
            totals(&text);
            totals(&format!("drop invalid\n{text}"));
        }
    }
}
