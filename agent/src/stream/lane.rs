//! The segments of one class of frames, oldest first, with one reader that remembers how far it has come.
//!
//! Records and signed results have a lane each, so that dropping records removes whole files, writes nothing and can't
//! touch a result; the spool merges the two by number.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::segment::{Damage, Entry, HEADER, Place, Segment};

/// What a frame is, which decides what may become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Evidence: dropped oldest-first, and counted, when space is short.
    Record,
    /// Something that the executor signed: never dropped.
    Signed,
}

impl Class {
    fn prefix(self) -> &'static str {
        match self {
            Self::Record => "records-",
            Self::Signed => "signed-",
        }
    }
}

/// One class's segments.
pub(super) struct Lane {
    class: Class,
    dir: PathBuf,
    segments: VecDeque<Segment>,
    reader: Reader,
    acknowledged: u64,
}

/// The next entry to be read is the first at or behind this place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reader {
    segment: u64,
    offset: u64,
}

/// A segment that had to be moved aside or repaired.
#[derive(Debug)]
pub(super) struct Loss {
    /// The segment's file name.
    pub(super) file: String,
    /// What is known to be lost, entries; at least one a damaged range.
    pub(super) entries: u64,
    /// The bytes that could be read of it.
    pub(super) ranges: Vec<Vec<u8>>,
}

impl Lane {
    /// Opens every segment of `class` in `dir`; files with numbers below `floor` were dropped and counted before.
    pub(super) fn open(dir: &Path, class: Class, floor: u64) -> (Self, Vec<Loss>) {
        let mut lane = Self {
            class,
            dir: dir.to_owned(),
            segments: VecDeque::new(),
            reader: Reader::default(),
            acknowledged: 0,
        };
        let mut losses = Vec::new();
        let firsts = lane.firsts();
        for (i, &first) in firsts.iter().enumerate() {
            let path = lane.path(first);
            if first < floor {
                remove(&path);
                continue;
            }
            let place = if i + 1 == firsts.len() {
                Place::Newest
            } else {
                Place::Sealed
            };
            match Segment::open(path.clone(), first, place) {
                Ok((segment, damage)) => {
                    losses.extend(loss(&path, damage));
                    lane.segments.push_back(segment);
                }
                Err(error) => losses.push(set_aside(&path, 1, &error)),
            }
        }
        lane.rewind();
        (lane, losses)
    }

