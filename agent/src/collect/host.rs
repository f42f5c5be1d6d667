//! Load, memory, processors and temperature, from `/proc` and `/sys` (proc(5)).
//!
//! Read by hand and by root path: `sysinfo` opens many more files than are needed here.

mod sensors;
pub(crate) mod start;

use std::path::Path;

use aizen_protocol::record::Host;

pub(crate) use self::start::Start;
use super::{Seen, file};

/// Busy and total ticks of all processors since boot (`/proc/stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    busy: u64,
    total: u64,
}

/// What one round keeps for the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    ticks: Option<Ticks>,
    start: Option<Start>,
}

/// Reads everything but the disks.
pub(crate) fn collect(root: &Path, before: Before) -> (Seen<Host>, Before) {
    let mut gaps = Vec::new();
    let mut read = |path: &str| match file::text(&root.join(path), file::MAX_KERNEL_FILE) {
        Ok(text) => text,
        Err(error) => {
            gaps.push(format!("/{path} can't be read: {error}"));
            String::new()
        }
    };
    let stat = read("proc/stat");
    let memory = read("proc/meminfo");
    let vmstat = read("proc/vmstat");
    let load = read("proc/loadavg");
    let uptime = read("proc/uptime");
    let ticks = ticks(&stat);
    let thermal = sensors::thermal(root);
    let start = before.start.unwrap_or_else(|| start::read(root));
    gaps.extend(start.gap.map(ToOwned::to_owned));
    let host = Host {
        uptime_s: uptime
            .split(['.', ' '])
            .next()
            .and_then(|s| s.parse().ok())
            .unwrap_or_default(),
        cpus: u16::try_from(stat.lines().filter(|l| is_one_cpu(l)).count()).unwrap_or(u16::MAX),
        load: loads(&load),
        cpu_percent: before
            .ticks
            .zip(ticks)
            .and_then(|(before, after)| busy_percent(before, after)),
        memory_total_bytes: kibibytes(&memory, "MemTotal:"),
        memory_available_bytes: kibibytes(&memory, "MemAvailable:"),
        oom_kills: field(&vmstat, "oom_kill"),
        temperature_c: thermal.hottest_c,
        swap_total_bytes: kibibytes(&memory, "SwapTotal:"),
        swap_free_bytes: kibibytes(&memory, "SwapFree:"),
        throttle_c: thermal.throttle_c,
        frequency_percent: sensors::frequency_percent(root),
        undervoltage: sensors::undervoltage(root),
        reset_reason: start.reason.clone(),
        // No interface of the kernel's counts them.
        watchdog_resets: None,
        crash_records: start.crash_records,
        disks: Vec::new(),
    };
    let kept = Before {
        ticks: ticks.or(before.ticks),
        start: Some(start),
    };
    (Seen { value: host, gaps }, kept)
}

fn is_one_cpu(line: &str) -> bool {
    line.strip_prefix("cpu")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

pub(crate) fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest time is part of user time already.
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map_while(|f| f.parse().ok())
        .collect();
    let total = fields.iter().fold(0_u64, |sum, f| sum.saturating_add(*f));
    let idle = fields.get(3)?.saturating_add(*fields.get(4)?);
    Some(Ticks {
        busy: total.saturating_sub(idle),
        total,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a percentage for people"
)]
fn busy_percent(before: Ticks, after: Ticks) -> Option<f32> {
    let total = after.total.checked_sub(before.total).filter(|t| *t > 0)?;
    // Some kernels let iowait run backwards, which would make this negative.
    let busy = after.busy.saturating_sub(before.busy).min(total);
    Some((busy as f64 * 100.0 / total as f64) as f32)
}

pub(crate) fn loads(text: &str) -> [f32; 3] {
    let mut loads = [0.0; 3];
    for (load, word) in loads.iter_mut().zip(text.split_ascii_whitespace()) {
        *load = word
            .parse::<f32>()
            .ok()
            .filter(|l| l.is_finite())
            .unwrap_or_default();
    }
    loads
}

pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some(name) {
            words.next()?.parse().ok()
        } else {
            None
        }
    })
}

fn kibibytes(text: &str, name: &str) -> u64 {
    field(text, name).unwrap_or_default().saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_waiting() {
        let before = ticks("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n").unwrap();
        let after = ticks("cpu  150 0 125 850 75 0 0 0 0 0\n").unwrap();
        assert_eq!(busy_percent(before, after), Some(37.5));
        assert_eq!(busy_percent(after, after), None);
        assert_eq!(busy_percent(after, before), None);
        assert_eq!(ticks("cpu 1 2 3\n"), None);
    }

    #[test]
    fn a_tree_of_fixtures_is_read_and_what_is_missing_is_named() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/stat",
            "cpu  1 0 1 8 0 0 0 0\ncpu0 1 0 1 8 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\nctxt 5\n",
        );
        write(
            "proc/meminfo",
            "MemTotal:        2048 kB\nMemFree:  1 kB\nMemAvailable:    1024 kB\nSwapTotal: 8 kB\nSwapFree: 4 kB\n",
        );
        write("proc/loadavg", "0.50 1.25 2.00 1/100 4242\n");
        write("proc/uptime", "3600.12 7000.00\n");
        write("sys/class/thermal/thermal_zone0/temp", "45500\n");
        write("sys/class/hwmon/hwmon0/temp1_input", "255000\n");
        let (seen, before) = collect(root.path(), Before::default());
        let host = seen.value;
        assert_eq!(
            (host.cpus, host.uptime_s, host.load),
            (2, 3600, [0.5, 1.25, 2.0])
        );
        assert_eq!(
            (host.memory_total_bytes, host.memory_available_bytes),
            (2 << 20, 1 << 20)
        );
        assert_eq!(host.temperature_c, Some(45.5));
        assert_eq!((host.swap_total_bytes, host.swap_free_bytes), (8192, 4096));
        assert_eq!((host.cpu_percent, host.oom_kills), (None, None));
        assert_eq!(seen.gaps.len(), 1, "{:?}", seen.gaps);
        write("proc/stat", "cpu  2 0 2 8 0 0 0 0\n");
        let (seen, _) = collect(root.path(), before);
        assert_eq!(seen.value.cpu_percent, Some(100.0));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,400}") {
            for stat in [text.clone(), format!("cpu {text}")] {
                prop_assert!(ticks(&stat).is_none_or(|t| t.busy <= t.total));
            }
            prop_assert!(loads(&text).iter().all(|l| l.is_finite()));
            kibibytes(&text, "MemTotal:");
        }

        #[test]
        fn busy_stays_between_0_and_100(a in any::<[u64; 4]>()) {
            let percent = busy_percent(Ticks { busy: a[0], total: a[1] }, Ticks { busy: a[2], total: a[3] });
            prop_assert!(percent.is_none_or(|p| (0.0..=100.0).contains(&p)));
        }
    }
}
