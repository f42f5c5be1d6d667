//! One file of the spool: entries one behind another, each with a marker, its length, its number and a CRC-32.
//!
//! An entry is `marker(4) length(4) crc(4) number(8) payload`, little-endian. The marker holds bytes that no UTF-8
//! text has, so that the search for the next whole entry behind damage can't be misled by a payload.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aizen_protocol::limit;

const MARKER: [u8; 4] = [0xff, b'A', b'z', 0xfe];
/// Bytes of an entry before its payload.
pub(super) const HEADER: u64 = 20;
/// The number of an entry that covers damage: its payload is nobody's and carries no checksum.
const HOLE: u64 = u64::MAX;
/// A larger file is none of ours: a segment is read at once when it is opened.
const LARGEST: u64 = 16 << 20;

/// An open segment.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    first: u64,
    last: Option<u64>,
    size: u64,
    head: u64,
    live: u64,
    dirty: bool,
}

/// What opening a segment found besides whole entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Byte ranges between or behind whole entries that are none.
    pub(super) ranges: Vec<Vec<u8>>,
    /// Bytes cut off because the last write never ended.
    pub(super) torn: u64,
}

/// An entry's place and payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number.
    pub(super) number: u64,
    /// What was stored.
    pub(super) payload: Vec<u8>,
    /// Where the next entry begins.
    pub(super) next: u64,
}

/// Whether another segment follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Another one follows: this one was whole when it was left.
    Sealed,
    /// The last of its lane: a write may have been cut here.
    Newest,
}

