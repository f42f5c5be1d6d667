//! What waits for the orchestrator's acknowledgement, on storage: bounded, crash-safe, counted.
//!
//! Every frame has a number that is given out once, for ever. Both lanes (records, signed results) count with the same
//! numbers and are read merged, so that an acknowledgement of everything up to a number is true whatever was dropped
//! in between. The spool never refuses to start: what it can't read it moves aside, and it works with the rest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aizen_protocol::id::Sequence;
use aizen_protocol::limit;

use super::frame::{self, OpaqueFrame, Payload};
use super::lane::{Class, Lane, Loss};
use super::ledger::Ledger;

/// Bounds of a spool, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// All record segments together: beyond it the oldest are dropped.
    pub records: u64,
    /// All signed segments together: beyond it an append is refused and the executor keeps its result.
    pub signed: u64,
    /// One segment; an entry that is larger has a segment of its own.
    pub segment: u64,
    /// Space that is held back for signed results on a full disk.
    pub reserve: u64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            records: 16 << 20,
            signed: 16 << 20,
            segment: 512 << 10,
            reserve: 640 << 10,
        }
    }
}

/// Why something is not in the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Larger than a frame may be, or than the whole spool.
    #[error("{bytes} bytes are more than one frame may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Signed results fill their share: the orchestrator must take some first.
    #[error(
        "signed results fill the spool ({bytes} bytes): they wait at the executor until the orchestrator takes some"
    )]
    SignedFull {
        /// Bytes they have.
        bytes: u64,
    },
    /// Storage failed.
    #[error("the spool in {dir} can't be written: {source}")]
    Storage {
        /// Its folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// JSON refused a value (a number that is no number).
    #[error("can't be written as a frame: {0}")]
    Form(#[from] serde_json::Error),
    /// The numbers are used up, or the orchestrator claims one that no device reaches.
    #[error("sequence numbers end at {0}")]
    Numbers(u64),
    /// The program ends.
    #[error("the program is ending")]
    Ending,
}

/// The spool as `aizen status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Highest number given out; 0 before the first.
    pub newest: Sequence,
    /// Highest number that the orchestrator acknowledged.
    pub acknowledged: Sequence,
    /// Lowest number still here; the next to be given out if there is none.
    pub oldest: Sequence,
    /// Frames that wait.
    pub frames: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Records lost for want of space or by damage, since the spool was made.
    pub dropped: u64,
    /// Entries of either lane lost by damage.
    pub damaged: u64,
    /// What storage said when it failed last; none once a write succeeded.
    pub fault: Option<String>,
}

/// The spool. One owner; [`super::handle::SpoolHandle`] shares it between tasks.
pub struct Spool {
    dir: PathBuf,
    limits: SpoolLimits,
    ledger: Ledger,
    /// What of the ledger is on storage.
    stored: Ledger,
    records: Lane,
    signed: Lane,
    next: u64,
    fault: Option<String>,
}

impl Spool {
    /// Opens the spool in `dir` and makes it if there is none.
    ///
    /// It never fails: what is damaged is moved aside and counted; where nothing can be written, appending fails.
    #[must_use]
    pub fn open(dir: &Path, limits: SpoolLimits) -> Self {
        let limits = SpoolLimits {
            // Dropping is by segment: of a lane with few segments it would take too much at once.
            segment: limits.segment.min(limits.records / 4).min(LARGEST_SEGMENT),
            ..limits
        };
        let made = make_dir(dir);
        let ledger = Ledger::read(&dir.join(LEDGER));
        if ledger.is_none() && fs::exists(dir.join(LEDGER)).unwrap_or_default() {
            tracing::warn!(dir = %dir.display(), "the spool's ledger is damaged: numbers are settled with the orchestrator");
        }
        let ledger = ledger.unwrap_or_default();
        let (records, lost_records) = Lane::open(dir, Class::Record, ledger.floor);
        let (signed, lost_signed) = Lane::open(dir, Class::Signed, 0);
        let highest = records.last().max(signed.last()).unwrap_or_default();
        let mut spool = Self {
            dir: dir.to_owned(),
            limits,
            next: ledger
                .reserved
                .max(ledger.acknowledged + 1)
                .max(highest + 1),
            stored: ledger,
            ledger,
            records,
            signed,
            fault: None,
        };
        for loss in lost_records {
            spool.count_loss(Class::Record, &loss);
        }
        for loss in lost_signed {
            spool.count_loss(Class::Signed, &loss);
        }
        let acknowledged = spool.ledger.acknowledged;
        let opened = made.and_then(|()| spool.forget(acknowledged));
        spool.records.rewind();
        spool.signed.rewind();
        if let Err(source) = opened {
            spool.failed(source);
        }
        spool
    }

