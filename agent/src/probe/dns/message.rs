//! DNS messages that came back, read whole and with suspicion (RFC 1035, 4; RFC 6891; RFC 8914).

use std::net::IpAddr;

use super::cursor::Cursor;
use super::data::{self, Data, printable};
use super::kind::Kind;
use super::name::DomainName;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The header's flags.
    pub flags: Flags,
    /// Response code, with the bits that EDNS adds.
    pub rcode: u16,
    /// Name, type and class of the echoed question.
    pub question: Option<(DomainName, Kind, u16)>,
    /// The answer, at most 256 records.
    pub answers: Vec<Record>,
    /// Who is in charge, at most as many.
    pub authority: Vec<Record>,
    /// What EDNS says, if the server speaks it.
    pub edns: Option<Edns>,
}

/// The header's flags (RFC 1035, 4.1.1; RFC 4035, 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Kind of query; 0 is a plain one.
    pub opcode: u8,
    /// AA: the server is in charge of the name.
    pub authoritative: bool,
    /// TC: the answer is longer.
    pub truncated: bool,
    /// RD: recursion was asked for.
    pub recursion_desired: bool,
    /// RA: the server recurses.
    pub recursion_available: bool,
    /// AD: the server says that it validated the answer.
    pub authentic: bool,
    /// CD: validation was not wanted.
    pub checking_disabled: bool,
}

impl Flags {
    fn new(high: u8, low: u8) -> Self {
        Self {
            opcode: high >> 3 & 0xf,
            authoritative: high & 0x04 != 0,
            truncated: high & 0x02 != 0,
            recursion_desired: high & 0x01 != 0,
            recursion_available: low & 0x80 != 0,
            authentic: low & 0x20 != 0,
            checking_disabled: low & 0x10 != 0,
        }
    }

    /// The names of those that are set: `AA TC RD RA AD CD`.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.authoritative, "AA"),
            (self.truncated, "TC"),
            (self.recursion_desired, "RD"),
            (self.recursion_available, "RA"),
            (self.authentic, "AD"),
            (self.checking_disabled, "CD"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect()
    }
}

/// One resource record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub name: DomainName,
    /// Of which type.
    pub kind: Kind,
    /// May be kept so many seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// The OPT pseudo-record (RFC 6891, 6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// The longest UDP message that the server takes.
    pub udp_size: u16,
    /// Signatures were asked for.
    pub dnssec_ok: bool,
    /// Extended errors.
    pub errors: Vec<ExtendedError>,
}

/// Why, in more words than the RCODE has (RFC 8914).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// Number in the IANA registry.
    pub code: u16,
    /// Text of the server, printable.
    pub text: String,
}

impl ExtendedError {
    /// The registry's name of the number.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        EXTENDED_ERRORS.get(usize::from(self.code)).copied()
    }
}

impl Message {
    /// Reads one message; none if it does not end where its own counts say. A truncated one may end anywhere.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let [_, _, high, low] = cursor.array()?;
        let [questions, answers, authorities, others] =
            [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?];
        let question = match questions {
            0 => None,
            1 => Some((cursor.name()?, Kind(cursor.u16()?), cursor.u16()?)),
            _ => return None,
        };
        let mut message = Self {
            flags: Flags::new(high, low),
            rcode: u16::from(low & 0xf),
            question,
            answers: Vec::new(),
            authority: Vec::new(),
            edns: None,
        };
        let whole = message.read_records(&mut cursor, [answers, authorities, others]);
        (message.flags.truncated || (whole.is_some() && cursor.is_at_end())).then_some(message)
    }

    fn read_records(&mut self, cursor: &mut Cursor<'_>, counts: [u16; 3]) -> Option<()> {
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                let (name, kind) = (cursor.name()?, Kind(cursor.u16()?));
                let (class, ttl, length) = (cursor.u16()?, cursor.u32()?, cursor.u16()?);
                let body = cursor.part(length.into())?;
                if kind == Kind::OPT {
                    self.read_edns(class, ttl, body);
                    continue;
                }
                let records = match section {
                    0 => &mut self.answers,
                    1 => &mut self.authority,
                    _ => continue,
                };
                if records.len() < MAX_RECORDS {
                    let data = data::read(kind, body);
                    records.push(Record {
                        name,
                        kind,
                        ttl,
                        data,
                    });
                }
            }
        }
        Some(())
    }

    fn read_edns(&mut self, class: u16, ttl: u32, mut options: Cursor<'_>) {
        let [high_rcode, _version, flags, _] = ttl.to_be_bytes();
        self.rcode |= u16::from(high_rcode) << 4;
        let mut edns = Edns {
            udp_size: class,
            dnssec_ok: flags & 0x80 != 0,
            errors: Vec::new(),
        };
        while let (Some(code), Some(length)) = (options.u16(), options.u16()) {
            let Some(mut body) = options.part(length.into()) else {
                break;
            };
            if code == EXTENDED_ERROR
                && edns.errors.len() < MAX_ERRORS
                && let Some(code) = body.u16()
            {
                let text = printable(&String::from_utf8_lossy(body.rest()), MAX_ERROR_TEXT);
                edns.errors.push(ExtendedError { code, text });
            }
        }
        self.edns = Some(edns);
    }

    /// The addresses of the answer, in its order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.answers.iter().filter_map(|record| match record.data {
            Data::Address(address) => Some(address),
            Data::Name(_) | Data::Other(_) => None,
        })
    }
}

