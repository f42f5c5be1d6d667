//! Files of the kernel's and of other programs, read with a bound.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// The first `most` bytes of a regular file. A pipe or device in its place is refused: reading it could wait for ever.
pub(crate) fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A regular file of at most `most` bytes, if its path and all of it are in the kernel's memory: then reading it waits for
/// no disk and no server (openat2(2), preadv2(2)); and whether the path itself leads there, without a link at its end.
/// None says nothing of the file.
pub(crate) fn at_hand(path: &Path, most: u64) -> Option<(Vec<u8>, bool)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |more| openat2(CWD, path, flags | more, Mode::empty(), ResolveFlags::CACHED);
    let (file, direct) = match open(OFlags::NOFOLLOW) {
        Ok(file) => (file, true),
        Err(Errno::LOOP) => (open(OFlags::empty()).ok()?, false),
        Err(_) => return None,
    };
    let facts = fstat(&file).ok()?;
    let size = u64::try_from(facts.st_size).ok().filter(|s| *s <= most)?;
    if !FileType::from_raw_mode(facts.st_mode).is_file() {
        return None;
    }
    let size = usize::try_from(size).ok()?;
    // One more, in which it would show that it grew.
    let mut bytes = vec![0; size + 1];
    let mut place = [IoSliceMut::new(&mut bytes)];
    let read = preadv2(&file, &mut place, 0, ReadWriteFlags::NOWAIT).ok()?;
    bytes.truncate(read);
    (read == size).then_some((bytes, direct))
}

/// Opens a regular file for reading.
pub(crate) fn open(path: &Path) -> io::Result<fs::File> {
    let file = OpenOptions::new()
        .read(true)
        // Without it, opening a pipe nobody writes to waits for a writer (open(2)).
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"))
    }
}

/// The same as text; what is no UTF-8 is replaced.
pub(crate) fn text(path: &Path, most: u64) -> io::Result<String> {
    bytes(path, most).map(|bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// One word of a file of `/proc` or `/sys`, none if it isn't there or is something else.
pub(crate) fn word<T: FromStr>(path: &Path) -> Option<T> {
    text(path, MAX_WORD).ok()?.trim().parse().ok()
}

/// The entries of a folder, sorted, at most `most`; none if it isn't there or isn't ours to read.
pub(crate) fn entries(folder: &Path, most: usize) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .take(MAX_ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    entries.truncate(most);
    entries
}

/// A path's last name, as text.
pub(crate) fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// The network files of the calling thread: `/proc/net` is that of the program's first thread (proc_pid_net(5)).
pub(crate) fn proc_net(root: &Path) -> PathBuf {
    let own = root.join("proc/thread-self/net");
    if own.exists() {
        own
    } else {
        root.join("proc/net")
    }
}

/// Enough for any file of the kernel's that is read whole.
pub(crate) const MAX_KERNEL_FILE: u64 = 1 << 20;
const MAX_WORD: u64 = 4096;
/// Beyond this a folder is no folder of configuration.
const MAX_ENTRIES: usize = 4096;

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_pipe_in_place_of_a_file_is_refused_and_waits_for_nobody() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(bytes(&pipe, 10).is_err());
        assert!(bytes(root.path(), 10).is_err());
    }

    #[test]
    fn no_more_is_read_than_the_bound_and_a_word_is_trimmed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, " 12345\n").unwrap();
        assert_eq!(bytes(&path, 3).unwrap(), b" 12");
        assert_eq!(word::<u32>(&path), Some(12345));
        assert_eq!(word::<u8>(&path), None);
        assert_eq!(word::<u8>(&root.path().join("none")), None);
        assert_eq!(entries(root.path(), 9), [path]);
    }

    #[test]
    fn what_is_at_hand_is_whole_and_a_regular_file_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "nameserver 192.0.2.1\n").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = b"nameserver 192.0.2.1\n".to_vec();
        // A kernel or a file system that can't say so gives nothing.
        for (name, direct) in [("file", true), ("link", false)] {
            if let Some(found) = at_hand(&path(name), 100) {
                assert_eq!(found, (text.clone(), direct), "{name}");
            }
        }
        assert_eq!(at_hand(&path("file"), 20), None, "longer than wanted");
        assert_eq!(at_hand(&path("pipe"), 100), None);
        assert_eq!(at_hand(folder.path(), 100), None);
        assert_eq!(at_hand(&path("absent"), 100), None);
    }
}
