//! What people need to know of a certificate: since when, until when, from whom (RFC 5280, 4.1; X.690 DER).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::probe::dns::printable;

/// The readable part of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Start of validity.
    pub not_before: Option<Timestamp>,
    /// End of validity.
    pub not_after: Option<Timestamp>,
    /// Common name of the issuer, or its organisation; printable.
    pub issuer: Option<String>,
    /// The issuer's name is the subject's.
    pub self_signed: bool,
}

impl Facts {
    /// Reads a certificate; none if it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(der).expect(SEQUENCE)?;
        let mut body = certificate.expect(SEQUENCE)?;
        // Version 1 has no version.
        if body.tag() == Some(VERSION) {
            body.next()?;
        }
        body.expect(INTEGER)?;
        body.expect(SEQUENCE)?;
        let issuer = body.expect(SEQUENCE)?;
        let mut validity = body.expect(SEQUENCE)?;
        let subject = body.expect(SEQUENCE)?;
        Some(Self {
            not_before: validity.next().and_then(moment),
            not_after: validity.next().and_then(moment),
            self_signed: issuer.0 == subject.0,
            issuer: name(issuer),
        })
    }
}

/// The rest of some DER.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, Self)> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
                (
                    digits
                        .iter()
                        .fold(0, |n, digit| n << 8 | usize::from(*digit)),
                    rest,
                )
            }
            _ => return None,
        };
        let (body, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, Self(body)))
    }

    fn expect(&mut self, wanted: u8) -> Option<Self> {
        self.next()
            .filter(|(tag, _)| *tag == wanted)
            .map(|(_, body)| body)
    }
}

/// UTCTime or GeneralizedTime in the one form that RFC 5280, 4.1.2.5 allows.
fn moment((tag, body): (u8, Der<'_>)) -> Option<Timestamp> {
    let digits = body
        .0
        .strip_suffix(b"Z")
        .filter(|d| d.iter().all(u8::is_ascii_digit))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year = number(year)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (number(year)?, rest)
        }
        _ => return None,
    };
    let two = |n: usize| -> Option<i8> { i8::try_from(number(rest.get(2 * n..2 * n + 2)?)?).ok() };
    let at = DateTime::new(year, two(0)?, two(1)?, two(2)?, two(3)?, two(4)?, 0).ok()?;
    at.to_zoned(TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

fn number(digits: &[u8]) -> Option<i16> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The last common name of a distinguished name; without one, the last organisation.
fn name(mut distinguished: Der<'_>) -> Option<String> {
    let (mut common, mut organisation) = (None, None);
    while let Some(mut set) = distinguished.expect(SET) {
        while let Some(mut attribute) = set.expect(SEQUENCE) {
            let (Some(kind), Some((tag, value))) = (attribute.expect(OID), attribute.next()) else {
                continue;
            };
            match kind.0 {
                COMMON_NAME => common = Some(text(tag, value.0)),
                ORGANISATION => organisation = Some(text(tag, value.0)),
                _ => {}
            }
        }
    }
    common.or(organisation)
}

fn text(tag: u8, bytes: &[u8]) -> String {
    let text = if tag == BMP_STRING {
        let units: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|c| u16::from_be_bytes([c[0], c[1]]))
            .collect();
        String::from_utf16_lossy(&units)
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    };
    printable(&text, MAX_NAME)
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
const VERSION: u8 = 0xa0;
/// 2.5.4.3 and 2.5.4.10.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];
/// The upper bound of a common name is 64 (RFC 5280, appendix A.1).
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["www.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1999, 12, 31);
        params.not_after = date_time_ymd(2051, 2, 3);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example Ltd");
        params
            .distinguished_name
            .push(DnType::CommonName, "Ex\u{e4}mple\n CA");
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn validity_on_both_sides_of_2050_and_the_issuer_are_read() {
        let facts = Facts::read(&certificate()).unwrap();
        assert_eq!(facts.not_before, "1999-12-31T00:00:00Z".parse().ok());
        assert_eq!(facts.not_after, "2051-02-03T00:00:00Z".parse().ok());
        assert_eq!(facts.issuer.as_deref(), Some("Ex\u{e4}mple\u{fffd} CA"));
        assert!(facts.self_signed);
    }

    #[test]
    fn a_certificate_that_is_cut_off_is_none() {
        let whole = certificate();
        for length in 0..whole.len() {
            assert_eq!(Facts::read(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..300, byte in any::<u8>()) {
            prop_assert!(Facts::read(&bytes).is_none_or(|f| f.issuer.is_none_or(|i| i.chars().count() <= MAX_NAME)));
            let mut damaged = certificate_once().to_vec();
            let at = at % damaged.len();
            damaged[at] = byte;
            prop_assert!(Facts::read(&damaged).is_none_or(|f| f.issuer.is_none_or(|i| i.chars().count() <= MAX_NAME)));
        }
    }

    fn certificate_once() -> &'static [u8] {
        static ONCE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        ONCE.get_or_init(certificate)
    }
}
