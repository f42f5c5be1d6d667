//! Whether the device is well enough to keep a change: samples of probes, before and after, and what they add up to.
//!
//! A probe that the package *declares* must hold for the whole window, whether it held before or not: what was to be
//! mended must be mended. A probe of the device's own (*ambient*) must only hold if it held before: what was already
//! broken is not held against the change.

use std::time::Duration;

use aizen_protocol::outcome::ProbeResult;

use crate::clock::BootTime;

/// Samples in a row that make a failure definite: one lost packet is none.
pub const DEFINITE: u32 = 3;

/// Who wants the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The package: it must hold.
    Declared,
    /// The device: it must hold if it held before.
    Ambient,
}

/// One measurement of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// It held.
    pub holds: bool,
    /// What was measured.
    pub detail: String,
}

/// What the samples add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not long enough yet, or something to be mended is not.
    Unsettled,
    /// Everything wanted has held for the whole window.
    Holds,
    /// This probe held before and definitely does not any more.
    Broken {
        /// Its name.
        probe: String,
    },
}

/// The probes of one change.
#[derive(Clone, Debug)]
pub struct Watch {
    probes: Vec<Watched>,
    stable: Duration,
    well_since: Option<BootTime>,
}

#[derive(Clone, Debug)]
struct Watched {
    name: String,
    wanted: Wanted,
    before: Sample,
    after: Option<Sample>,
    failures: u32,
}

impl Watched {
    fn matters(&self) -> bool {
        self.wanted == Wanted::Declared || self.before.holds
    }
}

impl Watch {
    /// Begins with the baseline: each probe's name, who wants it, and how it was before the change.
    #[must_use]
    pub fn new(baseline: Vec<(String, Wanted, Sample)>, stable: Duration) -> Self {
        let probes = baseline
            .into_iter()
            .map(|(name, wanted, before)| Watched {
                name,
                wanted,
                before,
                after: None,
                failures: 0,
            })
            .collect();
        Self {
            probes,
            stable,
            well_since: None,
        }
    }

    /// Takes one sample of every probe, in the order of the baseline, and says what it adds up to. A probe without a
    /// sample in this pass counts as failed.
    pub fn take(&mut self, samples: Vec<Sample>, now: BootTime) -> Health {
        let mut samples = samples.into_iter();
        for probe in &mut self.probes {
            let sample = samples.next().unwrap_or_else(|| Sample {
                holds: false,
                detail: "not measured".to_owned(),
            });
            probe.failures = if sample.holds { 0 } else { probe.failures + 1 };
            probe.after = Some(sample);
        }
        let broken = self
            .probes
            .iter()
            .find(|probe| probe.before.holds && probe.failures >= DEFINITE);
        if let Some(probe) = broken {
            return Health::Broken {
                probe: probe.name.clone(),
            };
        }
        let well = self
            .probes
            .iter()
            .all(|probe| !probe.matters() || probe.failures == 0);
        if !well {
            self.well_since = None;
            return Health::Unsettled;
        }
        let since = *self.well_since.get_or_insert(now);
        if now.0.saturating_sub(since.0) >= self.stable {
            Health::Holds
        } else {
            Health::Unsettled
        }
    }

    /// Names of what keeps the change from being kept.
    #[must_use]
    pub fn failing(&self) -> Vec<String> {
        self.probes
            .iter()
            .filter(|probe| probe.matters() && (probe.failures > 0 || probe.after.is_none()))
            .map(|probe| probe.name.clone())
            .collect()
    }

