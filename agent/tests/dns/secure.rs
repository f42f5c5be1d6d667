//! Certificates of every kind, and a small TLS server that shows one of them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::netns::Netns;

/// A CA that the device knows.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Pair {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Test CA");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Makes it the only root below `root`.
    pub(crate) fn install(&self, root: &Path) {
        let folder = root.join("etc/ssl/certs");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca-certificates.crt"), self.pem()).unwrap();
    }

    /// A certificate for these names, valid in these years.
    pub(crate) fn issue(&self, names: &[&str], years: [i32; 2]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, years).signed_by(&key, &self.0).unwrap();
        Pair::new(&certificate, &key)
    }
}

impl Pair {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    pub(crate) fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, GOOD).self_signed(&key).unwrap();
        Self::new(&certificate, &key)
    }

    /// As boxes make their own: an authority that signed itself.
    pub(crate) fn self_signed_authority(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(names, GOOD);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }

    /// Shows itself at this address inside, and answers each request with what `answer` makes of it.
    pub(crate) fn serve(
        &self,
        netns: &Netns,
        address: &str,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) {
        self.serve_as("http/1.1", netns, address, answer);
    }

    /// The same by what ALPN calls so.
    pub(crate) fn serve_as(
        &self,
        protocol: &str,
        netns: &Netns,
        address: &str,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let config = Arc::new(config);
        listen(netns, address, move |tcp| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, tcp);
            let mut request = vec![0; 4096];
            if let Ok(length) = stream.read(&mut request) {
                stream.write_all(&answer(&request[..length])).ok();
            }
            stream.conn.send_close_notify();
            stream.flush().ok();
        });
    }
}

/// Hands each connection to `work`, one after the other, as long as the process lives.
pub(crate) fn listen(
    netns: &Netns,
    address: &str,
    work: impl Fn(std::net::TcpStream) + Send + 'static,
) {
    let address = address.to_owned();
    let listener = netns
        .enter(move || TcpListener::bind(address).unwrap())
        .join()
        .unwrap();
    // Inside, so that `work` may open sockets of its own there.
    let serving = netns.enter(move || {
        for tcp in listener.incoming().flatten() {
            tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            work(tcp);
        }
    });
    drop(serving);
}

fn params(names: &[&str], [from, until]: [i32; 2]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

pub(crate) const GOOD: [i32; 2] = [2020, 2100];
pub(crate) const EXPIRED: [i32; 2] = [2010, 2020];
pub(crate) const TO_COME: [i32; 2] = [2100, 2101];
