//! A TLS handshake that sees the peer's certificate whatever is wrong with it, and judges it afterwards.

pub(crate) mod certificate;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aizen_protocol::record::TlsOutcome;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use self::certificate::Facts;
use super::roots::Roots;
use crate::stream::tls::provider;

/// The certificate that a server showed.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The server's own.
    pub certificate: CertificateDer<'static>,
    /// What webpki says of it by the device's clock; none where there were no roots.
    pub verdict: Option<Result<(), Error>>,
}

impl Shown {
    /// How a handshake with this certificate ended; none if it could not be judged.
    #[must_use]
    pub fn outcome(&self) -> Option<TlsOutcome> {
        Some(match self.verdict.as_ref()? {
            Ok(()) => TlsOutcome::Trusted,
            Err(Error::InvalidCertificate(error)) => match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    TlsOutcome::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    TlsOutcome::NotYetValid
                }
                // Of an authority that only has the name of a known one.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    TlsOutcome::UnknownIssuer
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => TlsOutcome::WrongName,
                // Many boxes sign their own certificate as an authority would; webpki calls that another fault.
                _ if Facts::read(&self.certificate).is_some_and(|f| f.self_signed) => {
                    TlsOutcome::UnknownIssuer
                }
                _ => TlsOutcome::Invalid,
            },
            Err(_) => TlsOutcome::Invalid,
        })
    }
}

/// What is wrong with a certificate, for people.
#[must_use]
pub fn reason(error: &Error) -> String {
    let Error::InvalidCertificate(fault) = error else {
        return error.to_string();
    };
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired by this device's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet by this device's clock".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate leads to no root that this device knows".to_owned()
        }
        other => format!("the certificate is not believed: {other}"),
    }
}

/// Connects, and takes every certificate whose key the server proves to have: who trusts the stream must look at the
/// verdict first. `protocols` are offered by ALPN. The caller holds the deadline.
pub async fn handshake(
    tcp: TcpStream,
    name: ServerName<'static>,
    roots: Option<&Roots>,
    protocols: &[Vec<u8>],
) -> (io::Result<TlsStream<TcpStream>>, Option<Shown>) {
    let witness = Arc::new(Witness::new(roots));
    let config = match config(&witness, protocols) {
        Ok(config) => config,
        Err(error) => return (Err(io::Error::other(error)), None),
    };
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await;
    let shown = witness
        .shown
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    (stream, shown)
}

fn config(witness: &Arc<Witness>, protocols: &[Vec<u8>]) -> Result<ClientConfig, Error> {
    let verifier: Arc<dyn ServerCertVerifier> = Arc::<Witness>::clone(witness);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A resumed session would not show the certificate again.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = protocols.to_vec();
    Ok(config)
}

/// Sees the certificate, asks webpki what it is worth, and lets the handshake go on.
#[derive(Debug)]
struct Witness {
    judge: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Option<Shown>>,
}

impl Witness {
    fn new(roots: Option<&Roots>) -> Self {
        let judge = roots.and_then(|roots| {
            WebPkiServerVerifier::builder_with_provider(roots.store(), provider())
                .build()
                .ok()
        });
        Self {
            judge,
            provider: provider(),
            shown: Mutex::new(None),
        }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.judge.as_ref().map(|judge| {
            judge
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(drop)
        });
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Shown {
            certificate: end_entity.clone().into_owned(),
            verdict,
        });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
