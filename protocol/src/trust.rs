//! The trust document: which key may sign what, and until when; signed by a threshold of root keys.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, Opened, PayloadType};
use crate::id::{DeviceId, Digest, KeyId};
use crate::key::PublicKey;
use crate::package::manifest::Class;
use crate::reason::Reason;
use crate::{limit, strict};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A person who approves packages.
    Approver,
    /// The orchestrator: delivery, confirmation, rehearsals, diagnoses.
    Orchestrator,
}

/// A key and what it may sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// What it is for.
    pub role: Role,
    /// Whose it is, for people.
    pub name: String,
    /// Classes of package it may sign.
    pub classes: Vec<Class>,
    /// Not after.
    pub until: Timestamp,
}

/// The keys of one fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustDocument {
    /// Counts up; a device never goes back.
    pub version: u64,
    /// When it was made.
    pub issued_at: Timestamp,
    /// After this the device only diagnoses.
    pub expires: Timestamp,
    /// How many roots must sign.
    pub threshold: u8,
    /// The root keys.
    pub roots: Vec<PublicKey>,
    /// Everybody else.
    pub keys: Vec<TrustedKey>,
    /// Devices whose packages are refused.
    #[serde(default)]
    pub revoked: Vec<DeviceId>,
}

impl TrustDocument {
    /// Reads a first document: its own roots must be the pinned ones (by SHA-256 of the key's 32 bytes) and a
    /// threshold of them must have signed.
    ///
    /// # Errors
    /// [`Reason::BadSignature`] below the threshold or for foreign roots; form errors as in [`Envelope::open`].
    pub fn first(envelope: &Envelope, pinned: &[Digest]) -> Result<Self, Reason> {
        let document = Self::unverified(envelope)?;
        if !document
            .roots
            .iter()
            .all(|root| pinned.contains(&Digest::of(&root.to_bytes())))
        {
            return Err(Reason::BadSignature);
        }
        document.require_threshold(&document, envelope)?;
        Ok(document)
    }

    /// Reads the successor of this document: version one higher, signed by the threshold of this document's roots
    /// and by its own.
    ///
    /// # Errors
    /// [`Reason::TrustVersion`] for any other version; [`Reason::BadSignature`] below either threshold.
    pub fn successor(&self, envelope: &Envelope) -> Result<Self, Reason> {
        let next = Self::unverified(envelope)?;
        if self.version.checked_add(1) != Some(next.version) {
            return Err(Reason::TrustVersion);
        }
        self.require_threshold(self, envelope)?;
        next.require_threshold(&next, envelope)?;
        Ok(next)
    }

    /// The key with this id, if it may act in `role` at `now`.
    #[must_use]
    pub fn authorised(&self, id: &KeyId, role: Role, now: Timestamp) -> Option<&TrustedKey> {
        self.keys
            .iter()
            .find(|k| k.role == role && now < k.until && k.key.id() == *id)
    }

    /// Every non-root key.
    pub fn signers(&self) -> impl Iterator<Item = &PublicKey> + Clone {
        self.keys.iter().map(|k| &k.key)
    }

    fn unverified(envelope: &Envelope) -> Result<Self, Reason> {
        let payload = envelope.unverified_payload()?;
        let document: Self =
            strict::from_slice(&payload, limit::ENVELOPE).map_err(|_| Reason::MalformedPayload)?;
        let mut roots: Vec<_> = document.roots.iter().map(PublicKey::to_bytes).collect();
        roots.sort_unstable();
        roots.dedup();
        let sound = document.threshold >= 1
            && usize::from(document.threshold) <= roots.len()
            && roots.len() == document.roots.len()
            && roots.len() <= limit::SIGNATURES
            && document.keys.len() <= limit::TRUSTED_KEYS;
        if sound {
            Ok(document)
        } else {
            Err(Reason::MalformedPayload)
        }
    }

    fn require_threshold(&self, keys: &Self, envelope: &Envelope) -> Result<Opened, Reason> {
        let opened = envelope.open(PayloadType::Trust, keys.roots.iter())?;
        if opened.signers().len() < usize::from(self.threshold) {
            return Err(Reason::BadSignature);
        }
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;

    fn document(version: u64, threshold: u8, roots: &[&PrivateKey]) -> TrustDocument {
        TrustDocument {
            version,
            issued_at: Timestamp::UNIX_EPOCH,
            expires: Timestamp::MAX,
            threshold,
            roots: roots.iter().map(|k| k.public()).collect(),
            keys: Vec::new(),
            revoked: Vec::new(),
        }
    }

    fn signed(document: &TrustDocument, keys: &[&PrivateKey]) -> Envelope {
        Envelope::sign(
            PayloadType::Trust,
            &serde_json::to_vec(document).unwrap(),
            keys,
        )
    }

    fn pins(keys: &[&PrivateKey]) -> Vec<Digest> {
        keys.iter()
            .map(|k| Digest::of(&k.public().to_bytes()))
            .collect()
    }

    #[test]
    fn a_first_document_needs_pinned_roots_and_their_threshold() {
        let (a, b, thief) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let two = document(1, 2, &[&a, &b]);
        assert!(TrustDocument::first(&signed(&two, &[&a, &b]), &pins(&[&a, &b])).is_ok());
        assert_eq!(
            TrustDocument::first(&signed(&two, &[&a]), &pins(&[&a, &b])).unwrap_err(),
            Reason::BadSignature
        );
        let foreign = document(1, 1, &[&thief]);
        assert_eq!(
            TrustDocument::first(&signed(&foreign, &[&thief]), &pins(&[&a, &b])).unwrap_err(),
            Reason::BadSignature
        );
    }

    #[test]
    fn a_successor_is_one_version_higher_and_signed_by_old_and_new_roots() {
        let (old, new) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let first = document(4, 1, &[&old]);
        let next = document(5, 1, &[&new]);
        assert!(first.successor(&signed(&next, &[&old, &new])).is_ok());
        assert_eq!(
            first.successor(&signed(&next, &[&new])).unwrap_err(),
            Reason::BadSignature
        );
        assert_eq!(
            first.successor(&signed(&next, &[&old])).unwrap_err(),
            Reason::BadSignature
        );
        for version in [3, 4, 6] {
            let wrong = signed(&document(version, 1, &[&new]), &[&old, &new]);
            assert_eq!(first.successor(&wrong).unwrap_err(), Reason::TrustVersion);
        }
    }

    #[test]
    fn a_threshold_can_not_be_met_by_one_root_listed_twice() {
        let a = PrivateKey::generate().unwrap();
        let twice = document(1, 2, &[&a, &a]);
        assert_eq!(
            TrustDocument::first(&signed(&twice, &[&a, &a]), &pins(&[&a])).unwrap_err(),
            Reason::MalformedPayload
        );
    }
}
