//! The signed package: exactly what a person approved, for exactly these devices, for a time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{CorrelationId, DeviceId, Digest, Epoch, PackageId};
use crate::reason::Reason;
use crate::{limit, strict};

pub mod manifest;
pub mod operation;

use manifest::Manifest;

/// The schema version that this code writes and reads.
pub const SCHEMA: u32 = 1;

/// The payload of a package envelope. The same form serves a rehearsal under another payload type ([`Rehearsal`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Identity and replay key.
    pub id: PackageId,
    /// Who composed it, for people.
    pub issuer: String,
    /// Version of the trust document it was composed under.
    pub trust_version: u64,
    /// When it was composed.
    pub issued_at: Timestamp,
    /// Not before.
    pub not_before: Timestamp,
    /// Not after.
    pub expires: Timestamp,
    /// The devices it is for.
    pub target: Vec<Target>,
    /// Absolute path of the interpreter.
    pub interpreter: String,
    /// The script.
    pub script: Script,
    /// Pseudonyms that the device turns into values, as environment variables of the script.
    pub bindings: Vec<Binding>,
    /// What it may do.
    pub manifest: Manifest,
    /// How its change is confirmed.
    pub delivery: DeliveryMode,
    /// What it is to achieve, one sentence.
    pub intent: String,
    /// Digests of the evidence it rests on.
    pub evidence: Vec<Digest>,
    /// Digest of the rehearsed effect that the approver saw; none if nothing was rehearsed.
    pub effect: Option<Digest>,
    /// The story it belongs to.
    pub correlation_id: CorrelationId,
}

/// A package for the shadow only. Another type, so that it can't be handed to what executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rehearsal(pub Package);

/// One device, in one generation of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The device.
    pub device: DeviceId,
    /// Its state generation.
    pub epoch: Epoch,
}

/// How a change is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// By the orchestrator, over the changed network.
    Uplink,
    /// By a technician at the device.
    OnSite,
}

/// The exact bytes that run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Standard base64 of the bytes.
    pub base64: String,
    /// Their number.
    pub length: u64,
    /// Their SHA-256.
    pub sha256: Digest,
}

impl Script {
    /// Wraps bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            base64: STANDARD.encode(bytes),
            length: bytes.len() as u64,
            sha256: Digest::of(bytes),
        }
    }

    /// Decodes the bytes and checks length and checksum.
    ///
    /// # Errors
    /// [`Reason::MalformedPayload`], [`Reason::TooLarge`], [`Reason::LengthMismatch`], [`Reason::ChecksumMismatch`].
    pub fn bytes(&self) -> Result<Vec<u8>, Reason> {
        if self.base64.len() > limit::SCRIPT.div_ceil(3) * 4 {
            return Err(Reason::TooLarge);
        }
        let bytes = STANDARD
            .decode(&self.base64)
            .map_err(|_| Reason::MalformedPayload)?;
        if bytes.len() as u64 != self.length {
            return Err(Reason::LengthMismatch);
        }
        if Digest::of(&bytes) != self.sha256 {
            return Err(Reason::ChecksumMismatch);
        }
        Ok(bytes)
    }
}

/// What kind of value stands behind a pseudonym.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindingKind {
    /// An IPv4 or IPv6 address.
    Address,
    /// An address with a prefix length.
    Prefix,
    /// A MAC address.
    Mac,
    /// A host or domain name.
    Name,
}

/// A pseudonym that a script names. The variable is derived from the pseudonym and never chosen freely, so that
/// nobody can bind `PATH`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// What it must be.
    pub kind: BindingKind,
    /// The pseudonym as it stands in the evidence (`10.83.7.1`, `host-…`).
    pub pseudonym: String,
}

impl Binding {
    /// The variable's name: kind, then the pseudonym with every other character as `_` (`IP_10_83_7_1`).
    #[must_use]
    pub fn variable(&self) -> String {
        let kind = match self.kind {
            BindingKind::Address => "IP_",
            BindingKind::Prefix => "NET_",
            BindingKind::Mac => "MAC_",
            BindingKind::Name => "NAME_",
        };
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        kind.chars()
            .chain(self.pseudonym.chars().map(plain))
            .collect()
    }
}

