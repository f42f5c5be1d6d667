//! What a keeper does next: states, what comes, and a moment; nothing else.

use std::time::Duration;

use super::Settings;
use crate::change::{Change, Recovery, State};
use crate::clock::BootTime;

/// How long an executor may take from its start of the keeper until something may be touched. Reading the state before
/// is bounded by far less; one that takes longer goes on without this keeper, and says so.
const ARMING: Duration = Duration::from_secs(600);
/// From one look at what others do to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a killed process may take to leave, before its lock is asked instead.
const LEAVING: Duration = Duration::from_secs(10);
/// Recoveries that may fail; those that die are counted in the journal.
const TRIES: u32 = 3;
/// How long a keeper outlives its executor while others hold the journal and don't end the change.
const ORPHANED: Duration = Duration::from_secs(600);

/// Why a keeper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The executor said that the change ended.
    Told,
    /// Nothing was touched: the next start reports it.
    Untouched,
    /// Somebody else decided or undid the change.
    Settled,
    /// It recovered.
    Recovered,
    /// It could not: the next start of the executor tries.
    GaveUp,
}

/// The change as the journal tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Reported, or not there any more.
    Over,
    /// Decided or undone; only the report is missing.
    Decided,
    /// Undoing began.
    Undoing,
    /// It waits for its end.
    Undecided,
    /// The journal can't be read.
    Unreadable,
}

impl Found {
    pub(super) fn of(change: Option<&Change>) -> Self {
        match change.map(|change| (change.recovery(), change.state())) {
            None | Some((Recovery::Nothing, _)) => Self::Over,
            Some((Recovery::Report(_), _)) => Self::Decided,
            Some((Recovery::RollBack, State::RollingBack(_))) => Self::Undoing,
            Some((Recovery::RollBack | Recovery::Interrupt, _)) => Self::Undecided,
        }
    }
}

/// How an attempt to recover ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The journal is settled, or says that a person has to look.
    Done,
    /// Somebody else has the journal.
    InUse,
    /// It could not be done.
    Failed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// The executor told the deadline.
    Armed(BootTime),
    /// The executor told the end.
    Ended,
    /// The executor let go of its keeper without a word.
    Silent,
    /// The executor's process is gone.
    Died,
    /// The moment that was waited for came.
    Time,
    /// What was looked for.
    Found(Found),
    /// How a recovery ended.
    Attempted(Attempt),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Wait until then, or until something happens.
    Wait(BootTime),
    /// Read the journal.
    Look,
    /// Kill the executor.
    Kill,
    /// Recover.
    Recover,
    /// Nothing more.
    End(End),
}

/// Where a keeper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is touched before the deadline is told.
    Unarmed,
    /// The deadline runs.
    Armed { until: BootTime },
    /// The executor was killed and has not left.
    Killed { at: BootTime },
    /// The executor is gone.
    Orphaned { since: BootTime, failed: u32 },
}

/// One keeper's watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    settings: Settings,
    began: BootTime,
    stage: Stage,
}

fn after(moment: BootTime, time: Duration) -> BootTime {
    BootTime(moment.0.saturating_add(time))
}

impl Watch {
    pub(super) fn new(settings: Settings, now: BootTime) -> Self {
        Self {
            settings,
            began: now,
            stage: Stage::Unarmed,
        }
    }

    /// Takes what happened; gives what follows.
    pub(super) fn next(&mut self, sight: Sight, now: BootTime) -> Act {
        match (self.stage, sight) {
            (_, Sight::Ended) => Act::End(End::Told),
            (Stage::Unarmed | Stage::Armed { .. }, Sight::Armed(until)) => {
                self.stage = Stage::Armed { until };
                self.armed(until, now)
            }
            (Stage::Unarmed, Sight::Silent | Sight::Died) => Act::End(End::Untouched),
            (Stage::Unarmed, _) => {
                let until = after(self.began, ARMING);
                if now >= until {
                    return Act::End(End::Untouched);
                }
                Act::Wait(until)
            }
            (Stage::Armed { .. } | Stage::Killed { .. }, Sight::Died) => self.orphaned(now),
            (Stage::Armed { until }, Sight::Found(found)) => self.late(until, found, now),
            (Stage::Armed { until }, _) => self.armed(until, now),
            (Stage::Killed { at }, _) => {
                let gone = after(at, LEAVING);
                if now >= gone {
                    // What can't be killed may have let go of the journal all the same.
                    return self.orphaned(now);
                }
                Act::Wait(gone)
            }
            (Stage::Orphaned { since, failed }, sight) => self.alone(since, failed, sight, now),
        }
    }

    fn armed(self, until: BootTime, now: BootTime) -> Act {
        let late = after(until, self.settings.margin);
        if now < late {
            Act::Wait(late)
        } else {
            Act::Look
        }
    }

    /// The deadline and more passed, and the executor lives.
    fn late(&mut self, until: BootTime, found: Found, now: BootTime) -> Act {
        let last = after(until, self.settings.margin + self.settings.undoing);
        match found {
            Found::Over | Found::Decided => Act::End(End::Settled),
            Found::Undoing if now < last => Act::Wait(last),
            Found::Undoing | Found::Undecided => {
                self.stage = Stage::Killed { at: now };
                Act::Kill
            }
            // A journal that can't be read can't be recovered from either.
            Found::Unreadable if now < last => Act::Wait(after(now, PAUSE)),
            Found::Unreadable => Act::End(End::GaveUp),
        }
    }

    fn orphaned(&mut self, now: BootTime) -> Act {
        self.stage = Stage::Orphaned {
            since: now,
            failed: 0,
        };
        Act::Wait(after(now, self.settings.grace))
    }

    fn alone(&mut self, since: BootTime, failed: u32, sight: Sight, now: BootTime) -> Act {
        if now >= after(since, ORPHANED + self.settings.grace) {
            return Act::End(End::GaveUp);
        }
        let again = Act::Wait(after(now, PAUSE));
        match sight {
            Sight::Found(Found::Over) => Act::End(End::Settled),
            Sight::Found(Found::Decided | Found::Undoing | Found::Undecided) => Act::Recover,
            Sight::Found(Found::Unreadable) | Sight::Attempted(Attempt::InUse) => again,
            Sight::Attempted(Attempt::Done) => Act::End(End::Recovered),
            Sight::Attempted(Attempt::Failed) if failed + 1 >= TRIES => Act::End(End::GaveUp),
            Sight::Attempted(Attempt::Failed) => {
                self.stage = Stage::Orphaned {
                    since,
                    failed: failed + 1,
                };
                again
            }
            Sight::Armed(_) | Sight::Ended | Sight::Silent | Sight::Died | Sight::Time => {
                let free = after(since, self.settings.grace);
                if now < free {
                    Act::Wait(free)
                } else {
                    Act::Look
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
