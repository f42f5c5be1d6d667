//! Reading a message from front to back, never beyond its end.

use super::name::DomainName;

/// A place in a message; what is read must end before `end`.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    message: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self {
            message,
            at: 0,
            end: message.len(),
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let after = self.at.checked_add(length).filter(|a| *a <= self.end)?;
        let bytes = self.message.get(self.at..after)?;
        self.at = after;
        Some(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A name, which may point back to what stands before it in the message.
    pub(super) fn name(&mut self) -> Option<DomainName> {
        let (name, after) = DomainName::read(self.message, self.at)?;
        if after > self.end {
            return None;
        }
        self.at = after;
        Some(name)
    }

    /// One byte of length, then so many bytes (RFC 1035, 3.3).
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.message.get(self.at..self.end).unwrap_or_default();
        self.at = self.end;
        rest
    }

    /// The next `length` bytes as a part of their own, still able to follow pointers; moves behind them.
    pub(super) fn part(&mut self, length: usize) -> Option<Self> {
        let start = self.at;
        self.take(length)?;
        Some(Self {
            message: self.message,
            at: start,
            end: self.at,
        })
    }
}
