//! The data directory: what `init` makes once and `serve` lives from.
//!
//! It holds the orchestrator's own keys and never an approver's or a root's: who steals it can deliver and rehearse,
//! and can't change a device.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::Digest;
use aizen_protocol::key::{KeyError, PrivateKey};
use aizen_protocol::reason::Reason;
use aizen_protocol::trust::TrustDocument;
use atomic_write_file::AtomicWriteFile;

use crate::sign::Signer;
use crate::tls::authority::{Authority, AuthorityError};

/// Why a data directory could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file operation failed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// There are keys already: they are never overwritten.
    #[error("{path} exists: this directory is initialised already")]
    Initialised {
        /// The file.
        path: PathBuf,
    },
    /// Nobody ran `init`.
    #[error("{path} does not exist: run 'aizen-orchestrator init --data {data} --name HOST' first")]
    NotInitialised {
        /// The file.
        path: PathBuf,
        /// The directory.
        data: PathBuf,
    },
    /// A key file is no key.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// Certificates could not be made or read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The trust document is missing.
    #[error(
        "no trust document: make one with 'trust new', have it signed with 'trust sign', and give it as 'serve --trust FILE'"
    )]
    NoTrust,
    /// The trust document does not verify.
    #[error("the trust document {path} is not valid: {reason}")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: Reason,
    },
    /// The trust document does not let this orchestrator act.
    #[error(
        "the trust document {path} does not name this orchestrator's key {key}: devices would refuse everything it signs; make the document with '--orchestrator {public}'"
    )]
    NotTrusted {
        /// The document.
        path: PathBuf,
        /// The key that it should name.
        key: String,
        /// The file with the public key.
        public: PathBuf,
    },
}

/// The files of a data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Names a directory; nothing is touched.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The bearer token of the people's API.
    #[must_use]
    pub fn admin_token(&self) -> PathBuf {
        self.root.join("admin.token")
    }

    /// The CA certificate, PEM.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.root.join("ca.crt")
    }

    /// Where a running server can be reached, one line.
    #[must_use]
    pub fn server_url(&self) -> PathBuf {
        self.root.join("server.url")
    }

    /// The orchestrator's public key, base64, for `trust new --orchestrator`.
    #[must_use]
    pub fn public_key(&self) -> PathBuf {
        self.root.join("orchestrator.key.pub")
    }

    /// The store.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.root.join("orchestrator.db")
    }

    fn trust(&self) -> PathBuf {
        self.root.join("trust.json")
    }

    fn signing_key(&self) -> PathBuf {
        self.root.join("orchestrator.key")
    }

    fn ca_key(&self) -> PathBuf {
        self.root.join("ca.key")
    }

    /// Makes the keys, the certificates for `names` and the admin token.
    ///
    /// # Errors
    /// [`DataError::Initialised`] if there are keys; anything that the file system refuses.
    pub fn init(&self, names: &[String]) -> Result<(), DataError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|source| self.file_error(&self.root, source))?;
        for path in [self.ca_key(), self.signing_key(), self.admin_token()] {
            if path.exists() {
                return Err(DataError::Initialised { path });
            }
        }
        let (authority, ca_key) = Authority::create()?;
        // A name that can't stand in a certificate is found before the first file exists.
        authority.issue_server(names)?;
        self.write(&self.ca_key(), 0o600, ca_key.as_bytes())?;
        self.write(
            &self.ca_certificate(),
            0o644,
            authority.certificate_pem().as_bytes(),
        )?;
        self.write(
            &self.root.join("names"),
            0o644,
            (names.join("\n") + "\n").as_bytes(),
        )?;
        let path = self.signing_key();
        let key = |source| DataError::Key {
            path: path.clone(),
            source,
        };
        let signing = PrivateKey::generate().map_err(key)?;
        self.write(&path, 0o600, signing.to_pem().map_err(key)?.as_bytes())?;
        self.write(
            &self.public_key(),
            0o644,
            format!("{}\n", signing.public()).as_bytes(),
        )?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| key(e.into()))?;
        self.write(
            &self.admin_token(),
            0o600,
            format!("{}\n", Digest(secret)).as_bytes(),
        )
    }

    /// The CA and the names that the server's certificate carries.
    ///
    /// # Errors
    /// [`DataError::NotInitialised`] before `init`.
    pub fn authority(&self) -> Result<(Authority, Vec<String>), DataError> {
        let authority = Authority::load(
            &self.read(&self.ca_certificate())?,
            &self.read(&self.ca_key())?,
        )?;
        let names = self.read(&self.root.join("names"))?;
        Ok((authority, names.lines().map(str::to_owned).collect()))
    }

    /// The signing key with the trust document that gives it its role.
    ///
    /// A document from `given` is kept: the first one is pinned by its own roots, a later one must be its successor.
    ///
    /// # Errors
    /// [`DataError::NoTrust`], [`DataError::Trust`] or [`DataError::NotTrusted`].
    pub fn signer(&self, given: Option<&Path>, now: jiff::Timestamp) -> Result<Signer, DataError> {
        let path = self.signing_key();
        let key = PrivateKey::from_pem(&self.read(&path)?)
            .map_err(|source| DataError::Key { path, source })?;
        let held = self
            .trust()
            .exists()
            .then(|| first_document(&self.trust()))
            .transpose()?;
        let (path, envelope, document) = match (given, held) {
            (None, None) => return Err(DataError::NoTrust),
            (None, Some((envelope, document))) => (self.trust(), envelope, document),
            (Some(path), None) => {
                let (envelope, document) = first_document(path)?;
                (path.to_owned(), envelope, document)
            }
            (Some(path), Some((held_envelope, held))) => {
                let envelope = read_envelope(path)?;
                let document =
                    if envelope.unverified_payload() == held_envelope.unverified_payload() {
                        held
                    } else {
                        held.successor(&envelope)
                            .map_err(|reason| DataError::Trust {
                                path: path.to_owned(),
                                reason,
                            })?
                    };
                (path.to_owned(), envelope, document)
            }
        };
        let public = key.public();
        let signer = Signer::new(key, envelope, document);
        if !signer.is_trusted(now) {
            return Err(DataError::NotTrusted {
                path,
                key: public.to_string(),
                public: self.public_key(),
            });
        }
        if given.is_some() {
            let text = serde_json::to_vec(signer.trust_envelope())
                .map_err(|e| self.file_error(&self.trust(), e.into()))?;
            self.replace(&self.trust(), &text)?;
        }
        Ok(signer)
    }

    /// The bearer token.
    ///
    /// # Errors
    /// [`DataError::NotInitialised`] before `init`.
    pub fn read_admin_token(&self) -> Result<String, DataError> {
        Ok(self.read(&self.admin_token())?.trim().to_owned())
    }

    /// Says where the server can be reached from this machine.
    ///
    /// # Errors
    /// Anything that the file system refuses.
    pub fn write_server_url(&self, url: &str) -> Result<(), DataError> {
        self.replace(&self.server_url(), format!("{url}\n").as_bytes())
    }

    fn read(&self, path: &Path) -> Result<String, DataError> {
        std::fs::read_to_string(path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                DataError::NotInitialised {
                    path: path.to_owned(),
                    data: self.root.clone(),
                }
            } else {
                self.file_error(path, source)
            }
        })
    }

    fn write(&self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), DataError> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .map_err(|source| self.file_error(path, source))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), DataError> {
        AtomicWriteFile::open(path)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.commit()))
            .map_err(|source| self.file_error(path, source))
    }

    fn file_error(&self, path: &Path, source: io::Error) -> DataError {
        DataError::File {
            path: path.to_owned(),
            source,
        }
    }
}

