//! A disk with a cache that a power cut empties: what the guest did not flush is lost, kept or torn, unit by unit.
//!
//! Killing qemu alone loses nothing that the guest had sent: this machine's page cache keeps it. So the disk is a
//! server (NBD) in this process. Writes go to the image that the guest sees and into a log; a flush carries the log to
//! a second image, which is what a power cut leaves, together with whatever of the log the cut happens to spare.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use super::nbd::{self, Request};
use crate::lab::draw::Draw;

/// What a disk says that it writes whole or not at all, bytes.
#[cfg(test)]
const SECTOR: usize = 512;
/// What disks and flash really write whole or not at all, bytes: physical sectors of disks and pages of flash have 4096 or
/// more behind logical sectors of 512 (`/sys/block/*/queue/physical_block_size`).
pub const UNIT: u64 = 4096;

/// What a power cut left of the writes that were not flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    /// Units in the cache at the cut.
    pub cached: usize,
    /// Of these, units that reached the disk.
    pub kept: usize,
}

#[derive(Debug)]
struct State {
    /// As the guest sees it.
    seen: File,
    /// What is safe.
    safe: File,
    log: Vec<(u64, Vec<u8>)>,
    /// Writes and flushes since the last [`Disk::cut_after`].
    events: u64,
    cut_after: Option<u64>,
    cut: bool,
}

/// One disk, served at a socket as long as it lives.
#[derive(Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    socket: PathBuf,
    /// What a cut leaves whole or not at all, bytes.
    unit: u64,
}

/// The part of a write up to the next unit's beginning, and what is left of it.
fn torn(unit: u64, offset: u64, bytes: &[u8]) -> (&[u8], &[u8]) {
    let room = usize::try_from(unit - offset % unit).unwrap_or(usize::MAX);
    bytes.split_at(room.min(bytes.len()))
}

fn hold(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// Serves an image; the file itself is what is safe. A cut leaves each `unit` of so many bytes whole or not at all.
    ///
    /// # Errors
    /// If a copy can't be made or the socket can't be opened; a unit of nothing.
    pub fn serve(image: &Path, socket: &Path, unit: u64) -> Result<Self> {
        ensure!(unit > 0, "a disk writes at least one byte at once");
        let copy = image.with_extension("seen");
        fs::copy(image, &copy)?;
        let open = |path: &Path| {
            let file = OpenOptions::new().read(true).write(true).open(path);
            file.with_context(|| path.display().to_string())
        };
        let size = fs::metadata(image)?.len();
        let state = Arc::new(Mutex::new(State {
            seen: open(&copy)?,
            safe: open(image)?,
            log: Vec::new(),
            events: 0,
            cut_after: None,
            cut: false,
        }));
        let listener = UnixListener::bind(socket).context("the disk's socket")?;
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for peer in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A guest that is killed ends its connection in the middle of a word.
                thread::spawn(move || converse(peer, &state, size));
            }
        });
        Ok(Self {
            state,
            socket: socket.to_owned(),
            unit,
        })
    }

    /// What qemu calls it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("nbd:unix:{}", self.socket.display())
    }

    /// Counts from here on; with a number, the power fails when so many writes and flushes came: that one and all
    /// later ones are never done nor answered.
    pub fn cut_after(&self, events: Option<u64>) {
        let mut state = hold(&self.state);
        state.events = 0;
        state.cut_after = events;
    }

    /// Writes and flushes since the last [`Disk::cut_after`].
    #[must_use]
    pub fn events(&self) -> u64 {
        hold(&self.state).events
    }

    /// The power fails now.
    pub fn cut_now(&self) {
        hold(&self.state).cut = true;
    }

    /// The power failed.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        hold(&self.state).cut
    }

    /// The power is back; call it once the machine is gone. `draw` says which of the cached units reached the disk:
    /// all, none, or each with a chance of its own for this cut.
    ///
    /// # Errors
    /// If an image can't be written.
    pub fn restore_power(&self, draw: &mut Draw) -> Result<Spared> {
        let mut state = hold(&self.state);
        // 0 and 100 stand for a quarter of all cuts each.
        let chance = draw.below(200).saturating_sub(50).min(100);
        let mut spared = Spared::default();
        let log = std::mem::take(&mut state.log);
        for (offset, bytes) in &log {
            let (mut at, mut left) = (*offset, bytes.as_slice());
            while !left.is_empty() {
                let (part, rest) = torn(self.unit, at, left);
                spared.cached += 1;
                if draw.below(100) < chance {
                    spared.kept += 1;
                    state.safe.write_all_at(part, at)?;
                }
                (at, left) = (at + part.len() as u64, rest);
            }
        }
        for (offset, bytes) in &log {
            let mut safe = vec![0; bytes.len()];
            state.safe.read_exact_at(&mut safe, *offset)?;
            state.seen.write_all_at(&safe, *offset)?;
        }
        state.cut = false;
        state.cut_after = None;
        Ok(spared)
    }
}

