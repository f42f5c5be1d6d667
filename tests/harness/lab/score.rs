//! What all scenarios together say of the expert.

use std::time::Duration;

use super::recorded::Replayed;
use super::run::Outcome;

/// Least share of faults whose cause is named first, percent.
pub const CAUSES: usize = 97;
/// Least share of faults whose component is named, too, percent.
pub const COMPONENTS: usize = 95;

/// Counts over all scenarios.
#[derive(Clone, Debug, Default)]
pub struct Score {
    faults: usize,
    causes: usize,
    components: usize,
    extra: usize,
    healthy: usize,
    false_alarms: usize,
    errors: usize,
    repairs: [usize; 2],
    rollbacks: usize,
    walls: Vec<Duration>,
    cpus: Vec<Duration>,
}

impl Score {
    /// Counts a scenario that ran.
    pub fn ran(&mut self, outcome: &Outcome) {
        self.errors += usize::from(outcome.error.is_some());
        if outcome.healthy {
            self.healthy += 1;
            self.false_alarms += usize::from(!outcome.judged.passed());
        } else {
            self.faults += 1;
            self.causes += usize::from(outcome.judged.cause);
            self.components += usize::from(outcome.judged.component);
            self.extra += outcome.judged.extra.len();
        }
        if let Some(proof) = outcome.repair {
            self.repairs[1] += 1;
            self.repairs[0] += usize::from(proof.mended);
            self.rollbacks += usize::from(proof.rolled_back);
        }
        if outcome.verdict.is_some() {
            self.walls.push(outcome.wall);
        }
    }

    /// Counts a recorded one and its healthy twin.
    pub fn replayed(&mut self, replayed: &Replayed, healthy: bool) {
        self.healthy += 1 + usize::from(healthy);
        self.false_alarms += usize::from(!replayed.twin.passed());
        if healthy {
            self.false_alarms += usize::from(!replayed.judged.passed());
        } else {
            self.faults += 1;
            self.causes += usize::from(replayed.judged.cause);
            self.components += usize::from(replayed.judged.component);
            self.extra += replayed.judged.extra.len();
        }
        self.cpus.push(replayed.cpu);
    }

    /// Good enough: enough causes and components, no false alarm, every repair and rollback proven.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.causes * 100 >= self.faults * CAUSES
            && self.components * 100 >= self.faults * COMPONENTS
            && self.false_alarms == 0
            && self.errors == 0
            && self.repairs[0] == self.repairs[1]
            && self.rollbacks == self.repairs[1]
    }

    /// A Markdown table.
    #[must_use]
    pub fn table(&self) -> String {
        let share = |part: usize| {
            let tenths = (part * 1000).checked_div(self.faults).unwrap_or(0);
            format!(
                "{part} of {} ({}.{} %)",
                self.faults,
                tenths / 10,
                tenths % 10
            )
        };
        let [mended, proposed] = self.repairs;
        let rows = [
            ("faults whose cause is named first", share(self.causes)),
            ("and whose component is right", share(self.components)),
            ("findings beside the cause", self.extra.to_string()),
            (
                "false alarms on healthy networks",
                format!("{} of {}", self.false_alarms, self.healthy),
            ),
            ("scenarios that broke", self.errors.to_string()),
            ("repairs that mended", format!("{mended} of {proposed}")),
            (
                "rollbacks to the same state",
                format!("{} of {proposed}", self.rollbacks),
            ),
            ("time a case (`aizen diagnose`, wall)", spread(&self.walls)),
            (
                "expert a case (processor time, recorded evidence)",
                spread(&self.cpus),
            ),
        ];
        let mut table = String::from("| fault lab | result |\n| --- | --- |\n");
        for (what, result) in rows {
            table.push_str(&format!("| {what} | {result} |\n"));
        }
        table
    }
}

/// `median 2.1 s, p95 8.0 s, longest 9.6 s of 40`.
fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    // The smallest that at least so many percent do not exceed.
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).copied().unwrap_or_default()
    };
    format!(
        "median {:.1?}, p95 {:.1?}, longest {:.1?} of {}",
        at(50),
        at(95),
        at(100),
        times.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::verdict::Judged;

    fn outcome(healthy: bool, well: bool) -> Outcome {
        Outcome {
            name: "link/x".into(),
            healthy,
            judged: Judged {
                cause: well,
                component: well,
                extra: Vec::new(),
                told: String::new(),
            },
            wall: Duration::from_secs(2),
            repair: None,
            error: None,
            verdict: None,
        }
    }

    #[test]
    fn times_are_told_by_their_middle_and_their_end() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_secs).collect();
        assert_eq!(
            spread(&times),
            "median 50.0s, p95 95.0s, longest 100.0s of 100"
        );
        assert_eq!(spread(&[]), "median 0.0ns, p95 0.0ns, longest 0.0ns of 0");
    }

    #[test]
    fn three_misses_of_a_hundred_are_borne_and_a_fourth_or_a_false_alarm_is_not() {
        let mut score = Score::default();
        for number in 0..100 {
            score.ran(&outcome(false, number >= 3));
        }
        assert!(score.holds());
        let mut alarmed = score.clone();
        alarmed.ran(&outcome(true, false));
        assert!(!alarmed.holds());
        score.ran(&outcome(false, false));
        assert!(!score.holds());
        assert!(score.table().contains("97 of 101 (96.0 %)"));
    }
}
