//! The root certificates that the programs of this device believe: the distribution's own file, read as it is.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Known roots; at least one.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

/// The device has no root certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this device has no root certificates (package ca-certificates or ca-bundle): no certificate can be judged"
)]
pub struct NoRoots;

impl Roots {
    /// Reads the first file below `root` that holds some.
    ///
    /// # Errors
    /// [`NoRoots`].
    pub fn read(root: &Path) -> Result<Self, NoRoots> {
        FILES
            .iter()
            .filter_map(|file| read(&root.join(file)))
            .find_map(|pem| Self::from_pem(&pem))
            .ok_or(NoRoots)
    }

    /// Takes one certificate as the only root; none if it can't be one.
    #[must_use]
    pub fn only(certificate: CertificateDer<'_>) -> Option<Self> {
        let mut store = RootCertStore::empty();
        store.add(certificate.into_owned()).ok()?;
        Some(Self(Arc::new(store)))
    }

    fn from_pem(pem: &[u8]) -> Option<Self> {
        let mut store = RootCertStore::empty();
        // One damaged certificate costs no other.
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten().take(MOST));
        (!store.is_empty()).then(|| Self(Arc::new(store)))
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Debian and OpenWrt, Fedora, SUSE, Alpine.
const FILES: &[&str] = &[
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];
const MAX_BYTES: u64 = 4 << 20;
const MOST: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_roots_says_so_and_one_damaged_root_costs_no_other() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Roots::read(root.path()).unwrap_err(), NoRoots);
        let folder = root.path().join("etc/ssl/certs");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("ca-certificates.crt");
        std::fs::write(&file, "no certificate").unwrap();
        assert_eq!(Roots::read(root.path()).unwrap_err(), NoRoots);
        let good = rcgen::generate_simple_self_signed(Vec::new())
            .unwrap()
            .cert
            .pem();
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&file, format!("{damaged}{good}")).unwrap();
        assert_eq!(Roots::read(root.path()).unwrap().store().len(), 1);
    }
}
