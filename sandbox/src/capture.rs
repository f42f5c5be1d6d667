//! What a script says, bounded: the head and the tail are kept, the middle is counted.

use std::collections::VecDeque;
use std::io::{self, Read};

/// Keeps half of its room from the start and half from the end.
#[derive(Debug)]
pub(crate) struct Capture {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

/// How a round of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing to be read for the moment.
    Dry,
    /// The round was full; there may be more.
    Flowing,
    /// No writer is left.
    Closed,
}

impl Capture {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            half: room / 2,
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
        }
    }

    /// Takes what there is, at most one round, from a source that doesn't block.
    pub(crate) fn drain(&mut self, source: &mut impl Read) -> io::Result<Drained> {
        let mut buffer = [0; 16 << 10];
        for _ in 0..ROUND {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(Drained::Closed),
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Drained::Dry);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Drained::Flowing)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(first);
        let fresh = &rest[rest.len().saturating_sub(self.half)..];
        let surplus = (self.tail.len() + fresh.len()).saturating_sub(self.half);
        self.tail.drain(..surplus);
        self.tail.extend(fresh);
    }

    /// The head, a line that tells how much is left out if any is, and the tail; with the count of all bytes.
    pub(crate) fn finish(self) -> (Vec<u8>, u64) {
        let kept = (self.head.len() + self.tail.len()) as u64;
        let mut output = self.head;
        if self.total > kept {
            let gap = format!("\n[{} bytes left out]\n", self.total - kept);
            output.extend_from_slice(gap.as_bytes());
        }
        output.extend(self.tail);
        (output, self.total)
    }
}

/// Reads before the caller looks at its clock again.
const ROUND: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(room: usize, pieces: &[&[u8]]) -> (Vec<u8>, u64) {
        let mut capture = Capture::new(room);
        for piece in pieces {
            capture.take(piece);
        }
        capture.finish()
    }

    #[test]
    fn short_output_is_kept_whole() {
        assert_eq!(
            captured(8, &[b"ab", b"", b"cdefgh"]),
            (b"abcdefgh".to_vec(), 8)
        );
        assert_eq!(captured(8, &[]), (Vec::new(), 0));
    }

    #[test]
    fn of_long_output_both_ends_are_kept_and_the_rest_is_counted() {
        let (output, total) = captured(4, &[b"abcdefgh", b"ij"]);
        assert_eq!(output, b"ab\n[6 bytes left out]\nij");
        assert_eq!(total, 10);
    }

    #[test]
    fn however_it_is_cut_the_same_bytes_are_kept() {
        let whole: Vec<u8> = (0..=255).collect();
        let expected = captured(30, &[&whole]);
        for size in 1..40 {
            let pieces: Vec<_> = whole.chunks(size).collect();
            assert_eq!(captured(30, &pieces), expected, "{size}");
        }
    }

    #[test]
    fn no_room_keeps_nothing_and_still_counts() {
        assert_eq!(
            captured(0, &[b"abc"]),
            (b"\n[3 bytes left out]\n".to_vec(), 3)
        );
    }
}
