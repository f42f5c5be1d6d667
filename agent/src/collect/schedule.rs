//! Who runs when, and how long each may take.

use std::collections::{BTreeMap, BTreeSet};
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

/// Collectors that don't run in every round, as they cost the device or other people something: the least seconds
/// between two runs, without and with a reason to hurry.
const PAUSES: &[(&str, u64, u64)] = &[
    ("path_mtu", 60, 10),
    ("arp", 30, 5),
    // RFC 4330, 10: a client must not ask more often than every 15 s; one minute is good manners.
    ("time", 64, 16),
    ("ethernet", 30, 5),
    ("modules", 60, 20),
    // Cheap where this process looks itself; through the executor BEHIND_DOOR holds.
    ("filter", 1, 1),
    ("wireguard", 1, 1),
    ("kernel_log", 1, 1),
    ("connects", 30, 5),
    ("traces", 120, 20),
    ("certificates", 900, 20),
    ("portal", 120, 15),
    ("dhcp", 30, 5),
    ("dhcp_probes", 600, 60),
    ("pppoe_probes", 600, 60),
    ("router_probes", 600, 60),
    ("lldp", 600, 60),
    ("services", 30, 5),
    ("configuration", 60, 5),
];

/// Collectors that ask the executor. Each question wakes it: while it is calm it may sleep.
const BEHIND_DOOR: &[&str] = &[
    "arp",
    "modules",
    "filter",
    "wireguard",
    "kernel_log",
    "dhcp_probes",
    "pppoe_probes",
    "router_probes",
    "lldp",
];
/// The least pause between two calm rounds that wake the executor, seconds.
const WAKES_EVERY_S: u64 = 300;

/// What runs in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Due {
    rests: BTreeSet<&'static str>,
    asked: bool,
}

impl Due {
    /// Of the collectors that don't run in every round, these alone.
    pub(crate) fn only(wanted: &[&str]) -> Self {
        let rare = PAUSES.iter().map(|(rare, ..)| *rare);
        Self {
            rests: rare.filter(|rare| !wanted.contains(rare)).collect(),
            asked: false,
        }
    }

    /// True if this collector runs.
    pub(crate) fn runs(&self, collector: &str) -> bool {
        !self.rests.contains(collector)
    }

    /// True if a person or an analyst asked for this round.
    pub(crate) fn asked(&self) -> bool {
        self.asked
    }

    /// Keeps a collector from running in this round.
    pub(crate) fn rest(&mut self, collector: &'static str) {
        self.rests.insert(collector);
    }
}

/// When each rare collector ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    ran: BTreeMap<&'static str, BootTime>,
    wakes: bool,
}

impl Schedule {
    /// `wakes` if what is behind the door wakes another process.
    pub(crate) fn new(wakes: bool) -> Self {
        Self {
            ran: BTreeMap::new(),
            wakes,
        }
    }

    /// Says who runs now; those count as run.
    pub(crate) fn start(&mut self, now: BootTime, trigger: Trigger) -> Due {
        let mut due = Due {
            asked: trigger == Trigger::Asked,
            ..Due::default()
        };
        for &(collector, calm, hurried) in PAUSES {
            let pause = Duration::from_secs(match trigger {
                Trigger::Tick if self.wakes && BEHIND_DOOR.contains(&collector) => {
                    calm.max(WAKES_EVERY_S)
                }
                Trigger::Tick => calm,
                Trigger::Event | Trigger::Asked | Trigger::Change => hurried,
            });
            let ran = self.ran.get(collector);
            if ran.is_none_or(|ran| now.0.saturating_sub(ran.0) >= pause) {
                self.ran.insert(collector, now);
            } else {
                due.rest(collector);
            }
        }
        due
    }

    /// A collector that was due had nothing to do: it may run in the next round.
    pub(crate) fn give_back(&mut self, collector: &str) {
        self.ran.remove(collector);
    }
}

/// True for a collector that doesn't run in every round: what it saw last holds, with the time it was seen.
pub(crate) fn is_rare(collector: &str) -> bool {
    PAUSES.iter().any(|(rare, ..)| *rare == collector)
}

/// How long what a rare collector saw holds in the rounds that follow: while it rests. If its turn came and it looked at
/// nothing, there is nothing to say any more. None for a collector of every round.
pub(crate) fn holds(collector: &str) -> Option<Duration> {
    let (_, calm, _) = PAUSES.iter().find(|(rare, ..)| *rare == collector)?;
    let pause = if BEHIND_DOOR.contains(&collector) {
        (*calm).max(WAKES_EVERY_S)
    } else {
        *calm
    };
    Some(Duration::from_secs(pause) + HOLDS_SLACK)
}

/// A round and what may delay it.
const HOLDS_SLACK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use aizen_protocol::record::COLLECTORS;

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
        let mut runs =
            |seconds, trigger, collector| schedule.start(at(seconds), trigger).runs(collector);
        assert!(runs(100, Trigger::Tick, "time"));
        assert!(!runs(163, Trigger::Tick, "time"));
        assert!(runs(164, Trigger::Tick, "time"));
        assert!(!runs(170, Trigger::Asked, "time"));
        assert!(runs(180, Trigger::Event, "time"));
        assert!(runs(180, Trigger::Tick, "links"));
    }

    #[test]
    fn a_calm_device_lets_the_executor_sleep_and_a_disturbed_one_wakes_it() {
        let mut schedule = Schedule::new(true);
        let mut runs = |seconds, trigger| schedule.start(at(seconds), trigger).runs("filter");
        assert!(runs(1000, Trigger::Tick));
        assert!(!runs(1299, Trigger::Tick));
        assert!(runs(1299, Trigger::Event));
        let mut direct = Schedule::default();
        assert!(direct.start(at(1), Trigger::Tick).runs("filter"));
        assert!(direct.start(at(3), Trigger::Tick).runs("filter"));
    }

    #[test]
    fn a_collector_that_had_nothing_to_do_may_run_in_the_next_round() {
        let mut schedule = Schedule::default();
        assert!(schedule.start(at(1), Trigger::Tick).runs("traces"));
        schedule.give_back("traces");
        let due = schedule.start(at(2), Trigger::Asked);
        assert!(due.runs("traces") && due.asked());
        assert!(!schedule.start(at(3), Trigger::Tick).runs("traces"));
    }

    #[test]
    fn of_the_rare_ones_only_those_that_are_wanted_run() {
        let due = Due::only(&["filter"]);
        assert!(due.runs("filter") && due.runs("links"));
        assert!(!due.runs("traces") && !due.runs("kernel_log"));
    }

    #[test]
    fn every_pause_is_that_of_a_collector() {
        for (collector, calm, hurried) in PAUSES {
            assert!(hurried <= calm, "{collector}");
            // ARP probes become the record of duplicates, the kernel's messages that of the log.
            let part = ["arp", "kernel_log"].contains(collector);
            assert!(COLLECTORS.contains(collector) || part);
        }
    }
}