impl Segment {
    /// Makes an empty segment for numbers from `first` on; a file of that name that nobody knows is overwritten.
    pub(super) fn create(path: PathBuf, first: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            first,
            last: None,
            size: 0,
            head: 0,
            live: 0,
            dirty: true,
        })
    }

    /// Reads a segment back: a torn tail is cut off, damage in the middle is covered, both are told.
    pub(super) fn open(path: PathBuf, first: u64, place: Place) -> io::Result<(Self, Damage)> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        if file.metadata()?.len() > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let bytes = std::fs::read(&path)?;
        let mut segment = Self {
            path,
            file,
            first,
            last: None,
            size: 0,
            head: 0,
            live: 0,
            dirty: false,
        };
        let damage = segment.scan(&bytes, place)?;
        Ok((segment, damage))
    }

    fn scan(&mut self, bytes: &[u8], place: Place) -> io::Result<Damage> {
        let mut damage = Damage::default();
        let mut at = 0;
        while at < bytes.len() {
            match parse(bytes, at) {
                Some((HOLE, next)) => at = next,
                Some((number, next)) if self.last.is_none_or(|last| number > last) => {
                    self.last = Some(number);
                    self.live += 1;
                    at = next;
                }
                Some(_) | None => {
                    let next = next_whole(bytes, at, self.last);
                    if next.is_none() && place == Place::Newest {
                        damage.torn = (bytes.len() - at) as u64;
                        self.file.set_len(at as u64)?;
                        self.dirty = true;
                        break;
                    }
                    let end = next.unwrap_or(bytes.len());
                    damage.ranges.push(bytes[at..end].to_vec());
                    self.cover(at as u64, (end - at) as u64)?;
                    at = end;
                }
            }
        }
        self.size = at as u64;
        Ok(damage)
    }

    /// Turns `length` bytes at `at` into one entry that readers pass over: the damage is counted once, and a later
    /// search can't take a piece of it for an entry.
    fn cover(&mut self, at: u64, length: u64) -> io::Result<()> {
        let Some(payload) = length
            .checked_sub(HEADER)
            .and_then(|n| u32::try_from(n).ok())
        else {
            // Shorter than a header: no entry fits, so readers search past it each time.
            return Ok(());
        };
        self.file.write_all_at(&header(HOLE, payload, &[]), at)?;
        self.dirty = true;
        Ok(())
    }

    /// Adds an entry; nothing of it remains if the write fails.
    pub(super) fn append(&mut self, number: u64, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len())
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut entry = header(number, length, payload).to_vec();
        entry.extend_from_slice(payload);
        if let Err(error) = self.file.write_all_at(&entry, self.size) {
            // The next append or the next start overwrites or cuts what stays behind if this fails too.
            self.file.set_len(self.size).ok();
            return Err(error);
        }
        self.size += entry.len() as u64;
        self.last = Some(number);
        self.live += 1;
        self.dirty = true;
        Ok(())
    }

    /// Adds an entry and returns once it is on storage; nothing of it remains otherwise.
    pub(super) fn append_durably(&mut self, number: u64, payload: &[u8]) -> io::Result<()> {
        let (size, last) = (self.size, self.last);
        self.append(number, payload)?;
        self.sync().inspect_err(|_| {
            // A leftover is overwritten by the next append: the size in memory is what counts.
            self.file.set_len(size).ok();
            (self.size, self.last) = (size, last);
            self.live -= 1;
        })
    }

    /// Writes what is not on storage yet.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Forgets every entry up to and with `through`.
    pub(super) fn acknowledge(&mut self, through: u64) -> io::Result<()> {
        if self.last.is_none_or(|last| last <= through) {
            self.head = self.size;
            self.live = 0;
            return Ok(());
        }
        while let Some((number, next)) = self.peek(self.head)? {
            if number > through {
                break;
            }
            self.head = next;
            self.live -= 1;
        }
        Ok(())
    }

    /// The number of the entry at or behind `at`, and where the one behind it begins; none at the end.
    pub(super) fn peek(&self, at: u64) -> io::Result<Option<(u64, u64)>> {
        let mut at = at;
        while at + HEADER <= self.size {
            let mut bytes = [0; HEADER as usize];
            self.file.read_exact_at(&mut bytes, at)?;
            let Some(head) = Head::read(&bytes) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let next = at + HEADER + u64::from(head.length);
            if head.number != HOLE {
                return Ok(Some((head.number, next)));
            }
            at = next;
        }
        Ok(None)
    }

    /// The entry at or behind `at`; none at the end.
    ///
    /// An entry that storage has damaged since it was opened is [`io::ErrorKind::InvalidData`].
    pub(super) fn read(&self, at: u64) -> io::Result<Option<Entry>> {
        let Some((number, next)) = self.peek(at)? else {
            return Ok(None);
        };
        let start = self.start_of(at, next)?;
        let length = usize::try_from(next - start).map_err(|_| io::ErrorKind::InvalidData)?;
        if length > limit::FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        if parse(&bytes, 0) != Some((number, length)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.drain(..HEADER as usize);
        Ok(Some(Entry {
            number,
            payload: bytes,
            next,
        }))
    }

    fn start_of(&self, at: u64, next: u64) -> io::Result<u64> {
        let mut start = at;
        loop {
            let mut bytes = [0; HEADER as usize];
            self.file.read_exact_at(&mut bytes, start)?;
            let head = Head::read(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            let end = start + HEADER + u64::from(head.length);
            if end == next {
                return Ok(start);
            }
            start = end;
        }
    }

    /// The lowest number it may hold.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The highest number in it.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Where the first entry that is not acknowledged begins.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Entries that are not acknowledged.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

struct Head {
    length: u32,
    crc: u32,
    number: u64,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (marker, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (crc, rest) = rest.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        (*marker == MARKER).then_some(Self {
            length: u32::from_le_bytes(*length),
            crc: u32::from_le_bytes(*crc),
            number: u64::from_le_bytes(*number),
        })
    }
}

fn header(number: u64, length: u32, payload: &[u8]) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..4].copy_from_slice(&MARKER);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].copy_from_slice(&checksum(number, length, payload).to_le_bytes());
    bytes[12..].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn checksum(number: u64, length: u32, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length.to_le_bytes());
    crc.update(&number.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

/// The number of the whole entry at `at` and where it ends.
fn parse(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let rest = bytes.get(at..)?;
    let head = Head::read(rest)?;
    let end = (HEADER as usize).checked_add(usize::try_from(head.length).ok()?)?;
    let payload = rest.get(HEADER as usize..end)?;
    let covered = if head.number == HOLE { &[] } else { payload };
    (checksum(head.number, head.length, covered) == head.crc).then_some((head.number, at + end))
}

/// Where the next whole entry behind damage at `at` begins.
fn next_whole(bytes: &[u8], at: usize, last: Option<u64>) -> Option<usize> {
    (at + 1..bytes.len()).find(|&i| {
        bytes[i] == MARKER[0]
            && parse(bytes, i).is_some_and(|(number, _)| last.is_none_or(|last| number > last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, entries: &[(u64, &str)]) -> PathBuf {
        let path = dir.join("a.seg");
        let mut segment = Segment::create(path.clone(), entries[0].0).unwrap();
        for (number, text) in entries {
            segment.append(*number, text.as_bytes()).unwrap();
        }
        segment.sync().unwrap();
        path
    }

    fn contents(segment: &Segment) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let mut at = segment.head();
        while let Some(entry) = segment.read(at).unwrap() {
            found.push((entry.number, String::from_utf8(entry.payload).unwrap()));
            at = entry.next;
        }
        found
    }

    const THREE: [(u64, &str); 3] = [(5, "five"), (7, ""), (8, "eight, and longer")];

    fn three() -> Vec<(u64, String)> {
        THREE.iter().map(|(n, t)| (*n, (*t).to_owned())).collect()
    }

    #[test]
    fn a_segment_cut_at_any_byte_gives_the_whole_entries_before_the_cut_and_takes_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let whole = std::fs::read(written(dir.path(), &THREE)).unwrap();
        let ends = [24, 44, whole.len()];
        for cut in 0..=whole.len() {
            let path = dir.path().join("cut.seg");
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut segment, damage) = Segment::open(path, 5, Place::Newest).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(contents(&segment), three()[..kept], "cut at {cut}");
            assert_eq!(damage.ranges, Vec::<Vec<u8>>::new());
            let boundary = ends.iter().rev().find(|end| **end <= cut).unwrap_or(&0);
            assert_eq!(damage.torn, (cut - boundary) as u64);
            segment.append(9, b"nine").unwrap();
            assert_eq!(contents(&segment).last().unwrap().1, "nine");
        }
    }

    #[test]
    fn one_flipped_bit_costs_at_most_the_entry_it_is_in_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let whole = std::fs::read(written(dir.path(), &THREE)).unwrap();
        for at in 0..44 {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            let path = dir.path().join("bit.seg");
            std::fs::write(&path, &damaged).unwrap();
            let (segment, damage) = Segment::open(path.clone(), 5, Place::Newest).unwrap();
            let survivors: Vec<_> = three()
                .into_iter()
                .enumerate()
                .filter(|(i, _)| *i != usize::from(at >= 24))
                .map(|(_, entry)| entry)
                .collect();
            assert_eq!(contents(&segment), survivors, "bit in byte {at}");
            assert_eq!(damage.ranges.len(), 1);
            let (again, none) = Segment::open(path, 5, Place::Newest).unwrap();
            assert_eq!(contents(&again), survivors);
            assert_eq!(none, Damage::default());
        }
    }

    #[test]
    fn the_damaged_end_of_a_sealed_segment_is_kept_aside_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &THREE);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (segment, damage) = Segment::open(path, 5, Place::Sealed).unwrap();
        assert_eq!(contents(&segment), three()[..2]);
        assert_eq!(damage.ranges, [bytes[44..].to_vec()]);
    }

    #[test]
    fn an_acknowledged_prefix_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &THREE);
        let (mut segment, _) = Segment::open(path, 5, Place::Newest).unwrap();
        segment.acknowledge(6).unwrap();
        assert_eq!(
            (segment.live(), contents(&segment)),
            (2, three()[1..].to_vec())
        );
        segment.acknowledge(8).unwrap();
        assert_eq!((segment.live(), contents(&segment)), (0, Vec::new()));
    }

    #[test]
    fn damage_while_it_is_open_is_told_by_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &THREE);
        let (segment, _) = Segment::open(path.clone(), 5, Place::Newest).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[21] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(
            segment.read(0).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
