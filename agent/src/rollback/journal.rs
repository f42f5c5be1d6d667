//! The write-ahead journal: append-only, checksummed, hash-chained, with space reserved before it is needed.
//!
//! ```text
//! record = magic "AZJ1" | length u32 | sequence u64 | previous head 32 bytes | crc32 of these u32 | payload | crc32 of payload u32
//! head   = SHA-256(previous head | sequence | payload)
//! ```
//!
//! A power cut can leave the last record torn: it was not synced, so nothing was done on its word, and it is dropped.
//! Anything else that doesn't fit is an alarm: the executor then changes nothing until a person looked.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aizen_protocol::id::Digest;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Longest payload of one record, bytes: an operation's inverse with the text of the largest table, sealed.
pub const RECORD: usize = 4 << 20;
/// What is reserved for an operation on a file, bytes: its inverse with the largest content and attributes, sealed.
pub const FILE_RECORD: usize = 1 << 20;
/// Longest journal that is read, bytes.
pub const JOURNAL: u64 = 64 << 20;
/// Beyond this length a journal takes only what ends a change: undoing must always find room.
pub const ROOM: u64 = JOURNAL / 2;

const MAGIC: [u8; 4] = *b"AZJ1";
const HEADER: usize = 4 + 4 + 8 + 32 + 4;
const TRAILER: usize = 4;

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The kernel refused. A journal that failed once takes no more records: what the disk holds is not known.
    #[error("the journal {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else has it open.
    #[error("the journal {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was altered or damaged before its end.
    #[error("the journal {} is damaged at byte {offset}: {what}; no change runs until a person looked at it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What doesn't fit.
        what: &'static str,
    },
    /// A record that this program would not read again.
    #[error("a journal record of {length} bytes is beyond its bound")]
    TooLarge {
        /// Its length, bytes.
        length: usize,
    },
    /// A record that can't be written as JSON.
    #[error("a journal record can't be written: {0}")]
    Form(#[from] serde_json::Error),
    /// An earlier write failed.
    #[error("the journal {} failed before and takes no more records", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
}

/// An open journal, locked for this process.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    end: u64,
    head: Digest,
    sequence: u64,
    failed: bool,
}

/// A journal as it was found.
#[derive(Debug)]
pub struct Opened<T> {
    /// The journal, ready for the next record.
    pub journal: Journal,
    /// Its records, oldest first.
    pub records: Vec<T>,
    /// Bytes of a torn last record that were dropped.
    pub torn: u64,
}

