//! A device that says what a test tells it to: two keys, a certificate, one WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::frame::{
    CloudFrame, DeviceFrame, ENROLL_PATH, EnrollAnswer, EnrollRequest, EnrollToken, Enrolled,
    Hello, SUBPROTOCOL, Standing, UPLINK_PATH,
};
use aizen_protocol::id::{BootId, Digest, Epoch, Sequence};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::outcome::{Isolation, Outcome};
use aizen_protocol::record::Record;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::fleet::Fleet;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

pub(crate) struct Device {
    pub(crate) enrolled: Enrolled,
    pub(crate) epoch: Epoch,
    pub(crate) result: PrivateKey,
    pub(crate) uplink: PrivateKey,
    pub(crate) next: u64,
}

/// TLS 1.3 to the server, with or without a client certificate.
pub(crate) async fn tls(
    address: SocketAddr,
    ca: &str,
    client: Option<(&str, &PrivateKey)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::try_from(key.to_der().unwrap().to_vec()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("aizen.test").unwrap(), tcp)
        .await
}

/// Upgrades to the subprotocol.
pub(crate) async fn websocket(
    stream: TlsStream<TcpStream>,
    path: &str,
) -> Result<Socket, tungstenite::Error> {
    let mut request = format!("wss://aizen.test{path}").into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// What a request looks like before it is enrolled; tests spoil it.
pub(crate) fn enroll_request(
    token: &EnrollToken,
    uplink: &PrivateKey,
    result: &PrivateKey,
) -> EnrollRequest {
    let epoch = Epoch::fresh();
    let message = EnrollRequest::message(&token.secret, &uplink.public(), &result.public(), &epoch);
    EnrollRequest {
        secret: token.secret,
        uplink_key: uplink.public(),
        result_key: result.public(),
        uplink_proof: STANDARD.encode(uplink.sign(&message)),
        result_proof: STANDARD.encode(result.sign(&message)),
        epoch,
        agent: "0.1.0".into(),
    }
}

pub(crate) fn read_token(text: &str) -> EnrollToken {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

pub(crate) async fn enroll(fleet: &Fleet, request: &EnrollRequest) -> EnrollAnswer {
    let ca = std::fs::read_to_string(fleet.data().ca_certificate()).unwrap();
    let stream = tls(fleet.address(), &ca, None).await.unwrap();
    // The chain holds the CA, so that a device can compare it with its token.
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    assert_eq!(chain.last(), Some(&ca));
    let mut socket = websocket(stream, ENROLL_PATH).await.unwrap();
    let text = serde_json::to_string(request).unwrap();
    socket.send(Message::text(text)).await.unwrap();
    let answer = timeout(PATIENCE, socket.next()).await.unwrap().unwrap();
    serde_json::from_str(answer.unwrap().to_text().unwrap()).unwrap()
}

impl Device {
    pub(crate) async fn enrolled_in(fleet: &Fleet) -> Self {
        let token = read_token(&fleet.token().await);
        let uplink = PrivateKey::generate().unwrap();
        let result = PrivateKey::generate().unwrap();
        let request = enroll_request(&token, &uplink, &result);
        let EnrollAnswer::Enrolled(enrolled) = enroll(fleet, &request).await else {
            panic!("enrollment was refused");
        };
        assert_eq!(Digest::of(&der(&enrolled.ca)), token.ca);
        aizen_protocol::trust::TrustDocument::first(&enrolled.trust, &token.roots).unwrap();
        Self {
            enrolled,
            epoch: request.epoch,
            result,
            uplink,
            next: 1,
        }
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            device: self.enrolled.device.clone(),
            epoch: self.epoch.clone(),
            boot: BootId::fresh(),
            agent: "0.1.0".into(),
            oldest: Sequence(1),
            standing: Standing {
                isolation: Isolation::default(),
                trust_version: 1,
                takes_changes: true,
            },
        }
    }

    /// Dials and upgrades; says nothing.
    pub(crate) async fn dial(&self, fleet: &Fleet) -> Link {
        let client = (self.enrolled.certificate.as_str(), &self.uplink);
        let stream = tls(fleet.address(), &self.enrolled.ca, Some(client))
            .await
            .unwrap();
        Link(websocket(stream, UPLINK_PATH).await.unwrap())
    }

    /// Dials and is welcomed.
    pub(crate) async fn connect(&self, fleet: &Fleet) -> (Link, Sequence) {
        let mut link = self.dial(fleet).await;
        link.send(&DeviceFrame::Hello(self.hello())).await;
        match link.next().await {
            CloudFrame::Welcome { through, .. } => (link, through),
            other => panic!("not welcomed: {other:?}"),
        }
    }

    fn number(&mut self) -> Sequence {
        self.next += 1;
        Sequence(self.next - 1)
    }

    pub(crate) fn record(&mut self, record: Record) -> DeviceFrame {
        DeviceFrame::Record {
            seq: self.number(),
            record: Box::new(record),
        }
    }

    /// Sends a round and waits for its acknowledgement.
    pub(crate) async fn send_round(&mut self, link: &mut Link, round: Vec<Record>) {
        for record in round {
            link.send(&self.record(record)).await;
        }
        link.acknowledged(Sequence(self.next - 1)).await;
    }

    pub(crate) fn signed(&mut self, kind: PayloadType, payload: &[u8]) -> DeviceFrame {
        DeviceFrame::Signed {
            seq: self.number(),
            envelope: Envelope::sign(kind, payload, &[&self.result]),
        }
    }

    pub(crate) fn outcome(&mut self, outcome: &Outcome) -> DeviceFrame {
        self.signed(PayloadType::Outcome, &serde_json::to_vec(outcome).unwrap())
    }
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

pub(crate) struct Link(pub(crate) Socket);

impl Link {
    pub(crate) async fn send(&mut self, frame: &DeviceFrame) {
        let text = serde_json::to_string(frame).unwrap();
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next frame; acknowledgements and pings included.
    pub(crate) async fn next(&mut self) -> CloudFrame {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await;
            let message = message.expect("the server says nothing").unwrap().unwrap();
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// The next frame that is no acknowledgement.
    pub(crate) async fn answer(&mut self) -> CloudFrame {
        loop {
            let frame = self.next().await;
            if !matches!(frame, CloudFrame::Ack { .. }) {
                return frame;
            }
        }
    }

    pub(crate) async fn acknowledged(&mut self, wanted: Sequence) {
        loop {
            match self.next().await {
                CloudFrame::Ack { through } if through >= wanted => return,
                CloudFrame::Ack { .. } => {}
                other => panic!("no acknowledgement but {other:?}"),
            }
        }
    }

    pub(crate) async fn rehearse(&mut self) -> Envelope {
        match self.answer().await {
            CloudFrame::Rehearse { package } => package,
            other => panic!("no rehearsal but {other:?}"),
        }
    }

    pub(crate) async fn deliver(&mut self) -> (Envelope, Envelope) {
        match self.answer().await {
            CloudFrame::Deliver { package, delivery } => (package, delivery),
            other => panic!("no delivery but {other:?}"),
        }
    }

    /// True if the server sends no frame for a while.
    pub(crate) async fn is_quiet(&mut self, time: Duration) -> bool {
        let end = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(end, self.0.next()).await {
                Err(_) => return true,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(_) => return false,
            }
        }
    }

    /// Everything until the connection ends: the farewell, if it arrived.
    pub(crate) async fn farewell(&mut self) -> Option<String> {
        let mut said = None;
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("still open") {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(CloudFrame::Close { message }) = serde_json::from_str(&text) {
                        said = Some(message);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return said,
            }
        }
    }

    pub(crate) async fn close(mut self) {
        self.0.close(None).await.ok();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}
