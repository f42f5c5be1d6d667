//! Packet work of each processor: `/proc/net/softnet_stat` (net/core/net-procfs.c, `softnet_seq_show`).

use std::path::Path;

use aizen_protocol::record::Softnet;

use super::{CollectError, Seen, file};

/// Reads the file.
pub(crate) fn collect(root: &Path) -> Result<Seen<Vec<Softnet>>, CollectError> {
    let path = file::proc_net(root).join("softnet_stat");
    let text = file::text(&path, file::MAX_KERNEL_FILE)?;
    Ok(Seen {
        value: parse(&text),
        gaps: Vec::new(),
    })
}

/// One line a processor that is online, all columns hexadecimal. Since Linux 5.10 column 13 names the processor; before
/// that it is the line's number.
pub(crate) fn parse(text: &str) -> Vec<Softnet> {
    text.lines()
        .take(MAX_CPUS)
        .enumerate()
        .filter_map(|(number, line)| {
            let mut columns = line
                .split_ascii_whitespace()
                .map(|word| u32::from_str_radix(word, 16).ok());
            let (processed, dropped, squeezed) =
                (columns.next()??, columns.next()??, columns.next()??);
            let cpu = match columns.nth(CPU_COLUMN - 3) {
                Some(named) => u16::try_from(named?).ok()?,
                None => u16::try_from(number).ok()?,
            };
            Some(Softnet {
                cpu,
                processed,
                dropped,
                squeezed,
            })
        })
        .collect()
}

const CPU_COLUMN: usize = 12;
const MAX_CPUS: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_are_hexadecimal_and_the_processor_is_the_one_named() {
        let seen = parse(
            "0003d66c 0000000a 00000002 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000\n\
             ffffffff 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000003 00000000 00000000\n",
        );
        let want = |cpu, processed, dropped, squeezed| Softnet {
            cpu,
            processed,
            dropped,
            squeezed,
        };
        assert_eq!(seen, [want(0, 0x3d66c, 10, 2), want(3, u32::MAX, 0, 0)]);
    }

    #[test]
    fn a_kernel_that_names_no_processor_counts_its_lines() {
        let line = "00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000\n";
        let cpus: Vec<u16> = parse(&line.repeat(2)).iter().map(|s| s.cpu).collect();
        assert_eq!(cpus, [0, 1]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[0-9a-fx \n]{0,400}") {
            prop_assert!(parse(&text).len() <= text.lines().count());
        }
    }
}