impl Journal {
    /// Opens and reads a journal; makes an empty one where there is none. A torn last record is cut off, durably.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] for anything but a torn end, [`JournalError::InUse`], [`JournalError::Io`].
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<Opened<T>, JournalError> {
        let fail = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        file.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => JournalError::InUse {
                path: path.to_owned(),
            },
            std::fs::TryLockError::Error(source) => fail(source),
        })?;
        let Read {
            scan,
            records,
            torn,
        } = read(path, &mut file)?;
        let end = scan.end as u64;
        if torn > 0 {
            file.set_len(end).map_err(fail)?;
        }
        file.sync_all().map_err(fail)?;
        sync_directory(path).map_err(fail)?;
        Ok(Opened {
            journal: Self {
                path: path.to_owned(),
                file,
                end,
                head: scan.head,
                sequence: scan.sequence,
                failed: false,
            },
            records,
            torn,
        })
    }

    /// Reads the records of a journal that somebody else may have open, without a lock, oldest first. A record that is
    /// being written is left out.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`JournalError::Io`].
    pub fn peek<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, JournalError> {
        let mut file = File::open(path).map_err(|source| JournalError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(read(path, &mut file)?.records)
    }

    /// Appends a record and returns when it is on the disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal takes no record after a failure, because the state of the disk is unknown
    /// (a failed fsync is not repeated).
    pub fn append<T: Serialize>(&mut self, record: &T) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed {
                path: self.path.clone(),
            });
        }
        let payload = serde_json::to_vec(record)?;
        if payload.len() > RECORD {
            return Err(JournalError::TooLarge {
                length: payload.len(),
            });
        }
        let bytes = encode(self.sequence, &self.head, &payload);
        if self.end + bytes.len() as u64 > JOURNAL {
            return Err(JournalError::TooLarge {
                length: payload.len(),
            });
        }
        let mut write = || {
            self.file.seek(SeekFrom::Start(self.end))?;
            self.file.write_all(&bytes)?;
            self.file.sync_data()
        };
        if let Err(source) = write() {
            self.failed = true;
            // What was written without being synced must not be read back as if it had happened.
            if let Err(error) = self
                .file
                .set_len(self.end)
                .and_then(|()| self.file.sync_data())
            {
                tracing::error!(%error, "the unsynced end of the journal can't be cut off");
            }
            return Err(JournalError::Io {
                path: self.path.clone(),
                source,
            });
        }
        self.head = chain(&self.head, self.sequence, &payload);
        self.sequence += 1;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Reserves disk space for `bytes` more, without making the file longer. File systems that can't do it
    /// (`EOPNOTSUPP`) are left to the caller's check of free space.
    ///
    /// # Errors
    /// [`JournalError::Io`], with `ENOSPC` where there is no space.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), JournalError> {
        let range = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        match fallocate(
            &self.file,
            FallocateFlags::FALLOC_FL_KEEP_SIZE,
            range(self.end),
            range(bytes),
        ) {
            Ok(()) | Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => Ok(()),
            Err(e) => Err(JournalError::Io {
                path: self.path.clone(),
                source: e.into(),
            }),
        }
    }

    /// Hash of the chain so far: it names every record that was ever written.
    #[must_use]
    pub fn head(&self) -> Digest {
        self.head
    }

    /// Length, bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end
    }

    /// True without a record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Begins a fresh file whose first record continues the chain; the full one is kept beside it as `archive`.
    ///
    /// # Errors
    /// [`JournalError::Io`]; whenever it stops, either the full file or the fresh one is the journal.
    pub fn rotate<T: Serialize>(&mut self, archive: &Path, first: &T) -> Result<(), JournalError> {
        let payload = serde_json::to_vec(first)?;
        let bytes = encode(self.sequence, &self.head, &payload);
        let fresh_path = self.path.with_extension("fresh");
        let replace = || {
            // A link left by an interrupted rotation names this same file.
            if archive.exists() {
                std::fs::remove_file(archive)?;
            }
            std::fs::hard_link(&self.path, archive)?;
            let mut fresh = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh_path)?;
            fresh.lock()?;
            fresh.write_all(&bytes)?;
            fresh.sync_all()?;
            std::fs::rename(&fresh_path, &self.path)?;
            sync_directory(&self.path)?;
            Ok(fresh)
        };
        let fresh = replace().map_err(|source| JournalError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.head = chain(&self.head, self.sequence, &payload);
        self.sequence += 1;
        self.end = bytes.len() as u64;
        self.file = fresh;
        Ok(())
    }
}

/// What a journal holds.
struct Read<T> {
    scan: Scan,
    records: Vec<T>,
    torn: u64,
}

fn read<T: DeserializeOwned>(path: &Path, file: &mut File) -> Result<Read<T>, JournalError> {
    let mut bytes = Vec::new();
    let taken = file.take(JOURNAL + 1).read_to_end(&mut bytes);
    taken.map_err(|source| JournalError::Io {
        path: path.to_owned(),
        source,
    })?;
    let damaged = |offset: u64, what| JournalError::Damaged {
        path: path.to_owned(),
        offset,
        what,
    };
    if bytes.len() as u64 > JOURNAL {
        return Err(damaged(JOURNAL, "longer than any journal of this program"));
    }
    let scan = scan(&bytes).map_err(|(offset, what)| damaged(offset as u64, what))?;
    let mut records = Vec::with_capacity(scan.payloads.len());
    for payload in &scan.payloads {
        let record = serde_json::from_slice(&bytes[payload.clone()])
            .map_err(|_| damaged(payload.start as u64, "a record of an unknown form"))?;
        records.push(record);
    }
    Ok(Read {
        torn: (bytes.len() - scan.end) as u64,
        scan,
        records,
    })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn encode(sequence: u64, previous: &Digest, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len() + TRAILER);
    bytes.extend_from_slice(&MAGIC);
    // The bound of a record is below 2^32.
    bytes.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&previous.0);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    bytes
}

fn chain(previous: &Digest, sequence: u64, payload: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(previous.0);
    hash.update(sequence.to_le_bytes());
    hash.update(payload);
    Digest(hash.finalize().into())
}

