//! Netlink attributes (netlink(7), linux/netlink.h `struct nlattr`): read without trust, written in order.

/// The attributes of a message or of a nest, up to the first whose length can't be right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    /// Type without its flag bits, and payload.
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1]: [u8; HEADER] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let payload = self.0.get(HEADER..length)?;
        self.0 = self
            .0
            .get(length.next_multiple_of(ALIGNED)..)
            .unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE, payload))
    }
}

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of this type.
    pub(crate) fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut attributes = self;
        attributes.find_map(|(k, payload)| (k == kind).then_some(payload))
    }

    /// The attributes inside the first attribute of this type; none is as good as empty.
    pub(crate) fn nest(self, kind: u16) -> Self {
        Self(self.find(kind).unwrap_or_default())
    }

    /// A big-endian number, as nf_tables writes them.
    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A big-endian number, as nf_tables writes them.
    pub(crate) fn be64(self, kind: u16) -> Option<u64> {
        self.find(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A number in the machine's order.
    pub(crate) fn ne16(self, kind: u16) -> Option<u16> {
        self.find(kind)?.try_into().ok().map(u16::from_ne_bytes)
    }

    /// A number in the machine's order.
    pub(crate) fn ne64(self, kind: u16) -> Option<u64> {
        self.find(kind)?.try_into().ok().map(u64::from_ne_bytes)
    }

    /// A text up to its NUL, of printable characters and bounded.
    pub(crate) fn text(self, kind: u16) -> Option<String> {
        Some(text(self.find(kind)?))
    }
}

/// A text up to its NUL; what can't be printed becomes `?`.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end])
        .chars()
        .map(|c| {
            if c.is_control() || c == char::REPLACEMENT_CHARACTER {
                '?'
            } else {
                c
            }
        })
        .take(LONGEST)
        .collect()
}

/// Appends one attribute with its padding. A payload that no attribute can hold is left out: ours never are.
pub(crate) fn push(to: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let Ok(length) = u16::try_from(HEADER + payload.len()) else {
        return;
    };
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(payload);
    to.resize(to.len().next_multiple_of(ALIGNED), 0);
}

const HEADER: usize = 4;
const ALIGNED: usize = 4;
/// `NLA_TYPE_MASK`: without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE: u16 = 0x3fff;
/// Names of the kernel have at most 255 characters (`NFT_NAME_MAXLEN`).
const LONGEST: usize = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_whatever_its_flags() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, b"name\0");
        push(&mut bytes, 0x8002, &7_u32.to_be_bytes());
        let read = Attributes(&bytes);
        assert_eq!(read.text(1).unwrap(), "name");
        assert_eq!(read.be32(2), Some(7));
        assert_eq!((read.be64(2), read.be32(3)), (None, None));
        assert_eq!(read.count(), 2);
    }

    #[test]
    fn a_length_that_cant_be_right_ends_the_list() {
        for length in [0_u16, 3, 400] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 9, 9]);
            assert_eq!(Attributes(&bytes).count(), 0, "{length}");
        }
    }

    #[test]
    fn a_text_ends_at_its_nul_and_holds_nothing_that_moves_a_cursor() {
        assert_eq!(text(b"a\x1b[2J\xff\0b"), "a?[2J?");
        assert_eq!(text(&[b'x'; 4000]).len(), LONGEST);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end_and_no_further(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = Attributes(&bytes).map(|(_, payload)| payload.len() + HEADER).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
