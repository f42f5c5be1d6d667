//! Types of record (the IANA registry of DNS parameters).

use std::fmt;
use std::str::FromStr;

/// A type of record by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

impl Kind {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Another name.
    pub const CNAME: Self = Self(5);
    /// Start of a zone.
    pub const SOA: Self = Self(6);
    /// Name of an address.
    pub const PTR: Self = Self(12);
    /// Mail server.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Server of a service.
    pub const SRV: Self = Self(33);
    /// Another tree of names.
    pub const DNAME: Self = Self(39);
    /// Pseudo-record of EDNS (RFC 6891).
    pub const OPT: Self = Self(41);
    /// Digest of a key in the zone below.
    pub const DS: Self = Self(43);
    /// Signature.
    pub const RRSIG: Self = Self(46);
    /// Key of a zone.
    pub const DNSKEY: Self = Self(48);
    /// Certificate of a service.
    pub const TLSA: Self = Self(52);
    /// Service binding (RFC 9460).
    pub const SVCB: Self = Self(64);
    /// Service binding of HTTPS.
    pub const HTTPS: Self = Self(65);
    /// Who may issue certificates.
    pub const CAA: Self = Self(257);
}

/// A text that names no type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no type of record: A, AAAA, MX, TXT … or TYPE and a number are")]
pub struct InvalidKind(String);

impl FromStr for Kind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        let upper = text.to_ascii_uppercase();
        let named = NAMES.iter().find(|(_, name)| *name == upper);
        named
            .map(|(number, _)| Self(*number))
            .or_else(|| upper.strip_prefix("TYPE")?.parse().ok().map(Self))
            .ok_or_else(|| InvalidKind(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            // RFC 3597, 5.
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

const NAMES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (41, "OPT"),
    (43, "DS"),
    (44, "SSHFP"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (255, "ANY"),
    (257, "CAA"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_in_any_case_or_by_its_number() {
        assert_eq!("aaaa".parse(), Ok(Kind::AAAA));
        assert_eq!("TYPE65280".parse(), Ok(Kind(65280)));
        assert_eq!(Kind(65280).to_string(), "TYPE65280");
        assert!("TYPE70000".parse::<Kind>().is_err() && "no".parse::<Kind>().is_err());
    }

    #[test]
    fn every_name_is_read_as_it_is_shown() {
        for (number, name) in NAMES {
            assert_eq!(name.parse(), Ok(Kind(*number)));
            assert_eq!(Kind(*number).to_string(), *name);
        }
    }
}
