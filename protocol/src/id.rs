//! Identifiers as types: a case can't be passed where a change is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A text that is no identifier: empty, longer than 64 bytes, or with a byte outside `[A-Za-z0-9._-]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not a valid {kind}: 1 to 64 of A-Z a-z 0-9 . _ -")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(String);

        impl $name {
            /// Makes an identifier that nobody used before: a prefix and a time-ordered UUIDv7 (RFC 9562).
            #[must_use]
            pub fn fresh() -> Self {
                Self(format!(concat!($prefix, "{}"), Uuid::now_v7().simple()))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_identifier(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(InvalidId { kind: stringify!($name), text })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_identifier(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

identifier!(
    /// One enrolled device.
    DeviceId, "dev-"
);
identifier!(
    /// One fault on one device, from the first finding to the last report.
    CaseId, "case-"
);
identifier!(
    /// One proposed repair.
    ProposalId, "prop-"
);
identifier!(
    /// One question to a person.
    ApprovalId, "appr-"
);
identifier!(
    /// One package's life on one device.
    ChangeId, "chg-"
);
identifier!(
    /// Joins everything that belongs to one story across programs.
    CorrelationId, "cor-"
);
identifier!(
    /// A device's state generation: drawn anew when replay memory was lost, so that old packages die with it.
    Epoch, "ep-"
);
identifier!(
    /// One boot of the kernel (`/proc/sys/kernel/random/boot_id`).
    BootId, "boot-"
);
identifier!(
    /// Names a public key: a hint for people, never a filter (DSSE).
    KeyId, "key-"
);
identifier!(
    /// One package: identity and replay key; 74 random bits and more come with UUIDv7.
    PackageId, "pkg-"
);

/// A device's own record number: counts up by one, never reused, kept over restarts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// One pass over all collectors: milliseconds since the boot when it began, made to count up within the boot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RoundId(pub u64);

/// SHA-256 of something, 32 bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes bytes with SHA-256 (FIPS 180-4).
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            kind: "SHA-256 digest",
            text: text.chars().take(80).collect(),
        };
        if text.len() != 64
            || !text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_takes_no_separator_or_control_byte() {
        for text in ["", "a/b", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(text.parse::<CaseId>().is_err(), "{text:?} was taken");
        }
        assert_eq!("case-1".parse::<CaseId>().unwrap().as_str(), "case-1");
    }

    #[test]
    fn a_digest_reads_back_what_it_wrote_and_refuses_upper_case() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }

    #[test]
    fn fresh_identifiers_differ() {
        assert_ne!(PackageId::fresh(), PackageId::fresh());
    }
}
