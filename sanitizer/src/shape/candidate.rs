//! A match of a pattern in its surroundings, and what a reader makes of it.

use std::net::Ipv4Addr;
use std::ops::Range;

/// What a pattern found.
pub(super) enum Found {
    /// To be replaced; the range may be another than the pattern's.
    Value(Range<usize>, String),
    /// Nothing up to here.
    Nothing(usize),
    /// No name, but there may be a value up to here.
    LookInside(usize),
}

/// A match in its surroundings.
pub(super) struct Candidate<'a> {
    pub(super) text: &'a str,
    /// Nothing before this may be touched any more.
    pub(super) from: usize,
    /// Nothing behind this.
    pub(super) to: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Candidate<'_> {
    pub(super) fn value(&self) -> &str {
        self.text.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn before(&self) -> &[u8] {
        &self.text.as_bytes()[..self.start]
    }

    pub(super) fn after(&self) -> &[u8] {
        &self.text.as_bytes()[self.end..]
    }

    pub(super) fn is_inside_word(&self) -> bool {
        self.before().last().is_some_and(u8::is_ascii_alphanumeric)
            || self.after().first().is_some_and(u8::is_ascii_alphanumeric)
    }

    pub(super) fn replaced(&self, with: String) -> Found {
        Found::Value(self.start..self.end, with)
    }

    pub(super) fn nothing(&self) -> Found {
        Found::Nothing(self.end)
    }

    /// Nothing starts here; something may start behind the first of these separators.
    pub(super) fn behind(&self, separator: char) -> Found {
        let skip = self.value().find(separator).unwrap_or(0);
        Found::Nothing(self.start + skip + 1)
    }

    /// `/24`, directly behind the match.
    pub(super) fn length(&self, width: u8) -> Option<(u8, usize)> {
        let rest = self.after().strip_prefix(b"/")?;
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let goes_on = matches!(
            rest.get(digits..),
            Some([b'.', b'0'..=b'9', ..] | [b'a'..=b'z' | b'A'..=b'Z', ..])
        );
        if digits > 3 || goes_on || self.end + 1 + digits > self.to {
            return None;
        }
        let length: u8 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        (length <= width).then_some((length, self.end + 1 + digits))
    }

    /// ` 255.255.255.0`, the way that routers' configurations write a length.
    pub(super) fn mask(&self) -> Option<u8> {
        let rest = self
            .text
            .get(self.end..self.to)?
            .trim_start_matches([' ', '\t']);
        let rest = ["netmask", "mask", "Mask:"]
            .iter()
            .find_map(|word| rest.strip_prefix(word))
            .unwrap_or(rest)
            .trim_start_matches([' ', '\t']);
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let mask: Ipv4Addr = rest[..end.unwrap_or(rest.len())].parse().ok()?;
        let bits = mask.to_bits();
        (bits.leading_ones() + bits.trailing_zeros() == 32 && bits != 0)
            .then_some(bits.leading_ones() as u8)
    }
}
