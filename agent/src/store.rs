//! The executor's directory: what survives a power cut, written whole or not at all.
//!
//! Files are replaced through a temporary file in the same directory, synced, renamed, and the directory synced
//! (`atomic-write-file`); a reader sees the old content or the new one, whatever happens in between.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use nix::sys::statvfs::statvfs;

/// What can go wrong with stored state.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is longer than anything that was written there.
    #[error("{} is longer than {bound} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound, bytes.
        bound: u64,
    },
    /// Others than the owner may write or read.
    #[error("{} is open to others than root (mode {mode:o}, owner {owner}): set its owner and mode", path.display())]
    NotPrivate {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// Not enough free space to promise a rollback.
    #[error("{} has {free} bytes free, a safe change needs {needed}", path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Bytes wanted.
        needed: u64,
        /// Bytes there.
        free: u64,
    },
}

/// A private directory of this process' user.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens a directory, and makes it (mode 0700) where it is missing.
    ///
    /// # Errors
    /// [`StoreError::NotPrivate`] if it belongs to somebody else or others may enter it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| io_error(dir, e))?;
        let meta = fs::metadata(dir).map_err(|e| io_error(dir, e))?;
        if meta.mode() & 0o077 != 0 || meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(StoreError::NotPrivate {
                path: dir.to_owned(),
                mode: meta.mode() & 0o7777,
                owner: meta.uid(),
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// The path of an entry.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A path beside this directory, for what others may see.
    #[must_use]
    pub fn beside(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.parent()?.join(name))
    }

    /// A directory inside, as a store of its own.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn inside(&self, name: &str) -> Result<Self, StoreError> {
        Self::open(&self.path(name))
    }

    /// Reads an entry of at most `bound` bytes; none if there is none.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] or [`StoreError::Io`].
    pub fn read(&self, name: &str, bound: u64) -> Result<Option<Vec<u8>>, StoreError> {
        read_bounded(&self.path(name), bound)
    }

    /// Replaces an entry, durably, mode 0600.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the old content is then still there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        let replace = || {
            let mut file = AtomicWriteFile::open(&path)?;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(bytes)?;
            file.commit()
        };
        replace().map_err(|e| io_error(&path, e))
    }

    /// Removes an entry, durably; one that is not there is removed already.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io_error(&path, e)),
        }
    }

    /// Removes what writes of these entries left beside them when the power went. For who writes them alone, and none
    /// at the moment.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sweep(&self, of: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.dir).map_err(|e| io_error(&self.dir, e))? {
            let name = entry.map_err(|e| io_error(&self.dir, e))?.file_name();
            let left = name.to_str().and_then(temporary_of);
            if left.is_some_and(&of) {
                let path = self.dir.join(&name);
                fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
            }
        }
        Ok(())
    }

    /// Syncs the directory itself: names that were made or removed in it are durable afterwards.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sync(&self) -> Result<(), StoreError> {
        fs::File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| io_error(&self.dir, e))
    }

    /// Names of all entries, sorted; temporary files of an interrupted write are left out.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| io_error(&self.dir, e))? {
            let entry = entry.map_err(|e| io_error(&self.dir, e))?;
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes sure that `needed` bytes are free where this directory is.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`].
    pub fn require_space(&self, needed: u64) -> Result<(), StoreError> {
        let state = statvfs(&self.dir).map_err(|e| io_error(&self.dir, e.into()))?;
        // The C types differ by target: 32-bit ones have narrower block counts.
        #[expect(
            clippy::useless_conversion,
            reason = "fsblkcnt_t is 32 bits wide on some targets"
        )]
        let free = u64::from(state.blocks_available()) * u64::from(state.fragment_size());
        if free < needed {
            return Err(StoreError::NoSpace {
                path: self.dir.clone(),
                needed,
                free,
            });
        }
        Ok(())
    }
}

/// The entry to which a temporary file of `atomic-write-file` belongs: `.ENTRY.` and six letters or digits.
fn temporary_of(name: &str) -> Option<&str> {
    let (entry, random) = name.strip_prefix('.')?.rsplit_once('.')?;
    let is_random = random.len() == 6 && random.chars().all(|c| c.is_ascii_alphanumeric());
    is_random.then_some(entry)
}

/// Reads a file that only root may change, such as the policy: at most `bound` bytes; none if there is none.
///
/// # Errors
/// [`StoreError::NotPrivate`] if somebody but root or this process' user owns it, or others may write it.
pub fn read_guarded(path: &Path, bound: u64) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::metadata(path) {
        Ok(meta) => {
            let owner = meta.uid();
            let trusted = owner == 0 || owner == nix::unistd::geteuid().as_raw();
            if !trusted || meta.mode() & 0o022 != 0 {
                return Err(StoreError::NotPrivate {
                    path: path.to_owned(),
                    mode: meta.mode() & 0o7777,
                    owner,
                });
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path, e)),
    }
    read_bounded(path, bound)
}

fn read_bounded(path: &Path, bound: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path, e)),
    };
    let mut bytes = Vec::new();
    file.take(bound + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| io_error(path, e))?;
    if bytes.len() as u64 > bound {
        return Err(StoreError::TooLarge {
            path: path.to_owned(),
            bound,
        });
    }
    Ok(Some(bytes))
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_is_private_and_can_be_removed_twice() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("executor")).unwrap();
        assert_eq!(store.read("replay", 10).unwrap(), None);
        store.write("replay", b"one").unwrap();
        store.write("replay", b"two").unwrap();
        assert_eq!(store.read("replay", 10).unwrap().unwrap(), b"two");
        let mode = fs::metadata(store.path("replay")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(store.names().unwrap(), ["replay"]);
        store.remove("replay").unwrap();
        store.remove("replay").unwrap();
        assert!(store.names().unwrap().is_empty());
    }

    #[test]
    fn what_an_interrupted_write_left_is_swept_away_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        store.write("replay", b"kept").unwrap();
        // Dropped without a commit, as a power cut leaves it.
        let cut = AtomicWriteFile::open(store.path("replay")).unwrap();
        std::mem::forget(cut);
        let dots = |dir: &Path| {
            let names = fs::read_dir(dir).unwrap();
            let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.starts_with('.')).count()
        };
        assert_eq!(dots(&store.path("")), 1);
        fs::write(store.path(".note"), b"not ours").unwrap();
        store.sweep(|entry| entry == "paused").unwrap();
        assert_eq!(dots(&store.path("")), 2);
        store.sweep(|entry| entry == "replay").unwrap();
        assert_eq!(dots(&store.path("")), 1);
        assert_eq!(store.read("replay", 10).unwrap().unwrap(), b"kept");
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("open");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            Store::open(&dir),
            Err(StoreError::NotPrivate { mode: 0o755, .. })
        ));
    }

    #[test]
    fn a_policy_that_others_may_write_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("policy.toml");
        assert_eq!(read_guarded(&file, 10).unwrap(), None);
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(
            read_guarded(&file, 10),
            Err(StoreError::NotPrivate { .. })
        ));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_guarded(&file, 10).unwrap().unwrap(), b"x");
    }

    #[test]
    fn more_space_than_there_is_can_not_be_promised() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        store.require_space(1).unwrap();
        assert!(matches!(
            store.require_space(u64::MAX),
            Err(StoreError::NoSpace { .. })
        ));
    }

    #[test]
    fn a_file_longer_than_its_bound_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("s")).unwrap();
        store.write("x", b"12345").unwrap();
        assert!(store.read("x", 5).unwrap().is_some());
        assert!(matches!(
            store.read("x", 4),
            Err(StoreError::TooLarge { bound: 4, .. })
        ));
    }
}
