//! Domain names: as people write them, and as messages carry them (RFC 1035, 3.1, 4.1.4 and 5.1).

use std::fmt;

/// A domain name without compression: labels behind their lengths and a closing zero, at most 255 bytes. Compared
/// without case (RFC 4343).
#[derive(Clone, Debug, Eq)]
pub struct DomainName {
    wire: Vec<u8>,
}

impl DomainName {
    /// Reads what people write; `\.` and `\065` stand for bytes. None for an empty label or one of more than 63 bytes,
    /// or a name of more than 255.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        if text != "." {
            let mut label = Vec::new();
            let mut ended = false;
            let mut bytes = text.bytes();
            while let Some(byte) = bytes.next() {
                ended = byte == b'.';
                match byte {
                    b'.' => push_label(&mut wire, &mut label)?,
                    b'\\' => label.push(unescape(&mut bytes)?),
                    _ => label.push(byte),
                }
            }
            if !ended {
                push_label(&mut wire, &mut label)?;
            }
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then_some(Self { wire })
    }

    /// The name under which an address is looked up (RFC 1035, 3.5; RFC 3596, 2.5).
    #[must_use]
    pub fn reverse(address: std::net::IpAddr) -> Self {
        let mut labels: Vec<String> = match address {
            std::net::IpAddr::V4(v4) => v4.octets().iter().map(u8::to_string).collect(),
            std::net::IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().flat_map(|o| [o >> 4, o & 0xf]);
                nibbles.map(|n| format!("{n:x}")).collect()
            }
        };
        labels.reverse();
        let zone = if address.is_ipv4() { "in-addr" } else { "ip6" };
        labels.extend([zone.to_owned(), "arpa".to_owned()]);
        let mut wire = Vec::new();
        for label in labels {
            wire.push(u8::try_from(label.len()).unwrap_or(MAX_LABEL));
            wire.extend(label.into_bytes());
        }
        wire.push(0);
        Self { wire }
    }

    /// As messages carry it.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// True for the name of the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.wire.len() == 1
    }

    /// The name that begins at `start` of `message`, and where it ends there. Pointers must lead backwards, so that
    /// they come to an end.
    pub(crate) fn read(message: &[u8], start: usize) -> Option<(Self, usize)> {
        let mut wire = Vec::new();
        let (mut at, mut run) = (start, start);
        let mut after = None;
        loop {
            let length = *message.get(at)?;
            at += 1;
            match length {
                0 => {
                    wire.push(0);
                    return Some((Self { wire }, after.unwrap_or(at)));
                }
                1..=MAX_LABEL => {
                    let end = at + usize::from(length);
                    wire.push(length);
                    wire.extend(message.get(at..end)?);
                    at = end;
                }
                POINTER.. => {
                    let low = *message.get(at)?;
                    after.get_or_insert(at + 1);
                    let target = usize::from(length & !POINTER) << 8 | usize::from(low);
                    if target >= run {
                        return None;
                    }
                    (at, run) = (target, target);
                }
                _ => return None,
            }
            if wire.len() >= MAX_NAME {
                return None;
            }
        }
    }

    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.wire.as_slice();
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked((*length).into())?;
            rest = tail;
            (!label.is_empty()).then_some(label)
        })
    }
}

impl PartialEq for DomainName {
    fn eq(&self, other: &Self) -> bool {
        // No length is a letter: they end at 63.
        self.wire.eq_ignore_ascii_case(&other.wire)
    }
}

impl fmt::Display for DomainName {
    /// With a final dot; what is not printable ASCII is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(*byte))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Option<()> {
    let length = u8::try_from(label.len()).ok();
    wire.push(length.filter(|l| (1..=MAX_LABEL).contains(l))?);
    wire.append(label);
    Some(())
}

fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let digits = [first, bytes.next()?, bytes.next()?];
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

const MAX_LABEL: u8 = 63;
const MAX_NAME: usize = 255;
const POINTER: u8 = 0xc0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_written_as_rfc_1035_says_and_read_back() {
        let name = DomainName::parse("www.Example").unwrap();
        assert_eq!(name.wire(), b"\x03www\x07Example\0");
        assert_eq!(name, DomainName::parse("WWW.example.").unwrap());
        assert_eq!(name.to_string(), "www.Example.");
        assert_eq!(DomainName::parse(".").unwrap().to_string(), ".");
    }

    #[test]
    fn a_name_with_an_empty_or_long_label_or_too_many_of_them_is_none() {
        for name in [
            "",
            "a..b",
            ".a",
            "..",
            &"x".repeat(64),
            &"abcdefg.".repeat(33),
            "a\\",
            "a\\1",
            "a\\999",
        ] {
            assert_eq!(DomainName::parse(name), None, "{name}");
        }
        assert!(DomainName::parse(&"x".repeat(63)).is_some());
    }

    #[test]
    fn a_pointer_that_leads_forward_or_to_itself_is_no_name() {
        assert_eq!(DomainName::read(b"\xc0\x00", 0), None);
        assert_eq!(DomainName::read(b"\x01a\xc0\x04\xc0\x00", 0), None);
        // A run that comes back to its own beginning.
        assert_eq!(DomainName::read(b"\x01a\xc0\x00", 0), None);
        let (name, after) = DomainName::read(b"\x01b\0\x01a\xc0\x00!", 3).unwrap();
        assert_eq!((name.to_string().as_str(), after), ("a.b.", 7));
    }

    #[test]
    fn an_address_is_looked_up_backwards() {
        let reverse = |a: &str| DomainName::reverse(a.parse().unwrap()).to_string();
        assert_eq!(reverse("192.0.2.7"), "7.2.0.192.in-addr.arpa.");
        let v6 = reverse("2001:db8::1");
        assert!(
            v6.starts_with("1.0.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa."),
            "{v6}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), Just(1)], 0..400), at in 0_usize..400) {
            if let Some((name, after)) = DomainName::read(&bytes, at) {
                prop_assert!(name.wire().len() <= MAX_NAME && after <= bytes.len());
                // What is shown is printable, and means the same name.
                let shown = name.to_string();
                prop_assert!(shown.bytes().all(|b| (0x21..=0x7e).contains(&b)));
                prop_assert_eq!(DomainName::parse(&shown), Some(name));
            }
        }

        #[test]
        fn any_text_is_a_name_within_bounds_or_none(text in ".{0,300}") {
            if let Some(name) = DomainName::parse(&text) {
                prop_assert!(name.wire().len() <= MAX_NAME);
                prop_assert_eq!(DomainName::read(name.wire(), 0), Some((name.clone(), name.wire().len())));
            }
        }
    }
}
