//! DSSE envelopes (secure-systems-lab/dsse v1.0.2): exact payload bytes signed together with their type.
//!
//! The payload is never re-serialised: [`Envelope::open`] returns the bytes that were verified, and those are parsed.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use crate::id::{Digest, KeyId};
use crate::key::{PrivateKey, PublicKey};
use crate::reason::Reason;
use crate::{limit, strict};

/// What a payload is. One type a schema version; a verifier names the one it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadType {
    /// A package that may change the device.
    #[serde(rename = "application/vnd.aizen.package.v1+json")]
    Package,
    /// A package for the shadow only.
    #[serde(rename = "application/vnd.aizen.rehearsal.v1+json")]
    Rehearsal,
    /// The orchestrator's word that a package is for this device, now.
    #[serde(rename = "application/vnd.aizen.delivery.v1+json")]
    Delivery,
    /// The orchestrator's word that it saw the device over the changed network.
    #[serde(rename = "application/vnd.aizen.confirm.v1+json")]
    Confirm,
    /// The keys and what each may sign.
    #[serde(rename = "application/vnd.aizen.trust.v1+json")]
    Trust,
    /// What a rehearsal showed, signed by the device.
    #[serde(rename = "application/vnd.aizen.effect.v1+json")]
    Effect,
    /// How a package ended, signed by the device.
    #[serde(rename = "application/vnd.aizen.outcome.v1+json")]
    Outcome,
}

impl PayloadType {
    /// The media type as it is signed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Package => "application/vnd.aizen.package.v1+json",
            Self::Rehearsal => "application/vnd.aizen.rehearsal.v1+json",
            Self::Delivery => "application/vnd.aizen.delivery.v1+json",
            Self::Confirm => "application/vnd.aizen.confirm.v1+json",
            Self::Trust => "application/vnd.aizen.trust.v1+json",
            Self::Effect => "application/vnd.aizen.effect.v1+json",
            Self::Outcome => "application/vnd.aizen.outcome.v1+json",
        }
    }
}

/// A signed payload as it travels. Its bytes are not unique (both base64 alphabets verify), so nothing is keyed by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    sig: String,
}

/// Payload bytes and the known keys that signed them; made only by [`Envelope::open`].
#[derive(Debug)]
pub struct Opened {
    payload: Vec<u8>,
    signers: Vec<KeyId>,
}

impl Opened {
    /// The exact bytes that were signed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// SHA-256 of the payload: what a confirmation, a delivery and the record refer to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.payload)
    }

    /// The distinct keys whose signatures hold.
    #[must_use]
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }
}

impl Envelope {
    /// Reads an envelope of at most [`limit::ENVELOPE`] bytes.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] or [`Reason::MalformedEnvelope`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Reason> {
        strict::from_slice(bytes, limit::ENVELOPE).map_err(|e| match e {
            strict::StrictError::TooLarge { .. } => Reason::TooLarge,
            strict::StrictError::Malformed(_) => Reason::MalformedEnvelope,
        })
    }

    /// Wraps `payload` and signs it with each key.
    #[must_use]
    pub fn sign(payload_type: PayloadType, payload: &[u8], keys: &[&PrivateKey]) -> Self {
        let message = pre_authentication_encoding(payload_type.as_str(), payload);
        let mut envelope = Self::unsigned(payload_type, payload);
        for key in keys {
            envelope.attach(&key.public().id(), &key.sign(&message));
        }
        envelope
    }

    /// Wraps `payload` without a signature, for signatures that are made elsewhere.
    #[must_use]
    pub fn unsigned(payload_type: PayloadType, payload: &[u8]) -> Self {
        Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.as_str().to_owned(),
            signatures: Vec::new(),
        }
    }

    /// Adds a signature that was made over [`Envelope::message`].
    pub fn attach(&mut self, key: &KeyId, signature: &[u8; 64]) {
        self.signatures.push(EnvelopeSignature {
            keyid: Some(key.to_string()),
            sig: STANDARD.encode(signature),
        });
    }

    /// The bytes a signer signs.
    ///
    /// # Errors
    /// [`Reason::MalformedEnvelope`] if the payload is not base64.
    pub fn message(&self) -> Result<Vec<u8>, Reason> {
        Ok(pre_authentication_encoding(
            &self.payload_type,
            &decode(&self.payload)?,
        ))
    }

    /// The payload, believed by nobody yet: for showing it to a person.
    ///
    /// # Errors
    /// [`Reason::MalformedEnvelope`] if the payload is not base64.
    pub fn unverified_payload(&self) -> Result<Vec<u8>, Reason> {
        decode(&self.payload)
    }

    /// The stated payload type.
    #[must_use]
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// Checks type and signatures against known keys. Unknown signers are ignored; a bad signature of a known key
    /// is no signature.
    ///
    /// # Errors
    /// [`Reason::WrongPayloadType`], [`Reason::TooManySignatures`], [`Reason::MalformedEnvelope`], or
    /// [`Reason::BadSignature`] if no known key signed.
    pub fn open<'k>(
        &self,
        wanted: PayloadType,
        known: impl Iterator<Item = &'k PublicKey> + Clone,
    ) -> Result<Opened, Reason> {
        if self.payload_type != wanted.as_str() {
            return Err(Reason::WrongPayloadType);
        }
        if self.signatures.len() > limit::SIGNATURES {
            return Err(Reason::TooManySignatures);
        }
        let payload = decode(&self.payload)?;
        let message = pre_authentication_encoding(&self.payload_type, &payload);
        let mut signers: Vec<KeyId> = Vec::new();
        for signature in &self.signatures {
            let bytes = decode(&signature.sig)?;
            // The key id orders the search and nothing else: a lying hint costs one more pass.
            let hint = |key: &PublicKey| signature.keyid.as_deref() == Some(key.id().as_str());
            let signer = known
                .clone()
                .filter(|k| hint(k))
                .chain(known.clone().filter(|k| !hint(k)))
                .find(|k| k.verifies(&message, &bytes))
                .map(PublicKey::id);
            signers.extend(signer.filter(|s| !signers.contains(s)));
        }
        if signers.is_empty() {
            Err(Reason::BadSignature)
        } else {
            Ok(Opened { payload, signers })
        }
    }
}

