//! Who this device is: its keys, its certificate, and where they lie.
//!
//! | file of STATE | holds | who may read it |
//! | --- | --- | --- |
//! | `device.json` | [`DeviceFile`] | everybody |
//! | `sanitizer.key` | 32 bytes | root, group aizen |
//! | `daemon/uplink.key`, `device.crt`, `ca.crt`, `enrolled.json` | what the uplink shows and expects | aizen |
//! | `executor/result.key`, `trust.json`, `epoch`, `enrolled.json` | what the executor signs with and believes | root |

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aizen_protocol::id::{DeviceId, Epoch};
use aizen_protocol::key::{KeyError, PrivateKey, PublicKey};
use aizen_protocol::{limit, strict};
use nix::unistd::{Gid, Uid, User};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

/// What everybody on the device may know of its enrollment (`STATE/device.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFile {
    /// The device's name.
    pub device: DeviceId,
    /// Its state generation.
    pub epoch: Epoch,
    /// The orchestrator, as [`crate::stream::dial::Server`] writes it.
    pub server: String,
    /// The executor's key: what effects and outcomes are signed with.
    pub result_key: PublicKey,
}

/// Why an identity can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No enrollment.
    #[error("this device is not enrolled ({0} is missing): run 'aizen enroll'")]
    NotEnrolled(PathBuf),
    /// A file can't be read.
    #[error("{path} can't be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} is damaged: {what}; enrol the device again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A key can't be used.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// The paths of STATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root` (`/var/lib/aizen`).
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// STATE itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The daemon's folder.
    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.root.join("daemon")
    }

    /// The executor's folder.
    #[must_use]
    pub fn executor(&self) -> PathBuf {
        self.root.join("executor")
    }

    /// The world-readable [`DeviceFile`]; written last, so that it stands for a whole enrollment.
    #[must_use]
    pub fn device_file(&self) -> PathBuf {
        self.root.join("device.json")
    }

    /// The sanitizer's key, which daemon and executor share.
    #[must_use]
    pub fn sanitizer_key(&self) -> PathBuf {
        self.root.join("sanitizer.key")
    }

    /// The spool's folder.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.daemon().join("spool")
    }

    /// Addresses of the orchestrator that last authenticated.
    #[must_use]
    pub fn remembered(&self) -> PathBuf {
        self.daemon().join("addresses.json")
    }

    pub(crate) fn uplink_key(&self) -> PathBuf {
        self.daemon().join("uplink.key")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.daemon().join("device.crt")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.daemon().join("ca.crt")
    }

    pub(crate) fn result_key(&self) -> PathBuf {
        self.executor().join("result.key")
    }
}

impl DeviceFile {
    /// Reads it.
    ///
    /// # Errors
    /// [`IdentityError::NotEnrolled`] if there is none.
    pub fn load(layout: &Layout) -> Result<Self, IdentityError> {
        let path = layout.device_file();
        let bytes = read(&path)?;
        strict::from_slice(&bytes, FILE_BYTES).map_err(|e| IdentityError::Damaged {
            path,
            what: e.to_string(),
        })
    }
}

/// What the uplink shows and expects.
#[derive(Debug)]
pub struct UplinkIdentity {
    /// The daemon's key.
    pub key: PrivateKey,
    /// The certificate for it, and those that lead to its issuer.
    pub certificate: Vec<CertificateDer<'static>>,
    /// The CA that the orchestrator's certificate must come from.
    pub ca: CertificateDer<'static>,
}

impl UplinkIdentity {
    /// Reads it.
    ///
    /// # Errors
    /// [`IdentityError::NotEnrolled`] if a file is missing.
    pub fn load(layout: &Layout) -> Result<Self, IdentityError> {
        Ok(Self {
            key: load_key(&layout.uplink_key())?,
            certificate: certificates(&layout.certificate())?,
            ca: certificates(&layout.ca())?.swap_remove(0),
        })
    }
}

