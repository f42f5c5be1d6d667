//! What a restart does with a change, by where the journal ends (`execution-facts.md` section 2.4 as a function).

use aizen_protocol::outcome::End;

use super::Change;
use super::state::{Running, State};

/// What is to be done first at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It ended and its outcome is stored.
    Nothing,
    /// Nothing was touched: it never runs again, that is reported.
    Interrupt,
    /// Something may have been touched: everything is put back.
    RollBack,
    /// It ended; only its outcome is missing.
    Report(End),
}

impl Change {
    /// The decision for this change.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self.state() {
            State::Admitted | State::Snapshotted(_) | State::Running(Running { undo: None }) => {
                Recovery::Interrupt
            }
            State::Armed(_)
            | State::Running(Running { undo: Some(_) })
            | State::Applied(_)
            | State::Probing(_)
            | State::RollingBack(_) => Recovery::RollBack,
            State::Ended(ended) => Recovery::Report(ended.end),
            State::Reported(_) => Recovery::Nothing,
        }
    }
}
