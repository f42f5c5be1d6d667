//! Memory that runs out, and work that stands still because it waits for memory or disks.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Host, Pressure, Stall};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::log;
use super::trend::{self, percent};
use super::unit::bytes;
use crate::case::{Seen, View};

/// Memory that is left, percent.
const LEFT: u64 = 3;
/// Share of time in which everything waited for memory, percent.
const MEMORY_STALL: f32 = 10.0;
/// The same for disks: a backup makes everybody wait a little.
const IO_STALL: f32 = 40.0;
/// A process that was killed is told for so long.
const TOLD: SignedDuration = SignedDuration::from_mins(10);
/// Services fall with the memory.
const FALL: [&str; 2] = ["service_failed", "service_crash_loop"];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().host else {
        return examined;
    };
    examined.drafts.extend(kills(view));
    examined
        .drafts
        .extend(thrashing(view).or_else(|| exhausted(view)));
    examined.drafts.extend(waiting_for_disks(view));
    if examined.drafts.is_empty() && seen.value.memory_total_bytes > 0 {
        examined
            .well
            .push(format!("Memory is left: {}", left(&seen.value)));
    }
    examined
}

fn left(host: &Host) -> String {
    format!(
        "{} of {} available",
        bytes(host.memory_available_bytes),
        bytes(host.memory_total_bytes)
    )
}

/// The kernel killed processes within the last minutes.
fn kills(view: &View<'_>) -> Option<Draft> {
    let readings: Vec<(Timestamp, u64)> = trend::readings(view, |pass| pass.host.as_ref())
        .filter_map(|seen| Some((seen.at, seen.value.oom_kills?)))
        .collect();
    let newest = readings.first()?;
    let recent = newest.0 - TOLD;
    let (from, to, count) = readings.windows(2).find_map(|pair| {
        let (after, before) = (pair[0], pair[1]);
        let grown = after.1.checked_sub(before.1).filter(|grown| *grown > 0)?;
        (after.0 >= recent).then_some((before.0, after.0, grown))
    })?;
    let severity = if count > 1 {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut draft = Draft::new(
        "oom_kill",
        Layer::Resource,
        "memory",
        severity,
        "The kernel killed a process for want of memory".into(),
    );
    draft.shown(
        "host",
        "oom_kill",
        to,
        format!("{count} processes were killed for want of memory between {from} and {to}"),
    );
    if let Some(line) =
        log::recent(view, 15, &["out of memory: killed process", "oom-kill:"]).last()
    {
        draft.noted("log", line.at, log::quote(line));
    }
    if let Some(seen) = low(view).first() {
        draft.backed("host", "available", seen.at, left(&seen.value));
    }
    let fell = view.now().services.as_ref().and_then(|seen| {
        let service = seen
            .value
            .iter()
            .find(|service| service.result.as_deref() == Some("oom-kill"))?;
        Some((seen.at, &service.name))
    });
    if let Some((at, name)) = fell {
        draft.backed(
            "services",
            name,
            at,
            format!("{name} was killed for want of memory, says its manager"),
        );
    }
    cover(&mut draft, &["memory_exhausted"]);
    draft.explains("What was killed is gone until somebody starts it again");
    draft.misses("which process it was and which one grew (`dmesg`, `ps` by memory)");
    draft.next(
        "Find the process that grew (`dmesg | grep -i oom`, `ps -eo rss,comm --sort -rss | \
         head`), bound its memory (`MemoryMax=`) and restart what was killed",
    );
    Some(draft)
}

fn cover(draft: &mut Draft, more: &[&'static str]) {
    for cause in FALL.iter().chain(more) {
        draft.covers(cause, None);
    }
}

/// Readings in a row with hardly any memory left.
fn low<'a>(view: &View<'a>) -> Vec<&'a Seen<Host>> {
    trend::readings(view, |pass| pass.host.as_ref())
        .take_while(|seen| {
            let host = &seen.value;
            host.memory_total_bytes > 0
                && percent(host.memory_available_bytes, host.memory_total_bytes) < LEFT
        })
        .collect()
}