    fn firsts(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        let mut firsts: Vec<u64> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.strip_prefix(self.class.prefix())?
                    .strip_suffix(".seg")?
                    .parse()
                    .ok()
            })
            .collect();
        firsts.sort_unstable();
        firsts
    }

    fn path(&self, first: u64) -> PathBuf {
        self.dir
            .join(format!("{}{first:020}.seg", self.class.prefix()))
    }

    /// Adds an entry, in a fresh segment if the newest would hold more than `bound` bytes. A signed one is on storage
    /// when this returns, or nothing of it remains.
    pub(super) fn append(&mut self, number: u64, payload: &[u8], bound: u64) -> io::Result<()> {
        let class = self.class;
        let newest = self.room(number, HEADER + payload.len() as u64, bound)?;
        match class {
            Class::Record => newest.append(number, payload),
            Class::Signed => newest.append_durably(number, payload),
        }
    }

    fn room(&mut self, number: u64, added: u64, bound: u64) -> io::Result<&mut Segment> {
        let fits = |s: &Segment| s.size() == 0 || s.size() + added <= bound;
        if !self.segments.back().is_some_and(fits) {
            if let Some(sealed) = self.segments.back_mut() {
                sealed.sync()?;
            }
            let segment = Segment::create(self.path(number), number)?;
            fs::File::open(&self.dir)?.sync_all()?;
            self.segments.push_back(segment);
        }
        self.segments
            .back_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Writes what is not on storage yet.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.segments.iter_mut().try_for_each(Segment::sync)
    }

    /// Forgets entries up to and with `through`; segments without any other are removed.
    ///
    /// The newest segment stays until it holds `keep` bytes: a small device would make and remove a file each round.
    pub(super) fn acknowledge(&mut self, through: u64, keep: u64) -> io::Result<()> {
        self.acknowledged = self.acknowledged.max(through);
        let mut result = Ok(());
        for segment in &mut self.segments {
            if segment.first() > through {
                break;
            }
            if let Err(error) = segment.acknowledge(through) {
                result = Err(error);
                break;
            }
        }
        while let Some(oldest) = self.segments.front() {
            let newest = self.segments.len() == 1;
            if oldest.live() > 0 || (newest && oldest.size() < keep) {
                break;
            }
            remove(oldest.path());
            self.segments.pop_front();
        }
        result
    }

    /// The oldest segment that may be dropped: none of its entries is on its way. Its index, and the entries in it.
    ///
    /// The newest is never one; where everything else is on its way, the oldest is.
    pub(super) fn droppable(&self) -> Option<(usize, u64)> {
        let sealed = self.segments.len().saturating_sub(1);
        let untouched = |s: &Segment| {
            s.first() > self.reader.segment
                || (s.first() == self.reader.segment && self.reader.offset <= s.head())
        };
        let index = self
            .segments
            .iter()
            .take(sealed)
            .position(untouched)
            .or((sealed > 0).then_some(0))?;
        Some((index, self.segments[index].live()))
    }

    /// The numbers a segment covers: from its first to before the next one's.
    pub(super) fn first_of(&self, index: usize) -> u64 {
        self.segments[index].first()
    }

    /// Removes a segment.
    pub(super) fn drop_segment(&mut self, index: usize) {
        if let Some(segment) = self.segments.remove(index) {
            remove(segment.path());
        }
    }

    /// The reader begins again at the oldest entry.
    pub(super) fn rewind(&mut self) {
        self.reader = self
            .segments
            .front()
            .map_or_else(Reader::default, |s| Reader {
                segment: s.first(),
                offset: s.head(),
            });
    }

    /// The number of the entry that [`Lane::next`] would give.
    pub(super) fn peek(&mut self) -> Result<Option<u64>, Loss> {
        while let Some((segment, offset)) = self.current() {
            match segment.peek(offset) {
                Ok(Some((number, _))) => return Ok(Some(number)),
                Ok(None) => {
                    if !self.turn_page() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(self.repair(&error)),
            }
        }
        Ok(None)
    }

    /// The next entry.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Loss> {
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let Some((segment, offset)) = self.current() else {
            return Ok(None);
        };
        match segment.read(offset) {
            Ok(entry) => {
                let place = (segment.first(), entry.as_ref().map_or(offset, |e| e.next));
                (self.reader.segment, self.reader.offset) = place;
                Ok(entry)
            }
            Err(error) => Err(self.repair(&error)),
        }
    }

    /// The segment under the reader, and where in it the reader is.
    fn current(&self) -> Option<(&Segment, u64)> {
        let segment = self
            .segments
            .iter()
            .find(|s| s.first() >= self.reader.segment)?;
        let offset = if segment.first() == self.reader.segment {
            self.reader.offset.max(segment.head())
        } else {
            segment.head()
        };
        Some((segment, offset))
    }

    fn turn_page(&mut self) -> bool {
        let Some((current, _)) = self.current() else {
            return false;
        };
        let current = current.first();
        let next = self.segments.iter().find(|s| s.first() > current);
        if let Some(next) = next {
            self.reader = Reader {
                segment: next.first(),
                offset: next.head(),
            };
        }
        next.is_some()
    }

    /// Storage gave back other bytes than it got: reads the segment anew, and moves it aside if that doesn't help.
    fn repair(&mut self, error: &io::Error) -> Loss {
        let at = self
            .segments
            .iter()
            .position(|s| s.first() >= self.reader.segment)
            .unwrap_or_default();
        let Some(old) = self.segments.remove(at) else {
            return Loss {
                file: String::new(),
                entries: 0,
                ranges: Vec::new(),
            };
        };
        let path = old.path().to_owned();
        if error.kind() == io::ErrorKind::InvalidData
            && let Ok((mut segment, damage)) =
                Segment::open(path.clone(), old.first(), Place::Sealed)
            && let Some(loss) = loss(&path, damage)
            && segment.acknowledge(self.acknowledged).is_ok()
        {
            self.segments.insert(at, segment);
            return loss;
        }
        set_aside(&path, old.live(), error)
    }

    /// The newest segment's file.
    #[cfg(test)]
    pub(super) fn newest_path(&self) -> Option<PathBuf> {
        self.segments.back().map(|s| s.path().to_owned())
    }

    /// How many bytes of the newest segment entries up to and with `synced` have.
    #[cfg(test)]
    pub(super) fn synced_bytes(&self, synced: u64) -> u64 {
        let Some(newest) = self.segments.back() else {
            return 0;
        };
        let mut at = 0;
        while let Some((number, next)) = newest.peek(at).unwrap() {
            if number > synced {
                break;
            }
            at = next;
        }
        at
    }

    /// Bytes of all its files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::size).sum()
    }

    /// Entries that are not acknowledged.
    pub(super) fn live(&self) -> u64 {
        self.segments.iter().map(Segment::live).sum()
    }

    /// The highest number in it.
    pub(super) fn last(&self) -> Option<u64> {
        self.segments.iter().filter_map(Segment::last).max()
    }

    /// The lowest number that is not acknowledged.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments
            .iter()
            .filter(|s| s.live() > 0)
            .find_map(|s| s.peek(s.head()).ok().flatten())
            .map(|(number, _)| number)
    }
}

fn loss(path: &Path, damage: Damage) -> Option<Loss> {
    (!damage.ranges.is_empty()).then(|| Loss {
        file: name(path),
        entries: damage.ranges.len() as u64,
        ranges: damage.ranges,
    })
}

/// A segment that can't be read stands in nobody's way.
fn set_aside(path: &Path, entries: u64, error: &io::Error) -> Loss {
    let aside = path.with_extension("unreadable");
    tracing::warn!(file = %path.display(), %error, aside = %aside.display(), "a spool segment can't be read and was moved aside");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(file = %path.display(), %error, "moving it aside failed");
    }
    Loss {
        file: name(path),
        entries,
        ranges: Vec::new(),
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "a spool segment that is not needed can't be removed");
    }
}
