//! Which size to try next: a search between two bounds that tries several sizes at once, as each step costs a wait.

use std::collections::BTreeSet;

/// What is known of one path. Sizes are IP packets, bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Search {
    floor: u16,
    ceiling: u16,
    answered: Option<u16>,
    lost: BTreeSet<u16>,
    reported: Option<u16>,
}

impl Search {
    /// Between the least size that must pass and the MTU of the outgoing link.
    pub(super) fn new(floor: u16, ceiling: u16) -> Self {
        Self {
            floor: floor.min(ceiling),
            ceiling,
            answered: None,
            lost: BTreeSet::new(),
            reported: None,
        }
    }

    /// The sizes to send next, without those that are known; empty when there is nothing left to find.
    pub(super) fn next(&self) -> Vec<u16> {
        let Some(low) = self.answered else {
            let first = BTreeSet::from([self.floor, self.ceiling]);
            return first
                .difference(&self.lost)
                .copied()
                .filter(|_| self.lost.is_empty())
                .collect();
        };
        let Some(high) = self.smallest_lost() else {
            return Vec::new();
        };
        if let Some(reported) = self.reported.filter(|r| (low..high).contains(r)) {
            let around = [reported, reported.saturating_add(1)];
            return around
                .into_iter()
                .filter(|size| (low + 1..high).contains(size))
                .collect();
        }
        let gap = high - low;
        let steps = AT_ONCE.min(gap - 1);
        (1..=steps)
            .map(|n| {
                low + u16::try_from(u32::from(gap) * u32::from(n) / u32::from(steps + 1))
                    .unwrap_or(1)
            })
            .collect()
    }

    /// This size was answered.
    pub(super) fn answer(&mut self, size: u16) {
        self.answered = self.answered.max(Some(size));
    }

    /// This size was not answered, after repeats.
    pub(super) fn lose(&mut self, size: u16) {
        self.lost.insert(size);
    }

    /// A size that is lost again and again where a smaller one passes, which nobody explained; none where there is no such.
    pub(super) fn limit(&self) -> Option<u16> {
        self.answered?;
        self.smallest_lost().filter(|_| self.reported.is_none())
    }

    /// What was lost was lost by chance: it says nothing about sizes.
    pub(super) fn forget_losses(&mut self) {
        self.lost.clear();
    }

    /// A router says that this is the most it takes. Who can send ICMP can lie: it only says where to look.
    pub(super) fn report(&mut self, mtu: u16) {
        self.reported = Some(self.reported.map_or(mtu, |known| known.min(mtu)));
    }

    pub(super) fn largest_answered(&self) -> Option<u16> {
        self.answered
    }

    /// The smallest lost size above all answered ones: a smaller one was lost by chance.
    pub(super) fn smallest_lost(&self) -> Option<u16> {
        self.lost
            .iter()
            .copied()
            .find(|lost| self.answered.is_none_or(|answered| *lost > answered))
    }

    pub(super) fn reported(&self) -> Option<u16> {
        self.reported
    }
}

/// Sizes in flight together: 1500 bytes are searched in four steps.
const AT_ONCE: u16 = 7;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs the search against a path that takes at most `path` bytes; gives the number of steps.
    fn run(search: &mut Search, path: u16, report: bool) -> usize {
        for step in 0..20 {
            let sizes = search.next();
            if sizes.is_empty() {
                return step;
            }
            for size in sizes {
                if size <= path {
                    search.answer(size);
                } else {
                    search.lose(size);
                    if report {
                        search.report(path);
                    }
                }
            }
        }
        panic!("the search does not end: {search:?}");
    }

    #[test]
    fn a_path_as_wide_as_its_link_takes_one_step() {
        let mut search = Search::new(576, 1500);
        assert_eq!(run(&mut search, 1500, false), 1);
        assert_eq!(
            (search.largest_answered(), search.smallest_lost()),
            (Some(1500), None)
        );
    }

    #[test]
    fn a_silent_target_is_given_up_after_one_step() {
        let mut search = Search::new(576, 1500);
        assert_eq!(run(&mut search, 0, false), 1);
        assert_eq!(
            (search.largest_answered(), search.smallest_lost()),
            (None, Some(576))
        );
    }

    #[test]
    fn a_small_size_lost_by_chance_is_forgotten_when_a_larger_one_passes() {
        let mut search = Search::new(576, 1500);
        search.lose(576);
        search.answer(1500);
        assert_eq!((search.next(), search.smallest_lost()), (vec![], None));
    }

    #[test]
    fn a_reported_mtu_is_checked_and_not_believed() {
        let mut search = Search::new(576, 1500);
        search.answer(576);
        search.lose(1500);
        search.report(1400);
        assert_eq!(search.next(), [1400, 1401]);
        search.lose(1400);
        search.lose(1401);
        assert!(run(&mut search, 1000, false) > 0);
        assert_eq!(search.largest_answered(), Some(1000));
    }

    #[test]
    fn a_limit_is_what_is_lost_above_an_answer_and_told_by_nobody() {
        let mut search = Search::new(576, 1500);
        search.lose(1500);
        assert_eq!(search.limit(), None);
        search.answer(576);
        assert_eq!(search.limit(), Some(1500));
        search.answer(1499);
        search.forget_losses();
        assert_eq!((search.limit(), search.smallest_lost()), (None, None));
        search.lose(1501);
        search.report(1500);
        assert_eq!(search.limit(), None);
    }

    proptest! {
        #[test]
        fn the_exact_size_is_found_in_few_steps(ceiling in 576_u16..=9216, path in 576_u16..=9216, report: bool) {
            let mut search = Search::new(576, ceiling);
            let steps = run(&mut search, path, report);
            prop_assert!(steps <= 7, "{steps}");
            prop_assert_eq!(search.largest_answered(), Some(path.min(ceiling)));
            prop_assert_eq!(search.smallest_lost(), (path < ceiling).then_some(path + 1));
        }

        #[test]
        fn any_answers_keep_the_search_finite(ceiling: u16, floor: u16, seed in prop::collection::vec(any::<(bool, u16)>(), 0..64)) {
            let mut search = Search::new(floor, ceiling);
            for (n, (passes, reported)) in seed.into_iter().enumerate() {
                let sizes = search.next();
                prop_assert!(sizes.len() <= 7);
                for size in sizes {
                    prop_assert!(size <= ceiling);
                    if passes ^ (n % 3 == 0) { search.answer(size) } else { search.lose(size) }
                }
                search.report(reported);
            }
        }
    }
}
