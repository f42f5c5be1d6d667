//! Every `unsafe` block of the workspace, each behind a function that is safe to call.

#![expect(
    unsafe_code,
    reason = "fork, placing descriptors by number, ending without destructors, adjtimex and ethtool's ioctl have no safe form"
)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::{io, slice};

use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::ForkResult;

/// Splits the process in two; refuses with EBUSY if it has a second thread.
pub(crate) fn fork() -> io::Result<ForkResult> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the process has one thread (counted above, and only this thread could start another), so the child
    // finds no lock held by a thread that it doesn't have.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// As [`fork`], but the child is born into the control group of version 2 whose directory this is (clone3(2), Linux
/// 5.7): moving it there afterwards waits for every processor.
pub(crate) fn fork_into(group: impl AsFd) -> io::Result<ForkResult> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let number = u64::try_from(group.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: all fields are numbers, for which zero is "not asked for".
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    // The bit is above those that the type of libc's constant has on some targets.
    how.flags = 1 << 33;
    how.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    how.cgroup = number;
    // SAFETY: as in `fork`: one thread, memory is copied, no stack is given, so the child goes on where this returns.
    // What the C library does around its own fork concerns other threads and locks, of which there are none; the
    // thread's number that it keeps is only compared with itself.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
    match i32::try_from(pid) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(pid) if pid > 0 => Ok(ForkResult::Parent {
            child: nix::unistd::Pid::from_raw(pid),
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `target` a copy of `source` that survives an exec, closing what `target` was.
pub(crate) fn place(source: impl AsFd, target: RawFd) -> io::Result<()> {
    let source = source.as_fd().as_raw_fd();
    if source == target {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: dup2 touches the descriptor table alone; callers own the low numbers that they place at, which no
    // Rust object holds (the helper moves everything that it owns above `FIRST_FREE` first).
    if unsafe { libc::dup2(source, target) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The descriptor that was placed at `number`.
pub(crate) fn placed(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: callers ask for what they placed themselves and never close it.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Closes a descriptor by its number; that it wasn't open is no error.
pub(crate) fn close(number: RawFd) {
    // SAFETY: close touches the descriptor table alone; callers close numbers that no Rust object owns.
    unsafe { libc::close(number) };
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    let last = libc::c_uint::MAX;
    // SAFETY: close_range touches the descriptor table alone. Objects that owned one of these numbers are never
    // used or dropped again: callers go on to exec or `_exit`, or call this before any object exists.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == 0 {
        return Ok(());
    }
    // Before Linux 5.9.
    let listed: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in listed.into_iter().filter(|number| *number >= first) {
        close(number);
    }
    Ok(())
}

/// Ends the process at once: no destructors, no buffers, which belong to the process that was forked from.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: _exit doesn't return and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Gives a signal its default action: Rust programs start with SIGPIPE ignored, and what is ignored stays so after
/// an exec.
pub(crate) fn default_action(signal: Signal) -> io::Result<()> {
    // SAFETY: the default action runs no code of this process.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    Ok(())
}

/// What the kernel says of its clock (adjtimex(2)): the state (`TIME_*`) and the status bits (`STA_*`). Changes nothing.
pub(crate) fn clock_status() -> io::Result<(i32, i32)> {
    // SAFETY: `timex` is numbers alone, for which zero bytes are values.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `timex` there, and with `modes` 0 it sets nothing.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((state, timex.status))
}

/// Memory for answers whose length the kernel alone decides: what it writes beyond the end hits a page that nobody may
/// touch, and the call fails with EFAULT.
#[derive(Debug)]
pub(crate) struct Guarded {
    start: NonNull<libc::c_void>,
    usable: usize,
    page: usize,
}

impl Guarded {
    /// Zeroed, at least `bytes` long.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let usable = bytes.max(1).next_multiple_of(page);
        let (nobody, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place that the kernel chooses touches no other.
        let start = unsafe { libc::mmap(ptr::null_mut(), usable + page, nobody, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Self {
            start,
            usable,
            page,
        };
        let ours = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: all but the last page of the mapping that was just made and nobody else knows.
        if unsafe { libc::mprotect(start.as_ptr(), usable, ours) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(memory)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `usable` bytes from `start` are mapped, readable and initialised (zero) as long as `self` lives.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.usable) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; they are writable, and `&mut self` is the only way to them.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.usable) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, which nothing borrows any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.usable + self.page) };
    }
}

/// Asks the driver of an interface (`SIOCETHTOOL`, linux/ethtool.h): the question stands at the beginning of `memory`,
/// and the answer is written over it.
pub(crate) fn ethtool(
    socket: impl AsFd,
    interface: &[libc::c_char; libc::IFNAMSIZ],
    memory: &mut Guarded,
) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: *interface,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: memory.start.as_ptr().cast(),
        },
    };
    // SAFETY: the kernel reads and writes `request`, and memory from `start` on: behind the usable part lies a page
    // that it can't write to. `memory` is borrowed for as long as this takes.
    if unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// linux/sockios.h
const SIOCETHTOOL: libc::Ioctl = 0x8946;
