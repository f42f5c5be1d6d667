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

mod record;
#[cfg(test)]
mod tests;

use record::{Scan, chain, encode, scan};

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
