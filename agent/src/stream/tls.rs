//! TLS 1.3 with ring: the device shows its certificate, the server must have one of the pinned CA.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::identity::UplinkIdentity;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The pinned CA is no CA certificate.
    #[error("the pinned CA can't be used: {0}")]
    Ca(String),
    /// The key is not the certificate's, or either can't be used.
    #[error("the device's certificate and key can't be used: {0}")]
    Identity(rustls::Error),
    /// The key can't be encoded.
    #[error("the device's key can't be used: {0}")]
    Key(#[from] aizen_protocol::key::KeyError),
    /// The library lacks what it was built for.
    #[error("no TLS 1.3: {0}")]
    Library(rustls::Error),
}

/// What the uplink connects with.
///
/// # Errors
/// A [`TlsError`] if key, certificate and CA don't fit.
pub fn uplink_config(identity: &UplinkIdentity) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = PinnedServer::new(&identity.ca, provider())?;
    let key = identity.key.to_der()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.certificate.clone(), key)
        .map_err(TlsError::Identity)?;
    // A resumed session would not show the certificate again, and tickets cost memory on both sides.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// What an unenrolled device connects with: no certificate of its own, and a verifier that finds the CA.
///
/// # Errors
/// [`TlsError::Library`].
pub fn enroll_config(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// ring, and nothing that a process default could change.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes servers of one CA. A certificate that isn't valid *yet* is taken: the device's clock is behind (routers have
/// no battery), and nobody can have stolen a key before it was made. An expired one is refused.
#[derive(Debug)]
pub(crate) struct PinnedServer(Arc<WebPkiServerVerifier>);

impl PinnedServer {
    pub(crate) fn new(
        ca: &CertificateDer<'_>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots
            .add(ca.clone().into_owned())
            .map_err(|e| TlsError::Ca(e.to_string()))?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map(Self)
            .map_err(|e| TlsError::Ca(e.to_string()))
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut time = now;
        // Each certificate of the chain may be younger than the clock; a chain is short.
        for _ in 0..MAX_CHAIN {
            let verified = self.0.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                time,
            );
            match verified {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) if not_before > time => time = not_before,
                Ok(verified) => {
                    if time != now {
                        tracing::warn!(
                            behind_s = time.as_secs() - now.as_secs(),
                            "the server's certificate is younger than this device's clock: the clock is behind"
                        );
                    }
                    return Ok(verified);
                }
                Err(error) => return Err(error),
            }
        }
        Err(CertificateError::NotValidYet.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

const MAX_CHAIN: usize = 4;
