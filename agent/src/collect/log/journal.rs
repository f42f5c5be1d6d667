//! Files of the systemd journal, read backwards from their end (systemd.io/JOURNAL_FILE_FORMAT), while journald may be
//! writing them.
//!
//! Read with pread and not by mapping: journald truncates files, and a mapping of what is gone kills its reader.

mod blocks;
#[cfg(test)]
pub(super) mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use jiff::Timestamp;

use self::blocks::Blocks;
use crate::collect::file;

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Opening or reading failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It doesn't begin like a journal.
    #[error("it is no file of the journal")]
    NoJournal,
    /// It needs features of a newer systemd.
    #[error("it has features that are not known ({0:#x})")]
    Unknown(u32),
    /// Something in it points where nothing is.
    #[error("it is damaged")]
    Damaged,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Nothing older.
    pub(crate) since: Timestamp,
    /// When to stop looking.
    pub(crate) until: Instant,
    /// How many entries at most.
    pub(crate) most: usize,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) at: Timestamp,
    pub(super) program: String,
    pub(super) severity: u8,
    pub(super) message: Vec<u8>,
}

/// Entries from the end of a file, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) entries: Vec<Entry>,
    /// Entries whose message is compressed.
    pub(super) compressed: usize,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Journal {
    blocks: Blocks,
    header_size: u64,
    compact: bool,
    first_array: u64,
    entries: u64,
    newest: u64,
    /// Fields by the place of their object: most are shared by many entries.
    fields: BTreeMap<u64, Meaning>,
}

/// What a field says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Severity(u8),
    /// `SYSLOG_IDENTIFIER`.
    Identifier(Rc<str>),
    /// `_COMM`.
    Command(Rc<str>),
    FromKernel,
    Message,
    CompressedMessage,
    Other,
}

