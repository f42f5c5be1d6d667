//! The device's secret: who has it can recompute every pseudonym.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// 32 bytes, wiped when dropped; never printed.
#[derive(Clone)]
pub struct SanitizerKey(Zeroizing<[u8; LENGTH]>);

const LENGTH: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The kernel refused.
    #[error("sanitizer key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not exactly 32 bytes long.
    #[error("sanitizer key {} has {actual} bytes or more, it must have 32", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes read, at most 33.
        actual: usize,
    },
    /// The kernel's random source failed (getrandom(2)).
    #[error("no random bytes for a sanitizer key: {0}")]
    Random(getrandom::Error),
}

impl SanitizerKey {
    /// Takes 32 secret bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Draws a key from the kernel.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        getrandom::fill(bytes.as_mut_slice()).map_err(KeyError::Random)?;
        Ok(Self(bytes))
    }

    /// Reads a key file: 32 raw bytes.
    ///
    /// # Errors
    /// [`KeyError::Io`], [`KeyError::Length`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
        File::open(path)
            .map_err(io)?
            .take(LENGTH as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        let exact: [u8; LENGTH] = bytes.as_slice().try_into().map_err(|_| KeyError::Length {
            path: path.to_owned(),
            actual: bytes.len(),
        })?;
        Ok(Self::from_bytes(exact))
    }

    /// Draws a key and writes it to a file that must not exist, mode 0640. Owner and group are the caller's to set.
    ///
    /// # Errors
    /// [`KeyError::Io`] (also if the file exists), [`KeyError::Random`].
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let key = Self::generate()?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(path)
            .map_err(io)?;
        file.write_all(key.0.as_slice()).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(key)
    }

    pub(crate) fn secret(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl fmt::Debug for SanitizerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SanitizerKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sanitizer.key");
        let made = SanitizerKey::create(&path).unwrap();
        assert_eq!(SanitizerKey::load(&path).unwrap().secret(), made.secret());
        assert!(SanitizerKey::create(&path).is_err(), "overwrote a key");
        assert_eq!(format!("{made:?}"), "SanitizerKey(..)");
    }

    #[test]
    fn a_key_file_of_another_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for length in [0, 31, 33, 4096] {
            std::fs::write(&path, vec![1; length]).unwrap();
            assert!(
                matches!(SanitizerKey::load(&path), Err(KeyError::Length { .. })),
                "{length}"
            );
        }
    }
}
