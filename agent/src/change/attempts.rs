//! The loop breaker: how often undoing one change was begun and not brought to an end, and what that says of trying
//! again.
//!
//! Whatever kills a recovery (a bug, a driver that takes the machine with it, a disk that is full) may kill the next one
//! as well. A device that restarts for ever diagnoses nothing; it stops trying, says so, and waits for a person.

use aizen_protocol::id::BootId;
use aizen_protocol::outcome::End;

use super::Recovery;

/// Attempts in one boot that may die.
const IN_A_BOOT: usize = 3;
/// Boots in which attempts may die.
const BOOTS: usize = 3;

/// The boots in which recoveries of a change began, one for each; all of them died, or the change would not be open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(Vec<BootId>);

/// What a start does about an open change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is recovered.
    Try,
    /// It is not undone any more: it ends as `rollback_incomplete`, and a person looks.
    GiveUp,
    /// What is left is telling its end: that waits until somebody asks for it, so that the rest can go on.
    Hold,
}

impl Attempts {
    /// One more begins.
    pub(super) fn begin(&mut self, boot: BootId) {
        self.0.push(boot);
    }

    /// How many died.
    #[must_use]
    pub fn died(&self) -> usize {
        self.0.len()
    }

    /// What a start in this boot does.
    #[must_use]
    pub fn next(&self, recovery: Recovery, boot: &BootId) -> Next {
        let here = self.0.iter().filter(|b| *b == boot).count();
        let mut others: Vec<&BootId> = self.0.iter().filter(|b| *b != boot).collect();
        others.sort_unstable();
        others.dedup();
        if here < IN_A_BOOT && others.len() < BOOTS {
            return Next::Try;
        }
        match recovery {
            Recovery::RollBack => Next::GiveUp,
            Recovery::Nothing
            | Recovery::Interrupt
            | Recovery::Report(
                End::Confirmed
                | End::RolledBack
                | End::RollbackIncomplete
                | End::Interrupted
                | End::Diagnosed
                | End::Refused,
            ) => Next::Hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boot(name: &str) -> BootId {
        format!("boot-{name}").parse().unwrap()
    }

    fn after(boots: &[&str]) -> Attempts {
        let mut attempts = Attempts::default();
        for name in boots {
            attempts.begin(boot(name));
        }
        attempts
    }

    fn next(boots: &[&str], now: &str) -> Next {
        after(boots).next(Recovery::RollBack, &boot(now))
    }

    #[test]
    fn the_fourth_attempt_of_a_boot_is_not_made() {
        assert_eq!(next(&[], "a"), Next::Try);
        assert_eq!(next(&["a", "a"], "a"), Next::Try);
        assert_eq!(next(&["a", "a", "a"], "a"), Next::GiveUp);
    }

    #[test]
    fn an_attempt_in_the_fourth_boot_is_not_made_and_one_in_the_third_is() {
        assert_eq!(next(&["a", "b"], "c"), Next::Try);
        assert_eq!(next(&["a", "a", "b", "b", "c"], "c"), Next::Try);
        assert_eq!(next(&["a", "b", "c"], "d"), Next::GiveUp);
    }

    #[test]
    fn what_died_in_one_boot_is_tried_again_in_the_next() {
        assert_eq!(next(&["a", "a"], "b"), Next::Try);
        assert_eq!(next(&["a", "a", "b", "b"], "b"), Next::Try);
        assert_eq!(next(&["a", "b", "b", "b"], "b"), Next::GiveUp);
    }

    #[test]
    fn an_end_that_can_not_be_told_is_held_and_never_turned_into_another() {
        for recovery in [
            Recovery::Interrupt,
            Recovery::Report(End::Confirmed),
            Recovery::Report(End::RolledBack),
            Recovery::Report(End::RollbackIncomplete),
        ] {
            let next = after(&["a", "a", "a"]).next(recovery, &boot("a"));
            assert_eq!(next, Next::Hold);
        }
    }

    proptest! {
        #[test]
        fn whatever_dies_there_is_a_last_attempt(boots in proptest::collection::vec(0..4_u8, 0..40)) {
            let mut attempts = Attempts::default();
            let mut tried = 0;
            let mut given_up = false;
            for number in boots {
                let now = boot(&number.to_string());
                match attempts.next(Recovery::RollBack, &now) {
                    Next::Try => {
                        tried += 1;
                        attempts.begin(now);
                    }
                    Next::GiveUp => given_up = true,
                    Next::Hold => prop_assert!(false, "a rollback is never only held"),
                }
            }
            prop_assert!(tried <= IN_A_BOOT * (BOOTS + 1));
            prop_assert!(given_up || tried == attempts.died());
        }
    }
}