/// The name of a response code (the IANA registry of DNS parameters).
#[must_use]
pub fn rcode_name(rcode: u16) -> String {
    let known = match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        16 => "BADVERS",
        23 => "BADCOOKIE",
        _ => return format!("RCODE{rcode}"),
    };
    known.to_owned()
}

/// So many records of a section are kept; a screen and a comparison need no more.
pub(super) const MAX_RECORDS: usize = 256;
pub(super) const RESPONSE: u8 = 0x80;
const EXTENDED_ERROR: u16 = 15;
const MAX_ERRORS: usize = 8;
const MAX_ERROR_TEXT: usize = 200;
/// RFC 8914, 5.2 and the registry after it.
const EXTENDED_ERRORS: &[&str] = &[
    "other",
    "unsupported DNSKEY algorithm",
    "unsupported DS digest type",
    "stale answer",
    "forged answer",
    "DNSSEC indeterminate",
    "DNSSEC bogus",
    "signature expired",
    "signature not yet valid",
    "DNSKEY missing",
    "RRSIGs missing",
    "no zone key bit set",
    "NSEC missing",
    "cached error",
    "not ready",
    "blocked",
    "censored",
    "filtered",
    "prohibited",
    "stale NXDOMAIN answer",
    "not authoritative",
    "not supported",
    "no reachable authority",
    "network error",
    "invalid data",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with these flags and counts.
    fn header(flags: [u8; 2], counts: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0, 1, flags[0], flags[1]];
        bytes.extend(counts.into_iter().flat_map(|count| [0, count]));
        bytes
    }

    #[test]
    fn flags_rcode_and_extended_errors_are_read() {
        let mut bytes = header([0x84, 0xb2], [0, 0, 0, 1]);
        // OPT: 1232, extended RCODE 1, DO; a cookie, then an extended error.
        bytes.extend(
            b"\0\0\x29\x04\xd0\x01\0\x80\0\0\x16\0\x0a\0\x08abcdefgh\0\x0f\0\x06\0\x07a\x1bb\xff",
        );
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.flags.names(), ["AA", "RA", "AD", "CD"]);
        assert_eq!(message.rcode, 0x12);
        let edns = message.edns.unwrap();
        assert!(edns.dnssec_ok && edns.udp_size == 1232);
        assert_eq!(edns.errors[0].name(), Some("signature expired"));
        assert!(!edns.errors[0].text.contains('\x1b'), "{:?}", edns.errors);
    }

    #[test]
    fn records_beyond_the_bound_are_read_over_and_not_kept() {
        let mut bytes = header([0x80, 0], [0, 0, 0, 0]);
        bytes[6..8].copy_from_slice(&300_u16.to_be_bytes());
        for _ in 0..300 {
            bytes.extend(b"\0\0\x01\0\x01\0\0\0\x05\0\x04\x7f\0\0\x01");
        }
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.answers.len(), MAX_RECORDS);
        assert_eq!(message.addresses().count(), MAX_RECORDS);
        assert!(Message::read(&bytes[..bytes.len() - 1]).is_none());
    }

    #[test]
    fn a_truncated_message_keeps_the_records_that_are_whole() {
        let mut bytes = header([0x82, 0], [0, 2, 0, 0]);
        bytes.extend(b"\0\0\x01\0\x01\0\0\0\x05\0\x04\x7f\0\0\x01");
        bytes.extend(b"\0\0\x01\0\x01\0\0\0\x05\0\x04\x7f");
        assert_eq!(Message::read(&bytes).unwrap().answers.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(head in any::<[u8; 12]>(), few in any::<[u8; 4]>(), tail in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xc0)], 0..700)) {
            let mut bytes = [&head[..], &tail].concat();
            prop_assert!(Message::read(&bytes).is_none_or(|m| m.answers.len() <= MAX_RECORDS));
            bytes[4..12].copy_from_slice(&header([0, 0], few.map(|c| c % 3))[4..12]);
            if let Some(message) = Message::read(&bytes) {
                for record in message.answers.iter().chain(&message.authority) {
                    let shown = record.data.to_string();
                    prop_assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
                }
            }
        }
    }
}
