//! The watch as a table: what comes, when, and what follows.

use proptest::prelude::*;

use super::*;

const GRACE: u64 = 10;
const MARGIN: u64 = 30;
const UNDOING: u64 = 300;

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn watch() -> Watch {
    let settings = Settings {
        grace: Duration::from_secs(GRACE),
        margin: Duration::from_secs(MARGIN),
        undoing: Duration::from_secs(UNDOING),
    };
    Watch::new(settings, at(0))
}

/// Each line: when, what comes, what follows.
fn goes(lines: &[(u64, Sight, Act)]) {
    let mut watch = watch();
    for (number, (now, sight, act)) in lines.iter().enumerate() {
        let got = watch.next(*sight, at(*now));
        assert_eq!(got, *act, "line {number}: {sight:?} at {now} s");
    }
}

const ARMED: (u64, Sight, Act) = (
    1,
    Sight::Armed(BootTime(Duration::from_secs(100))),
    Act::Wait(BootTime(Duration::from_secs(130))),
);

#[test]
fn who_is_told_the_end_ends_whatever_else_it_waited_for() {
    goes(&[
        (0, Sight::Time, Act::Wait(at(600))),
        (1, Sight::Ended, Act::End(End::Told)),
    ]);
    goes(&[ARMED, (99, Sight::Ended, Act::End(End::Told))]);
    goes(&[
        ARMED,
        (130, Sight::Time, Act::Look),
        (130, Sight::Found(Found::Undecided), Act::Kill),
        (130, Sight::Ended, Act::End(End::Told)),
    ]);
}

#[test]
fn before_it_is_armed_nothing_was_touched_and_nothing_is_undone() {
    for sight in [Sight::Died, Sight::Silent] {
        goes(&[(5, sight, Act::End(End::Untouched))]);
    }
    goes(&[
        (599, Sight::Time, Act::Wait(at(600))),
        (600, Sight::Time, Act::End(End::Untouched)),
    ]);
}

#[test]
fn an_executor_that_died_is_given_time_to_be_restarted_and_then_replaced() {
    goes(&[
        ARMED,
        (20, Sight::Silent, Act::Wait(at(130))),
        (20, Sight::Died, Act::Wait(at(30))),
        (30, Sight::Time, Act::Look),
        (30, Sight::Found(Found::Undecided), Act::Recover),
        (
            31,
            Sight::Attempted(Attempt::Done),
            Act::End(End::Recovered),
        ),
    ]);
}

#[test]
fn what_a_restarted_executor_settled_is_left_alone() {
    goes(&[
        ARMED,
        (20, Sight::Died, Act::Wait(at(30))),
        (30, Sight::Time, Act::Look),
        (30, Sight::Found(Found::Over), Act::End(End::Settled)),
    ]);
}

#[test]
fn while_a_restarted_executor_has_the_journal_its_keeper_waits_and_looks_again() {
    goes(&[
        ARMED,
        (20, Sight::Died, Act::Wait(at(30))),
        (30, Sight::Time, Act::Look),
        (30, Sight::Found(Found::Undoing), Act::Recover),
        (30, Sight::Attempted(Attempt::InUse), Act::Wait(at(31))),
        (31, Sight::Time, Act::Look),
        // It died as well.
        (31, Sight::Found(Found::Undoing), Act::Recover),
        (
            32,
            Sight::Attempted(Attempt::Done),
            Act::End(End::Recovered),
        ),
    ]);
}

#[test]
fn a_decision_that_was_not_reported_is_reported() {
    goes(&[
        ARMED,
        (20, Sight::Died, Act::Wait(at(30))),
        (30, Sight::Time, Act::Look),
        (30, Sight::Found(Found::Decided), Act::Recover),
    ]);
}

#[test]
fn a_recovery_that_fails_three_times_is_left_to_the_next_start() {
    let failed = Sight::Attempted(Attempt::Failed);
    goes(&[
        ARMED,
        (20, Sight::Died, Act::Wait(at(30))),
        (30, Sight::Time, Act::Look),
        (30, Sight::Found(Found::Undecided), Act::Recover),
        (31, failed, Act::Wait(at(32))),
        (32, Sight::Time, Act::Look),
        (32, Sight::Found(Found::Undoing), Act::Recover),
        (33, failed, Act::Wait(at(34))),
        (34, Sight::Time, Act::Look),
        (34, Sight::Found(Found::Undoing), Act::Recover),
        (35, failed, Act::End(End::GaveUp)),
    ]);
}