impl Journal {
    /// Reads the header.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let mut blocks = Blocks::new(file::open(path)?)?;
        let signature = blocks.bytes(0, 8).map_err(no_journal)?;
        if signature != *b"LPKSHHRH" {
            return Err(JournalError::NoJournal);
        }
        let flags = blocks.u32(INCOMPATIBLE_FLAGS).map_err(no_journal)?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(JournalError::Unknown(flags));
        }
        let mut number = |at| blocks.u64(at).map_err(no_journal);
        let journal = Self {
            compact: flags & COMPACT != 0,
            header_size: number(HEADER_SIZE)?,
            entries: number(N_ENTRIES)?,
            first_array: number(ENTRY_ARRAY_OFFSET)?,
            newest: number(TAIL_ENTRY_REALTIME)?,
            fields: BTreeMap::new(),
            blocks,
        };
        Ok(journal)
    }

    /// Entries of programs that are told, the newest first.
    pub(crate) fn tail(
        &mut self,
        wanted: &Wanted,
        is_told: &dyn Fn(&str, u8) -> bool,
    ) -> Result<Tail, JournalError> {
        let since = u64::try_from(wanted.since.as_microsecond()).unwrap_or_default();
        let mut tail = Tail::default();
        // Files put aside long ago need no look at their entries.
        if self.newest < since {
            return Ok(tail);
        }
        let (mut looked, mut old) = (0, 0);
        for (array, used) in self.arrays()?.into_iter().rev() {
            for place in (0..used).rev() {
                let enough = tail.entries.len() >= wanted.most || looked >= MAX_LOOKED;
                // A clock that was set leaves older stamps between newer ones: a few don't end the search.
                if enough || old >= MAX_OLD || Instant::now() >= wanted.until {
                    return Ok(tail);
                }
                looked += 1;
                let entry = self.item(array + ENTRY_ARRAY, place)?;
                // Reserved, but not written yet.
                if entry == 0 {
                    continue;
                }
                let end = self.object(entry, ENTRY, ENTRY_ITEMS)?;
                let realtime = self.blocks.u64(entry + ENTRY_REALTIME)?;
                if realtime < since {
                    old += 1;
                    continue;
                }
                self.read(entry, end, realtime, is_told, &mut tail)?;
            }
        }
        Ok(tail)
    }

    /// The arrays of entries and how many places of each are used. Each is about twice as long as the one before.
    fn arrays(&mut self) -> Result<Vec<(u64, u64)>, JournalError> {
        let mut arrays = Vec::new();
        let (mut array, mut left) = (self.first_array, self.entries);
        while array != 0 && left > 0 {
            if arrays.len() == MAX_ARRAYS {
                return Err(JournalError::Damaged);
            }
            let end = self.object(array, ENTRY_ARRAY_KIND, ENTRY_ARRAY)?;
            let room = (end - array - ENTRY_ARRAY) / if self.compact { 4 } else { 8 };
            let used = room.min(left);
            left -= used;
            arrays.push((array, used));
            array = self.blocks.u64(array + OBJECT_HEADER)?;
        }
        Ok(arrays)
    }

    /// A place in a list of offsets.
    fn item(&mut self, list: u64, place: u64) -> Result<u64, JournalError> {
        if self.compact {
            Ok(self.blocks.u32(list + place * 4)?.into())
        } else {
            self.blocks.u64(list + place * 8)
        }
    }

    /// Where the object at `offset` ends, if it is one of this kind and at least this long.
    fn object(&mut self, offset: u64, kind: u8, least: u64) -> Result<u64, JournalError> {
        if offset < self.header_size || !offset.is_multiple_of(8) {
            return Err(JournalError::Damaged);
        }
        let [found, ..] = self.blocks.bytes(offset, 8)?[..] else {
            return Err(JournalError::Damaged);
        };
        let size = self.blocks.u64(offset + 8)?;
        let end = offset.checked_add(size).ok_or(JournalError::Damaged)?;
        if found != kind || size < least || end > self.blocks.length() {
            return Err(JournalError::Damaged);
        }
        Ok(end)
    }

    fn read(
        &mut self,
        entry: u64,
        end: u64,
        realtime: u64,
        is_told: &dyn Fn(&str, u8) -> bool,
        tail: &mut Tail,
    ) -> Result<(), JournalError> {
        let width = if self.compact { 4 } else { 16 };
        let items = ((end - entry - ENTRY_ITEMS) / width).min(MAX_ITEMS);
        let mut severity = INFORMATIONAL;
        let (mut identifier, mut command, mut message) = (None, None, None);
        for item in 0..items {
            let place = entry + ENTRY_ITEMS + item * width;
            let data = if self.compact {
                self.blocks.u32(place)?.into()
            } else {
                self.blocks.u64(place)?
            };
            match self.meaning(data)? {
                Meaning::Severity(told) => severity = told,
                Meaning::Identifier(name) => identifier = Some(name),
                Meaning::Command(name) => command = Some(name),
                Meaning::FromKernel => return Ok(()),
                Meaning::Message => message = Some(Some(data)),
                // Or another long field, if the message comes, too.
                Meaning::CompressedMessage => message = message.or(Some(None)),
                Meaning::Other => {}
            }
        }
        let (Some(program), Some(message)) = (identifier.or(command), message) else {
            return Ok(());
        };
        if !is_told(&program, severity) {
            return Ok(());
        }
        let Some(data) = message else {
            tail.compressed += 1;
            return Ok(());
        };
        let realtime = i64::try_from(realtime).map_err(|_| JournalError::Damaged)?;
        tail.entries.push(Entry {
            at: Timestamp::from_microsecond(realtime).map_err(|_| JournalError::Damaged)?,
            program: program.as_ref().to_owned(),
            severity,
            message: self.payload(data, MAX_MESSAGE)?.split_off(MESSAGE.len()),
        });
        Ok(())
    }

    fn meaning(&mut self, data: u64) -> Result<Meaning, JournalError> {
        if let Some(known) = self.fields.get(&data) {
            return Ok(known.clone());
        }
        let payload = self.payload(data, MAX_FIELD)?;
        let compressed = self
            .blocks
            .bytes(data, 2)?
            .get(1)
            .is_some_and(|f| f & 7 != 0);
        let meaning = if compressed {
            // The fields that matter are short, but for the message.
            Meaning::CompressedMessage
        } else {
            meaning(&payload)
        };
        // Messages are hardly ever shared.
        if self.fields.len() < MAX_FIELDS && meaning != Meaning::Message {
            self.fields.insert(data, meaning.clone());
        }
        Ok(meaning)
    }

    /// The first bytes of a data object's payload.
    fn payload(&mut self, data: u64, most: u64) -> Result<Vec<u8>, JournalError> {
        let start = if self.compact { 72 } else { 64 };
        let end = self.object(data, DATA, start)?;
        let length = (end - data - start).min(most);
        self.blocks.bytes(data + start, length)
    }
}