    /// Appends. A signed result is on storage when this returns; a record within the interval of [`Spool::sync`].
    ///
    /// # Errors
    /// A record that is refused is dropped and counted; a signed result that is refused is not lost: whoever has it
    /// keeps it.
    pub fn append(&mut self, payload: &Payload) -> Result<Sequence, SpoolError> {
        let appended = match payload.class {
            Class::Record => self
                .append_record(&payload.json)
                .inspect_err(|_| self.ledger.dropped += 1),
            Class::Signed => self.append_signed(&payload.json),
        };
        if appended.is_ok() {
            self.fault = None;
        }
        appended
    }

    fn append_record(&mut self, json: &[u8]) -> Result<Sequence, SpoolError> {
        self.admit(json, self.limits.records)?;
        while self.records.bytes() + json.len() as u64 > self.limits.records {
            if !self.drop_oldest()? {
                break;
            }
        }
        let number = self.next;
        let mut written = self.records.append(number, json, self.limits.segment);
        // A full disk: what frees space is dropping the oldest, once; somebody else may be filling it as fast.
        if written.as_ref().is_err_and(is_full) && self.drop_oldest()? {
            written = self.records.append(number, json, self.limits.segment);
        }
        written.map_err(|source| self.failed(source))?;
        self.next += 1;
        Ok(self.outward(number))
    }

