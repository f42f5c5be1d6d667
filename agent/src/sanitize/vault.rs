//! The way back from pseudonym to value: sealed at rest, written whole or not at all, rebuilt if it is damaged.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use aizen_sanitizer::{Sanitizer, SealError};
use atomic_write_file::AtomicWriteFile;

use crate::clock::BootTime;

/// Between two writes.
const REST: Duration = Duration::from_secs(60);
/// Largest sealed map that is read back, bytes.
const MOST: u64 = 32 << 20;

/// Why the map is not on storage.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// It could not be sealed.
    #[error("the map can't be sealed: {0}")]
    Seal(#[from] SealError),
    /// It could not be written.
    #[error("can't write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file of the sealed map.
#[derive(Debug)]
pub struct Vault {
    path: PathBuf,
    kept: u64,
    tried: Option<BootTime>,
}

impl Vault {
    /// Reads the map into the sanitizer. A file that does not open is set aside and the map is learned anew: pseudonyms
    /// come from the key, so they stay the same.
    #[must_use]
    pub fn open(path: PathBuf, sanitizer: &mut Sanitizer) -> Self {
        match read(&path) {
            Ok(sealed) => {
                if let Err(error) = sanitizer.open_map(&sealed) {
                    let aside = path.with_extension("damaged");
                    tracing::warn!(%error, aside = %aside.display(), "the map of pseudonyms is damaged: it is set aside and learned anew");
                    if let Err(error) = fs::rename(&path, &aside) {
                        tracing::warn!(%error, "it can't be set aside and will be overwritten");
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the map of pseudonyms can't be read: it is learned anew")
            }
        }
        Self {
            kept: sanitizer.revision(),
            tried: None,
            path,
        }
    }

    /// Writes the map if it grew and the last write rests long enough: flash wears out, and a full disk is not asked
    /// again at once.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn keep(&mut self, sanitizer: &Sanitizer, now: BootTime) -> Result<(), VaultError> {
        let revision = sanitizer.revision();
        let rests = self
            .tried
            .is_none_or(|at| now.0.saturating_sub(at.0) >= REST);
        if revision == self.kept || !rests {
            return Ok(());
        }
        self.tried = Some(now);
        let sealed = sanitizer.seal_map()?;
        let written = AtomicWriteFile::open(&self.path).and_then(|mut file| {
            file.write_all(&sealed)?;
            file.commit()
        });
        written.map_err(|source| VaultError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.kept = revision;
        Ok(())
    }
}

fn read(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::package::BindingKind;
    use aizen_sanitizer::{Policy, SanitizerKey};

    use super::*;

    fn sanitizer() -> Sanitizer {
        Sanitizer::new(SanitizerKey::from_bytes([7; 32]), Policy::default())
    }

    #[test]
    fn the_way_back_survives_a_restart_and_holds_no_value_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pseudonyms");
        let mut first = sanitizer();
        let mut vault = Vault::open(path.clone(), &mut first);
        let told = first.sanitize_text("10.1.2.3").get().0.clone();
        vault.keep(&first, BootTime(Duration::ZERO)).unwrap();
        let stored = fs::read(&path).unwrap();
        assert!(!stored.windows(8).any(|w| w == b"10.1.2.3"));
        let mut second = sanitizer();
        drop(Vault::open(path, &mut second));
        assert_eq!(
            second.reveal(BindingKind::Address, &told).as_deref(),
            Some("10.1.2.3")
        );
    }

    #[test]
    fn a_damaged_map_is_set_aside_and_learned_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pseudonyms");
        fs::write(&path, b"not a map").unwrap();
        let mut again = sanitizer();
        let mut vault = Vault::open(path.clone(), &mut again);
        assert!(path.with_extension("damaged").exists());
        again.sanitize_text("10.1.2.3");
        vault.keep(&again, BootTime(Duration::ZERO)).unwrap();
        assert!(path.exists());
    }
}