fn read_envelope(path: &Path) -> Result<Envelope, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::File {
        path: path.to_owned(),
        source,
    })?;
    Envelope::parse(&bytes).map_err(|reason| DataError::Trust {
        path: path.to_owned(),
        reason,
    })
}

/// Reads a document that is believed by its own roots: the operator handed it in.
fn first_document(path: &Path) -> Result<(Envelope, TrustDocument), DataError> {
    let envelope = read_envelope(path)?;
    let trust = |reason| DataError::Trust {
        path: path.to_owned(),
        reason,
    };
    let payload = envelope.unverified_payload().map_err(trust)?;
    let stated: TrustDocument =
        aizen_protocol::strict::from_slice(&payload, aizen_protocol::limit::ENVELOPE)
            .map_err(|_| trust(Reason::MalformedPayload))?;
    let pins: Vec<_> = stated
        .roots
        .iter()
        .map(|root| Digest::of(&root.to_bytes()))
        .collect();
    let document = TrustDocument::first(&envelope, &pins).map_err(trust)?;
    Ok((envelope, document))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_and_token_are_readable_by_the_owner_alone_and_never_overwritten() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::at(&temporary.path().join("data"));
        data.init(&["localhost".into()]).unwrap();
        for path in [data.ca_key(), data.signing_key(), data.admin_token()] {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        assert!(matches!(
            data.init(&["localhost".into()]),
            Err(DataError::Initialised { .. })
        ));
    }

    #[test]
    fn an_empty_directory_says_what_to_run_first() {
        let temporary = tempfile::tempdir().unwrap();
        let error = DataDir::at(temporary.path())
            .signer(None, jiff::Timestamp::UNIX_EPOCH)
            .unwrap_err()
            .to_string();
        assert!(error.contains("aizen-orchestrator init"), "{error}");
    }
}