/// Reads a private key (PKCS #8 PEM).
///
/// # Errors
/// [`IdentityError::NotEnrolled`] if the file is missing, [`IdentityError::Key`] if it holds no key.
pub fn load_key(path: &Path) -> Result<PrivateKey, IdentityError> {
    let bytes = zeroize::Zeroizing::new(read(path)?);
    let damaged = |what: &str| IdentityError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let pem = std::str::from_utf8(&bytes).map_err(|_| damaged("no text"))?;
    PrivateKey::from_pem(pem).map_err(|source| IdentityError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Every certificate of a PEM file; at least one.
///
/// # Errors
/// [`IdentityError::Damaged`] if there is none or one is broken.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read(path)?;
    pem_certificates(&bytes).map_err(|what| IdentityError::Damaged {
        path: path.to_owned(),
        what: what.to_string(),
    })
}

/// Every certificate of a PEM text; at least one.
pub(crate) fn pem_certificates(
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(rustls::pki_types::pem::Error::NoItemsFound);
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            IdentityError::NotEnrolled(path.to_owned())
        } else {
            IdentityError::Read {
                path: path.to_owned(),
                source,
            }
        }
    };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES as u64 {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    fs::read(path).map_err(failed)
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    mode: u32,
    owner: Option<Uid>,
    group: Option<Gid>,
}

impl Access {
    /// Whoever writes it, alone.
    #[must_use]
    pub fn private() -> Self {
        Self {
            mode: 0o600,
            owner: None,
            group: None,
        }
    }

    /// Everybody may read it.
    #[must_use]
    pub fn public() -> Self {
        Self {
            mode: 0o644,
            ..Self::private()
        }
    }

    /// `account` alone.
    #[must_use]
    pub fn of(account: Option<&Account>) -> Self {
        Self {
            owner: account.map(|a| a.uid),
            group: account.map(|a| a.gid),
            ..Self::private()
        }
    }

    /// Whoever writes it, and `account`'s group may read it.
    #[must_use]
    pub fn shared(account: Option<&Account>) -> Self {
        Self {
            mode: 0o640,
            owner: None,
            group: account.map(|a| a.gid),
        }
    }
}

/// The user that the daemon runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// This user; none if there is no such user, or if whoever asks can't give files away.
    #[must_use]
    pub fn named(user: &str) -> Option<Self> {
        let user = User::from_name(user).ok().flatten()?;
        Uid::effective().is_root().then_some(Self {
            uid: user.uid,
            gid: user.gid,
        })
    }
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
///
/// # Errors
/// What the system said; the file is as it was.
pub fn write_file(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let draft = dir.join(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    let written = write_draft(&draft, bytes, access).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        // The draft is nobody's; if it can't go either, the first error says why.
        fs::remove_file(&draft).ok();
        return Err(error);
    }
    fs::File::open(dir)?.sync_all()
}

fn write_draft(draft: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode & 0o600)
        .open(draft)?;
    std::os::unix::fs::fchown(
        &file,
        access.owner.map(Uid::as_raw),
        access.group.map(Gid::as_raw),
    )?;
    file.set_permissions(fs::Permissions::from_mode(access.mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a folder that only its owner enters.
pub(crate) fn private_dir(path: &Path, owner: Option<&Account>) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(
        path,
        owner.map(|a| a.uid.as_raw()),
        owner.map(|a| a.gid.as_raw()),
    )
}

/// A trust document in its envelope is the largest.
const FILE_BYTES: usize = limit::ENVELOPE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_has_its_mode_whatever_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, b"old").unwrap();
        for (access, mode) in [
            (Access::private(), 0o600),
            (Access::public(), 0o644),
            (Access::shared(None), 0o640),
        ] {
            write_file(&path, b"text", access).unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_can_not_be_written_stays_as_it_was_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::create_dir(&path).unwrap();
        assert!(write_file(&path, b"text", Access::private()).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_without_enrollment_says_so_and_a_damaged_one_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let missing = DeviceFile::load(&layout).unwrap_err();
        assert!(
            matches!(missing, IdentityError::NotEnrolled(_)),
            "{missing}"
        );
        fs::write(layout.device_file(), b"{}").unwrap();
        let damaged = DeviceFile::load(&layout).unwrap_err().to_string();
        assert!(damaged.contains("device.json is damaged"), "{damaged}");
        fs::create_dir(layout.daemon()).unwrap();
        fs::write(layout.uplink_key(), b"no key").unwrap();
        let key = UplinkIdentity::load(&layout).unwrap_err();
        assert!(matches!(key, IdentityError::Key { .. }), "{key}");
    }
}
