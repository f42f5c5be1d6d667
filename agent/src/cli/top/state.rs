//! What the screen shows, and how readings change it.

use std::collections::{BTreeMap, VecDeque};

use aizen_protocol::finding::Verdict;
use aizen_protocol::record::{Body, Record};

use super::super::look::{LinkRates, Sample};

/// Readings that a sparkline keeps.
pub(super) const POINTS: usize = 120;

/// Rates of one link, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Curve {
    pub(super) rx: VecDeque<u64>,
    pub(super) tx: VecDeque<u64>,
}

/// One target of the newest round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) what: String,
    pub(super) sent: usize,
    pub(super) answered: usize,
    /// None without an answer.
    pub(super) median_us: Option<u32>,
}

/// Everything on the screen.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) now: Option<Sample>,
    pub(super) rates: BTreeMap<u32, LinkRates>,
    pub(super) curves: BTreeMap<u32, Curve>,
    pub(super) probes: Vec<Probe>,
    pub(super) verdict: Option<Verdict>,
    pub(super) scrolled: u16,
    pub(super) help: bool,
    pub(super) paused: bool,
}

impl State {
    /// Takes a reading of the counters.
    pub(super) fn read(&mut self, sample: Sample) {
        if let Some(before) = &self.now {
            self.rates = sample
                .links
                .iter()
                .filter_map(|link| Some((link.index, sample.link_rates(before, link)?)))
                .collect();
            for (index, rates) in &self.rates {
                let curve = self.curves.entry(*index).or_default();
                for (points, rate) in [
                    (&mut curve.rx, rates.rx_bits),
                    (&mut curve.tx, rates.tx_bits),
                ] {
                    points.push_back(whole(rate));
                    if points.len() > POINTS {
                        points.pop_front();
                    }
                }
            }
        }
        // A link that is gone takes its curve along: names and numbers come again.
        self.curves
            .retain(|index, _| sample.links.iter().any(|link| link.index == *index));
        self.now = Some(sample);
    }

    /// Takes a round and what the expert says of it.
    pub(super) fn judge(&mut self, records: &[Record], verdict: Verdict) {
        let newest = |wanted: fn(&Body) -> bool| {
            let found = records.iter().rev().find(|record| wanted(&record.body));
            found.map(|record| &record.body)
        };
        let mut probes = Vec::new();
        if let Some(Body::Reach(all)) = newest(|body| matches!(body, Body::Reach(_))) {
            probes.extend(all.iter().map(|reach| Probe {
                what: format!("echo {}", reach.target),
                sent: reach.sent.into(),
                answered: reach.received.into(),
                median_us: median(&reach.rtt_us),
            }));
        }
        if let Some(Body::Dns(all)) = newest(|body| matches!(body, Body::Dns(_))) {
            probes.extend(all.iter().map(|probe| Probe {
                what: format!("DNS {} {}", probe.resolver, probe.name),
                sent: probe.answers.len(),
                answered: probe.rtt_us.len(),
                median_us: median(&probe.rtt_us),
            }));
        }
        self.probes = probes;
        self.verdict = Some(verdict);
    }

    /// Moves the findings; the screen stops at their end.
    pub(super) fn scroll(&mut self, lines: i16) {
        self.scrolled = self.scrolled.saturating_add_signed(lines);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is no less than 0, and a float saturates"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

fn median(times_us: &[u32]) -> Option<u32> {
    let mut sorted = times_us.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::look::tests::{link, sample};

    #[test]
    fn a_curve_grows_with_readings_is_bounded_and_goes_with_its_link() {
        let mut state = State::default();
        for second in 0..200 {
            state.read(sample(second, vec![link(second * 125)]));
        }
        let curve = &state.curves[&2];
        assert_eq!((curve.rx.len(), curve.rx.back()), (POINTS, Some(&1000)));
        state.read(sample(201, Vec::new()));
        assert!(state.curves.is_empty() && state.rates.is_empty());
    }

    #[test]
    fn the_median_of_nothing_is_nothing() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3, 1]), Some(1));
        assert_eq!(median(&[5, 1, 3]), Some(3));
    }
}