struct Scan {
    payloads: Vec<std::ops::Range<usize>>,
    end: usize,
    head: Digest,
    sequence: u64,
}

struct Header {
    length: usize,
    sequence: u64,
    previous: Digest,
}

fn header(bytes: &[u8]) -> Option<Header> {
    let fixed: &[u8; HEADER] = bytes.first_chunk()?;
    let (checked, crc) = fixed.split_at(HEADER - 4);
    if checked[..4] != MAGIC || crc32fast::hash(checked).to_le_bytes() != *crc {
        return None;
    }
    let length = u32::from_le_bytes(*checked.get(4..)?.first_chunk()?) as usize;
    let sequence = u64::from_le_bytes(*checked.get(8..)?.first_chunk()?);
    let previous = Digest(*checked.get(16..)?.first_chunk()?);
    (length <= RECORD).then_some(Header {
        length,
        sequence,
        previous,
    })
}

/// Walks the records; the error is where and what.
fn scan(bytes: &[u8]) -> Result<Scan, (usize, &'static str)> {
    let mut found = Scan {
        payloads: Vec::new(),
        end: 0,
        head: Digest([0; 32]),
        sequence: 0,
    };
    while found.end < bytes.len() {
        let rest = &bytes[found.end..];
        let Some(header) = header(rest) else {
            // Without a header the length is unknown: torn only if no whole header follows.
            return if follows(rest) {
                Err((found.end, "a record's header is damaged"))
            } else {
                Ok(found)
            };
        };
        // The first record of a rotated journal continues an earlier file's chain.
        if found.end == 0 {
            found.head = header.previous;
            found.sequence = header.sequence;
        }
        if header.sequence != found.sequence || header.previous != found.head {
            return Err((found.end, "a record does not continue the one before it"));
        }
        let whole = HEADER + header.length + TRAILER;
        let Some(record) = rest.get(..whole) else {
            return Ok(found);
        };
        let (payload, crc) = record[HEADER..].split_at(header.length);
        if crc32fast::hash(payload).to_le_bytes() != *crc {
            return if rest.len() == whole {
                Ok(found)
            } else {
                Err((found.end, "a record's payload is damaged"))
            };
        }
        found.head = chain(&found.head, found.sequence, payload);
        found.sequence += 1;
        found
            .payloads
            .push(found.end + HEADER..found.end + HEADER + header.length);
        found.end += whole;
    }
    Ok(found)
}

