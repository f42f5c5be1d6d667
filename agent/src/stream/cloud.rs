//! A real TLS WebSocket server in the test's own process, with a CA of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::frame::{CloudFrame, DeviceFrame, SUBPROTOCOL};
use aizen_protocol::id::{Digest, Sequence};
use aizen_protocol::key::{PrivateKey, PublicKey};
use futures_util::{SinkExt as _, StreamExt as _};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::tls;
use crate::identity::UplinkIdentity;

/// A server's end of a connection.
pub(crate) type Peer = WebSocketStream<TlsStream<TcpStream>>;

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// When a server's certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Always,
    Past,
    Future,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.0.der())
    }

    /// A client certificate for a device's key, PEM.
    pub(crate) fn client(&self, key: &PrivateKey) -> String {
        self.client_of(&key.public())
    }

    /// The same, as an orchestrator makes it: it never has the private half.
    pub(crate) fn client_of(&self, key: &PublicKey) -> String {
        // SubjectPublicKeyInfo of Ed25519 (RFC 8410 section 4).
        let mut spki = vec![0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0];
        spki.extend_from_slice(&key.to_bytes());
        let key = SubjectPublicKeyInfo::from_der(&spki).unwrap();
        let mut params = CertificateParams::new(vec!["device".to_owned()]).unwrap();
        params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
        params.signed_by(&key, &self.0).unwrap().pem()
    }

    pub(crate) fn identity(&self) -> UplinkIdentity {
        let key = PrivateKey::generate().unwrap();
        let pem = self.client(&key);
        UplinkIdentity {
            certificate: crate::identity::pem_certificates(pem.as_bytes()).unwrap(),
            key,
            ca: self.der(),
        }
    }

    /// TLS of a server with a certificate for `name`; the CA is in its chain.
    pub(crate) fn server(
        &self,
        name: &str,
        validity: Validity,
        versions: &[&'static SupportedProtocolVersion],
        clients: Clients,
    ) -> TlsAcceptor {
        self.acceptor(name, validity, versions, clients, &[self.der()])
    }

    /// The same, with nothing but its own certificate in its chain.
    pub(crate) fn server_alone(&self, name: &str) -> TlsAcceptor {
        let versions = &[&rustls::version::TLS13];
        self.acceptor(name, Validity::Always, versions, Clients::Anybody, &[])
    }

    /// The same, with a CA in its chain that did not issue its certificate.
    pub(crate) fn server_showing(&self, other: &Self, name: &str) -> TlsAcceptor {
        let versions = &[&rustls::version::TLS13];
        let shown = [other.der(), self.der()];
        self.acceptor(name, Validity::Always, versions, Clients::Anybody, &shown)
    }

    fn acceptor(
        &self,
        name: &str,
        validity: Validity,
        versions: &[&'static SupportedProtocolVersion],
        clients: Clients,
        shown: &[CertificateDer<'static>],
    ) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        match validity {
            Validity::Always => {}
            Validity::Past => params.not_after = date_time_ymd(2001, 1, 1),
            Validity::Future => params.not_before = date_time_ymd(2100, 1, 1),
        }
        params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let builder = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            Clients::Certified => {
                let mut roots = RootCertStore::empty();
                roots.add(self.der()).unwrap();
                builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(roots.into(), tls::provider())
                        .build()
                        .unwrap(),
                )
            }
            Clients::Anybody => builder.with_no_client_auth(),
        };
        let chain = [certificate.der().clone()]
            .into_iter()
            .chain(shown.iter().cloned())
            .collect();
        let config = builder
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Whom a server lets in.
#[derive(Clone, Copy)]
pub(crate) enum Clients {
    Certified,
    Anybody,
}

/// A listening server.
pub(crate) struct Cloud {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Cloud {
    pub(crate) async fn listen(tls: TlsAcceptor) -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls,
        }
    }

    pub(crate) async fn with_ca(ca: &Ca) -> Self {
        Self::at(ca, ([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn at(ca: &Ca, address: SocketAddr) -> Self {
        let versions = &[&rustls::version::TLS13];
        Self {
            listener: TcpListener::bind(address).await.unwrap(),
            tls: ca.server("localhost", Validity::Always, versions, Clients::Certified),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next device that comes through TLS and the upgrade; what fails before is passed over.
    pub(crate) async fn accept(&self) -> Peer {
        loop {
            if let Some(peer) = self.try_accept().await {
                return peer;
            }
        }
    }

    pub(crate) async fn try_accept(&self) -> Option<Peer> {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let tls = self.tls.accept(tcp).await.ok()?;
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let answer = |request: &Request, mut response: Response| {
            assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            response.headers_mut().insert(
                "sec-websocket-protocol",
                HeaderValue::from_static(SUBPROTOCOL),
            );
            Ok(response)
        };
        tokio_tungstenite::accept_hdr_async(tls, answer).await.ok()
    }
}

/// What the next message of a device is; none when the connection is over.
pub(crate) async fn hear(peer: &mut Peer) -> Option<DeviceFrame> {
    loop {
        match peer.next().await?.ok()? {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Close(_) | Message::Frame(_) => return None,
        }
    }
}

pub(crate) async fn say(peer: &mut Peer, frame: &CloudFrame) -> bool {
    let text = serde_json::to_string(frame).unwrap();
    peer.send(Message::text(text)).await.is_ok()
}

pub(crate) async fn welcome(peer: &mut Peer, through: u64) {
    assert!(matches!(hear(peer).await, Some(DeviceFrame::Hello(_))));
    let frame = CloudFrame::Welcome {
        through: Sequence(through),
        now: Timestamp::UNIX_EPOCH,
    };
    assert!(say(peer, &frame).await);
}

/// A test's patience: whatever is waited for comes within it or the test fails.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within 30 s"))
}
