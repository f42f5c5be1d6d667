//! The life of one change: pure, driven by journalled events alone.
//!
//! ```text
//! admitted → snapshotted → armed → running → applied → probing → confirmed → reported
//!    │            │          └────────┴─────────┴─────────┴→ rolling_back → rolled_back | rollback_incomplete → reported
//!    ├→ running (diagnose) → diagnosed → reported
//!    └────────────┴→ interrupted → reported
//! ```
//!
//! Whoever acts journals the [`Event`] first; replaying the journal gives the same [`Change`]. What may follow what is
//! one function, [`Change::apply`]; everything else is an [`IllegalTransition`].

use aizen_protocol::id::{BootId, Digest};
use aizen_protocol::outcome::{End, Stage, Step};
use aizen_protocol::package::manifest::Class;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::BootTime;

pub mod attempts;
pub mod event;
pub mod recovery;
pub mod state;

pub use event::{Admission, Cause, ConfirmedBy, Event};
pub use recovery::Recovery;
pub use state::State;

use attempts::Attempts;
use state::{
    Applied, Armed, Ended, Later, Probing, Reported, RollingBack, Running, Snapshotted, Undo,
};

/// A moment on every clock that matters: the wall's for people, the boot's for deadlines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Wall clock.
    pub at: Timestamp,
    /// Which boot.
    pub boot: BootId,
    /// Time since it.
    pub since_boot: BootTime,
}

/// An event that can't happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change that is {from:?} can't take the event '{event}'")]
pub struct IllegalTransition {
    /// Where the change is.
    pub from: Stage,
    /// The event's name.
    pub event: &'static str,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    admission: Admission,
    steps: Vec<Step>,
    state: State,
    attempts: Attempts,
}

impl Change {
    /// The life begins with the journalled admission.
    #[must_use]
    pub fn admitted(admission: Admission, at: Timestamp) -> Self {
        let steps = vec![Step {
            stage: Stage::Admitted,
            at,
        }];
        Self {
            admission,
            steps,
            state: State::Admitted,
            attempts: Attempts::default(),
        }
    }