/// `PAE(type, body) = "DSSEv1" SP len(type) SP type SP len(body) SP body`.
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    message.extend_from_slice(payload);
    message
}

fn decode(text: &str) -> Result<Vec<u8>, Reason> {
    let engine = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &CLASSIC
    };
    engine.decode(text).map_err(|_| Reason::MalformedEnvelope)
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const CLASSIC: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_one_of_the_dsse_document() {
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn a_retyped_altered_or_unsigned_payload_does_not_open() {
        let key = PrivateKey::generate().unwrap();
        let known = [key.public()];
        let good = Envelope::sign(PayloadType::Package, b"{}", &[&key]);
        assert_eq!(
            good.open(PayloadType::Package, known.iter())
                .unwrap()
                .payload(),
            b"{}"
        );
        assert_eq!(
            good.open(PayloadType::Rehearsal, known.iter()).unwrap_err(),
            Reason::WrongPayloadType
        );

        let mut retyped = good.clone();
        retyped.payload_type = PayloadType::Rehearsal.as_str().to_owned();
        assert_eq!(
            retyped
                .open(PayloadType::Rehearsal, known.iter())
                .unwrap_err(),
            Reason::BadSignature
        );

        let mut altered = good;
        altered.payload = STANDARD.encode(b"{ }");
        assert_eq!(
            altered
                .open(PayloadType::Package, known.iter())
                .unwrap_err(),
            Reason::BadSignature
        );

        let unsigned = Envelope::unsigned(PayloadType::Package, b"{}");
        assert_eq!(
            unsigned
                .open(PayloadType::Package, known.iter())
                .unwrap_err(),
            Reason::BadSignature
        );
    }

    #[test]
    fn one_key_that_signs_twice_counts_once_and_a_lying_key_id_changes_nothing() {
        let (a, b) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let mut twice = Envelope::sign(PayloadType::Package, b"{}", &[&a, &a, &b]);
        twice.signatures[2].keyid = Some(a.public().id().to_string());
        let known = [a.public(), b.public()];
        let opened = twice.open(PayloadType::Package, known.iter()).unwrap();
        assert_eq!(opened.signers(), [a.public().id(), b.public().id()]);
    }

    #[test]
    fn too_many_signatures_are_not_even_looked_at() {
        let key = PrivateKey::generate().unwrap();
        let many = Envelope::sign(PayloadType::Package, b"{}", &[&key; limit::SIGNATURES + 1]);
        let known = [key.public()];
        assert_eq!(
            many.open(PayloadType::Package, known.iter()).unwrap_err(),
            Reason::TooManySignatures
        );
    }

    #[test]
    fn both_base64_alphabets_verify() {
        let key = PrivateKey::generate().unwrap();
        let payload = [0xfb, 0xff, 0xfe];
        let mut envelope = Envelope::sign(PayloadType::Package, &payload, &[&key]);
        envelope.payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload);
        let known = [key.public()];
        assert_eq!(
            envelope
                .open(PayloadType::Package, known.iter())
                .unwrap()
                .payload(),
            payload
        );
    }

    #[test]
    fn an_envelope_with_an_unknown_field_is_malformed() {
        assert_eq!(
            Envelope::parse(br#"{"payload":"","payloadType":"x","signatures":[],"extra":1}"#)
                .unwrap_err(),
            Reason::MalformedEnvelope
        );
        assert_eq!(
            Envelope::parse(&vec![b' '; limit::ENVELOPE + 1]).unwrap_err(),
            Reason::TooLarge
        );
    }
}
