//! What the spool must remember when it is empty: how far numbers are given out, what was acknowledged, what was lost.
//!
//! Two slots in one file of fixed size, written in turn and in place: a torn write leaves the other slot, and a full
//! disk can't keep the spool from counting.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Far enough apart that one torn sector or page damages one slot only.
const SLOT: u64 = 4096;
const FIELDS: usize = 8;
const LENGTH: usize = 8 + FIELDS * 8 + 4;
const MAGIC: [u8; 8] = *b"AIZSPL1\n";

/// The spool's memory. Numbers here and in the segments are the spool's own; the wire adds `shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Counts the writes: the higher of two valid slots is true.
    generation: u64,
    /// Every number below may have been given out.
    pub(super) reserved: u64,
    /// Everything up to and with this is stored by the orchestrator.
    pub(super) acknowledged: u64,
    /// What the wire's numbers are higher by: more than 0 once the spool lost its memory.
    pub(super) shift: u64,
    /// Records dropped for want of space or by damage, since the ledger was made.
    pub(super) dropped: u64,
    /// Entries lost by damage, results among them.
    pub(super) damaged: u64,
    /// Record segments that begin below were dropped and are counted.
    pub(super) floor: u64,
    /// True until an orchestrator told what it has: the ledger was made from nothing, so numbers may have been given
    /// out that it doesn't know of.
    pub(super) unproven: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            generation: 0,
            reserved: 1,
            acknowledged: 0,
            shift: 0,
            dropped: 0,
            damaged: 0,
            floor: 0,
            unproven: true,
        }
    }
}

impl Ledger {
    /// The newest valid slot of the file; none if there is none.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        [0, SLOT]
            .into_iter()
            .filter_map(|at| Self::decode(bytes.get(usize::try_from(at).ok()?..)?))
            .max_by_key(|ledger| ledger.generation)
    }

    /// Writes the other slot, durably; on success `self` is what a restart finds.
    pub(super) fn write(&mut self, path: &Path) -> io::Result<()> {
        let next = Self {
            generation: self.generation + 1,
            ..*self
        };
        let file = Self::file(path)?;
        file.write_all_at(&next.encode(), next.generation % 2 * SLOT)?;
        file.sync_data()?;
        self.generation = next.generation;
        Ok(())
    }

    fn file(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match options.open(path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(path)?;
                // All its blocks from the start: later writes need no space.
                let length = usize::try_from(2 * SLOT).unwrap_or_default();
                if let Err(error) = file.write_all_at(&vec![0; length], 0) {
                    std::fs::remove_file(path)?;
                    return Err(error);
                }
                if let Some(dir) = path.parent() {
                    File::open(dir)?.sync_all()?;
                }
                Ok(file)
            }
            Err(error) => Err(error),
        }
    }

    fn encode(&self) -> [u8; LENGTH] {
        let fields: [u64; FIELDS] = [
            self.generation,
            self.reserved,
            self.acknowledged,
            self.shift,
            self.dropped,
            self.damaged,
            self.floor,
            u64::from(self.unproven),
        ];
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        for (place, field) in bytes[8..LENGTH - 4].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..LENGTH - 4]);
        bytes[LENGTH - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..LENGTH)?;
        let (body, crc) = bytes.split_last_chunk()?;
        if body.get(..8)? != MAGIC || u32::from_le_bytes(*crc) != crc32fast::hash(body) {
            return None;
        }
        let mut fields = body[8..].chunks_exact(8).filter_map(|chunk| {
            let bytes: [u8; 8] = chunk.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        });
        Some(Self {
            generation: fields.next()?,
            reserved: fields.next()?,
            acknowledged: fields.next()?,
            shift: fields.next()?,
            dropped: fields.next()?,
            damaged: fields.next()?,
            floor: fields.next()?,
            unproven: fields.next()? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_cut_at_any_byte_leaves_the_ledger_before_it_or_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut ledger = Ledger {
            reserved: 100,
            ..Ledger::default()
        };
        ledger.write(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        let old = ledger;
        ledger.reserved = 200;
        ledger.dropped = 3;
        ledger.write(&path).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(Ledger::read(&path), Some(ledger));
        let slots = (0..LENGTH + 8).chain(4096 - 8..4096 + LENGTH + 8);
        for cut in slots.chain([after.len()]) {
            let mut torn = after[..cut].to_vec();
            torn.extend_from_slice(&before[cut..]);
            std::fs::write(&path, &torn).unwrap();
            let found = Ledger::read(&path).unwrap();
            assert!(found == old || found == ledger, "cut at {cut}: {found:?}");
        }
    }

    #[test]
    fn a_ledger_without_a_valid_slot_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        assert_eq!(Ledger::read(&path), None);
        for bytes in [&[][..], &[0; 8192], &[0xff; 9000], b"AIZSPL1\n"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Ledger::read(&path), None);
        }
    }
}
