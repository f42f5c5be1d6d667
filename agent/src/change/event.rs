//! What happens to a change, as it stands in the journal.

use aizen_protocol::effect::{ScriptEnd, ScriptRun};
use aizen_protocol::id::{BootId, ChangeId, CorrelationId, Digest, PackageId};
use aizen_protocol::outcome::Stage;
use aizen_protocol::package::DeliveryMode;
use aizen_protocol::package::manifest::{Class, Confirm, Risk};
use aizen_protocol::statement::Nonce;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::confirm::deadline::Deadline;

/// What was admitted: everything a recovery needs to know about the package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// The change.
    pub change: ChangeId,
    /// The package.
    pub package: PackageId,
    /// SHA-256 of its payload.
    pub digest: Digest,
    /// The story it belongs to.
    pub correlation_id: CorrelationId,
    /// What it is to achieve.
    pub intent: String,
    /// How much it may touch.
    pub class: Class,
    /// Its computed risk.
    pub risk: Risk,
    /// How it is confirmed.
    pub delivery: DeliveryMode,
    /// When and how it is confirmed.
    pub confirm: Confirm,
    /// SHA-256 of the effect that the approver saw.
    pub approved_effect: Option<Digest>,
    /// SHA-256 of the changes in it, if this device rehearsed them.
    #[serde(default)]
    pub approved_changes: Option<Digest>,
    /// When the package was composed.
    pub issued_at: Timestamp,
    /// When its time is over.
    pub expires: Timestamp,
    /// Process that asked for it, if the kernel said.
    pub asked_by: Option<i32>,
}

/// Why a change is undone, or never began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    /// The script did not succeed.
    Script {
        /// How it ended.
        end: ScriptEnd,
    },
    /// A probe that held before does not hold any more.
    Broken {
        /// The probe.
        probe: String,
    },
    /// The deadline passed without all that a confirmation needs.
    Deadline {
        /// What was missing.
        missing: String,
    },
    /// A person asked for it.
    Asked {
        /// Their user id.
        uid: u32,
    },
    /// The executor stopped in this stage.
    Crash {
        /// Where the journal ended.
        stage: Stage,
    },
    /// What changed is not what was approved, and policy wants it so.
    Deviation,
    /// A `direct` script changed what its manifest does not declare.
    PolicyViolation {
        /// What, one sentence an object; the first few.
        undeclared: Vec<String>,
        /// How many in all.
        count: usize,
    },
    /// The state before could not be recorded, or the journal could not be written.
    Storage {
        /// What failed.
        detail: String,
    },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Script { end } => match end {
                ScriptEnd::Exited(code) => write!(f, "the script failed with exit status {code}"),
                ScriptEnd::Signalled(signal) => {
                    write!(f, "the script was ended by signal {signal}")
                }
                ScriptEnd::TimedOut => f.write_str("the script did not end in its time"),
                ScriptEnd::NotStarted => f.write_str("the sandbox could not be built"),
            },
            Self::Broken { probe } => {
                write!(f, "{probe} held before the change and does not any more")
            }
            Self::Deadline { missing } => write!(f, "the deadline passed without {missing}"),
            Self::Asked { uid } => write!(f, "asked for on the spot by user {uid}"),
            Self::Crash { stage } => write!(
                f,
                "the executor or the device stopped while the change was {stage:?}"
            ),
            Self::Deviation => f.write_str("what changed is not what was approved"),
            Self::PolicyViolation { undeclared, count } => {
                let more = count.saturating_sub(undeclared.len());
                write!(
                    f,
                    "the script changed what its manifest does not declare: {}",
                    undeclared.join("; ")
                )?;
                match more {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
            Self::Storage { detail } => f.write_str(detail),
        }
    }
}

/// Who confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum ConfirmedBy {
    /// The orchestrator, over a connection that was dialled after the change.
    Uplink,
    /// A person at the device.
    OnSite {
        /// Their user id.
        uid: u32,
    },
}

/// One journalled step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The state before is stored.
    Snapshotted {
        /// Its digest.
        before: Digest,
    },
    /// From here on, everything is undone unless it is confirmed in time.
    Armed {
        /// Until when.
        deadline: Deadline,
    },
    /// The script starts.
    Started,
    /// An operation is about to be done.
    Acting {
        /// How it is undone.
        inverse: serde_json::Value,
    },
    /// The script ended.
    Applied {
        /// How, without its output.
        run: ScriptRun,
    },
    /// The probes begin, the confirmation is asked for.
    Probing {
        /// What only a confirmation made from here on can contain.
        nonce: Nonce,
    },
    /// Script, probes and confirmation all hold.
    Confirmed {
        /// Who confirmed.
        by: ConfirmedBy,
        /// Digest of the state that is kept.
        after: Option<Digest>,
    },
    /// Undoing begins.
    RollbackBegan {
        /// Why.
        cause: Cause,
    },
    /// The state is the one before.
    RolledBack {
        /// Its digest.
        after: Digest,
    },
    /// Something is not as before.
    RollbackIncomplete {
        /// Digest of the state, if it could be read.
        after: Option<Digest>,
        /// What, object by object.
        not_restored: Vec<String>,
    },
    /// What undoing saw besides, for an outcome that is told later.
    Noted {
        /// Sentences.
        told: Vec<String>,
    },
    /// After a restart the network was compared with the state before.
    Compared {
        /// Digest of the state then, if it could be read.
        after: Option<Digest>,
        /// Sentences.
        told: Vec<String>,
    },
    /// The rescue profile is about to be put back.
    RescueBegan {
        /// The boot that this happens in.
        boot: BootId,
    },
    /// Putting it back ended.
    Rescued {
        /// Sentences.
        told: Vec<String>,
    },
    /// A `diagnose` script ended.
    Diagnosed {
        /// How.
        run: ScriptRun,
    },
    /// It ended before it could touch anything.
    Interrupted {
        /// Why.
        cause: Cause,
    },
    /// The signed outcome is stored.
    Reported {
        /// SHA-256 of its payload.
        outcome: Digest,
    },
    /// A recovery of it begins. If no end follows, it died.
    Recovering {
        /// The boot that it begins in.
        boot: BootId,
    },
    /// A person dealt with what could not be put back.
    Cleared {
        /// Their user id.
        uid: u32,
    },
}

impl Event {
    /// The event's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Snapshotted { .. } => "snapshotted",
            Self::Armed { .. } => "armed",
            Self::Started => "started",
            Self::Acting { .. } => "acting",
            Self::Applied { .. } => "applied",
            Self::Probing { .. } => "probing",
            Self::Confirmed { .. } => "confirmed",
            Self::RollbackBegan { .. } => "rollback_began",
            Self::RolledBack { .. } => "rolled_back",
            Self::RollbackIncomplete { .. } => "rollback_incomplete",
            Self::Noted { .. } => "noted",
            Self::Compared { .. } => "compared",
            Self::RescueBegan { .. } => "rescue_began",
            Self::Rescued { .. } => "rescued",
            Self::Diagnosed { .. } => "diagnosed",
            Self::Interrupted { .. } => "interrupted",
            Self::Reported { .. } => "reported",
            Self::Recovering { .. } => "recovering",
            Self::Cleared { .. } => "cleared",
        }
    }
}