    /// The probes, before and after, for the report.
    #[must_use]
    pub fn results(&self) -> Vec<ProbeResult> {
        self.probes
            .iter()
            .map(|probe| ProbeResult {
                probe: probe.name.as_str().into(),
                before: probe.before.holds,
                after: probe.after.as_ref().map(|after| after.holds),
                detail: match &probe.after {
                    Some(after) => {
                        format!("before: {}; after: {}", probe.before.detail, after.detail)
                    }
                    None => format!("before: {}", probe.before.detail),
                }
                .into(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(holds: bool) -> Sample {
        Sample {
            holds,
            detail: "x".into(),
        }
    }

    fn watch(probes: &[(Wanted, bool)], stable: u64) -> Watch {
        let baseline = probes
            .iter()
            .enumerate()
            .map(|(n, (wanted, before))| (format!("probe-{n}"), *wanted, sample(*before)))
            .collect();
        Watch::new(baseline, Duration::from_secs(stable))
    }

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    #[test]
    fn a_change_holds_only_after_the_whole_window() {
        let mut watch = watch(&[(Wanted::Declared, false)], 10);
        assert_eq!(watch.take(vec![sample(true)], at(100)), Health::Unsettled);
        assert_eq!(watch.take(vec![sample(true)], at(109)), Health::Unsettled);
        assert_eq!(watch.take(vec![sample(true)], at(110)), Health::Holds);
    }

    #[test]
    fn one_failed_sample_begins_the_window_again_and_three_are_definite() {
        let mut watch = watch(&[(Wanted::Declared, true)], 10);
        assert_eq!(watch.take(vec![sample(true)], at(0)), Health::Unsettled);
        assert_eq!(watch.take(vec![sample(false)], at(9)), Health::Unsettled);
        assert_eq!(watch.take(vec![sample(true)], at(10)), Health::Unsettled);
        assert_eq!(watch.take(vec![sample(true)], at(20)), Health::Holds);
        for second in 21..23 {
            assert_eq!(
                watch.take(vec![sample(false)], at(second)),
                Health::Unsettled
            );
        }
        let broken = Health::Broken {
            probe: "probe-0".into(),
        };
        assert_eq!(watch.take(vec![sample(false)], at(23)), broken);
    }

    #[test]
    fn what_was_broken_before_is_not_held_against_the_change() {
        let mut watch = watch(&[(Wanted::Ambient, false), (Wanted::Declared, true)], 0);
        let samples = vec![sample(false), sample(true)];
        for second in 0..10 {
            assert_eq!(watch.take(samples.clone(), at(second)), Health::Holds);
        }
    }

    #[test]
    fn what_was_to_be_mended_must_be_mended_and_is_waited_for() {
        let mut watch = watch(&[(Wanted::Declared, false)], 0);
        for second in 0..50 {
            assert_eq!(
                watch.take(vec![sample(false)], at(second)),
                Health::Unsettled
            );
        }
        assert_eq!(watch.failing(), ["probe-0"]);
        assert_eq!(watch.take(vec![sample(true)], at(50)), Health::Holds);
        assert!(watch.failing().is_empty());
    }

    #[test]
    fn an_ambient_probe_that_held_before_must_go_on() {
        let mut watch = watch(&[(Wanted::Ambient, true)], 0);
        for second in 0..2 {
            assert_eq!(
                watch.take(vec![sample(false)], at(second)),
                Health::Unsettled
            );
        }
        assert!(matches!(
            watch.take(vec![sample(false)], at(2)),
            Health::Broken { .. }
        ));
    }

    #[test]
    fn a_probe_that_was_not_measured_failed() {
        let mut watch = watch(&[(Wanted::Declared, true)], 0);
        assert_eq!(watch.take(Vec::new(), at(0)), Health::Unsettled);
        assert_eq!(watch.results()[0].after, Some(false));
    }

    proptest! {
        #[test]
        fn holds_means_that_everything_wanted_held_for_the_window(
            probes in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..4),
            rounds in proptest::collection::vec(proptest::collection::vec(prop::bool::weighted(0.9), 4), 1..30),
            stable in 0..6_u64,
        ) {
            let wanted: Vec<(Wanted, bool)> = probes.iter()
                .map(|(declared, before)| (if *declared { Wanted::Declared } else { Wanted::Ambient }, *before))
                .collect();
            let mut watch = watch(&wanted, stable);
            for (second, round) in rounds.iter().enumerate() {
                let samples = round[..wanted.len()].iter().map(|h| sample(*h)).collect();
                let health = watch.take(samples, at(second as u64));
                if health == Health::Holds {
                    let from = second.saturating_sub(usize::try_from(stable).unwrap());
                    prop_assert!(second as u64 >= stable);
                    for earlier in &rounds[from..=second] {
                        for (n, (kind, before)) in wanted.iter().enumerate() {
                            prop_assert!(earlier[n] || (*kind == Wanted::Ambient && !before));
                        }
                    }
                }
            }
        }
    }
}
