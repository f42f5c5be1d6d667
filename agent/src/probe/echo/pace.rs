//! Who is asked next, and when. Pure: times are nanoseconds since the run began.

/// The order of requests: all targets in turn, round after round.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    between: u64,
    each: u64,
    times: Option<u32>,
    /// When each target may be asked again.
    free_at: Vec<u64>,
    next: usize,
    round: u32,
    due: u64,
}

impl Pace {
    pub(super) fn new(targets: usize, times: Option<u32>, between: u64, each: u64) -> Self {
        Self {
            between,
            each,
            times,
            free_at: vec![0; targets],
            next: 0,
            round: 0,
            due: 0,
        }
    }

    /// The next request (target, number) and when it is due; none when all have left.
    pub(super) fn next(&self) -> Option<(usize, u32, u64)> {
        let wanted = self.times.is_none_or(|times| self.round < times);
        let free_at = *self.free_at.get(self.next)?;
        wanted.then_some((self.next, self.round, self.due.max(free_at)))
    }

    /// The next request was taken at `now`.
    pub(super) fn take(&mut self, now: u64) {
        let Some((target, _, due)) = self.next() else {
            return;
        };
        // What a slow machine is behind is made up for, but not in a burst of any size.
        let due = due.max(now.saturating_sub(CATCH_UP));
        self.due = due.saturating_add(self.between);
        self.free_at[target] = due.saturating_add(self.each);
        self.next += 1;
        if self.next == self.free_at.len() {
            self.next = 0;
            self.round = self.round.saturating_add(1);
        }
    }
}

/// 10 ms.
const CATCH_UP: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(mut pace: Pace) -> Vec<(usize, u32, u64)> {
        let mut order = Vec::new();
        while let Some(next) = pace.next() {
            order.push(next);
            pace.take(next.2);
        }
        order
    }

    #[test]
    fn targets_take_turns_and_each_has_its_own_pause() {
        assert_eq!(
            drain(Pace::new(2, Some(2), 10, 100)),
            [(0, 0, 0), (1, 0, 10), (0, 1, 100), (1, 1, 110)]
        );
    }

    #[test]
    fn with_many_targets_the_pause_between_requests_rules() {
        let order = drain(Pace::new(3, Some(2), 50, 100));
        assert_eq!(order[3], (0, 1, 150));
    }

    #[test]
    fn nobody_is_asked_without_targets_or_times() {
        assert!(drain(Pace::new(0, None, 1, 1)).is_empty());
        assert!(drain(Pace::new(3, Some(0), 1, 1)).is_empty());
    }

    #[test]
    fn a_long_sleep_is_not_made_up_for_in_a_burst() {
        let mut pace = Pace::new(1, None, 1_000_000, 0);
        pace.take(0);
        let late = 60_000_000_000;
        pace.take(late);
        let mut burst = 0;
        while pace.next().is_some_and(|(.., due)| due <= late) {
            pace.take(late);
            burst += 1;
        }
        assert!(burst <= 10, "{burst}");
    }

    proptest! {
        #[test]
        fn requests_are_never_closer_than_asked(targets in 1_usize..20, times in 1_u32..10, between in 0_u64..50, each in 0_u64..500) {
            let order = drain(Pace::new(targets, Some(times), between, each));
            prop_assert_eq!(order.len(), targets * times as usize);
            for pair in order.windows(2) {
                prop_assert!(pair[1].2 - pair[0].2 >= between);
            }
            for (n, probe) in order.iter().enumerate().skip(targets) {
                prop_assert!(probe.2 - order[n - targets].2 >= each);
            }
        }
    }
}
