//! A file as blocks that are read once: objects that are near each other cost one read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::JournalError;

/// An open file of fixed length: what is written behind its end meanwhile isn't there.
#[derive(Debug)]
pub(super) struct Blocks {
    file: File,
    length: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Blocks {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            length,
            blocks: BTreeMap::new(),
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Exactly these bytes. Callers bound `length`.
    pub(super) fn bytes(&mut self, mut at: u64, length: u64) -> Result<Vec<u8>, JournalError> {
        let end = at.checked_add(length).ok_or(JournalError::Damaged)?;
        let mut bytes = Vec::new();
        while at < end {
            let inside = usize::try_from(at % BLOCK).map_err(|_| JournalError::Damaged)?;
            let block = self.block(at / BLOCK)?;
            let rest = block.get(inside..).unwrap_or_default();
            let wanted = usize::try_from(end - at).map_err(|_| JournalError::Damaged)?;
            let taken = rest.get(..wanted.min(rest.len())).unwrap_or_default();
            if taken.is_empty() {
                return Err(JournalError::Damaged);
            }
            bytes.extend_from_slice(taken);
            at += taken.len() as u64;
        }
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, at: u64) -> Result<u32, JournalError> {
        Ok(u32::from_le_bytes(self.fixed(at)?))
    }

    pub(super) fn u64(&mut self, at: u64) -> Result<u64, JournalError> {
        Ok(u64::from_le_bytes(self.fixed(at)?))
    }

    fn fixed<const N: usize>(&mut self, at: u64) -> Result<[u8; N], JournalError> {
        let inside = usize::try_from(at % BLOCK).map_err(|_| JournalError::Damaged)?;
        let block = self.block(at / BLOCK)?;
        // Numbers are aligned and so never cross two blocks.
        let bytes = block.get(inside..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or(JournalError::Damaged)
    }

    fn block(&mut self, number: u64) -> Result<&[u8], JournalError> {
        if self.blocks.len() >= MAX_BLOCKS && !self.blocks.contains_key(&number) {
            self.blocks.clear();
        }
        let block = match self.blocks.entry(number) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let at = number.checked_mul(BLOCK).ok_or(JournalError::Damaged)?;
                place.insert(read(&self.file, at, self.length)?)
            }
        };
        Ok(block)
    }
}

fn read(file: &File, at: u64, length: u64) -> Result<Vec<u8>, JournalError> {
    let size = length.saturating_sub(at).min(BLOCK);
    let mut block = vec![0; usize::try_from(size).map_err(|_| JournalError::Damaged)?];
    let mut done = 0;
    while let Some(rest) = block.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            // Cut short meanwhile.
            Ok(0) => return Err(JournalError::Damaged),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(block)
}

const BLOCK: u64 = 16 << 10;
/// 4 MiB in memory.
const MAX_BLOCKS: usize = 256;
