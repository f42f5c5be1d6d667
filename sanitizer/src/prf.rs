//! The pseudorandom function under everything: HMAC-SHA256 (RFC 2104, FIPS 198-1), one derived key a purpose.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::key::SanitizerKey;

/// A keyed function of byte strings.
#[derive(Clone)]
pub(crate) struct Prf(Hmac<Sha256>);

impl Prf {
    /// The function for one purpose in one period.
    pub(crate) fn new(key: &SanitizerKey, purpose: &str, period: u32) -> Self {
        Self(keyed(&derive(
            key,
            &[purpose.as_bytes(), &period.to_be_bytes()],
        )))
    }

    /// 256 bits for these parts; each part's length goes in first, so that no two lists of parts look alike.
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        finish(self.0.clone(), parts)
    }
}

/// A key for one purpose.
pub(crate) fn derive(key: &SanitizerKey, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(finish(keyed(key.secret()), parts))
}

fn keyed(secret: &[u8; 32]) -> Hmac<Sha256> {
    // A key of the block's length (64 bytes, zeros behind the secret) is taken as it is: the same MAC without a
    // fallible constructor.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(secret);
    Hmac::new(&(*block).into())
}

fn finish(mut state: Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    for part in parts {
        state.update(&(part.len() as u64).to_be_bytes());
        state.update(part);
    }
    state.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_purposes_and_periods_are_told_apart() {
        let key = SanitizerKey::from_bytes([7; 32]);
        let prf = Prf::new(&key, "a", 0);
        assert_eq!(prf.digest(&[b"x"]), Prf::new(&key, "a", 0).digest(&[b"x"]));
        let all = [
            prf.digest(&[b"ab", b"c"]),
            prf.digest(&[b"a", b"bc"]),
            prf.digest(&[b"abc"]),
            Prf::new(&key, "b", 0).digest(&[b"abc"]),
            Prf::new(&key, "a", 1).digest(&[b"abc"]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| b != a), "{i}");
        }
    }
}
