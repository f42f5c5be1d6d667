//! DNS messages, as much as a probe needs: one question out, a strict look at what comes back (RFC 1035).

/// Kinds of record that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 address.
    A,
    /// Name servers.
    Ns,
}

impl Kind {
    fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
        }
    }
}

/// What a datagram says to the one question that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// An answer to it, with this RCODE.
    Rcode(u8),
    /// Not for this question: another's, or a stranger's guess.
    Other,
    /// For this question by its number, and not a valid answer.
    Malformed,
}

/// A question, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    bytes: Vec<u8>,
}

impl Question {
    /// Asks for `kind` of `name`, with recursion; none if `name` can't be written as a domain name.
    pub(super) fn new(id: u16, name: &str, kind: Kind) -> Option<Self> {
        let mut bytes = id.to_be_bytes().to_vec();
        // Flags: recursion desired. Counts: one question.
        bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
        let name = name.strip_suffix('.').unwrap_or(name);
        for label in name.split('.').filter(|_| !name.is_empty()) {
            let length = u8::try_from(label.len())
                .ok()
                .filter(|l| (1..=MAX_LABEL).contains(l))?;
            bytes.push(length);
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        if bytes.len() - HEADER > MAX_NAME {
            return None;
        }
        bytes.extend(kind.code().to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        Some(Self { bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Judges one datagram that came back.
    pub(super) fn judge(&self, answer: &[u8]) -> Judged {
        let (Some(fixed), Some((own_id, _))) = (
            answer.first_chunk::<HEADER>(),
            self.bytes.split_first_chunk::<2>(),
        ) else {
            return Judged::Other;
        };
        let [i0, i1, f0, f1, counts @ ..] = *fixed;
        if [i0, i1] != *own_id || f0 & RESPONSE == 0 {
            return Judged::Other;
        }
        let rcode = f1 & 0x0f;
        let [q0, q1, sections @ ..] = counts;
        let records = sections
            .chunks_exact(2)
            .map(|c| usize::from(c[0]) << 8 | usize::from(c[1]))
            .sum();
        let truncated = f0 & TRUNCATED != 0;
        let rest = match u16::from_be_bytes([q0, q1]) {
            // A server that failed early may leave the question out.
            0 if EARLY_FAILURES.contains(&rcode) => &answer[HEADER..],
            1 => match self.after_echo(&answer[HEADER..]) {
                Some(rest) => rest,
                None => return Judged::Malformed,
            },
            _ => return Judged::Malformed,
        };
        if f0 & OPCODE != 0 || (!truncated && !holds_records(answer, rest, records)) {
            return Judged::Malformed;
        }
        Judged::Rcode(rcode)
    }

    /// What follows the echo of the question; names are compared without case (RFC 4343).
    fn after_echo<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        let own = self.bytes.get(HEADER..)?;
        let (echo, rest) = body.split_at_checked(own.len())?;
        echo.eq_ignore_ascii_case(own).then_some(rest)
    }
}

/// True if `rest`, the tail of `message`, is exactly so many resource records.
fn holds_records(message: &[u8], rest: &[u8], records: usize) -> bool {
    let mut at = message.len() - rest.len();
    for _ in 0..records {
        let Some(after) = after_name(message, at).and_then(|at| after_record_body(message, at))
        else {
            return false;
        };
        at = after;
    }
    at == message.len()
}

/// The offset after a name; a pointer ends it and must lead backwards (RFC 1035, 4.1.4).
fn after_name(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = *message.get(at)?;
        at += 1;
        match length {
            0 => return Some(at),
            1..=MAX_LABEL => at += usize::from(length),
            POINTER.. => {
                let target = usize::from(length & !POINTER) << 8 | usize::from(*message.get(at)?);
                return (target < start).then_some(at + 1);
            }
            _ => return None,
        }
        if at - start > MAX_NAME {
            return None;
        }
    }
}

/// Type, class, TTL and length, then so many bytes of data.
fn after_record_body(message: &[u8], at: usize) -> Option<usize> {
    let fixed: &[u8; 10] = message.get(at..)?.first_chunk()?;
    let end = at + 10 + (usize::from(fixed[8]) << 8 | usize::from(fixed[9]));
    (end <= message.len()).then_some(end)
}

const HEADER: usize = 12;
const MAX_LABEL: u8 = 63;
const MAX_NAME: usize = 255;
const CLASS_IN: u16 = 1;
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const POINTER: u8 = 0xc0;
/// FORMERR, SERVFAIL, NOTIMP, REFUSED.
const EARLY_FAILURES: [u8; 4] = [1, 2, 4, 5];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question() -> Question {
        Question::new(0x1234, "www.example", Kind::A).unwrap()
    }

    /// An answer to `question`, with these flags and so many A records by compression pointer.
    fn answer(question: &Question, flags: [u8; 2], records: u8) -> Vec<u8> {
        let mut bytes = question.bytes().to_vec();
        bytes[2..4].copy_from_slice(&flags);
        bytes[7] = records;
        for _ in 0..records {
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        }
        bytes
    }

    #[test]
    fn a_question_is_written_as_rfc_1035_says() {
        assert_eq!(
            question().bytes(),
            b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01"
        );
        let root = Question::new(1, ".", Kind::Ns).unwrap();
        assert_eq!(&root.bytes()[HEADER..], b"\0\0\x02\0\x01");
    }

    #[test]
    fn a_name_with_an_empty_or_long_label_or_too_many_of_them_is_no_question() {
        for name in ["a..b", ".a", &"x".repeat(64), &"abcdefg.".repeat(33)] {
            assert_eq!(Question::new(1, name, Kind::A), None, "{name}");
        }
        assert!(Question::new(1, &"x".repeat(63), Kind::A).is_some());
    }

    #[test]
    fn an_answer_gives_its_rcode_whatever_the_case_of_the_echo() {
        let q = question();
        assert_eq!(q.judge(&answer(&q, [0x81, 0x80], 2)), Judged::Rcode(0));
        assert_eq!(q.judge(&answer(&q, [0x81, 0x83], 0)), Judged::Rcode(3));
        let mut shouted = answer(&q, [0x81, 0x80], 1);
        shouted[HEADER..HEADER + 13].make_ascii_uppercase();
        assert_eq!(q.judge(&shouted), Judged::Rcode(0));
    }

    #[test]
    fn a_short_refusal_without_the_question_counts() {
        let q = question();
        assert_eq!(
            q.judge(b"\x12\x34\x81\x85\0\0\0\0\0\0\0\0"),
            Judged::Rcode(5)
        );
        assert_eq!(
            q.judge(b"\x12\x34\x81\x80\0\0\0\0\0\0\0\0"),
            Judged::Malformed
        );
    }

    #[test]
    fn another_number_or_a_question_is_not_for_us() {
        let q = question();
        let mut other = answer(&q, [0x81, 0x80], 1);
        other[0] ^= 1;
        assert_eq!(q.judge(&other), Judged::Other);
        assert_eq!(q.judge(q.bytes()), Judged::Other);
        assert_eq!(q.judge(b"\x12\x34"), Judged::Other);
    }

    #[test]
    fn what_is_cut_off_or_runs_over_is_malformed_unless_it_says_truncated() {
        let q = question();
        let whole = answer(&q, [0x81, 0x80], 1);
        assert_eq!(q.judge(&whole[..whole.len() - 1]), Judged::Malformed);
        assert_eq!(q.judge(&[&whole[..], b"x"].concat()), Judged::Malformed);
        let cut = answer(&q, [0x83, 0x80], 1);
        assert_eq!(q.judge(&cut[..cut.len() - 1]), Judged::Rcode(0));
    }

    #[test]
    fn a_pointer_that_leads_forward_or_to_itself_is_malformed() {
        let q = question();
        for target in [29_u8, 200] {
            let mut looping = answer(&q, [0x81, 0x80], 1);
            looping[q.bytes().len() + 1] = target;
            assert_eq!(q.judge(&looping), Judged::Malformed, "{target}");
        }
    }

    #[test]
    fn an_echo_of_another_name_is_malformed() {
        let q = question();
        let mut other = answer(&q, [0x81, 0x80], 0);
        other[HEADER + 1] = b'v';
        assert_eq!(q.judge(&other), Judged::Malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(tail in prop::collection::vec(any::<u8>(), 0..600), flags in any::<[u8; 2]>()) {
            let q = question();
            prop_assert!(tail.len() >= HEADER || q.judge(&tail) == Judged::Other);
            let mut ours = answer(&q, flags, 0);
            ours[7..12].copy_from_slice(&[3, 0, 1, 0, 1]);
            ours.extend(tail);
            prop_assert!(q.judge(&ours) != Judged::Other || flags[0] & RESPONSE == 0);
        }

        #[test]
        fn any_text_is_a_question_within_bounds_or_none(name in ".{0,300}") {
            if let Some(q) = Question::new(7, &name, Kind::A) {
                prop_assert!(q.bytes().len() <= HEADER + MAX_NAME + 4);
            }
        }
    }
}
