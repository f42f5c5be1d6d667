//! Sleeping until something comes, it is time, or somebody says stop.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

/// Who can end a run early: it ends as soon as this descriptor is readable.
pub type Stop<'a> = Option<BorrowedFd<'a>>;

/// What ended a wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// Which of the descriptors have something, in their order.
    pub(super) ready: Vec<bool>,
    /// Stop was said.
    pub(super) stop: bool,
}

/// Waits for one of the descriptors, at most so long.
pub(super) fn wait(
    sockets: &[(BorrowedFd<'_>, PollFlags)],
    stop: Stop<'_>,
    at_most: Duration,
) -> io::Result<Woken> {
    let mut polled: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|(socket, wanted)| PollFd::new(*socket, *wanted))
        .chain(stop.map(|stop| PollFd::new(stop, PollFlags::POLLIN)))
        .collect();
    match ppoll(&mut polled, Some(TimeSpec::from(at_most)), None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
    let stop = stop.is_some() && ready.pop().unwrap_or(false);
    Ok(Woken { ready, stop })
}
