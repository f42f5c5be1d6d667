//! Where a change can be, and what is known there and nowhere else.

use aizen_protocol::effect::ScriptRun;
use aizen_protocol::id::{BootId, Digest};
use aizen_protocol::outcome::{End, Stage};
use aizen_protocol::statement::Nonce;

use super::event::Cause;
use crate::confirm::deadline::Deadline;

/// What an undo needs, from arming on.
#[derive(Clone, Debug, PartialEq)]
pub struct Undo {
    /// Digest of the state before.
    pub before: Digest,
    /// When it is undone by itself.
    pub deadline: Deadline,
    /// How each operation is undone, in the order in which they were done.
    pub inverses: Vec<serde_json::Value>,
}

impl Undo {
    pub(super) fn with(mut self, inverse: serde_json::Value) -> Self {
        self.inverses.push(inverse);
        self
    }
}

/// The state before is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshotted {
    /// Its digest.
    pub before: Digest,
}

/// The deadline runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Armed {
    /// How it is undone.
    pub undo: Undo,
}

/// The script runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// How it is undone; none for `diagnose`, which changes nothing.
    pub undo: Option<Undo>,
}

/// The script ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// How it is undone.
    pub undo: Undo,
    /// How the script ended.
    pub run: ScriptRun,
}

/// The probes run, the confirmation is awaited.
#[derive(Clone, Debug, PartialEq)]
pub struct Probing {
    /// How it is undone.
    pub undo: Undo,
    /// How the script ended.
    pub run: ScriptRun,
    /// What the confirmation must contain.
    pub nonce: Nonce,
}

/// It is being undone.
#[derive(Clone, Debug, PartialEq)]
pub struct RollingBack {
    /// How.
    pub undo: Undo,
    /// How the script ended, if it did.
    pub run: Option<ScriptRun>,
    /// Why.
    pub cause: Cause,
}

impl RollingBack {
    pub(super) fn ended(self, end: End, after: Option<Digest>, not_restored: &[String]) -> Ended {
        Ended {
            end,
            before: Some(self.undo.before),
            after,
            run: self.run,
            cause: Some(self.cause),
            not_restored: not_restored.to_vec(),
            later: Later {
                armed_in: Some(self.undo.deadline.boot),
                ..Later::default()
            },
        }
    }
}

/// It ended; the outcome is not stored yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// How.
    pub end: End,
    /// Digest of the state before.
    pub before: Option<Digest>,
    /// Digest of the state that is left.
    pub after: Option<Digest>,
    /// The script's run.
    pub run: Option<ScriptRun>,
    /// Why it was not kept.
    pub cause: Option<Cause>,
    /// What is not as before.
    pub not_restored: Vec<String>,
    /// What happened since.
    pub later: Later,
}

/// What follows an end before it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// The boot in which it was armed; none if it was kept or never armed.
    pub armed_in: Option<BootId>,
    /// The network was compared with the state before, once it was up after a restart.
    pub compared: bool,
    /// Boots in which the rescue profile was about to be put back, one for each time.
    pub rescues: Vec<BootId>,
    /// The last of them ended.
    pub rescued: bool,
    /// Sentences for the outcome, in their order.
    pub told: Vec<String>,
}

impl Ended {
    pub(super) fn without_change(end: End, run: Option<ScriptRun>, cause: Option<Cause>) -> Self {
        Self {
            end,
            before: None,
            after: None,
            run,
            cause,
            not_restored: Vec::new(),
            later: Later::default(),
        }
    }
}

/// The signed outcome is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// How it ended.
    pub ended: Ended,
    /// SHA-256 of the outcome's payload.
    pub outcome: Digest,
    /// A person dealt with what could not be put back.
    pub cleared: bool,
}

/// Where a change is.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Its replay record is stored; nothing was touched.
    Admitted,
    /// See [`Snapshotted`].
    Snapshotted(Snapshotted),
    /// See [`Armed`].
    Armed(Armed),
    /// See [`Running`].
    Running(Running),
    /// See [`Applied`].
    Applied(Applied),
    /// See [`Probing`].
    Probing(Probing),
    /// See [`RollingBack`].
    RollingBack(RollingBack),
    /// See [`Ended`].
    Ended(Ended),
    /// See [`Reported`].
    Reported(Reported),
}

impl State {
    /// The stage as people and reports name it. A diagnosis and an interruption end in what they are told by: there
    /// is no stage between `running` or `admitted` and `reported`.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Admitted => Stage::Admitted,
            Self::Snapshotted(_) => Stage::Snapshotted,
            Self::Armed(_) => Stage::Armed,
            Self::Running(_) => Stage::Running,
            Self::Applied(_) => Stage::Applied,
            Self::Probing(_) => Stage::Probing,
            Self::RollingBack(_) => Stage::RollingBack,
            Self::Ended(ended) => match ended.end {
                End::Confirmed => Stage::Confirmed,
                End::RolledBack => Stage::RolledBack,
                End::RollbackIncomplete => Stage::RollbackIncomplete,
                End::Refused => Stage::Refused,
                End::Diagnosed => Stage::Running,
                End::Interrupted => Stage::Admitted,
            },
            Self::Reported(_) => Stage::Reported,
        }
    }
}
