//! Attributes of netlink messages (`struct nlattr`, linux/netlink.h): walked in place, built in a buffer.
//!
//! The `netlink-packet-route` crate refuses a whole message for one attribute that it doesn't understand. Here what
//! isn't understood is passed over, so that an odd name or a newer kernel costs no link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::private::{Mac, Prefix};

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribute<'a> {
    /// Its number, without the flags for nesting and byte order.
    pub(crate) kind: u16,
    /// What it holds.
    pub(crate) value: &'a [u8],
}

/// The attributes in `bytes`, up to the first whose length can't be right.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let &[l0, l1, k0, k1] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute {
            kind: u16::from_ne_bytes([k0, k1]) & KIND,
            value,
        })
    })
}

/// The first attribute of a number.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    attributes(bytes).find(|attribute| attribute.kind == kind)
}

impl<'a> Attribute<'a> {
    /// The attributes inside.
    pub(crate) fn inner(self) -> impl Iterator<Item = Attribute<'a>> {
        attributes(self.value)
    }

    pub(crate) fn u8(self) -> Option<u8> {
        self.value.first().copied()
    }

    pub(crate) fn u16(self) -> Option<u16> {
        self.value.first_chunk().map(|b| u16::from_ne_bytes(*b))
    }

    pub(crate) fn u32(self) -> Option<u32> {
        u32_at(self.value, 0)
    }

    pub(crate) fn u64(self) -> Option<u64> {
        u64_at(self.value, 0)
    }

    /// Up to its first zero byte. Names of interfaces are bytes: what is no UTF-8 becomes U+FFFD, and a rare clash of
    /// two such names does no harm, as links are told apart by their index.
    pub(crate) fn text(self) -> String {
        let end = self.value.iter().position(|byte| *byte == 0);
        let text = &self.value[..end.unwrap_or(self.value.len())];
        String::from_utf8_lossy(text).into_owned()
    }

    /// None for hardware addresses of another length.
    pub(crate) fn mac(self) -> Option<Mac> {
        self.value.try_into().ok().map(Mac)
    }

    /// An IPv4 or IPv6 address by its length.
    pub(crate) fn ip(self) -> Option<IpAddr> {
        if let Ok(four) = <[u8; 4]>::try_from(self.value) {
            return Some(Ipv4Addr::from(four).into());
        }
        let sixteen = <[u8; 16]>::try_from(self.value).ok()?;
        Some(Ipv6Addr::from(sixteen).into())
    }
}

/// An address with the length of its prefix; none if that is longer than the address.
pub(crate) fn prefix(address: IpAddr, length: u8) -> Option<Prefix> {
    let width = if address.is_ipv4() { 32 } else { 128 };
    (length <= width).then_some(Prefix { address, length })
}

/// The number at a place of a structure; none beyond its end, as with older kernels.
pub(crate) fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    let chunk = bytes.get(place..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*chunk))
}

/// As [`u32_at`].
pub(crate) fn u64_at(bytes: &[u8], place: usize) -> Option<u64> {
    let chunk = bytes.get(place..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*chunk))
}

/// Appends an attribute. Values of ours are a few bytes; one too long to be told is left out.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(HEADER + value.len()) else {
        return;
    };
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// `NLA_F_NESTED`, which strict parsers of the kernel ask for.
pub(crate) const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`.
const KIND: u16 = 0x3fff;
const HEADER: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_put_is_found_whatever_its_length() {
        let mut bytes = Vec::new();
        put(&mut bytes, 3, b"eth\xff0\0");
        put(&mut bytes, 18 | NESTED, &[]);
        put(&mut bytes, 4, &1500_u32.to_ne_bytes());
        let kinds: Vec<_> = attributes(&bytes).map(|a| a.kind).collect();
        assert_eq!(kinds, [3, 18, 4]);
        assert_eq!(find(&bytes, 3).unwrap().text(), "eth\u{fffd}0");
        assert_eq!(find(&bytes, 4).unwrap().u32(), Some(1500));
        assert_eq!(find(&bytes, 18).unwrap().u32(), None);
        assert_eq!(find(&bytes, 99), None);
    }

    #[test]
    fn a_length_shorter_than_a_header_or_beyond_the_end_ends_the_walk() {
        for length in [0_u16, 3, 60] {
            let mut bytes = Vec::new();
            put(&mut bytes, 1, &[1, 2, 3, 4]);
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(attributes(&bytes).count(), 0, "{length}");
        }
    }

    #[test]
    fn an_address_is_known_by_its_length() {
        let of = |value: &[u8]| Attribute { kind: 1, value }.ip();
        assert_eq!(of(&[192, 0, 2, 1]), "192.0.2.1".parse().ok());
        assert_eq!(of(&[0; 16]), "::".parse().ok());
        assert_eq!(of(&[1, 2, 3]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_their_end_and_not_beyond(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = attributes(&bytes).map(|a| a.value.len() + HEADER).sum();
            prop_assert!(total <= bytes.len());
            for attribute in attributes(&bytes) {
                drop((attribute.text(), attribute.mac(), attribute.ip(), attribute.inner().count()));
            }
        }
    }
}
