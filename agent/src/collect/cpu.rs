//! Time of each processor by kind, from `/proc/stat` (proc_stat(5)).

use std::path::Path;

use aizen_protocol::record::CpuTimes;
use nix::unistd::{SysconfVar, sysconf};

use super::{CollectError, Seen, file};

/// Reads the file.
pub(crate) fn collect(root: &Path) -> Result<Seen<Vec<CpuTimes>>, CollectError> {
    let text = file::text(&root.join("proc/stat"), file::MAX_KERNEL_FILE)?;
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let hertz = hertz.and_then(|h| u64::try_from(h).ok()).filter(|h| *h > 0);
    Ok(Seen {
        value: parse(&text, hertz.unwrap_or(USER_HZ)),
        gaps: Vec::new(),
    })
}

/// `hertz` ticks are a second.
pub(crate) fn parse(stat: &str, hertz: u64) -> Vec<CpuTimes> {
    stat.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
            // The line of all processors together has no number right behind its name.
            let cpu = line
                .as_bytes()
                .get(3)
                .filter(|b| b.is_ascii_digit())
                .and_then(|_| words.next()?.parse().ok())?;
            let mut next = || {
                let ticks: u64 = words.next()?.parse().ok()?;
                Some(ticks.saturating_mul(1000) / hertz)
            };
            Some(CpuTimes {
                cpu,
                user_ms: next()?,
                nice_ms: next()?,
                system_ms: next()?,
                idle_ms: next()?,
                iowait_ms: next().unwrap_or_default(),
                irq_ms: next().unwrap_or_default(),
                softirq_ms: next().unwrap_or_default(),
                steal_ms: next().unwrap_or_default(),
            })
        })
        .take(MAX_CPUS)
        .collect()
}

/// What every architecture of Linux but two has (linux/param.h).
const USER_HZ: u64 = 100;
const MAX_CPUS: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_become_milliseconds_of_each_processor() {
        let stat = "cpu  30 0 0 0 0 0 0 0 0 0\ncpu0 10 1 2 300 4 5 6 7 0 0\ncpu12 20 0 0 1\nintr 5\ncpufreq 1\n";
        let seen = parse(stat, 100);
        let [first, last] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!((first.cpu, first.user_ms, first.idle_ms), (0, 100, 3000));
        assert_eq!((first.softirq_ms, first.steal_ms), (60, 70));
        assert_eq!((last.cpu, last.user_ms, last.steal_ms), (12, 200, 0));
    }

    #[test]
    fn this_machine_tells_its_processors() {
        assert!(!collect(Path::new("/")).unwrap().value.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[cpu0-9 \n]{0,300}", number in any::<u64>()) {
            parse(&text, 100);
            parse(&format!("cpu1 {number} 0 0 {number}"), 100);
        }
    }
}