fn meaning(payload: &[u8]) -> Meaning {
    let name = |rest: &[u8]| Rc::from(String::from_utf8_lossy(rest).as_ref());
    if payload.starts_with(MESSAGE) {
        Meaning::Message
    } else if let Some(rest) = payload.strip_prefix(b"PRIORITY=") {
        match rest {
            [digit @ b'0'..=b'7'] => Meaning::Severity(digit - b'0'),
            _ => Meaning::Other,
        }
    } else if let Some(rest) = payload.strip_prefix(b"SYSLOG_IDENTIFIER=") {
        Meaning::Identifier(name(rest))
    } else if let Some(rest) = payload.strip_prefix(b"_COMM=") {
        Meaning::Command(name(rest))
    } else if payload == b"_TRANSPORT=kernel" {
        Meaning::FromKernel
    } else {
        Meaning::Other
    }
}

/// A header that ends too early is none.
fn no_journal(error: JournalError) -> JournalError {
    match error {
        JournalError::Damaged => JournalError::NoJournal,
        other => other,
    }
}

/// Offsets in the header.
const INCOMPATIBLE_FLAGS: u64 = 12;
const HEADER_SIZE: u64 = 88;
const N_ENTRIES: u64 = 152;
const ENTRY_ARRAY_OFFSET: u64 = 176;
const TAIL_ENTRY_REALTIME: u64 = 192;
/// Compression by XZ, LZ4 and Zstandard, keyed hashes, 32-bit offsets.
const KNOWN_FLAGS: u32 = 0x1f;
const COMPACT: u32 = 0x10;
/// Kinds of objects.
const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY_KIND: u8 = 6;
/// Offsets in objects.
const OBJECT_HEADER: u64 = 16;
const ENTRY_REALTIME: u64 = 24;
const ENTRY_ITEMS: u64 = 64;
const ENTRY_ARRAY: u64 = 24;

