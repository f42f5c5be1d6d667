//! Ed25519 keys (RFC 8032): made, read and written; verification is strict everywhere.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, EncodePrivateKey as _, spki::der::pem::LineEnding,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::id::{Digest, KeyId};

/// Why a key was not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in base64.
    #[error("a public key is 32 bytes in base64")]
    Form,
    /// Not the canonical encoding of a point, or a point of small order: such a key vouches for anything.
    #[error("a weak or non-canonical Ed25519 public key")]
    Weak,
    /// Not a PKCS #8 PEM file with an Ed25519 key.
    #[error("not an Ed25519 private key (PKCS #8 PEM): {0}")]
    Private(#[from] ed25519_dalek::pkcs8::Error),
    /// The system gave no randomness.
    #[error("the system gave no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// A public key that passed the checks of a strict verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::Weak`] for small-order and non-canonical points.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Weak)?;
        // ZIP-215 decoding takes non-canonical encodings; re-encoding the point shows them.
        if key.is_weak() || key.to_edwards().compress().to_bytes() != *bytes {
            return Err(KeyError::Weak);
        }
        Ok(Self(key))
    }

    /// Takes standard base64.
    ///
    /// # Errors
    /// [`KeyError::Form`] or [`KeyError::Weak`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| KeyError::Form)?;
        Self::from_bytes(&bytes.try_into().map_err(|_| KeyError::Form)?)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Names the key: `key-` and the first 16 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Digest::of(self.0.as_bytes()).to_string();
        #[expect(
            clippy::expect_used,
            reason = "20 characters of [a-z0-9-] are an identifier"
        )]
        format!("key-{}", &digest[..16])
            .parse()
            .expect("valid identifier")
    }

    /// True if `signature` (64 bytes) is this key's over `message`; `verify_strict` of RFC 8032 section 8.4's caveats.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| self.0.verify_strict(message, &s).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_base64(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A private key; wiped from memory when dropped, never printed.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Draws a fresh key.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the system has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut())?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads PKCS #8 PEM (RFC 8410).
    ///
    /// # Errors
    /// [`KeyError::Private`] for anything else.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Ok(Self(SigningKey::from_pkcs8_pem(pem)?))
    }

    /// Writes PKCS #8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Private`] if the encoder fails.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(self.0.to_pkcs8_pem(LineEnding::LF)?)
    }

    /// Writes PKCS #8 DER, the form that TLS libraries take.
    ///
    /// # Errors
    /// [`KeyError::Private`] if the encoder fails.
    pub fn to_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        Ok(self.0.to_pkcs8_der()?.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `message`; 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public().id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(key.public(), again.public());
        assert!(key.public().verifies(b"x", &again.sign(b"x")));
    }

    #[test]
    fn small_order_and_non_canonical_keys_are_refused_when_loaded() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(matches!(
            PublicKey::from_bytes(&neutral),
            Err(KeyError::Weak)
        ));
        // y = p: the non-canonical encoding of y = 0.
        let mut modulus = [0xff; 32];
        modulus[0] = 0xed;
        modulus[31] = 0x7f;
        assert!(matches!(
            PublicKey::from_bytes(&modulus),
            Err(KeyError::Weak)
        ));
    }

    #[test]
    fn printing_a_private_key_shows_only_its_name() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("PrivateKey({})", key.public().id())
        );
    }
}
