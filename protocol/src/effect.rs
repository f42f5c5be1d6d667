//! What a change does: shown to a person before, compared with what really happened after.

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, Digest};
use crate::package::manifest::Risk;
use crate::private::{Text, private_fields};
use crate::reason::Reason;

/// The kind of object that a typed operation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the kinds are the operations'")]
pub enum ObjectKind {
    File,
    Link,
    Address,
    Route,
    Sysctl,
    Rule,
    Neighbour,
    Nft,
    Service,
    Uci,
    Wireguard,
}

/// How long a change holds by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasts {
    /// In the kernel alone.
    UntilReboot,
    /// Until DHCP or a router advertisement renews it.
    UntilRenewal,
    /// In a file.
    ForGood,
}

/// One object before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectChange {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name: a path, `default`, `lan0`, `net.ipv4.ip_forward`.
    pub object: Text,
    /// A unified diff for files, `-`/`+` lines for the rest.
    pub diff: Text,
    /// What the undo does.
    pub inverse: Text,
    /// Who owns the object: `kernel`, `dhcp`, `networkd`, `file`, …
    pub owner: String,
    /// How long it holds.
    pub lasts: Lasts,
}

/// How the script's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptEnd {
    /// Exit status.
    Exited(i32),
    /// Killed by this signal.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    /// The sandbox could not be built, so no byte of it ran.
    NotStarted,
}

/// A script's run, output bounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptRun {
    /// How it ended.
    pub end: ScriptEnd,
    /// Wall time, milliseconds.
    pub took_ms: u32,
    /// Standard output and error, head and tail, control bytes made visible.
    pub output: Text,
    /// Bytes it wrote in all.
    pub output_bytes: u64,
    /// Processes that were still there at its end and were killed.
    pub leftover_processes: u32,
}

/// What a script does to the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Objects changed, in the order of the operations.
    pub changes: Vec<ObjectChange>,
    /// What a `direct` script changes and its manifest does not declare: the device undoes such a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undeclared: Vec<Text>,
    /// What a shadow can't show.
    pub not_rehearsed: Vec<Text>,
    /// What no undo brings back.
    pub irreversible: Vec<Text>,
    /// Ways that held before and are lost after: what, why, what to do next.
    #[serde(default)]
    pub lock_outs: Vec<Text>,
    /// True if the way to the orchestrator is touched.
    pub management_path: bool,
    /// Computed from the manifest and the device.
    pub risk: Risk,
    /// The script's run.
    pub script: ScriptRun,
}

impl Effect {
    /// SHA-256 over all that a person is shown before saying yes: what an approval names. Only times and counts of
    /// the run are left out.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = self.changes_digest().0.to_vec();
        let mut part = |part: &str| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        };
        for change in &self.changes {
            part(&change.inverse.0);
            part(&change.owner);
            part(&format!("{:?}", change.lasts));
        }
        for texts in [
            &self.undeclared,
            &self.not_rehearsed,
            &self.irreversible,
            &self.lock_outs,
        ] {
            part(&texts.len().to_string());
            texts.iter().for_each(|text| part(&text.0));
        }
        part(&self.management_path.to_string());
        part(&format!("{:?} {:?}", self.risk, self.script.end));
        part(&self.script.output.0);
        Digest::of(&bytes)
    }

    /// SHA-256 over the changes alone: what the real run is compared with.
    #[must_use]
    pub fn changes_digest(&self) -> Digest {
        let mut bytes = Vec::new();
        for change in &self.changes {
            for part in [&change.object.0, &change.diff.0] {
                bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
                bytes.extend_from_slice(part.as_bytes());
            }
            bytes.push(change.kind as u8);
        }
        Digest::of(&bytes)
    }
}

/// What a device answers to a rehearsal package; travels signed as [`crate::envelope::PayloadType::Effect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsed {
    /// Who rehearsed.
    pub device: DeviceId,
    /// SHA-256 of the rehearsal package's payload.
    pub package: Digest,
    /// SHA-256 of what would be done ([`crate::package::Package::deed`]): an effect belongs to one script and manifest.
    #[serde(default)]
    pub deed: Option<Digest>,
    /// What it showed, or why it was refused.
    pub result: RehearsalResult,
}

/// How a rehearsal ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RehearsalResult {
    /// It ran in the shadow.
    Effect(Effect),
    /// It was refused before it ran.
    Refused {
        /// The code.
        reason: Reason,
        /// What exactly, for people.
        detail: Text,
    },
}

private_fields! {
    ObjectChange { object, diff, inverse }
    ScriptRun { output }
    Effect { changes, undeclared, not_rehearsed, irreversible, lock_outs, script }
    Rehearsed { result }
}

impl crate::private::Private for RehearsalResult {
    fn visit_private(&mut self, visitor: &mut dyn crate::private::PrivateVisitor) {
        match self {
            Self::Effect(effect) => effect.visit_private(visitor),
            Self::Refused { detail, .. } => detail.visit_private(visitor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_what_a_person_is_shown_and_the_comparison_the_changes_alone() {
        let effect = Effect {
            changes: vec![ObjectChange {
                kind: ObjectKind::Route,
                object: "default".into(),
                diff: "- a".into(),
                inverse: "put it back".into(),
                owner: "dhcp".into(),
                lasts: Lasts::UntilReboot,
            }],
            undeclared: Vec::new(),
            not_rehearsed: vec!["one".into()],
            irreversible: Vec::new(),
            lock_outs: Vec::new(),
            management_path: false,
            risk: Risk::Low,
            script: ScriptRun {
                end: ScriptEnd::Exited(0),
                took_ms: 1,
                output: "".into(),
                output_bytes: 0,
                leftover_processes: 0,
            },
        };
        type Alter = fn(&mut Effect);
        let alterations: [Alter; 11] = [
            |e| e.risk = Risk::None,
            |e| e.management_path = true,
            |e| e.not_rehearsed.clear(),
            |e| e.irreversible.push("one".into()),
            |e| e.lock_outs.push("one".into()),
            |e| e.undeclared.push("one".into()),
            |e| {
                let moved = std::mem::take(&mut e.not_rehearsed);
                e.lock_outs = moved;
            },
            |e| e.script.end = ScriptEnd::Exited(1),
            |e| e.script.output = "done".into(),
            |e| e.changes[0].inverse = "nothing".into(),
            |e| e.changes[0].lasts = Lasts::ForGood,
        ];
        for (number, alter) in alterations.iter().enumerate() {
            let mut other = effect.clone();
            alter(&mut other);
            assert_ne!(effect.digest(), other.digest(), "alteration {number}");
            assert_eq!(
                effect.changes_digest(),
                other.changes_digest(),
                "alteration {number}"
            );
        }
        let mut other = effect.clone();
        other.changes[0].diff = "- b".into();
        assert_ne!(effect.changes_digest(), other.changes_digest());
        let mut later = effect.clone();
        later.script.took_ms = 2;
        assert_eq!(effect.digest(), later.digest());
    }
}