const MESSAGE: &[u8] = b"MESSAGE=";
const INFORMATIONAL: u8 = 6;
const MAX_ARRAYS: usize = 128;
const MAX_LOOKED: usize = 4000;
const MAX_OLD: usize = 64;
const MAX_ITEMS: u64 = 128;
/// Names of programs are shorter.
const MAX_FIELD: u64 = 96;
/// 300 characters of up to 4 bytes, and some that are removed.
const MAX_MESSAGE: u64 = 1400;
const MAX_FIELDS: usize = 8192;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::write::{Compact, journal_file};
    use super::*;

    fn read(bytes: &[u8], since: u64) -> Result<Tail, JournalError> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("system.journal");
        fs::write(&path, bytes).unwrap();
        let wanted = Wanted {
            since: Timestamp::from_microsecond(since.try_into().unwrap()).unwrap(),
            until: Instant::now() + Duration::from_secs(60),
            most: 100,
        };
        Journal::open(&path)?.tail(&wanted, &|_, _| true)
    }

    /// A file that systemd-journal-remote 252 wrote: its length, then offset, length and bytes of what isn't zero.
    fn real(runs: &[u8]) -> Vec<u8> {
        let word = |at: usize| {
            let bytes = runs[at..at + 4].try_into().unwrap();
            usize::try_from(u32::from_le_bytes(bytes)).unwrap()
        };
        let mut file = vec![0; word(0)];
        let mut at = 4;
        while at < runs.len() {
            let (offset, length) = (word(at), word(at + 4));
            file[offset..offset + length].copy_from_slice(&runs[at + 8..at + 8 + length]);
            at += 8 + length;
        }
        file
    }

    #[test]
    fn files_that_systemd_wrote_are_read_in_both_formats() {
        let files: [&[u8]; 2] = [
            include_bytes!("journal/regular.runs"),
            include_bytes!("journal/compact.runs"),
        ];
        for runs in files {
            // 30 entries, a second apart; the message of number 25 is 3000 characters long, and so compressed.
            let tail = read(&real(runs), 1_795_000_010_000_000).unwrap();
            assert_eq!((tail.entries.len(), tail.compressed), (19, 1));
            let newest = &tail.entries[0];
            assert_eq!(newest.message, b"line 29");
            assert_eq!((newest.program.as_str(), newest.severity), ("dnsmasq", 5));
            assert_eq!(newest.at.as_microsecond(), 1_795_000_029_000_000);
            assert_eq!(tail.entries[18].message, b"line 10");
        }
    }

    fn many(compact: Compact) -> Vec<u8> {
        let messages: Vec<String> = (0..50).map(|n| format!("MESSAGE=line {n}")).collect();
        let fields: Vec<[&str; 3]> = messages
            .iter()
            .map(|m| ["PRIORITY=5", "SYSLOG_IDENTIFIER=pppd", m.as_str()])
            .collect();
        let entries: Vec<(u64, &[&str])> = (1_000_000_u64..)
            .step_by(1_000_000)
            .zip(&fields)
            .map(|(at, fields)| (at, &fields[..]))
            .collect();
        journal_file(&entries, compact)
    }

    #[test]
    fn the_newest_entries_come_first_over_several_arrays_in_both_formats() {
        for compact in [Compact(false), Compact(true)] {
            let tail = read(&many(compact), 11_000_000).unwrap();
            let messages: Vec<_> = tail
                .entries
                .iter()
                .map(|e| String::from_utf8_lossy(&e.message).into_owned())
                .collect();
            assert_eq!(messages.len(), 40);
            assert_eq!(
                (messages[0].as_str(), messages[39].as_str()),
                ("line 49", "line 10")
            );
            assert_eq!(
                (tail.entries[0].program.as_str(), tail.entries[0].severity),
                ("pppd", 5)
            );
        }
    }

    #[test]
    fn a_file_of_a_newer_systemd_is_refused_and_a_compressed_line_counted() {
        let mut file = many(Compact(false));
        file[12] = 0x20;
        assert!(matches!(read(&file, 0), Err(JournalError::Unknown(0x20))));
        let mut file = journal_file(&[(5, &["_COMM=pppd", "MESSAGE=x"])], Compact(false));
        let message = file.windows(8).position(|w| w == b"MESSAGE=").unwrap();
        file[message - 63] = 4;
        let tail = read(&file, 0).unwrap();
        assert_eq!((tail.entries.len(), tail.compressed), (0, 1));
    }

    #[test]
    fn an_array_that_points_at_itself_ends() {
        let mut file = many(Compact(false));
        let first =
            usize::try_from(u64::from_le_bytes(file[176..184].try_into().unwrap())).unwrap();
        let own = file[176..184].to_vec();
        file[first + 16..first + 24].copy_from_slice(&own);
        file[152..160].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(read(&file, 0), Err(JournalError::Damaged)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_file_that_is_cut_off_anywhere_is_read_or_refused(cut in any::<prop::sample::Index>(), compact in any::<bool>()) {
            let file = many(Compact(compact));
            let cut = cut.index(file.len());
            if let Ok(tail) = read(&file[..cut], 0) {
                prop_assert!(tail.entries.len() <= 50);
            }
        }

        #[test]
        fn a_file_with_changed_bytes_is_read_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            compact in any::<bool>(),
        ) {
            let mut file = many(Compact(compact));
            for (place, byte) in changes {
                let place = place.index(file.len());
                file[place] = byte;
            }
            if let Ok(tail) = read(&file, 0) {
                prop_assert!(tail.entries.len() <= 100);
            }
        }

        #[test]
        fn garbage_is_no_journal(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(read(&bytes, 0).is_err());
        }
    }
}
