//! Who runs when, and how long each may take.

use std::collections::BTreeMap;
use std::time::Duration;

use aizen_protocol::record::Trigger;

use crate::clock::BootTime;

/// How long each part of a round may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Reading one table or file.
    pub local: Duration,
    /// One kind of probe, all targets together.
    pub probe: Duration,
    /// The neighbour table, after the probes.
    pub neighbours: Duration,
    /// One file system's answer.
    pub disk: Duration,
    /// The whole round.
    pub whole: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            local: Duration::from_millis(1500),
            probe: Duration::from_millis(5000),
            neighbours: Duration::from_millis(500),
            disk: Duration::from_millis(1000),
            whole: Duration::from_millis(8000),
        }
    }
}

impl Budgets {
    /// True if the parts that follow each other fit into the whole.
    #[must_use]
    pub fn fit(&self) -> bool {
        self.local + self.probe + self.neighbours <= self.whole && self.disk <= self.probe
    }
}

/// Collectors that don't run in every round, as they cost other people something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rare {
    PathMtu,
    Arp,
    Time,
}

impl Rare {
    /// The least time between two runs, without and with a reason to hurry.
    fn pauses(self) -> (Duration, Duration) {
        let (calm, hurried) = match self {
            Self::PathMtu => (60, 10),
            Self::Arp => (30, 5),
            // RFC 4330, 10: a client must not ask more often than every 15 s; one minute is good manners.
            Self::Time => (64, 16),
        };
        (Duration::from_secs(calm), Duration::from_secs(hurried))
    }
}

/// When each rare collector ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    ran: BTreeMap<Rare, BootTime>,
}

impl Schedule {
    /// True if the collector's time has come; then it counts as run.
    pub(crate) fn start(&mut self, rare: Rare, now: BootTime, trigger: Trigger) -> bool {
        let (calm, hurried) = rare.pauses();
        let pause = match trigger {
            Trigger::Tick => calm,
            Trigger::Event | Trigger::Asked | Trigger::Change => hurried,
        };
        let due = self
            .ran
            .get(&rare)
            .is_none_or(|ran| now.0.saturating_sub(ran.0) >= pause);
        if due {
            self.ran.insert(rare, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    #[test]
    fn the_default_budgets_fit_into_a_round() {
        assert!(Budgets::default().fit());
        let broken = Budgets {
            probe: Duration::from_secs(8),
            ..Budgets::default()
        };
        assert!(!broken.fit());
    }

    #[test]
    fn a_rare_collector_runs_first_and_then_no_more_often_than_its_pause() {
        let mut schedule = Schedule::default();
        assert!(schedule.start(Rare::Time, at(100), Trigger::Tick));
        assert!(!schedule.start(Rare::Time, at(163), Trigger::Tick));
        assert!(schedule.start(Rare::Arp, at(163), Trigger::Tick));
        assert!(schedule.start(Rare::Time, at(164), Trigger::Tick));
        assert!(!schedule.start(Rare::Time, at(170), Trigger::Asked));
        assert!(schedule.start(Rare::Time, at(180), Trigger::Event));
    }
}