    /// What was admitted.
    #[must_use]
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Where it is, with what belongs to that.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    /// The recoveries of it that began and brought it to no end.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Its way there.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// True until its outcome is stored.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Reported(_))
    }

    /// True while its incomplete rollback waits for a person.
    #[must_use]
    pub fn blocks_others(&self) -> bool {
        match &self.state {
            State::Ended(ended) => ended.end == End::RollbackIncomplete,
            State::Reported(reported) => {
                reported.ended.end == End::RollbackIncomplete && !reported.cleared
            }
            State::Admitted
            | State::Snapshotted(_)
            | State::Armed(_)
            | State::Running(_)
            | State::Applied(_)
            | State::Probing(_)
            | State::RollingBack(_) => false,
        }
    }

    /// Takes one event.
    ///
    /// # Errors
    /// [`IllegalTransition`]; the change is then as before.
    pub fn apply(&mut self, event: &Event, at: Timestamp) -> Result<(), IllegalTransition> {
        if let Event::Recovering { boot } = event
            && self.is_open()
        {
            self.attempts.begin(boot.clone());
            return Ok(());
        }
        let next = self.next(event).ok_or(IllegalTransition {
            from: self.stage(),
            event: event.name(),
        })?;
        let stage = next.stage();
        // A diagnosis and an interruption have no stage of their own before the report.
        let named = !matches!(event, Event::Diagnosed { .. } | Event::Interrupted { .. });
        if named && stage != self.stage() {
            self.steps.push(Step { stage, at });
        }
        self.state = next;
        Ok(())
    }

    /// The table of the life: state and event to state.
    fn next(&self, event: &Event) -> Option<State> {
        self.forward(event)
            .or_else(|| self.towards_the_end(event))
            .or_else(|| self.behind_the_end(event))
    }

    fn forward(&self, event: &Event) -> Option<State> {
        let repairs = self.admission.class != Class::Diagnose;
        Some(match (self.state.clone(), event) {
            (State::Admitted, Event::Snapshotted { before }) if repairs => {
                State::Snapshotted(Snapshotted { before: *before })
            }
            (State::Snapshotted(s), Event::Armed { deadline }) => State::Armed(Armed {
                undo: Undo {
                    before: s.before,
                    deadline: deadline.clone(),
                    inverses: Vec::new(),
                },
            }),
            (State::Armed(s), Event::Started) => State::Running(Running { undo: Some(s.undo) }),
            (State::Admitted, Event::Started) if !repairs => State::Running(Running { undo: None }),
            (State::Running(Running { undo: Some(undo) }), Event::Acting { inverse }) => {
                let undo = Some(undo.with(inverse.clone()));
                State::Running(Running { undo })
            }
            (State::Running(Running { undo: Some(undo) }), Event::Applied { run }) => {
                let run = run.clone();
                State::Applied(Applied { undo, run })
            }
            (State::Applied(s), Event::Probing { nonce }) => State::Probing(Probing {
                undo: s.undo,
                run: s.run,
                nonce: nonce.clone(),
            }),
            (State::Probing(s), Event::Confirmed { after, .. }) => State::Ended(Ended {
                end: End::Confirmed,
                before: Some(s.undo.before),
                after: *after,
                run: Some(s.run),
                cause: None,
                not_restored: Vec::new(),
                later: Later::default(),
            }),
            (_, _) => return None,
        })
    }

    fn towards_the_end(&self, event: &Event) -> Option<State> {
        Some(match (self.state.clone(), event) {
            (state, Event::RollbackBegan { cause }) => {
                State::RollingBack(Self::begin_rollback(state, cause)?)
            }
            (State::RollingBack(s), Event::RolledBack { after }) => {
                State::Ended(s.ended(End::RolledBack, Some(*after), &[]))
            }
            (
                State::RollingBack(s),
                Event::RollbackIncomplete {
                    after,
                    not_restored,
                },
            ) => State::Ended(s.ended(End::RollbackIncomplete, *after, not_restored)),
            (State::Running(Running { undo: None }), Event::Diagnosed { run }) => {
                let run = Some(run.clone());
                State::Ended(Ended::without_change(End::Diagnosed, run, None))
            }
            (
                State::Admitted | State::Snapshotted(_) | State::Running(Running { undo: None }),
                Event::Interrupted { cause },
            ) => {
                let cause = Some(cause.clone());
                State::Ended(Ended::without_change(End::Interrupted, None, cause))
            }
            (State::Ended(ended), Event::Reported { outcome }) => State::Reported(Reported {
                ended,
                outcome: *outcome,
                cleared: false,
            }),
            (State::Reported(reported), Event::Cleared { .. })
                if reported.ended.end == End::RollbackIncomplete && !reported.cleared =>
            {
                State::Reported(Reported {
                    cleared: true,
                    ..reported
                })
            }
            (_, _) => return None,
        })
    }

    /// What follows a rollback before it is told. It never changes how the change ended.
    fn behind_the_end(&self, event: &Event) -> Option<State> {
        let State::Ended(mut ended) = self.state.clone() else {
            return None;
        };
        if !matches!(ended.end, End::RolledBack | End::RollbackIncomplete) {
            return None;
        }
        let later = &mut ended.later;
        match event {
            Event::Noted { told } => later.told.extend(told.iter().cloned()),
            Event::Compared { after, told } if !later.compared => {
                later.compared = true;
                later.told.extend(told.iter().cloned());
                ended.after = *after;
            }
            Event::RescueBegan { boot } if !later.rescues.contains(boot) => {
                later.rescues.push(boot.clone());
                later.rescued = false;
                // From here on nobody has read the state that is left.
                ended.after = None;
            }
            Event::Rescued { told } if !later.rescues.is_empty() && !later.rescued => {
                later.rescued = true;
                later.told.extend(told.iter().cloned());
            }
            _ => return None,
        }
        Some(State::Ended(ended))
    }

    /// True if it was undone after a restart and the network was not compared since: its end is told after that.
    #[must_use]
    pub fn waits_for_the_network(&self, boot: &BootId) -> bool {
        let State::Ended(ended) = &self.state else {
            return false;
        };
        let restarted = ended.later.armed_in.as_ref().is_some_and(|b| b != boot);
        restarted && !ended.later.compared
    }

    fn begin_rollback(state: State, cause: &Cause) -> Option<RollingBack> {
        let (undo, run) = match state {
            State::Armed(s) => (s.undo, None),
            State::Running(Running { undo: Some(undo) }) => (undo, None),
            State::Applied(s) => (s.undo, Some(s.run)),
            State::Probing(s) => (s.undo, Some(s.run)),
            // A rollback that a crash cut short begins again: its steps are repeatable, the first cause stays.
            State::RollingBack(s) => return Some(s),
            State::Admitted
            | State::Snapshotted(_)
            | State::Running(Running { undo: None })
            | State::Ended(_)
            | State::Reported(_) => return None,
        };
        Some(RollingBack {
            undo,
            run,
            cause: cause.clone(),
        })
    }

    /// The undo list, while there is something to undo.
    #[must_use]
    pub fn undo(&self) -> Option<&Undo> {
        match &self.state {
            State::Armed(s) => Some(&s.undo),
            State::Running(s) => s.undo.as_ref(),
            State::Applied(s) => Some(&s.undo),
            State::Probing(s) => Some(&s.undo),
            State::RollingBack(s) => Some(&s.undo),
            State::Admitted | State::Snapshotted(_) | State::Ended(_) | State::Reported(_) => None,
        }
    }

    /// True if the deadline passed before the change was confirmed: only a rollback may follow.
    #[must_use]
    pub fn is_due(&self, now: &Moment) -> bool {
        !matches!(self.state, State::RollingBack(_))
            && self
                .undo()
                .is_some_and(|undo| undo.deadline.passed(&now.boot, now.since_boot))
    }

    /// The end, once it is reached.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            State::Reported(reported) => Some(&reported.ended),
            State::Admitted
            | State::Snapshotted(_)
            | State::Armed(_)
            | State::Running(_)
            | State::Applied(_)
            | State::Probing(_)
            | State::RollingBack(_) => None,
        }
    }

    /// SHA-256 of the stored outcome, once there is one.
    #[must_use]
    pub fn outcome(&self) -> Option<Digest> {
        match &self.state {
            State::Reported(reported) => Some(reported.outcome),
            State::Admitted
            | State::Snapshotted(_)
            | State::Armed(_)
            | State::Running(_)
            | State::Applied(_)
            | State::Probing(_)
            | State::RollingBack(_)
            | State::Ended(_) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod model;