fn exhausted(view: &View<'_>) -> Option<Draft> {
    let low = low(view);
    if low.len() < 2 {
        return None;
    }
    let stalls = view
        .now()
        .pressure
        .as_ref()
        .and_then(|seen| Some((seen.at, seen.value.memory_full?)));
    let stalls = stalls.filter(|(_, stall)| stall.avg60 >= MEMORY_STALL);
    let severity = if stalls.is_some() {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut draft = Draft::new(
        "memory_exhausted",
        Layer::Resource,
        "memory",
        severity,
        "Hardly any memory is left".into(),
    );
    for seen in low.iter().take(2) {
        draft.shown("host", "available", seen.at, left(&seen.value));
    }
    if let Some((at, stall)) = stalls {
        draft.backed("pressure", "memory", at, stalled("memory", &stall));
    }
    swap(&mut draft, view);
    cover(&mut draft, &[]);
    draft.explains("The kernel will kill a process soon; services answer late");
    draft.misses("which process holds it (`ps -eo rss,comm --sort -rss | head`)");
    draft.next(
        "Find the process that holds most memory (`ps -eo rss,comm --sort -rss | head`), restart \
         it and bound its caches",
    );
    Some(draft)
}

fn stalled(what: &str, stall: &Stall) -> String {
    format!(
        "everything waited for {what} for {:.0} % of the last minute and {:.0} % of the last 10 s",
        stall.avg60, stall.avg10
    )
}

fn swap(draft: &mut Draft, view: &View<'_>) {
    let Some(seen) = view
        .now()
        .host
        .as_ref()
        .filter(|seen| seen.value.swap_total_bytes > 0)
    else {
        return;
    };
    let used = seen
        .value
        .swap_total_bytes
        .saturating_sub(seen.value.swap_free_bytes);
    draft.noted(
        "host",
        seen.at,
        format!(
            "{} of {} swap are used",
            bytes(used),
            bytes(seen.value.swap_total_bytes)
        ),
    );
}

/// Readings in a row in which everything waited, over 10 seconds and over a minute.
fn stalls<'a>(
    view: &View<'a>,
    read: fn(&Pressure) -> Option<Stall>,
    bound: f32,
) -> Vec<(Timestamp, Stall)> {
    trend::readings(view, |pass| pass.pressure.as_ref())
        .map_while(|seen: &'a Seen<Pressure>| {
            let stall = read(&seen.value)?;
            (stall.avg10 >= bound && stall.avg60 >= bound).then_some((seen.at, stall))
        })
        .collect()
}

/// Pages go out and come back: memory is there, but on a disk.
fn thrashing(view: &View<'_>) -> Option<Draft> {
    let host = view.now().host.as_ref()?;
    let used = host
        .value
        .swap_total_bytes
        .saturating_sub(host.value.swap_free_bytes);
    let stalls = stalls(view, |pressure| pressure.memory_full, MEMORY_STALL);
    if used == 0 || stalls.len() < 2 {
        return None;
    }
    let mut draft = Draft::new(
        "swap_thrashing",
        Layer::Resource,
        "memory",
        Severity::Critical,
        "The device spends its time on moving memory to and from swap".into(),
    );
    for (at, stall) in stalls.iter().take(2) {
        draft.shown("pressure", "memory", *at, stalled("memory", stall));
    }
    draft.backed(
        "host",
        "swap",
        host.at,
        format!(
            "{} of {} swap are used, {}",
            bytes(used),
            bytes(host.value.swap_total_bytes),
            left(&host.value)
        ),
    );
    cover(&mut draft, &["io_stall", "load_high", "memory_exhausted"]);
    draft.explains("Everything answers late");
    draft.misses("which process holds the memory (`ps -eo rss,comm --sort -rss | head`)");
    draft.next(
        "Stop or bound the process that holds most memory (`ps -eo rss,comm --sort -rss | head`)",
    );
    Some(draft)
}