    fn append_signed(&mut self, json: &[u8]) -> Result<Sequence, SpoolError> {
        self.admit(json, self.limits.signed)?;
        let bytes = self.signed.bytes();
        if bytes + json.len() as u64 > self.limits.signed {
            return Err(SpoolError::SignedFull { bytes });
        }
        // What was seen before is told before: records that wait for their sync go to storage first.
        if let Err(source) = self.records.sync() {
            self.failed(source);
        }
        let number = self.next;
        loop {
            match self.signed.append(number, json, self.limits.segment) {
                Ok(()) => break,
                Err(error) if is_full(&error) && self.make_room()? => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.next += 1;
        Ok(self.outward(number))
    }

    /// Checks the size and makes sure that the next number is never given out again.
    fn admit(&mut self, json: &[u8], bound: u64) -> Result<(), SpoolError> {
        if json.len() + frame::OVERHEAD > limit::FRAME || json.len() as u64 > bound {
            return Err(SpoolError::TooLarge { bytes: json.len() });
        }
        if self.next + self.ledger.shift >= LAST_NUMBER {
            return Err(SpoolError::Numbers(LAST_NUMBER));
        }
        if self.next >= self.stored.reserved {
            self.ledger.reserved = self.next + RESERVED_AHEAD;
            self.write_ledger()?;
        }
        Ok(())
    }

    /// Drops the oldest segment of records that can be dropped; false if there is none.
    fn drop_oldest(&mut self) -> Result<bool, SpoolError> {
        let Some((index, entries)) = self.records.droppable() else {
            return Ok(false);
        };
        self.ledger.dropped += entries;
        // Counted before removed, and the floor keeps a restart in between from counting it twice. A segment behind
        // others that are on their way has no floor: a restart there delivers it, although it is counted.
        if index == 0 {
            self.ledger.floor = self.records.first_of(index) + 1;
        }
        self.write_ledger()?;
        self.records.drop_segment(index);
        tracing::warn!(
            records = entries,
            dropped = self.ledger.dropped,
            "the spool is full: the oldest records were dropped"
        );
        Ok(true)
    }

    /// Frees space for a signed result: records first, then the reserve.
    fn make_room(&mut self) -> Result<bool, SpoolError> {
        if self.drop_oldest()? {
            return Ok(true);
        }
        match fs::remove_file(self.dir.join(RESERVE)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// The next frame behind the last that was handed out; none if all were.
    pub fn next_frame(&mut self) -> Option<OpaqueFrame> {
        loop {
            let class = match (self.records.peek(), self.signed.peek()) {
                (Err(loss), _) => {
                    self.count_loss(Class::Record, &loss);
                    continue;
                }
                (_, Err(loss)) => {
                    self.count_loss(Class::Signed, &loss);
                    continue;
                }
                (Ok(None), Ok(None)) => return None,
                (Ok(Some(record)), Ok(Some(signed))) if record < signed => Class::Record,
                (Ok(Some(_)), Ok(None)) => Class::Record,
                (Ok(_), Ok(Some(_))) => Class::Signed,
            };
            let read = match class {
                Class::Record => self.records.next(),
                Class::Signed => self.signed.next(),
            };
            match read {
                Ok(Some(entry)) => {
                    let sequence = self.outward(entry.number);
                    return Some(OpaqueFrame::new(sequence, class, &entry.payload));
                }
                Ok(None) => return None,
                Err(loss) => self.count_loss(class, &loss),
            }
        }
    }

    /// Hands out everything that is not acknowledged once more: a connection begins.
    pub fn rewind(&mut self) {
        self.records.rewind();
        self.signed.rewind();
    }

    /// The orchestrator stored everything up to and with `through`.
    ///
    /// # Errors
    /// [`SpoolError::Storage`] if acknowledged frames can't be read past; they are sent again, which harms nobody.
    pub fn acknowledge(&mut self, through: Sequence) -> Result<(), SpoolError> {
        let through = through
            .0
            .saturating_sub(self.ledger.shift)
            .min(self.next - 1);
        self.forget(through).map_err(|source| self.failed(source))
    }

    /// The orchestrator's first word on a connection: what it has stored of this device.
    ///
    /// If this spool lost its memory (its folder was on a RAM disk, or went back to an old copy), the frames that wait
    /// carry numbers that the orchestrator takes for old ones. They are moved behind what it has.
    ///
    /// # Errors
    /// As [`Spool::acknowledge`]; [`SpoolError::Numbers`] for a number that no device reaches.
    pub fn welcome(&mut self, through: Sequence) -> Result<(), SpoolError> {
        if through.0 >= LAST_NUMBER {
            return Err(SpoolError::Numbers(through.0));
        }
        let waiting = self.oldest();
        let unproven = std::mem::take(&mut self.ledger.unproven);
        let forgot = unproven || through >= self.outward(self.next);
        let moved = forgot && through >= self.outward(waiting);
        if moved {
            self.ledger.shift = through.0 + 1 - waiting;
            tracing::warn!(
                through = through.0,
                "the orchestrator knows higher numbers than this spool: what waits continues behind them"
            );
        }
        // On storage before the first frame goes out, or a restart takes this ledger's own numbers for somebody
        // else's. Where nothing can be written the frames go out all the same: at worst they go twice.
        if (moved || unproven)
            && let Err(error) = self.write_ledger()
        {
            tracing::warn!(%error, "what the orchestrator has can't be noted");
        }
        if moved {
            return Ok(());
        }
        if through < self.outward(self.ledger.acknowledged) {
            // A new enrollment, or an orchestrator that went back to an old copy: what it forgot is gone here too.
            tracing::warn!(
                through = through.0,
                acknowledged = self.ledger.acknowledged,
                "the orchestrator has less of this device than it acknowledged"
            );
        }
        self.acknowledge(through)
    }

    /// Brings everything to storage; call it within a second after an append of a record.
    ///
    /// # Errors
    /// [`SpoolError::Storage`].
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        self.records.sync().map_err(|source| self.failed(source))?;
        self.signed.sync().map_err(|source| self.failed(source))?;
        // An acknowledgement alone is not worth a write to flash: the next welcome tells it again.
        let mut told_again = self.stored;
        told_again.acknowledged = self.ledger.acknowledged;
        if self.ledger != told_again {
            self.write_ledger()?;
        }
        self.hold_reserve();
        Ok(())
    }

    /// Brings everything to storage and gives back the numbers that were reserved and not used.
    ///
    /// # Errors
    /// [`SpoolError::Storage`].
    pub fn close(mut self) -> Result<(), SpoolError> {
        self.ledger.reserved = self.next;
        self.sync()?;
        self.write_ledger()
    }

    /// The spool as it is.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        SpoolStatus {
            newest: Sequence((self.next - 1).saturating_add(self.ledger.shift)),
            acknowledged: Sequence(match self.ledger.acknowledged {
                0 if self.ledger.shift == 0 => 0,
                acknowledged => acknowledged.saturating_add(self.ledger.shift),
            }),
            oldest: self.outward(self.oldest()),
            frames: self.records.live() + self.signed.live(),
            bytes: self.records.bytes() + self.signed.bytes(),
            dropped: self.ledger.dropped,
            damaged: self.ledger.damaged,
            fault: self.fault.clone(),
        }
    }

    fn oldest(&self) -> u64 {
        let lanes = [self.records.oldest(), self.signed.oldest()];
        lanes.into_iter().flatten().min().unwrap_or(self.next)
    }

    fn outward(&self, number: u64) -> Sequence {
        Sequence(number.saturating_add(self.ledger.shift))
    }

    fn forget(&mut self, through: u64) -> io::Result<()> {
        self.ledger.acknowledged = self.ledger.acknowledged.max(through);
        let keep = self.limits.segment / 4;
        self.records.acknowledge(through, keep)?;
        self.signed.acknowledge(through, keep)
    }

    fn write_ledger(&mut self) -> Result<(), SpoolError> {
        let path = self.dir.join(LEDGER);
        let written = match self.ledger.write(&path) {
            // The folder may have come (a mount) or gone since the start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(&self.dir).and_then(|()| self.ledger.write(&path))
            }
            other => other,
        };
        written.map_err(|source| self.failed(source))?;
        self.stored = self.ledger;
        Ok(())
    }

