//! Ctrl-C as something to wait for: a probe ends early and still tells what it has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Readable as soon as somebody wants the program to end.
#[derive(Debug)]
pub(super) struct Interrupt(SignalFd);

impl Interrupt {
    /// Takes SIGINT and SIGTERM of this thread, and of those it starts, away from their default.
    pub(super) fn catch() -> io::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&signals, flags)?))
    }

    /// True if somebody did; says so once.
    pub(super) fn came(&self) -> bool {
        self.0.read_signal().is_ok_and(|signal| signal.is_some())
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