fn follows(rest: &[u8]) -> bool {
    (1..rest.len()).any(|at| rest[at..].starts_with(&MAGIC) && header(&rest[at..]).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(dir: &Path, records: &[&str]) -> PathBuf {
        let path = dir.join("journal");
        let mut journal = Journal::open::<String>(&path).unwrap().journal;
        for record in records {
            journal.append(record).unwrap();
        }
        path
    }

    #[test]
    fn a_journal_that_somebody_has_open_can_be_read_without_what_is_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one", "two"]);
        let whole = std::fs::read(&path).unwrap();
        let _open = Journal::open::<String>(&path).unwrap();
        assert_eq!(Journal::peek::<String>(&path).unwrap(), ["one", "two"]);
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(Journal::peek::<String>(&path).unwrap(), ["one"]);
        assert_eq!(std::fs::read(&path).unwrap().len(), whole.len() - 1);
        std::fs::remove_file(&path).unwrap();
        let gone = Journal::peek::<String>(&path);
        assert!(matches!(gone, Err(JournalError::Io { .. })), "{gone:?}");
    }

    #[test]
    fn records_read_back_in_order_and_the_chain_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one", "two"]);
        let mut opened = Journal::open::<String>(&path).unwrap();
        assert_eq!(
            (opened.records, opened.torn),
            (vec!["one".to_owned(), "two".to_owned()], 0)
        );
        let head = opened.journal.head();
        opened.journal.append(&"three").unwrap();
        assert_ne!(opened.journal.head(), head);
        drop(opened.journal);
        assert_eq!(Journal::open::<String>(&path).unwrap().records.len(), 3);
    }

    #[test]
    fn a_journal_cut_at_any_byte_keeps_every_whole_record_and_takes_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(
            dir.path(),
            &["first record", "", "third record, somewhat longer"],
        );
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..=3)
            .map(|n| {
                ["first record", "", "third record, somewhat longer"][..n]
                    .iter()
                    .map(|r| HEADER + r.len() + 2 + TRAILER)
                    .sum()
            })
            .collect();
        assert_eq!(whole.len(), ends[3]);
        for cut in 0..=whole.len() {
            let torn = dir.path().join("torn");
            std::fs::write(&torn, &whole[..cut]).unwrap();
            let mut opened = Journal::open::<String>(&torn).unwrap();
            let expected = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(opened.records.len(), expected, "cut at {cut}");
            assert_eq!(opened.torn, (cut - ends[expected]) as u64);
            opened.journal.append(&"after the cut").unwrap();
            drop(opened.journal);
            let again = Journal::open::<String>(&torn).unwrap();
            assert_eq!(again.records.len(), expected + 1);
            assert_eq!(again.torn, 0);
        }
    }

    #[test]
    fn a_last_record_whose_pages_never_reached_the_disk_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one", "two"]);
        let whole = std::fs::read(&path).unwrap();
        let second = HEADER + 5 + TRAILER;
        for (from, to) in [
            (second, whole.len()),
            (second, second + 20),
            (second + HEADER, whole.len()),
        ] {
            let mut zeroed = whole.clone();
            zeroed[from..to].fill(0);
            std::fs::write(&path, &zeroed).unwrap();
            assert_eq!(Journal::open::<String>(&path).unwrap().records, ["one"]);
        }
    }

    #[test]
    fn any_flipped_bit_before_the_last_record_is_an_alarm() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one", "two", "three"]);
        let whole = std::fs::read(&path).unwrap();
        let last = 2 * (HEADER + 5 + TRAILER);
        for at in 0..last {
            for bit in [0, 3, 7] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                std::fs::write(&path, &damaged).unwrap();
                assert!(
                    matches!(
                        Journal::open::<String>(&path),
                        Err(JournalError::Damaged { .. })
                    ),
                    "bit {bit} of byte {at}"
                );
            }
        }
    }

    #[test]
    fn a_record_taken_out_of_the_middle_is_an_alarm() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one", "two", "three"]);
        let mut bytes = std::fs::read(&path).unwrap();
        let size = HEADER + 5 + TRAILER;
        bytes.drain(size..2 * size);
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            Journal::open::<String>(&path),
            Err(JournalError::Damaged { offset, .. }) if offset == size as u64
        ));
    }

    #[test]
    fn two_processes_can_not_write_one_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let first = Journal::open::<String>(&path).unwrap();
        assert!(matches!(
            Journal::open::<String>(&path),
            Err(JournalError::InUse { .. })
        ));
        drop(first);
        assert!(Journal::open::<String>(&path).is_ok());
    }

    #[test]
    fn reserving_space_does_not_lengthen_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one"]);
        let mut opened = Journal::open::<String>(&path).unwrap();
        let length = opened.journal.len();
        opened.journal.reserve(1 << 20).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
        opened.journal.append(&"two").unwrap();
        drop(opened.journal);
        assert_eq!(Journal::open::<String>(&path).unwrap().records.len(), 2);
    }

    #[test]
    fn a_rotated_journal_continues_the_chain_of_its_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one", "two"]);
        let mut journal = Journal::open::<String>(&path).unwrap().journal;
        let before = journal.head();
        journal
            .rotate(&dir.path().join("journal-1"), &"rotated")
            .unwrap();
        journal.append(&"three").unwrap();
        let head = journal.head();
        drop(journal);
        let fresh = Journal::open::<String>(&path).unwrap();
        assert_eq!(fresh.records, ["rotated", "three"]);
        assert_eq!(fresh.journal.head(), head);
        let old = Journal::open::<String>(&dir.path().join("journal-1")).unwrap();
        assert_eq!(old.journal.head(), before);
    }

    #[test]
    fn a_journal_that_failed_once_takes_no_more_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = filled(dir.path(), &["one"]);
        let mut journal = Journal::open::<String>(&path).unwrap().journal;
        // A descriptor that can't be written stands for a disk that fails.
        journal.file = File::open(&path).unwrap();
        assert!(matches!(journal.append(&"x"), Err(JournalError::Io { .. })));
        assert!(matches!(
            journal.append(&"y"),
            Err(JournalError::Failed { .. })
        ));
    }
}
