//! The map at rest: encrypted and authenticated under a key of its own, derived from the sanitizer key and the policy.
//!
//! Form: 8 bytes of magic, 24 bytes of random nonce, XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha, RFC 8439) of a JSON
//! text, the magic as associated data.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::SanitizerKey;
use crate::map::Map;
use crate::policy::{Policy, Vendor};
use crate::prf::derive;

/// Why a map can't be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No random bytes for the nonce (getrandom(2)).
    #[error("no random bytes to seal the map with: {0}")]
    Random(getrandom::Error),
    /// The map could not be written as JSON or encrypted.
    #[error("the map could not be sealed")]
    Unsealable,
    /// Damaged, or sealed under another key or policy: the two can't be told apart.
    #[error("the sealed map is damaged, or belongs to another key or policy")]
    Unopenable,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    addresses: Vec<(String, String)>,
    prefixes: Vec<(String, String)>,
    macs: Vec<(String, String)>,
    labels: Vec<(String, String)>,
    tokens: Vec<(String, String)>,
}

/// Encrypts a map.
pub(crate) fn seal(map: &Map, key: &Sealing) -> Result<Vec<u8>, SealError> {
    fn texts<'a, K: ToString + 'a>(
        pairs: impl Iterator<Item = (&'a K, &'a K)>,
    ) -> Vec<(String, String)> {
        pairs.map(|(p, r)| (p.to_string(), r.to_string())).collect()
    }
    let content = Content {
        addresses: texts(map.addresses.pairs()),
        prefixes: texts(map.prefixes.pairs()),
        macs: texts(map.macs.pairs()),
        labels: texts(map.labels.pairs()),
        tokens: texts(map.tokens.pairs()),
    };
    let plain = Zeroizing::new(serde_json::to_vec(&content).map_err(|_| SealError::Unsealable)?);
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(SealError::Random)?;
    let payload = Payload {
        msg: &plain,
        aad: MAGIC,
    };
    let sealed = key
        .cipher()
        .encrypt(&XNonce::from(nonce), payload)
        .map_err(|_| SealError::Unsealable)?;
    Ok([MAGIC, &nonce[..], &sealed].concat())
}

/// Decrypts a map into an empty one, at most `bound` values.
pub(crate) fn open(sealed: &[u8], key: &Sealing, bound: usize) -> Result<Map, SealError> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::Unopenable)?;
    let (nonce, msg) = rest
        .split_first_chunk::<NONCE>()
        .ok_or(SealError::Unopenable)?;
    let payload = Payload { msg, aad: MAGIC };
    let plain = key
        .cipher()
        .decrypt(&XNonce::from(*nonce), payload)
        .map_err(|_| SealError::Unopenable)?;
    let plain = Zeroizing::new(plain);
    let content: Content = serde_json::from_slice(&plain).map_err(|_| SealError::Unopenable)?;
    let mut map = Map::default();
    let mut room = bound;
    let mut take = |pairs: Vec<(String, String)>| {
        let taken = pairs.len().min(room);
        room -= taken;
        pairs.into_iter().take(taken)
    };
    for (pseudonym, real) in take(content.labels) {
        map.label(real, pseudonym);
    }
    for (pseudonym, real) in take(content.addresses) {
        if let (Ok(p), Ok(r)) = (pseudonym.parse(), real.parse()) {
            map.address(r, p);
        }
    }
    for (pseudonym, real) in take(content.prefixes) {
        if let (Ok(p), Ok(r)) = (pseudonym.parse(), real.parse()) {
            map.prefix(r, p);
        }
    }
    for (pseudonym, real) in take(content.macs) {
        if let (Ok(p), Ok(r)) = (pseudonym.parse(), real.parse()) {
            map.mac(r, p);
        }
    }
    for (pseudonym, real) in take(content.tokens) {
        map.token(real, pseudonym);
    }
    Ok(map)
}

/// The key that seals maps; wiped when dropped.
pub(crate) struct Sealing(Zeroizing<[u8; 32]>);

impl Sealing {
    /// Another policy maps differently, so its maps don't open under this key.
    pub(crate) fn new(key: &SanitizerKey, policy: &Policy) -> Self {
        let list = |items: Vec<String>| items.join(",");
        let addresses = list(
            policy
                .keep_addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
        );
        let names = list(policy.keep_names.iter().cloned().collect());
        let vendor: &[u8] = match policy.vendor {
            Vendor::Dropped => b"dropped",
            Vendor::Kept => b"kept",
        };
        Self(derive(
            key,
            &[
                b"seal",
                &policy.period.to_be_bytes(),
                vendor,
                addresses.as_bytes(),
                names.as_bytes(),
            ],
        ))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.0).into())
    }
}

const MAGIC: &[u8; 8] = b"AIZENMAP";
const NONCE: usize = 24;
