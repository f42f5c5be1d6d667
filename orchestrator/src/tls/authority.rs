//! The private CA: one certificate for the server, one for each device's uplink key.

use std::fmt;
use std::sync::Arc;

use aizen_protocol::id::{DeviceId, Digest};
use aizen_protocol::key::PublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData,
    SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::provider;

/// Why a certificate was not made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A name that can't stand in a certificate, or a key that can't sign.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The CA's PEM file holds no certificate.
    #[error("the CA certificate is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// rustls does not take it.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The CA can't verify clients.
    #[error("TLS client verification: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The CA.
pub struct Authority {
    der: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.digest())
    }
}

impl Authority {
    /// Makes a CA; the key comes back as PEM, to be stored.
    pub(crate) fn create() -> Result<(Self, String), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Aizen orchestrator CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok((
            Self {
                der: certificate.der().clone(),
                pem: certificate.pem(),
                issuer: Issuer::new(params, key),
            },
            pem,
        ))
    }

    /// Reads a CA that [`Authority::create`] made.
    pub(crate) fn load(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        Ok(Self {
            der: CertificateDer::from_pem_slice(certificate.as_bytes())?,
            pem: certificate.to_owned(),
            issuer: Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?,
        })
    }

    /// The certificate, PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate (DER): what an enrollment token carries.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// Makes a server certificate for these names and addresses, and for this machine itself. Its time is unbounded
    /// on purpose: a device whose clock was never set must reach the orchestrator to be mended.
    pub(crate) fn issue_server(
        &self,
        names: &[String],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), AuthorityError> {
        let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"]
            .iter()
            .map(ToString::to_string)
            .chain(names.iter().cloned())
            .collect();
        all.sort();
        all.dedup();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name = named("Aizen orchestrator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.der().clone(), key.into()))
    }

    /// Makes the client certificate of a device, PEM.
    pub(crate) fn issue_device(
        &self,
        device: &DeviceId,
        key: &PublicKey,
    ) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(device.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = DeviceKey(key.to_bytes());
        Ok(params.signed_by(&key, &self.issuer)?.pem())
    }

    /// TLS 1.3 only, client certificates of this CA verified if they come; the CA is sent along, so that a device
    /// that enrols can compare it with its token.
    pub(crate) fn server_config(
        &self,
        names: &[String],
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let (certificate, key) = self.issue_server(names)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate, self.der.clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// An Ed25519 key that somebody else holds the private half of (RFC 8410).
struct DeviceKey([u8; 32]);

impl PublicKeyData for DeviceKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// The Ed25519 key of a certificate that the handshake verified; none for any other kind of key.
pub(crate) fn device_key(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    // SEQUENCE { SEQUENCE { OID 1.3.101.112 } BIT STRING }: RFC 8410 section 4.
    const PREFIX: [u8; 12] = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let info = parsed.subject_public_key_info();
    let key = info.strip_prefix(&PREFIX)?;
    PublicKey::from_bytes(key.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use aizen_protocol::key::PrivateKey;

    use super::*;

    #[test]
    fn the_key_of_a_device_certificate_reads_back() {
        let (authority, key) = Authority::create().unwrap();
        let again = Authority::load(authority.certificate_pem(), &key).unwrap();
        assert_eq!(again.digest(), authority.digest());
        let device = PrivateKey::generate().unwrap().public();
        let pem = again.issue_device(&DeviceId::fresh(), &device).unwrap();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(device_key(&certificate), Some(device));
    }

    #[test]
    fn a_certificate_with_another_kind_of_key_names_no_device() {
        let (authority, _) = Authority::create().unwrap();
        let (server, _) = authority.issue_server(&[]).unwrap();
        assert_eq!(device_key(&server), None);
    }
}
