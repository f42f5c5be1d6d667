//! From an `Observation` to a `Sanitized<Record>`, and back on this device alone.
//!
//! The stage is the `sanitizer` crate with the device's key and a [`vault`] that keeps the way back over restarts.

use std::io;
use std::path::PathBuf;

use aizen_protocol::finding::Verdict;
use aizen_protocol::package::BindingKind;
use aizen_protocol::private::Text;
use aizen_protocol::record::Record;
use aizen_sanitizer::{KeyError, Observation, Policy, Sanitized, Sanitizer, SanitizerKey};

use crate::clock::BootTime;
use crate::config::Config;

pub mod vault;

use vault::{Vault, VaultError};

/// Why there is no sanitizer. Without one nothing leaves the device.
#[derive(Debug, thiserror::Error)]
pub enum SanitizeError {
    /// The key file is there and can't be used.
    #[error("the key of the pseudonyms can't be used: {0}")]
    Key(#[from] KeyError),
    /// The key file can't be looked at.
    #[error("can't look at {}: {source}", path.display())]
    Hidden {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The sanitizer with its key and its way back.
#[derive(Debug)]
pub struct Stage {
    sanitizer: Sanitizer,
    vault: Option<Vault>,
}

impl Stage {
    /// Opens the stage with the device's key. Before enrollment there is none: pseudonyms then last as long as this
    /// process, which is right, for nothing leaves either.
    ///
    /// # Errors
    /// [`SanitizeError`].
    pub fn open(config: &Config) -> Result<Self, SanitizeError> {
        let path = config.paths.sanitizer_key();
        let enrolled = path.try_exists().map_err(|source| SanitizeError::Hidden {
            path: path.clone(),
            source,
        })?;
        if !enrolled {
            let sanitizer = Sanitizer::new(SanitizerKey::generate()?, Policy::default());
            return Ok(Self {
                sanitizer,
                vault: None,
            });
        }
        let mut sanitizer = Sanitizer::new(SanitizerKey::load(&path)?, Policy::default());
        let vault = Vault::open(config.paths.daemon().join("pseudonyms"), &mut sanitizer);
        Ok(Self {
            sanitizer,
            vault: Some(vault),
        })
    }

    /// Sanitizes a round. What the second scan catches is withheld, logged by kind, and counted.
    pub fn round(&mut self, observations: Vec<Observation>) -> Vec<Sanitized<Record>> {
        let sanitized = observations
            .into_iter()
            .map(|observation| self.sanitizer.sanitize(observation));
        let told = sanitized.inspect(|record| {
            if let Err(withheld) = record {
                tracing::error!(%withheld, "a record was withheld: please report this as a defect");
            }
        });
        told.flatten().collect()
    }

    /// What a text looks like when it leaves.
    pub fn text(&mut self, text: &str) -> Sanitized<Text> {
        self.sanitizer.sanitize_text(text)
    }

    /// Real values in place of pseudonyms, for this device's screen.
    #[must_use]
    pub fn reveal(&self, verdict: Verdict) -> Verdict {
        self.sanitizer.reveal_value(verdict)
    }

    /// The real value behind one pseudonym.
    #[must_use]
    pub fn value(&self, kind: BindingKind, pseudonym: &str) -> Option<String> {
        self.sanitizer.reveal(kind, pseudonym)
    }

    /// Brings the way back to storage, if it grew.
    ///
    /// # Errors
    /// [`VaultError`]; the map stays in memory.
    pub fn keep(&mut self, now: BootTime) -> Result<(), VaultError> {
        match &mut self.vault {
            Some(vault) => vault.keep(&self.sanitizer, now),
            None => Ok(()),
        }
    }
}
