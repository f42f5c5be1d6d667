//! Values that are neither address nor name: each kind has its own form of pseudonym, consistent within a period.

use crate::prf::Prf;

/// The kind of a typed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TokenKind {
    Email,
    Phone,
    Serial,
    Subscriber,
    Coordinates,
    Account,
    Fingerprint,
    PublicKey,
    Ssid,
}

impl TokenKind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Email,
        Self::Phone,
        Self::Serial,
        Self::Subscriber,
        Self::Coordinates,
        Self::Account,
        Self::Fingerprint,
        Self::PublicKey,
        Self::Ssid,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Serial => "serial",
            Self::Subscriber => "subscriber",
            Self::Coordinates => "coordinates",
            Self::Account => "account",
            Self::Fingerprint => "fingerprint",
            Self::PublicKey => "public-key",
            Self::Ssid => "ssid",
        }
    }

    /// The token of a value: `[email:…]`, but `ssid-…`, which stands where a name may.
    pub(crate) fn token(self, prf: &Prf, real: &str) -> String {
        let word = self.word();
        let digest = digest_text(prf, word, real);
        match self {
            Self::Ssid => format!("{word}-{digest}"),
            Self::Email
            | Self::Phone
            | Self::Serial
            | Self::Subscriber
            | Self::Coordinates
            | Self::Account
            | Self::Fingerprint
            | Self::PublicKey => format!("[{word}:{digest}]"),
        }
    }
}

/// 13 characters of base32 (RFC 4648, lower case): 65 bits.
pub(crate) fn digest_text(prf: &Prf, purpose: &str, real: &str) -> String {
    let digest = prf.digest(&[purpose.as_bytes(), real.as_bytes()]);
    let mut bits = digest
        .iter()
        .take(16)
        .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..DIGEST_CHARS)
        .map(|_| {
            bits = bits.rotate_left(5);
            char::from(ALPHABET[(bits & 31) as usize])
        })
        .collect()
}

/// True if this is what [`digest_text`] writes.
pub(crate) fn is_digest_text(text: &str) -> bool {
    text.len() == DIGEST_CHARS && text.bytes().all(|b| ALPHABET.contains(&b))
}

const DIGEST_CHARS: usize = 13;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
