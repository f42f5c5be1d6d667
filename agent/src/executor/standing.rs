//! Who this device is and whom it trusts, as enrollment left it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use aizen_protocol::control::TrustState;
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{DeviceId, Digest, Epoch};
use aizen_protocol::key::{KeyError, PrivateKey, PublicKey};
use aizen_protocol::reason::Reason;
use aizen_protocol::trust::TrustDocument;
use aizen_protocol::{limit, strict};
use jiff::Timestamp;
use serde::Deserialize;

use crate::store::{Store, StoreError};
use crate::verify::{Clock, Replay};

/// The orchestrator's port where enrollment names none.
const HTTPS: u16 = 443;

/// The device's enrollment: all of it or nothing.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The device.
    pub(crate) device: DeviceId,
    /// Its state generation.
    pub(crate) epoch: Epoch,
    /// Whom it trusts.
    pub(crate) trust: TrustDocument,
    /// The orchestrator's address, where enrollment names it by one.
    pub(crate) uplink: Vec<IpAddr>,
    /// Its port.
    pub(crate) uplink_port: u16,
    /// Signs effects and outcomes.
    pub(crate) result_key: PrivateKey,
}

/// Why the enrollment can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// A file can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of it is missing while others are there.
    #[error("{} is missing: enrol the device again", .0.display())]
    Missing(std::path::PathBuf),
    /// A part of it is not in form.
    #[error("{} is not what enrollment writes: {what}", path.display())]
    Form {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The result key is none.
    #[error("the result key can't be used: {0}")]
    Key(#[from] KeyError),
    /// The key of the pseudonyms can't be used.
    #[error("the sanitizer's key can't be used: {0}")]
    Sanitizer(aizen_sanitizer::KeyError),
    /// The trust document is not signed by its own roots.
    #[error("the trust document can't be used: {0}")]
    Trust(Reason),
}

/// What is wanted of the enrollment file; the rest is the daemon's.
#[derive(Deserialize)]
struct Enrollment {
    device: DeviceId,
    #[serde(default)]
    server: String,
}

impl Standing {
    /// Reads the enrollment; none before it.
    pub(crate) fn load(store: &Store) -> Result<Option<Self>, StandingError> {
        const BOUND: u64 = limit::ENVELOPE as u64;
        let Some(trust) = store.read("trust.json", BOUND)? else {
            return Ok(None);
        };
        let need = |name: &str| -> Result<Vec<u8>, StandingError> {
            store
                .read(name, BOUND)?
                .ok_or_else(|| StandingError::Missing(store.path(name)))
        };
        let form = |name: &str, what: &dyn std::fmt::Display| StandingError::Form {
            path: store.path(name),
            what: what.to_string(),
        };
        let envelope = Envelope::parse(&trust).map_err(StandingError::Trust)?;
        let trust = own_document(&envelope)?;
        let enrolled: Enrollment = strict::from_slice(&need("enrolled.json")?, limit::ENVELOPE)
            .map_err(|e| form("enrolled.json", &e))?;
        let epoch = text(need("epoch")?)
            .and_then(|t| t.trim().parse().ok())
            .ok_or_else(|| form("epoch", &"not an epoch"))?;
        let pem = text(need("result.key")?).ok_or_else(|| form("result.key", &"not text"))?;
        let uplink = address_of(&enrolled.server);
        Ok(Some(Self {
            uplink: uplink.iter().map(SocketAddr::ip).collect(),
            uplink_port: uplink.map_or(HTTPS, |at| at.port()),
            device: enrolled.device,
            epoch,
            trust,
            result_key: PrivateKey::from_pem(&pem)?,
        }))
    }

    /// What the device may do at this moment.
    pub(crate) fn state(&self, now: Timestamp, replay: &Replay) -> TrustState {
        let floor = self.trust.issued_at.max(replay.floor());
        if self.trust.revoked.contains(&self.device) {
            TrustState::Revoked
        } else if self.trust.expires <= now.max(floor) {
            TrustState::Expired
        } else if Clock::judge(now, floor) == Clock::Untrusted {
            TrustState::ClockUntrusted
        } else {
            TrustState::Full
        }
    }
}

/// The document was pinned at enrollment and lies where only root writes; it must still be whole.
fn own_document(envelope: &Envelope) -> Result<TrustDocument, StandingError> {
    let payload = envelope
        .unverified_payload()
        .map_err(StandingError::Trust)?;
    let stated: TrustDocument = strict::from_slice(&payload, limit::ENVELOPE)
        .map_err(|_| StandingError::Trust(Reason::MalformedPayload))?;
    let pins: Vec<Digest> = stated
        .roots
        .iter()
        .map(|root: &PublicKey| Digest::of(&root.to_bytes()))
        .collect();
    TrustDocument::first(envelope, &pins).map_err(StandingError::Trust)
}

/// The address in `192.0.2.1:8443`, `[2001:db8::1]:8443` or either alone, with or without `https://`.
fn address_of(server: &str) -> Option<SocketAddr> {
    let server = server.strip_prefix("https://").unwrap_or(server);
    let alone = || Some(SocketAddr::new(server.parse().ok()?, HTTPS));
    server.parse().ok().or_else(alone)
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

/// The boot's name (`/proc/sys/kernel/random/boot_id`, random(4)).
pub(crate) fn boot_id(proc: &Path) -> std::io::Result<aizen_protocol::id::BootId> {
    std::fs::read_to_string(proc.join("sys/kernel/random/boot_id"))?
        .trim()
        .parse()
        .map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orchestrators_address_is_known_where_enrollment_names_one() {
        for (server, at) in [
            ("https://192.0.2.1:8443", "192.0.2.1:8443"),
            ("192.0.2.1", "192.0.2.1:443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ] {
            assert_eq!(address_of(server), at.parse().ok(), "{server}");
        }
        assert_eq!(address_of("cloud.example:8443"), None);
        assert_eq!(address_of(""), None);
    }
}
