//! Which CA to believe during an enrollment: the one with the token's digest, from the server's own chain or a file.

use std::sync::{Arc, Mutex, PoisonError};

use aizen_protocol::id::Digest;
use aizen_protocol::key::PrivateKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::AnswerError;
use crate::stream::tls::{self, PinnedServer};

/// Takes a server whose certificate leads to the CA with a known digest.
#[derive(Debug)]
pub(super) struct Authority {
    wanted: Digest,
    given: Option<CertificateDer<'static>>,
    found: Mutex<Found>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Found {
    #[default]
    NothingYet,
    Missing,
    Expired,
    Good,
}

impl Authority {
    pub(super) fn new(wanted: Digest, given: Option<CertificateDer<'static>>) -> Arc<Self> {
        Arc::new(Self {
            wanted,
            given,
            found: Mutex::default(),
        })
    }

    /// True if a server answered with a chain that does not lead to the CA.
    pub(super) fn was_missing(&self) -> bool {
        *self.found() == Found::Missing
    }

    /// True if a server of the CA answered with a certificate whose time is over.
    pub(super) fn saw_expired(&self) -> bool {
        *self.found() == Found::Expired
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for Authority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = self
            .given
            .iter()
            .chain(intermediates)
            .find(|certificate| Digest::of(certificate) == self.wanted);
        let Some(ca) = ca else {
            *self.found() = Found::Missing;
            return Err(CertificateError::UnknownIssuer.into());
        };
        let pinned = PinnedServer::new(ca, tls::provider())
            .map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))?;
        let verified =
            pinned.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        *self.found() = match &verified {
            Ok(_) => Found::Good,
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Found::Expired,
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => Found::Missing,
            Err(_) => Found::NothingYet,
        };
        verified
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
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &tls::provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Checks that `ca` issued `chain` for a client with this key.
pub(super) fn issued(
    ca: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKey,
) -> Result<(), AnswerError> {
    let refused = AnswerError::Certificate;
    let own = |text: String| refused(rustls::Error::General(text));
    let der = key.to_der().map_err(|e| own(e.to_string()))?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()));
    CertifiedKey::from_der(chain.to_vec(), der, &tls::provider()).map_err(refused)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(refused)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .build()
        .map_err(|e| own(e.to_string()))?;
    let Some((leaf, others)) = chain.split_first() else {
        return Err(own("no certificate".to_owned()));
    };
    let mut now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(crate::clock::now().as_second()).unwrap_or_default(),
    ));
    loop {
        match verifier.verify_client_cert(leaf, others, now) {
            // Issued a moment ago by a clock that is ahead of this one.
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) if not_before > now => now = not_before,
            Err(error) => return Err(refused(error)),
            Ok(_) => return Ok(()),
        }
    }
}
