//! The orchestrator's own statements. They deliver and confirm; they can't alter what a person signed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ChangeId, DeviceId, Digest};

/// "This package is for you, now": signed by the orchestrator's key as [`crate::envelope::PayloadType::Delivery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// SHA-256 of the package's payload.
    pub package: Digest,
    /// The device it is handed to.
    pub device: DeviceId,
    /// The device must have admitted it by then.
    pub deadline: Timestamp,
}

/// A nonce of the executor: 32 random bytes, hexadecimal, drawn when a change is applied, so that nothing signed
/// earlier can confirm it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub Digest);

/// What a device asks over its fresh connection, and what the orchestrator signs as
/// [`crate::envelope::PayloadType::Confirm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The device.
    pub device: DeviceId,
    /// SHA-256 of the package's payload.
    pub package: Digest,
    /// The change.
    pub change: ChangeId,
    /// The executor's nonce.
    pub nonce: Nonce,
}
