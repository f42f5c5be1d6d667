//! How a package ended on a device: exactly one for each, signed by the device.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::effect::{Effect, ScriptRun};
use crate::id::{ChangeId, CorrelationId, DeviceId, Digest, Epoch, PackageId};
use crate::private::{Text, private_fields};
use crate::reason::Reason;

/// The end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Not a byte of it ran.
    Refused,
    /// Kept: the script succeeded, the probes held, the confirmation came.
    Confirmed,
    /// The device is as before.
    RolledBack,
    /// Something could not be put back; it is named, and no change runs until a person clears it.
    RollbackIncomplete,
    /// A `diagnose` script ran to its end.
    Diagnosed,
    /// Admitted, but the device stopped before anything was touched.
    Interrupted,
}

/// Where a change is in its life (`docs/changes.md` has the table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the stages are explained in docs/changes.md")]
pub enum Stage {
    Received,
    Refused,
    Admitted,
    Snapshotted,
    Armed,
    Running,
    Applied,
    Probing,
    Confirmed,
    RollingBack,
    RolledBack,
    RollbackIncomplete,
    Reported,
}

/// When a stage was reached, by the device's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// When.
    pub at: Timestamp,
}

/// One layer of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// `landlock`, `seccomp`, `pid_namespace`, …
    pub name: String,
    /// In force.
    pub enforced: bool,
    /// The ABI or version, or why it is missing.
    pub detail: String,
}

/// What the sandbox gave: a vector and the level derived from it (0 none to 4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolation {
    /// The level.
    pub level: u8,
    /// Each layer.
    pub layers: Vec<Layer>,
}

/// One probe, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeResult {
    /// What was probed.
    pub probe: Text,
    /// Held in the baseline.
    pub before: bool,
    /// Holds after the script; none if it was never tried.
    pub after: Option<bool>,
    /// What was measured.
    pub detail: Text,
}

/// How a package ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The device.
    pub device: DeviceId,
    /// Its state generation.
    pub epoch: Epoch,
    /// The change, if the package was admitted.
    pub change: Option<ChangeId>,
    /// The package, if its payload was readable.
    pub package: Option<PackageId>,
    /// SHA-256 of the payload, if there was one.
    pub package_digest: Option<Digest>,
    /// The story it belongs to.
    pub correlation_id: Option<CorrelationId>,
    /// The end.
    pub end: End,
    /// Why, if it was refused.
    pub reason: Option<Reason>,
    /// Why, for people.
    pub detail: Text,
    /// The script's run.
    pub script: Option<ScriptRun>,
    /// What really changed while it ran.
    pub effect: Option<Effect>,
    /// SHA-256 of the effect that was approved.
    pub approved_effect: Option<Digest>,
    /// SHA-256 of the changes in it, as this device rehearsed them; none if it does not know that effect.
    #[serde(default)]
    pub approved_changes: Option<Digest>,
    /// The sandbox it ran in.
    pub isolation: Isolation,
    /// The probes.
    pub probes: Vec<ProbeResult>,
    /// Digest of the state that the manifest names, before.
    pub state_before: Option<Digest>,
    /// The same after the end. Equal to `state_before` exactly if nothing is left of the change.
    pub state_after: Option<Digest>,
    /// Objects that could not be put back.
    pub not_restored: Vec<Text>,
    /// When each stage was reached.
    pub steps: Vec<Step>,
    /// Head of the device's journal chain when this was written.
    pub journal_head: Option<Digest>,
}

impl Outcome {
    /// True if what happened is what was approved; none if there is nothing to compare.
    #[must_use]
    pub fn effect_as_approved(&self) -> Option<bool> {
        Some(self.effect.as_ref()?.changes_digest() == self.approved_changes?)
    }
}

private_fields! {
    ProbeResult { probe, detail }
    Outcome { detail, script, effect, probes, not_restored }
}