fn waiting_for_disks(view: &View<'_>) -> Option<Draft> {
    let stalls = stalls(view, |pressure| pressure.io_full, IO_STALL);
    if stalls.len() < 2 {
        return None;
    }
    let mut draft = Draft::new(
        "io_stall",
        Layer::Resource,
        "disks",
        Severity::Warning,
        "Everything waits for a disk most of the time".into(),
    );
    for (at, stall) in stalls.iter().take(2) {
        draft.shown("pressure", "io", *at, stalled("disks", stall));
    }
    draft.covers("load_high", None);
    draft.explains("Services answer late; logs and settings are written late");
    draft.misses(
        "which disk and which process (`iostat -x`, `pidstat -d`), and whether the disk fails \
         (`smartctl -a`)",
    );
    draft.next(
        "Find the process that writes or reads most (`pidstat -d`), and check the disk for \
         errors (`dmesg`, `smartctl -a`)",
    );
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Severity};
    use aizen_protocol::record::{Body, Pressure, ServiceState};

    use crate::fixture::machine::{history, log, pressure, service};
    use crate::fixture::{Evidence, at, only, verdict};

    fn only_memory(percent: f32) -> Body {
        let all = pressure(percent);
        Body::Pressure(Pressure {
            cpu: None,
            io_some: None,
            io_full: None,
            ..all
        })
    }

    fn low(evidence: &mut Evidence) {
        evidence.host.memory_available_bytes = 12 << 20;
    }

    #[test]
    fn a_kill_is_told_for_ten_minutes_and_explains_the_service_that_fell() {
        let rounds = history(4, |round, evidence| {
            evidence.host.oom_kills = Some(2 + u64::from(round > 1));
            if round > 1 {
                let mut fallen = service("dnsmasq", ServiceState::Failed, Some(true));
                fallen.result = Some("oom-kill".into());
                evidence.see(Body::Services(vec![fallen]));
                evidence.see(Body::Log(vec![log(
                    2,
                    "kernel",
                    "Out of memory: Killed process 77 (dnsmasq)",
                )]));
            }
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.confidence),
            ("oom_kill", Confidence::Likely)
        );
        assert_eq!(finding.since, at(2));
    }

    #[test]
    fn kills_before_the_first_reading_and_lines_of_log_alone_do_not_alarm() {
        let old = history(4, |_, evidence| {
            evidence.host.oom_kills = Some(40);
            evidence.see(Body::Log(vec![log(
                1,
                "kernel",
                "Out of memory: Killed process 77 (x)",
            )]));
        });
        assert_eq!(verdict(&old).findings, []);
        let long_ago = history(100, |round, evidence| {
            evidence.host.oom_kills = Some(u64::from(round > 2))
        });
        assert_eq!(verdict(&long_ago).findings, []);
    }

    #[test]
    fn two_readings_without_memory_warn_and_with_stalls_are_critical() {
        let mut rounds = history(3, |_, evidence| low(evidence));
        let warned = verdict(&rounds);
        assert_eq!(
            (only(&warned).cause.0.as_str(), only(&warned).severity),
            ("memory_exhausted", Severity::Warning)
        );
        rounds
            .iter_mut()
            .for_each(|evidence| evidence.see(only_memory(30.0)));
        assert_eq!(only(&verdict(&rounds)).severity, Severity::Critical);
        let once = history(3, |round, evidence| {
            if round == 3 {
                low(evidence);
            }
        });
        assert_eq!(verdict(&once).findings, []);
    }

    #[test]
    fn stalls_with_swap_in_use_are_thrashing_and_used_swap_alone_is_well() {
        let with = |percent: f32| {
            history(3, move |_, evidence| {
                (
                    evidence.host.swap_total_bytes,
                    evidence.host.swap_free_bytes,
                ) = (1 << 30, 1 << 20);
                evidence.see(only_memory(percent));
            })
        };
        assert_eq!(only(&verdict(&with(25.0))).cause.0, "swap_thrashing");
        assert_eq!(verdict(&with(4.0)).findings, []);
    }

    #[test]
    fn disks_that_make_everybody_wait_twice_warn_and_a_short_stall_does_not() {
        let with = |rounds: std::ops::RangeInclusive<u64>, avg60: f32| {
            history(3, move |round, evidence| {
                let percent = if rounds.contains(&round) { 70.0 } else { 1.0 };
                let mut seen = Pressure {
                    cpu: None,
                    memory_some: None,
                    memory_full: None,
                    ..pressure(percent)
                };
                if let Some(stall) = &mut seen.io_full {
                    stall.avg60 = stall.avg60.min(avg60);
                }
                evidence.see(Body::Pressure(seen));
            })
        };
        assert_eq!(only(&verdict(&with(1..=3, 70.0))).cause.0, "io_stall");
        assert_eq!(verdict(&with(3..=3, 70.0)).findings, []);
        assert_eq!(verdict(&with(1..=3, 10.0)).findings, []);
    }
}
