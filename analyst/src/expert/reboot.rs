//! A device that started again without anybody wanting it.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Host;

use super::draft::{Draft, Examined, Layer};
use super::unit::span;
use crate::case::{Seen, View};

/// Seconds after a start in which it is news.
const NEWS_S: u64 = 900;
/// Reasons that nobody chooses.
const ACCIDENTS: [&str; 4] = ["watchdog", "panic", "brownout", "thermal"];
/// Power that came back: perhaps somebody pulled the plug.
const POWER: &str = "power";

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().host else {
        return examined;
    };
    examined.drafts.extend(restarted(view, seen));
    if seen.value.crash_records > 0 {
        examined.drafts.push(crashed(seen));
    }
    if examined.drafts.is_empty() {
        examined.well.push(format!(
            "It runs since {}",
            span(seen.value.uptime_s.saturating_mul(1000))
        ));
    }
    examined
}

/// The newest reading of the boot before.
fn before<'a>(view: &View<'a>) -> Option<&'a Seen<Host>> {
    let boot = &view.now().boot;
    view.earlier()
        .filter(|pass| pass.boot != *boot)
        .find_map(|pass| pass.host.as_ref())
}

/// What shows that nobody wanted the restart: somebody who restarts a device leaves none of these.
#[derive(Default)]
struct Traces<'a> {
    reason: Option<&'a str>,
    watchdog: Option<u32>,
    crash: bool,
}

impl<'a> Traces<'a> {
    fn of(host: &'a Host, before: Option<&Seen<Host>>) -> Self {
        let is_accident =
            |reason: &&str| ACCIDENTS.contains(reason) || *reason == POWER && before.is_some();
        let watchdog = before.and_then(|before| {
            host.watchdog_resets?
                .checked_sub(before.value.watchdog_resets?)
        });
        Self {
            reason: host.reset_reason.as_deref().filter(is_accident),
            watchdog: watchdog.filter(|count| *count > 0),
            crash: before.is_some_and(|before| host.crash_records > before.value.crash_records),
        }
    }

    /// In one word; none without any trace.
    fn why(&self) -> Option<&'a str> {
        let counted = self.watchdog.map(|_| "watchdog");
        let crashed = self.crash.then_some("crash");
        self.reason.or(counted).or(crashed)
    }
}

fn restarted(view: &View<'_>, seen: &Seen<Host>) -> Option<Draft> {
    let host = &seen.value;
    if host.uptime_s > NEWS_S {
        return None;
    }
    let before = before(view);
    let traces = Traces::of(host, before);
    let why = traces.why()?;
    let ran = span(host.uptime_s * 1000);
    let mut draft = Draft::new(
        "unexpected_reboot",
        Layer::Resource,
        "device",
        Severity::Warning,
        format!("The device started again by itself {ran} ago: {why}"),
    );
    let mut show = |witness: &str, fact: String| draft.shown("host", witness, seen.at, fact);
    if let Some(reason) = traces.reason {
        let fact = format!("the device says that it started because of: {reason}");
        show("reset_reason", fact);
    }
    if let Some(count) = traces.watchdog {
        let fact = format!("the watchdog restarted it {count} times since the boot before");
        show("watchdog", fact);
    }
    if traces.crash {
        let fact = format!(
            "{} records of a crash wait, more than before",
            host.crash_records
        );
        show("crash_records", fact);
    }
    match before {
        Some(before) => {
            let fact = format!(
                "another boot was seen until {}; it had run for {}",
                before.at,
                span(before.value.uptime_s.saturating_mul(1000))
            );
            draft.backed("host", "boot", before.at, fact);
        }
        None => draft.noted("host", seen.at, format!("it runs since {ran}")),
    }
    draft.covers("crash_records", None);
    draft.explains("Connections through the device broke off");
    draft.misses("the last words before (`journalctl -b -1 -n 100`, /sys/fs/pstore)");
    draft.next(match why {
        POWER => {
            "Ask whether somebody pulled the plug; if not, check the supply, its cable and the \
             mains"
        }
        "thermal" => "Let a person check fan, dust and place",
        _ => {
            "Read the last words before the restart (`journalctl -b -1 -n 100`, /sys/fs/pstore) \
             and keep them for whoever maintains its system"
        }
    });
    Some(draft)
}

fn crashed(seen: &Seen<Host>) -> Draft {
    let count = seen.value.crash_records;
    let mut draft = Draft::new(
        "crash_records",
        Layer::Resource,
        "device",
        Severity::Warning,
        format!("{count} records of a crash of the kernel wait to be read"),
    );
    draft.shown(
        "host",
        "pstore",
        seen.at,
        format!("{count} records of a crash wait in pstore"),
    );
    draft.misses("what they say and from when they are (/sys/fs/pstore)");
    draft.next(
        "Read and keep the records in /sys/fs/pstore, then delete them so that the next ones \
         have room",
    );
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Confidence;
    use aizen_protocol::record::Host;

    use crate::fixture::{Evidence, healthy, only, verdict};

    /// A boot that was seen, and one that follows.
    fn again(change: impl Fn(&mut Host)) -> Vec<Evidence> {
        let mut after = healthy(3);
        after.boot = "boot-2";
        after.host.uptime_s = 60;
        change(&mut after.host);
        vec![healthy(1), healthy(2), after]
    }

    #[test]
    fn a_watchdog_a_panic_and_lost_power_are_told_with_the_boot_before() {
        for reason in ["watchdog", "panic", "power"] {
            let rounds = again(|host| host.reset_reason = Some(reason.into()));
            let verdict = verdict(&rounds);
            let finding = only(&verdict);
            assert_eq!(
                (finding.cause.0.as_str(), finding.confidence),
                ("unexpected_reboot", Confidence::Likely),
                "{reason}"
            );
        }
        let crash = again(|host| host.crash_records = 2);
        assert_eq!(only(&verdict(&crash)).cause.0, "unexpected_reboot");
    }

    #[test]
    fn a_restart_by_somebody_one_long_ago_and_the_first_start_do_not_alarm() {
        let changes: [fn(&mut Host); 3] = [
            |host| host.reset_reason = Some("software".into()),
            |_| {},
            |host| {
                host.reset_reason = Some("watchdog".into());
                host.uptime_s = 90_000;
            },
        ];
        for change in changes {
            assert_eq!(verdict(&again(change)).findings, []);
        }
        let first = again(|host| host.reset_reason = Some("power".into()));
        assert_eq!(verdict(&first[2..]).findings, []);
    }

    #[test]
    fn records_of_a_crash_wait_whenever_it_was() {
        let mut evidence = healthy(1);
        evidence.host.crash_records = 1;
        assert_eq!(only(&evidence.verdict()).cause.0, "crash_records");
    }
}
