//! One question, and whether what comes back answers it.

use super::kind::Kind;
use super::message::{Message, RESPONSE};
use super::name::DomainName;

/// What is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name.
    pub name: DomainName,
    /// The type of record.
    pub kind: Kind,
    /// The rest.
    pub options: Options,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Speak EDNS (RFC 6891): longer answers over UDP, and extended errors.
    pub edns: bool,
    /// Ask for signatures (DO bit, RFC 3225); speaks EDNS.
    pub dnssec: bool,
    /// Validation is not wanted (CD bit, RFC 4035, 3.2.2).
    pub unvalidated: bool,
}

/// What a message says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// An answer to it.
    Answer(Message),
    /// Not for this question: another's, or a stranger's guess.
    Other,
    /// For this question by its number, and not a valid answer.
    Malformed,
}

impl Question {
    /// Asks for `kind` of `name`, as the C library would; none if `name` can't be written as a domain name.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Option<Self> {
        Some(Self {
            name: DomainName::parse(name)?,
            kind,
            options: Options::default(),
        })
    }

    /// The same question, asked in another way.
    #[must_use]
    pub fn with(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// As it travels under this number.
    pub(super) fn bytes(&self, id: u16) -> Vec<u8> {
        let edns = self.options.edns || self.options.dnssec;
        let mut bytes = Vec::with_capacity(HEADER + self.name.wire().len() + 15);
        bytes.extend(id.to_be_bytes());
        // AD in a question asks to hear whether the answer was validated (RFC 6840, 5.7).
        let checking = if self.options.unvalidated { CD } else { 0 };
        bytes.extend([RD, AD | checking, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        bytes.extend(self.name.wire());
        bytes.extend(self.kind.0.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        if edns {
            // The root, OPT, our size, no extended RCODE, version 0, flags, no options.
            bytes.push(0);
            bytes.extend(Kind::OPT.0.to_be_bytes());
            bytes.extend(UDP_SIZE.to_be_bytes());
            let dnssec_ok = if self.options.dnssec { 0x80 } else { 0 };
            bytes.extend([0, 0, dnssec_ok, 0, 0, 0]);
        }
        bytes
    }

    /// Judges what came back for the question with this number.
    pub(crate) fn judge(&self, id: u16, answer: &[u8]) -> Judged {
        let Some([i0, i1, flags, ..]) = answer.first_chunk::<HEADER>() else {
            return Judged::Other;
        };
        if u16::from_be_bytes([*i0, *i1]) != id || flags & RESPONSE == 0 {
            return Judged::Other;
        }
        let Some(message) = Message::read(answer) else {
            return Judged::Malformed;
        };
        let echoed = match &message.question {
            Some((name, kind, class)) => (name, *kind, *class) == (&self.name, self.kind, CLASS_IN),
            // A server that failed early may leave the question out.
            None => EARLY_FAILURES.contains(&message.rcode),
        };
        if echoed && message.flags.opcode == 0 {
            Judged::Answer(message)
        } else {
            Judged::Malformed
        }
    }
}

pub(super) const HEADER: usize = 12;
/// What fits into one packet on nearly every path (DNS flag day 2020).
const UDP_SIZE: u16 = 1232;
const CLASS_IN: u16 = 1;
const RD: u8 = 0x01;
const AD: u8 = 0x20;
const CD: u8 = 0x10;
/// FORMERR, SERVFAIL, NOTIMP, REFUSED.
const EARLY_FAILURES: [u16; 4] = [1, 2, 4, 5];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: u16 = 0x1234;

    fn question() -> Question {
        Question::new("www.example", Kind::A).unwrap()
    }

    /// An answer with these flags and so many A records by compression pointer.
    fn answer(flags: [u8; 2], records: u8) -> Vec<u8> {
        let mut bytes = question().bytes(ID);
        bytes[2..4].copy_from_slice(&flags);
        bytes[7] = records;
        for _ in 0..records {
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        }
        bytes
    }

    fn rcode(bytes: &[u8]) -> Option<u16> {
        match question().judge(ID, bytes) {
            Judged::Answer(message) => Some(message.rcode),
            Judged::Other | Judged::Malformed => None,
        }
    }

    #[test]
    fn a_question_is_written_as_rfc_1035_and_6891_say() {
        let plain = question();
        assert_eq!(
            plain.bytes(ID),
            b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01"
        );
        let dnssec = plain.with(Options {
            dnssec: true,
            unvalidated: true,
            ..Options::default()
        });
        let bytes = dnssec.bytes(ID);
        assert_eq!(bytes[2..12], *b"\x01\x30\0\x01\0\0\0\0\0\x01");
        assert!(bytes.ends_with(b"\0\x01\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0"));
    }

    #[test]
    fn an_answer_gives_its_rcode_whatever_the_case_of_the_echo() {
        assert_eq!(rcode(&answer([0x81, 0x80], 2)), Some(0));
        assert_eq!(rcode(&answer([0x81, 0x83], 0)), Some(3));
        let mut shouted = answer([0x81, 0x80], 1);
        shouted[HEADER..HEADER + 13].make_ascii_uppercase();
        assert_eq!(rcode(&shouted), Some(0));
    }

    #[test]
    fn a_short_refusal_without_the_question_counts() {
        assert_eq!(rcode(b"\x12\x34\x81\x85\0\0\0\0\0\0\0\0"), Some(5));
        let judged = question().judge(ID, b"\x12\x34\x81\x80\0\0\0\0\0\0\0\0");
        assert_eq!(judged, Judged::Malformed);
    }

    #[test]
    fn another_number_or_a_question_is_not_for_us() {
        let good = answer([0x81, 0x80], 1);
        assert_eq!(question().judge(ID ^ 1, &good), Judged::Other);
        assert_eq!(question().judge(ID, &question().bytes(ID)), Judged::Other);
        assert_eq!(question().judge(ID, b"\x12\x34"), Judged::Other);
    }

    #[test]
    fn what_is_cut_off_or_runs_over_is_malformed_unless_it_says_truncated() {
        let whole = answer([0x81, 0x80], 1);
        let malformed = |bytes: &[u8]| question().judge(ID, bytes) == Judged::Malformed;
        assert!(malformed(&whole[..whole.len() - 1]));
        assert!(malformed(&[&whole[..], b"x"].concat()));
        let cut = answer([0x83, 0x80], 1);
        assert_eq!(rcode(&cut[..cut.len() - 1]), Some(0));
    }

    #[test]
    fn an_echo_of_another_name_or_type_is_malformed() {
        for (at, byte) in [(HEADER + 1, b'v'), (HEADER + 14, 28)] {
            let mut other = answer([0x81, 0x80], 0);
            other[at] = byte;
            assert_eq!(question().judge(ID, &other), Judged::Malformed);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(tail in prop::collection::vec(any::<u8>(), 0..600), flags in any::<[u8; 2]>()) {
            prop_assert!(tail.len() >= HEADER || question().judge(ID, &tail) == Judged::Other);
            let mut ours = answer(flags, 0);
            ours[7..12].copy_from_slice(&[3, 0, 1, 0, 1]);
            ours.extend(tail);
            prop_assert!(question().judge(ID, &ours) != Judged::Other || flags[0] & RESPONSE == 0);
        }
    }
}
