//! What is kept for the way back holds passwords and keys of files and tunnels: it is sealed at rest, under a key that
//! only this device's executor has.
//!
//! Form: magic `AZS1`, 24 bytes of random nonce, XChaCha20-Poly1305 (RFC 8439, draft-irtf-cfrg-xchacha) with the change
//! as associated data. A copy of the journal or of a snapshot alone tells nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Inverse;
use crate::store::{Store, StoreError};

const MAGIC: &[u8] = b"AZS1";
const NONCE: usize = 24;
const KEY: usize = 32;
/// The key's file in the executor's directory.
const FILE: &str = "seal.key";

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key's file holds something else.
    #[error(
        "the key of the snapshots (seal.key) is damaged: what it sealed can't be read any more"
    )]
    Key,
    /// No random bytes (getrandom(2)).
    #[error("no random bytes to seal with: {0}")]
    Random(getrandom::Error),
    /// Encryption failed.
    #[error("it could not be sealed")]
    Unsealable,
    /// Damaged, or sealed under another key or for another change.
    #[error("it is damaged, or was sealed under another key")]
    Unopenable,
    /// Opened, but not what it should be.
    #[error("it can't be read: {0}")]
    Form(#[from] serde_json::Error),
}

/// The key.
#[derive(Clone)]
pub(crate) struct Seal(Zeroizing<[u8; KEY]>);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Reads the key, and makes one where there is none.
    pub(crate) fn open(store: &Store) -> Result<Self, SealError> {
        if let Some(bytes) = store.read(FILE, KEY as u64)? {
            let bytes = Zeroizing::new(bytes);
            let key = <[u8; KEY]>::try_from(bytes.as_slice()).map_err(|_| SealError::Key)?;
            return Ok(Self(Zeroizing::new(key)));
        }
        let mut key = Zeroizing::new([0; KEY]);
        getrandom::fill(key.as_mut()).map_err(SealError::Random)?;
        store.write(FILE, key.as_ref())?;
        Ok(Self(key))
    }

    /// With a key of its own.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn of(key: [u8; KEY]) -> Self {
        Self(Zeroizing::new(key))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.0).into())
    }

    /// Seals something of a change.
    pub(crate) fn seal(&self, change: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(SealError::Random)?;
        let payload = Payload {
            msg: plain,
            aad: change.as_bytes(),
        };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::Unsealable)?;
        Ok([MAGIC, &nonce[..], &sealed].concat())
    }

    /// Opens it. What an earlier version stored unsealed is taken as it is.
    pub(crate) fn unseal(
        &self,
        change: &str,
        stored: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Some(rest) = stored.strip_prefix(MAGIC) else {
            return match stored.first() {
                Some(b'{') => Ok(Zeroizing::new(stored.to_vec())),
                _ => Err(SealError::Unopenable),
            };
        };
        let (nonce, msg) = rest
            .split_first_chunk::<NONCE>()
            .ok_or(SealError::Unopenable)?;
        let payload = Payload {
            msg,
            aad: change.as_bytes(),
        };
        let plain = self.cipher().decrypt(&XNonce::from(*nonce), payload);
        plain.map(Zeroizing::new).map_err(|_| SealError::Unopenable)
    }

    /// An inverse as it stands in the journal.
    pub(crate) fn seal_inverse(&self, change: &str, inverse: &Inverse) -> Result<Value, SealError> {
        let plain = Zeroizing::new(serde_json::to_vec(inverse)?);
        Ok(Value::String(STANDARD.encode(self.seal(change, &plain)?)))
    }

    /// An inverse from the journal.
    pub(crate) fn unseal_inverse(
        &self,
        change: &str,
        stored: &Value,
    ) -> Result<Inverse, SealError> {
        let Value::String(text) = stored else {
            return Ok(serde_json::from_value(stored.clone())?);
        };
        let sealed = STANDARD.decode(text).map_err(|_| SealError::Unopenable)?;
        Ok(serde_json::from_slice(&self.unseal(change, &sealed)?)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened() -> (tempfile::TempDir, Store, Seal) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s")).unwrap();
        let seal = Seal::open(&store).unwrap();
        (folder, store, seal)
    }

    #[test]
    fn what_was_sealed_is_opened_after_a_restart_and_only_for_its_change() {
        let (_folder, store, seal) = opened();
        let sealed = seal.seal("chg-1", b"a password").unwrap();
        assert!(!sealed.windows(8).any(|w| w == b"password"));
        let again = Seal::open(&store).unwrap();
        assert_eq!(
            again.unseal("chg-1", &sealed).unwrap().as_slice(),
            b"a password"
        );
        assert!(matches!(
            again.unseal("chg-2", &sealed),
            Err(SealError::Unopenable)
        ));
        let (_other, _, stranger) = opened();
        assert!(matches!(
            stranger.unseal("chg-1", &sealed),
            Err(SealError::Unopenable)
        ));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(again.unseal("chg-1", &damaged).is_err(), "{at}");
        }
    }

    #[test]
    fn a_damaged_key_is_said_and_never_replaced() {
        let (_folder, store, _) = opened();
        store.write(FILE, b"short").unwrap();
        assert!(matches!(Seal::open(&store), Err(SealError::Key)));
        assert_eq!(store.read(FILE, 100).unwrap().unwrap(), b"short");
    }

    #[test]
    fn what_an_earlier_version_stored_is_still_read() {
        let (_folder, _, seal) = opened();
        assert_eq!(seal.unseal("chg-1", b"{}").unwrap().as_slice(), b"{}");
        let inverse = Inverse::UciReload {
            package: "network".into(),
        };
        let plain = serde_json::to_value(&inverse).unwrap();
        assert_eq!(seal.unseal_inverse("chg-1", &plain).unwrap(), inverse);
        let sealed = seal.seal_inverse("chg-1", &inverse).unwrap();
        assert!(!sealed.to_string().contains("network"));
        assert_eq!(seal.unseal_inverse("chg-1", &sealed).unwrap(), inverse);
    }

    proptest! {
        #[test]
        fn any_bytes_are_opened_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (_folder, _, seal) = opened();
            drop(seal.unseal("chg-1", &bytes));
        }
    }
}
