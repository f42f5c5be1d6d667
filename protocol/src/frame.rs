//! The uplink, subprotocol `aizen.v1`: one WebSocket text message is one frame; two enums, one a direction.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::id::{BootId, DeviceId, Digest, Epoch, Sequence};
use crate::key::PublicKey;
use crate::outcome::Isolation;
use crate::record::Record;
use crate::statement::Confirmation;

/// The WebSocket subprotocol (RFC 6455 section 1.9).
pub const SUBPROTOCOL: &str = "aizen.v1";
/// The path of the uplink.
pub const UPLINK_PATH: &str = "/v1/uplink";
/// The path of enrollment, the same subprotocol: one [`EnrollRequest`], one [`EnrollAnswer`].
pub const ENROLL_PATH: &str = "/v1/enroll";

/// What a device sends.
///
/// The device serialises this form only through its spool, which takes nothing that the sanitizer or the executor's
/// signature has not passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "frame")]
pub enum DeviceFrame {
    /// First on every connection.
    Hello(Hello),
    /// Said whenever it changed since the last [`Hello`] or [`DeviceFrame::Standing`] of this connection.
    Standing(Standing),
    /// One record; stays in the spool until acknowledged.
    Record {
        /// Its number.
        seq: Sequence,
        /// The evidence.
        record: Box<Record>,
    },
    /// Something that the device's executor signed (an effect or an outcome); stays in the spool until acknowledged.
    Signed {
        /// Its number.
        seq: Sequence,
        /// The envelope.
        envelope: Envelope,
    },
    /// A package arrived at the executor, whatever becomes of it.
    Received {
        /// SHA-256 of its payload.
        package: Digest,
    },
    /// A change was applied and asks for its confirmation. Only on a connection that was dialled after it.
    ConfirmWanted(Confirmation),
}

/// First frame of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Must be the device of the client certificate.
    pub device: DeviceId,
    /// Its state generation.
    pub epoch: Epoch,
    /// Its boot.
    pub boot: BootId,
    /// The agent's version.
    pub agent: String,
    /// The lowest number still in the spool.
    pub oldest: Sequence,
    /// What it can do and may do.
    pub standing: Standing,
}

/// What a device can do and may do, as its executor says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// What its sandbox gives.
    pub isolation: Isolation,
    /// Version of its trust document.
    pub trust_version: u64,
    /// True if its policy allows changes at all and they are not paused.
    pub takes_changes: bool,
}

/// What an orchestrator sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "frame")]
pub enum CloudFrame {
    /// Answers [`Hello`].
    Welcome {
        /// Everything up to and with this number is stored.
        through: Sequence,
        /// The orchestrator's clock.
        now: Timestamp,
    },
    /// Everything up to and with this number is stored: the spool may forget it.
    Ack {
        /// The number.
        through: Sequence,
    },
    /// Rehearse this.
    Rehearse {
        /// A rehearsal package.
        package: Envelope,
    },
    /// Execute this.
    Deliver {
        /// A package, signed by an approver.
        package: Envelope,
        /// The delivery statement, signed by the orchestrator.
        delivery: Envelope,
    },
    /// Answers [`DeviceFrame::ConfirmWanted`].
    Confirmed {
        /// The same confirmation, signed by the orchestrator.
        statement: Envelope,
    },
    /// The connection ends, and why.
    Close {
        /// For people.
        message: String,
    },
}

/// A one-time token as a person carries it: base64url (RFC 4648 section 5, no padding) of this as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollToken {
    /// 32 random bytes, hexadecimal.
    pub secret: Digest,
    /// SHA-256 of the orchestrator's CA certificate (DER).
    pub ca: Digest,
    /// SHA-256 of each root key's 32 bytes.
    pub roots: Vec<Digest>,
}

/// A device asks to be enrolled. Both keys sign [`EnrollRequest::message`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The token's secret.
    pub secret: Digest,
    /// The daemon's key: becomes the client certificate.
    pub uplink_key: PublicKey,
    /// The executor's key: signs effects and outcomes.
    pub result_key: PublicKey,
    /// State generation, drawn by the device.
    pub epoch: Epoch,
    /// The agent's version.
    pub agent: String,
    /// Signature of the uplink key, base64.
    pub uplink_proof: String,
    /// Signature of the result key, base64.
    pub result_proof: String,
}

impl EnrollRequest {
    /// What both keys sign: it binds the two to each other and to this token.
    #[must_use]
    pub fn message(
        secret: &Digest,
        uplink: &PublicKey,
        result: &PublicKey,
        epoch: &Epoch,
    ) -> Vec<u8> {
        format!("aizen enroll v1\n{secret}\n{uplink}\n{result}\n{epoch}\n").into_bytes()
    }
}

/// The orchestrator's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrollAnswer {
    /// Welcome.
    Enrolled(Enrolled),
    /// Not with this token.
    Refused {
        /// Why, for people: used, expired, unknown, bad proof.
        message: String,
    },
}

/// What a device keeps of its enrollment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// The device's name from here on.
    pub device: DeviceId,
    /// PEM of the client certificate for the uplink key.
    pub certificate: String,
    /// PEM of the CA.
    pub ca: String,
    /// The trust document, signed by the roots that the token names.
    pub trust: Envelope,
}