    fn hold_reserve(&mut self) {
        let path = self.dir.join(RESERVE);
        if self.limits.reserve > 0 && !fs::exists(&path).unwrap_or(true) {
            // Without it only the comfort on a full disk is missing, and the next sync tries again.
            if let Err(error) = hold(&path, self.limits.reserve) {
                tracing::debug!(%error, "no space can be held back for signed results");
                fs::remove_file(&path).ok();
            }
        }
    }

    fn count_loss(&mut self, class: Class, loss: &Loss) {
        self.ledger.damaged += loss.entries;
        if class == Class::Record {
            self.ledger.dropped += loss.entries;
        }
        let aside = self.dir.join(format!("{}.damaged", loss.file));
        tracing::warn!(
            file = loss.file,
            entries = loss.entries,
            aside = %aside.display(),
            "a spool segment is damaged: the damaged bytes were moved aside, the rest is used"
        );
        let bytes = loss.ranges.concat();
        if !bytes.is_empty()
            && bytes.len() as u64 <= self.limits.segment
            && let Err(error) = fs::write(&aside, &bytes)
        {
            tracing::warn!(%error, "the damaged bytes could not be kept");
        }
        self.limit_aside();
    }

    /// Keeps the newest few files of damage: they are for people, and flash is small.
    fn limit_aside(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        let mut aside: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let extension = path.extension()?.to_str()?;
                matches!(extension, "damaged" | "unreadable").then_some(())?;
                let changed = path.metadata().ok()?.modified().ok()?;
                Some((changed, path))
            })
            .collect();
        aside.sort();
        let surplus = aside.len().saturating_sub(KEPT_ASIDE);
        for (_, path) in &aside[..surplus] {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(file = %path.display(), %error, "an old file of damage can't be removed");
            }
        }
    }

    fn failed(&mut self, source: io::Error) -> SpoolError {
        let error = SpoolError::Storage {
            dir: self.dir.clone(),
            source,
        };
        self.fault = Some(error.to_string());
        error
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn hold(path: &Path, bytes: u64) -> io::Result<()> {
    let file = fs::File::create(path)?;
    let length = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    nix::fcntl::posix_fallocate(&file, 0, length)?;
    file.sync_all()
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

const LEDGER: &str = "ledger";
const RESERVE: &str = "reserve";
/// Numbers are reserved on storage this many at a time: a crash skips at most as many.
const RESERVED_AHEAD: u64 = 1024;
/// Beyond it a number is a mistake: no device makes 2^62 records.
const LAST_NUMBER: u64 = 1 << 62;
const LARGEST_SEGMENT: u64 = 8 << 20;
const KEPT_ASIDE: usize = 8;

#[cfg(test)]
mod tests;