impl Package {
    /// Parses the verified payload of a package envelope.
    ///
    /// # Errors
    /// [`Reason::MalformedPayload`], [`Reason::UnsupportedSchema`] or what [`Package::check_form`] finds.
    pub fn parse(payload: &[u8]) -> Result<Self, Reason> {
        let package: Self =
            strict::from_slice(payload, limit::ENVELOPE).map_err(|_| Reason::MalformedPayload)?;
        package.check_form()?;
        Ok(package)
    }

    /// What holds for every package, whoever receives it: schema, bounds, order of times, distinct bindings.
    ///
    /// # Errors
    /// The first violated bound as a [`Reason`].
    pub fn check_form(&self) -> Result<(), Reason> {
        if self.schema != SCHEMA {
            return Err(Reason::UnsupportedSchema);
        }
        let bounded = (1..=limit::TARGETS).contains(&self.target.len())
            && self.bindings.len() <= limit::BINDINGS
            && self.intent.len() <= limit::SENTENCE
            && self.issuer.len() <= limit::SENTENCE
            && self.evidence.len() <= limit::OBJECTS
            && self.interpreter.starts_with('/')
            && self.issued_at <= self.expires
            && self.not_before <= self.expires
            && self.expires.as_second() - self.issued_at.as_second() <= limit::PACKAGE_LIFE_S;
        let mut variables: Vec<_> = self.bindings.iter().map(Binding::variable).collect();
        variables.sort_unstable();
        variables.dedup();
        if !bounded || variables.len() != self.bindings.len() || !self.manifest.is_bounded() {
            return Err(Reason::MalformedPayload);
        }
        Ok(())
    }

    /// SHA-256 over what a package does: interpreter, script, bindings and manifest. A rehearsal and the package that is
    /// approved on its effect have the same.
    ///
    /// # Errors
    /// [`Reason::MalformedPayload`] if it can't be written as JSON.
    pub fn deed(&self) -> Result<Digest, Reason> {
        let deed = (
            &self.interpreter,
            &self.script,
            &self.bindings,
            &self.manifest,
        );
        serde_json::to_vec(&deed)
            .map(|bytes| Digest::of(&bytes))
            .map_err(|_| Reason::MalformedPayload)
    }

    /// The bytes to sign: made once, then carried, never made again from the parsed form.
    ///
    /// # Errors
    /// [`Reason::MalformedPayload`] if it can't be written as JSON.
    pub fn to_payload(&self) -> Result<Vec<u8>, Reason> {
        serde_json::to_vec(self).map_err(|_| Reason::MalformedPayload)
    }
}

impl Rehearsal {
    /// Parses the verified payload of a rehearsal envelope.
    ///
    /// # Errors
    /// As [`Package::parse`]; also [`Reason::MalformedPayload`] if it is valid for longer than a rehearsal may be.
    pub fn parse(payload: &[u8]) -> Result<Self, Reason> {
        let package = Package::parse(payload)?;
        if package.expires.as_second() - package.issued_at.as_second() > limit::REHEARSAL_LIFE_S {
            return Err(Reason::MalformedPayload);
        }
        Ok(Self(package))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_of_a_binding_is_derived_and_can_not_be_path() {
        let binding = Binding {
            kind: BindingKind::Address,
            pseudonym: "10.83.7.1".into(),
        };
        assert_eq!(binding.variable(), "IP_10_83_7_1");
        let name = Binding {
            kind: BindingKind::Name,
            pseudonym: "host-ab2.cd".into(),
        };
        assert_eq!(name.variable(), "NAME_HOST_AB2_CD");
    }

    #[test]
    fn a_script_is_taken_only_with_its_own_length_and_checksum() {
        let good = Script::of(b"true\n");
        assert_eq!(good.bytes().unwrap(), b"true\n");
        let short = Script {
            length: 4,
            ..good.clone()
        };
        assert_eq!(short.bytes().unwrap_err(), Reason::LengthMismatch);
        let other = Script {
            base64: Script::of(b"fals\n").base64,
            ..good
        };
        assert_eq!(other.bytes().unwrap_err(), Reason::ChecksumMismatch);
        let large = Script::of(&vec![b'#'; limit::SCRIPT + 3]);
        assert_eq!(large.bytes().unwrap_err(), Reason::TooLarge);
    }
}
