//! The spool's two doors: what may go in, and what comes out.

use std::fmt;

use aizen_protocol::id::Sequence;
use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;

use super::attested::Attested;
use super::lane::Class;

/// What may be appended: made from what the sanitizer or the executor's signature has passed, and from nothing else.
pub struct Payload {
    pub(super) class: Class,
    pub(super) json: Vec<u8>,
}

impl Payload {
    /// A record.
    ///
    /// # Errors
    /// What JSON can't say (a number that is none).
    pub fn record(record: &Sanitized<Record>) -> Result<Self, serde_json::Error> {
        Ok(Self {
            class: Class::Record,
            json: serde_json::to_vec(record.get())?,
        })
    }

    /// A signed result.
    ///
    /// # Errors
    /// What JSON can't say (a number that is none).
    pub fn signed(attested: &Attested) -> Result<Self, serde_json::Error> {
        Ok(Self {
            class: Class::Signed,
            json: serde_json::to_vec(attested.envelope())?,
        })
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({:?}, {} bytes)", self.class, self.json.len())
    }
}

/// A [`aizen_protocol::frame::DeviceFrame`] as it goes on the wire; nobody looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct OpaqueFrame {
    sequence: Sequence,
    class: Class,
    text: Vec<u8>,
}

impl OpaqueFrame {
    pub(super) fn new(sequence: Sequence, class: Class, payload: &[u8]) -> Self {
        let (tag, field) = match class {
            Class::Record => ("record", "record"),
            Class::Signed => ("signed", "envelope"),
        };
        let mut text = format!(
            r#"{{"frame":"{tag}","seq":{sequence},"{field}":"#,
            sequence = sequence.0
        )
        .into_bytes();
        text.reserve_exact(payload.len() + 1);
        text.extend_from_slice(payload);
        text.push(b'}');
        Self {
            sequence,
            class,
            text,
        }
    }

    /// Its number.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Whether it is evidence or a result.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// The text of the WebSocket message.
    #[must_use]
    pub fn into_text(self) -> Vec<u8> {
        self.text
    }

    /// Its length, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.text.len()
    }
}

impl fmt::Debug for OpaqueFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueFrame({:?}, {} bytes)", self.sequence, self.size())
    }
}

/// `{"frame":"signed","seq":N,"envelope":}` with the longest number.
pub(super) const OVERHEAD: usize = 64;