#[test]
fn an_executor_that_has_not_begun_to_undo_long_after_the_deadline_is_killed() {
    goes(&[
        ARMED,
        (129, Sight::Time, Act::Wait(at(130))),
        (130, Sight::Time, Act::Look),
        (130, Sight::Found(Found::Undecided), Act::Kill),
        (130, Sight::Time, Act::Wait(at(140))),
        (131, Sight::Died, Act::Wait(at(141))),
        (141, Sight::Time, Act::Look),
        (141, Sight::Found(Found::Undecided), Act::Recover),
        (
            142,
            Sight::Attempted(Attempt::Done),
            Act::End(End::Recovered),
        ),
    ]);
}

#[test]
fn what_can_not_be_killed_may_have_let_go_of_the_journal() {
    goes(&[
        ARMED,
        (130, Sight::Time, Act::Look),
        (130, Sight::Found(Found::Undecided), Act::Kill),
        (130, Sight::Time, Act::Wait(at(140))),
        (140, Sight::Time, Act::Wait(at(150))),
        (150, Sight::Time, Act::Look),
    ]);
}

#[test]
fn an_executor_that_undoes_has_longer_and_not_for_ever() {
    goes(&[
        ARMED,
        (130, Sight::Time, Act::Look),
        (130, Sight::Found(Found::Undoing), Act::Wait(at(430))),
        (430, Sight::Time, Act::Look),
        (430, Sight::Found(Found::Undoing), Act::Kill),
    ]);
}

#[test]
fn a_living_executor_that_decided_is_never_killed() {
    for found in [Found::Over, Found::Decided] {
        goes(&[
            ARMED,
            (130, Sight::Time, Act::Look),
            (130, Sight::Found(found), Act::End(End::Settled)),
        ]);
    }
}

#[test]
fn a_journal_that_can_not_be_read_kills_nobody() {
    goes(&[
        ARMED,
        (130, Sight::Time, Act::Look),
        (130, Sight::Found(Found::Unreadable), Act::Wait(at(131))),
        (131, Sight::Time, Act::Look),
        (430, Sight::Found(Found::Unreadable), Act::End(End::GaveUp)),
    ]);
}

fn sights() -> impl Strategy<Value = Sight> {
    prop_oneof![
        (0..200_u64).prop_map(|s| Sight::Armed(at(s))),
        Just(Sight::Silent),
        Just(Sight::Died),
        Just(Sight::Time),
    ]
}

fn finds() -> impl Strategy<Value = Found> {
    prop_oneof![
        Just(Found::Decided),
        Just(Found::Undoing),
        Just(Found::Undecided),
        Just(Found::Unreadable),
    ]
}

fn attempts() -> impl Strategy<Value = Attempt> {
    prop_oneof![Just(Attempt::InUse), Just(Attempt::Failed)]
}

proptest! {
    /// Whatever comes, as long as time passes: it ends, and never waits for a moment that is over.
    #[test]
    fn every_watch_ends(
        said in proptest::collection::vec((sights(), 0..50_u64), 0..20),
        found in finds(),
        attempt in attempts(),
    ) {
        let mut watch = watch();
        let mut now = 0;
        let mut said = said.into_iter();
        let mut sight = Sight::Time;
        for _ in 0..5000 {
            let act = watch.next(sight, at(now));
            sight = match act {
                Act::End(_) => return Ok(()),
                Act::Look => Sight::Found(found),
                Act::Recover => Sight::Attempted(attempt),
                Act::Kill => Sight::Time,
                Act::Wait(until) => {
                    prop_assert!(until > at(now), "{act:?} at {now}");
                    if let Some((sight, later)) = said.next() {
                        now += later;
                        sight
                    } else {
                        now = until.0.as_secs();
                        Sight::Time
                    }
                }
            };
        }
        prop_assert!(false, "it never ends: {watch:?}");
    }

    /// Before the margin is over nobody is killed; before the grace is over nothing is recovered.
    #[test]
    fn nobody_is_killed_or_replaced_early(
        said in proptest::collection::vec((sights(), 0..50_u64), 1..30),
        found in finds(),
    ) {
        let mut watch = watch();
        let (mut now, mut armed, mut died) = (0, None, None);
        for (sight, later) in said {
            now += later;
            match sight {
                Sight::Armed(until) if died.is_none() => armed = Some(until.0.as_secs()),
                Sight::Died => died = died.or(Some(now)),
                _ => {}
            }
            let mut act = watch.next(sight, at(now));
            if act == Act::Look {
                act = watch.next(Sight::Found(found), at(now));
            }
            match act {
                Act::Kill => {
                    prop_assert!(armed.is_some_and(|until| now >= until + MARGIN));
                    // Whether it leaves or not.
                    died = died.or(Some(now));
                }
                Act::Recover => prop_assert!(died.is_some_and(|died| now >= died + GRACE)),
                Act::End(_) => return Ok(()),
                Act::Wait(_) | Act::Look => {}
            }
        }
    }
}
