//! Charts as SVG: round trips of this diagnosis, and the last hours minute by minute.

use std::collections::BTreeMap;

use aizen_protocol::record::{Body, Record, Series, SeriesKind};
use maud::{Markup, html};

/// One target: its answers over all rounds at hand.
#[derive(Debug, Default)]
struct Target {
    times_us: Vec<u32>,
    sent: u32,
    answered: u32,
}

/// Median and 95th percentile to each echo target and resolver, with what was lost.
pub(super) fn round_trips(records: &[Record]) -> Markup {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    for record in records {
        match &record.body {
            Body::Reach(all) => all.iter().for_each(|reach| {
                let target = targets.entry(format!("echo {}", reach.target)).or_default();
                target.add(&reach.rtt_us, reach.sent.into(), reach.received.into());
            }),
            Body::Dns(all) => all.iter().for_each(|probe| {
                let target = targets
                    .entry(format!("DNS {}", probe.resolver))
                    .or_default();
                let asked = u32::try_from(probe.answers.len()).unwrap_or(u32::MAX);
                let answered = u32::try_from(probe.rtt_us.len()).unwrap_or(u32::MAX);
                target.add(&probe.rtt_us, asked, answered);
            }),
            _ => {}
        }
    }
    targets.retain(|_, target| target.sent > 0);
    let longest = targets.values().filter_map(|t| t.percentile(95)).max();
    let height = u32::try_from(targets.len())
        .unwrap_or(0)
        .saturating_mul(ROW)
        + 4;
    html! {
        @if !targets.is_empty() {
            section {
                h2 { "Round trips" }
                svg viewBox=(format!("0 0 {WIDTH} {height}")) width=(WIDTH) height=(height) role="img"
                    aria-label="Round-trip time to each target: median and 95th percentile" {
                    @for (row, (name, target)) in (0_u32..).zip(&targets) {
                        (target.bar(name, row.saturating_mul(ROW), longest.unwrap_or(1)))
                    }
                }
                p.dim { "Bar: median. Line: 95th percentile. Lost answers stand behind." }
            }
        }
    }
}

impl Target {
    fn add(&mut self, times_us: &[u32], sent: u32, answered: u32) {
        self.times_us.extend_from_slice(times_us);
        self.sent = self.sent.saturating_add(sent);
        self.answered = self.answered.saturating_add(answered);
    }

    /// The nearest rank; none without an answer.
    fn percentile(&self, percent: usize) -> Option<u32> {
        let mut sorted = self.times_us.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }

    fn bar(&self, name: &str, y: u32, longest_us: u32) -> Markup {
        let scale = |us: u32| u64::from(us) * u64::from(BARS) / u64::from(longest_us.max(1));
        let lost = self.sent.saturating_sub(self.answered);
        let told = match (self.percentile(50), lost) {
            (Some(median), 0) => milliseconds(median),
            (Some(median), lost) => {
                format!("{}, {lost} of {} lost", milliseconds(median), self.sent)
            }
            (None, _) => format!("no answer to {}", self.sent),
        };
        let (median, worst) = (self.percentile(50), self.percentile(95));
        html! {
            text x="0" y=(y + 16) { (name) }
            rect.frame x=(NAMES) y=(y + 4) width=(BARS) height="16" rx="3" {}
            @if let (Some(median), Some(worst)) = (median, worst) {
                rect.bar x=(NAMES) y=(y + 4) width=(scale(median).max(2)) height="16" rx="3" {}
                rect.bar x=(NAMES) y=(y + 11) width=(scale(worst).max(2)) height="2" {}
            } @else {
                rect.lost x=(NAMES) y=(y + 4) width=(BARS) height="16" rx="3" opacity="0.35" {}
            }
            text x=(NAMES + BARS + 8) y=(y + 16) class=(if lost == 0 { "quiet" } else { "" }) { (told) }
        }
    }
}

fn milliseconds(us: u32) -> String {
    format!("{:.1} ms", f64::from(us) / 1000.0)
}

/// What the daemon remembers: one chart a target.
pub(super) fn minutes(records: &[Record]) -> Markup {
    let history = records.iter().rev().find_map(|record| match &record.body {
        Body::History(history) => Some(history),
        _ => None,
    });
    let series: Vec<&Series> = history
        .iter()
        .flat_map(|history| &history.series)
        .filter(|series| series.minutes.iter().any(|minute| minute.sent > 0))
        .collect();
    html! {
        @if !series.is_empty() {
            section {
                h2 { "The last hours" }
                @for series in series { (strip(series)) }
                p.dim { "One column a minute: height is the median, red is loss." }
            }
        }
    }
}

fn strip(series: &Series) -> Markup {
    let kind = match series.kind {
        SeriesKind::Echo => "echo",
        SeriesKind::Dns => "DNS",
    };
    let shown = &series.minutes[series.minutes.len().saturating_sub(MINUTES)..];
    let slowest = shown
        .iter()
        .map(|minute| minute.p50_us)
        .max()
        .unwrap_or(1)
        .max(1);
    let column = (WIDTH / u32::try_from(shown.len()).unwrap_or(WIDTH).max(1)).clamp(1, 6);
    html! {
        p { (kind) " " (series.target) " " span.dim { "up to " (milliseconds(slowest)) ", from " (series.start.strftime("%H:%M UTC")) } }
        svg viewBox=(format!("0 0 {WIDTH} {STRIP}")) width=(WIDTH) height=(STRIP) role="img"
            aria-label=(format!("{kind} to {} minute by minute", series.target)) {
            rect.frame x="0" y="0" width=(WIDTH) height=(STRIP) {}
            @for (place, minute) in (0_u32..).zip(shown) {
                @let height = u64::from(minute.p50_us) * u64::from(STRIP) / u64::from(slowest);
                @let lost = u32::from(minute.lost) * STRIP / u32::from(minute.sent).max(1);
                @if minute.sent > 0 {
                    rect.bar x=(place * column) y=(u64::from(STRIP) - height) width=(column) height=(height) {}
                    rect.lost x=(place * column) y="0" width=(column) height=(lost.min(STRIP)) {}
                }
            }
        }
    }
}

const WIDTH: u32 = 900;
const ROW: u32 = 24;
const NAMES: u32 = 300;
const BARS: u32 = 380;
const STRIP: u32 = 40;
/// Columns that fit.
const MINUTES: usize = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let mut target = Target::default();
        assert_eq!(target.percentile(50), None);
        target.add(&[30, 10, 20], 4, 3);
        assert_eq!(
            (target.percentile(50), target.percentile(95)),
            (Some(20), Some(30))
        );
        let bar = target.bar("echo", 0, 30).into_string();
        assert!(bar.contains("1 of 4 lost"), "{bar}");
    }

    #[test]
    fn a_target_that_never_answered_is_no_bar_of_no_length() {
        let mut target = Target::default();
        target.add(&[], 3, 0);
        let bar = target.bar("echo", 0, 1).into_string();
        assert!(
            bar.contains("no answer to 3") && bar.contains("lost"),
            "{bar}"
        );
    }
}