fn converse(mut peer: UnixStream, state: &Mutex<State>, size: u64) -> io::Result<()> {
    nbd::greet(&mut peer, size)?;
    loop {
        let (cookie, request) = nbd::next(&mut peer)?;
        if request == Request::Disconnect {
            return Ok(());
        }
        let answer = hold(state).serve(request)?;
        match answer {
            Some(bytes) => nbd::answer(&mut peer, cookie, &bytes)?,
            // Without power there is no answer, and no error either: the guest waits until it is killed.
            None => return io::copy(&mut peer, &mut io::sink()).map(drop),
        }
    }
}

impl State {
    /// None: the power is off.
    fn serve(&mut self, request: Request) -> io::Result<Option<Vec<u8>>> {
        if matches!(request, Request::Write { .. } | Request::Flush) {
            self.events += 1;
            self.cut |= self.cut_after.is_some_and(|after| self.events >= after);
        }
        if self.cut {
            return Ok(None);
        }
        let mut answer = Vec::new();
        match request {
            Request::Read { offset, length } => {
                answer.resize(length as usize, 0);
                self.seen.read_exact_at(&mut answer, offset)?;
            }
            Request::Write { offset, bytes } => {
                self.seen.write_all_at(&bytes, offset)?;
                self.log.push((offset, bytes));
            }
            Request::Flush => {
                for (offset, bytes) in self.log.drain(..) {
                    self.safe.write_all_at(&bytes, offset)?;
                }
            }
            Request::Disconnect => {}
        }
        Ok(Some(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(folder: &Path) -> State {
        let open = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, [0; 4 * SECTOR]).unwrap();
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap()
        };
        State {
            seen: open("seen"),
            safe: open("safe"),
            log: Vec::new(),
            events: 0,
            cut_after: None,
            cut: false,
        }
    }

    fn write(offset: u64, byte: u8) -> Request {
        Request::Write {
            offset,
            bytes: vec![byte; SECTOR],
        }
    }

    fn first(file: &File) -> u8 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        byte[0]
    }

    #[test]
    fn what_was_flushed_is_safe_and_what_was_written_is_only_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(folder.path());
        state.serve(write(0, 1)).unwrap().unwrap();
        assert_eq!((first(&state.seen), first(&state.safe)), (1, 0));
        state.serve(Request::Flush).unwrap().unwrap();
        assert_eq!((first(&state.seen), first(&state.safe)), (1, 1));
    }

    #[test]
    fn the_event_at_which_the_power_fails_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(folder.path());
        state.cut_after = Some(2);
        assert!(state.serve(write(0, 1)).unwrap().is_some());
        assert!(state.serve(Request::Flush).unwrap().is_none());
        assert!(state.serve(write(0, 2)).unwrap().is_none());
        assert_eq!((first(&state.seen), first(&state.safe)), (1, 0));
    }

    #[test]
    fn a_write_is_torn_where_a_unit_begins_and_nowhere_else() {
        let bytes = [0; 6000];
        let parts = |unit, mut at: u64, mut left: &[u8]| {
            let mut parts = Vec::new();
            while !left.is_empty() {
                let (part, rest) = torn(unit, at, left);
                parts.push(part.len());
                (at, left) = (at + part.len() as u64, rest);
            }
            parts
        };
        assert_eq!(parts(4096, 1024, &bytes[..1024]), [1024]);
        assert_eq!(parts(512, 1024, &bytes[..1024]), [512, 512]);
        assert_eq!(parts(4096, 1024, &bytes), [3072, 2928]);
        assert_eq!(parts(4096, 0, &bytes[..4096]), [4096]);
    }

    #[test]
    fn after_a_cut_the_guest_sees_what_is_safe_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for seed in 0..40 {
            let mut fresh = state(folder.path());
            fresh.serve(write(0, 1)).unwrap();
            let disk = Disk {
                state: Arc::new(Mutex::new(fresh)),
                socket: PathBuf::new(),
                unit: UNIT,
            };
            disk.cut_now();
            let spared = disk.restore_power(&mut Draw::new(seed)).unwrap();
            let state = hold(&disk.state);
            assert_eq!(first(&state.seen), first(&state.safe));
            assert_eq!(usize::from(first(&state.safe)), spared.kept);
        }
    }
}
