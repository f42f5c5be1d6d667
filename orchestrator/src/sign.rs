//! What the orchestrator's own key signs, and the trust document that says what it may: rehearsals, deliveries and
//! confirmations. Never a package.

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::{DeviceId, Digest};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::package::manifest::Class;
use aizen_protocol::trust::{Role, TrustDocument, TrustedKey};
use jiff::Timestamp;

/// The orchestrator's key and the fleet's trust document.
#[derive(Debug)]
pub struct Signer {
    key: PrivateKey,
    envelope: Envelope,
    document: TrustDocument,
}

/// What the orchestrator's key may sign. A package is not among it, so no code path can sign one by mistake.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Statement {
    /// A rehearsal package.
    Rehearsal,
    /// A delivery.
    Delivery,
    /// A confirmation.
    Confirm,
}

impl Signer {
    pub(crate) fn new(key: PrivateKey, envelope: Envelope, document: TrustDocument) -> Self {
        Self {
            key,
            envelope,
            document,
        }
    }

    /// True if the trust document lets this key act as the orchestrator.
    pub(crate) fn is_trusted(&self, now: Timestamp) -> bool {
        self.document
            .authorised(&self.key.public().id(), Role::Orchestrator, now)
            .is_some()
    }

    /// The trust document as it was signed.
    pub(crate) fn trust_envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Its version.
    pub(crate) fn trust_version(&self) -> u64 {
        self.document.version
    }

    /// Its end.
    pub(crate) fn trust_expires(&self) -> Timestamp {
        self.document.expires
    }

    /// SHA-256 of each root key: what an enrollment token carries.
    pub(crate) fn root_digests(&self) -> Vec<Digest> {
        self.document
            .roots
            .iter()
            .map(|root| Digest::of(&root.to_bytes()))
            .collect()
    }

    /// True if packages of this device are refused.
    pub(crate) fn is_revoked(&self, device: &DeviceId) -> bool {
        self.document.revoked.contains(device)
    }

    /// The keys of people who may approve a package of this class at this time.
    pub(crate) fn approvers(
        &self,
        class: Class,
        now: Timestamp,
    ) -> impl Iterator<Item = &TrustedKey> + Clone {
        self.document.keys.iter().filter(move |k| {
            k.role == Role::Approver && now < k.until && k.classes.contains(&class)
        })
    }

    /// True if any key of the trust document made this signature.
    pub(crate) fn knows(&self, message: &[u8], signature: &[u8]) -> bool {
        let mut keys = self.document.signers().chain(&self.document.roots);
        keys.any(|key| key.verifies(message, signature))
    }

    /// Signs a statement.
    pub(crate) fn sign(&self, statement: Statement, payload: &[u8]) -> Envelope {
        let kind = match statement {
            Statement::Rehearsal => PayloadType::Rehearsal,
            Statement::Delivery => PayloadType::Delivery,
            Statement::Confirm => PayloadType::Confirm,
        };
        Envelope::sign(kind, payload, &[&self.key])
    }
}
