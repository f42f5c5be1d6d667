//! Sends the newest numbers to an OpenTelemetry collector: without TLS on this device alone, with TLS anywhere.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;
use jiff::SignedDuration;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::otlp;
use crate::clock;
use crate::collect::aside;
use crate::probe::name::{self, NameError};
use crate::probe::roots::{NoRoots, Roots};
use crate::probe::tls;
use crate::probe::web::{self, HttpFault, Response, Url};

/// A collector's URL, and who is believed to vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    url: Url,
    /// One CA in PEM; with none the roots of this device.
    ca: Option<PathBuf>,
}

impl Receiver {
    /// None for plain HTTP to anything but a loopback address: nobody on the way shall read along.
    #[must_use]
    pub fn new(url: Url) -> Option<Self> {
        let is_here = || {
            url.host
                .parse()
                .is_ok_and(|host: IpAddr| host.is_loopback())
        };
        (url.secure || is_here()).then_some(Self { url, ca: None })
    }

    /// With TLS, believed if this CA vouches for it; with none the roots of this device do.
    #[must_use]
    pub fn vouched_by(self, ca: Option<PathBuf>) -> Self {
        Self { ca, ..self }
    }
}

/// Why a collector has not got the numbers.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Http(#[from] HttpFault),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Roots(#[from] NoRoots),
    #[error("{0} holds no certificate of a CA: metrics.otlp_ca")]
    Ca(PathBuf),
    #[error("no TLS with it: {0}")]
    Tls(String),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("it answered with status {0}")]
    Status(u16),
}

/// Sends what `newest` gives every `every`, for as long as the future lives. What a collector doesn't take is gone: the
/// next numbers are newer.
pub async fn export(
    to: Receiver,
    every: Duration,
    newest: impl Fn() -> Arc<Vec<Sanitized<Record>>>,
) {
    let mut failing = false;
    loop {
        tokio::time::sleep(every).await;
        match send(&to, &newest()).await {
            Ok(()) => failing = false,
            // Once, not every time.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, at = %to.url, "the OpenTelemetry collector takes nothing");
            }
            Err(_) => {}
        }
    }
}

async fn send(to: &Receiver, records: &[Sanitized<Record>]) -> Result<(), ExportError> {
    let now = clock::now();
    let since_boot = SignedDuration::try_from(clock::since_boot().0).unwrap_or_default();
    let body = otlp::request(records, now - since_boot, now).to_string();
    let response = timeout(PATIENCE, post(to, body.as_bytes()))
        .await
        .map_err(|_| ExportError::Silent)??;
    if (200..300).contains(&response.status) {
        Ok(())
    } else {
        Err(ExportError::Status(response.status))
    }
}

async fn post(to: &Receiver, body: &[u8]) -> Result<Response, ExportError> {
    let address = address(&to.url).await?;
    if !to.url.secure {
        return Ok(web::post(&to.url, address, JSON, body, LONGEST).await?);
    }
    let roots = roots(to.ca.as_ref())?;
    let name = ServerName::try_from(to.url.host.clone())
        .map_err(|error| ExportError::Tls(error.to_string()))?;
    let tcp = TcpStream::connect(address).await.map_err(HttpFault::from)?;
    let (stream, shown) = tls::handshake(tcp, name, Some(&roots), &[b"http/1.1".to_vec()]).await;
    let mut stream = stream.map_err(|error| ExportError::Tls(error.to_string()))?;
    match shown.and_then(|shown| shown.verdict) {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(ExportError::Tls(tls::reason(&error))),
        None => return Err(ExportError::Tls("it showed no certificate".to_owned())),
    }
    Ok(web::post_over(&mut stream, &to.url, JSON, body, LONGEST).await?)
}

/// Asked anew each time: a collector may move.
async fn address(url: &Url) -> Result<SocketAddr, ExportError> {
    let names = [url.host.clone()];
    let found = aside::run("aizen-collector", move || {
        name::resolve(&names, name::Family::Any, PATIENCE).pop()
    });
    let found = found.await.map_err(HttpFault::from)?;
    let target = found.transpose()?.ok_or(ExportError::Silent)?;
    Ok(SocketAddr::new(target.address, url.port))
}

fn roots(ca: Option<&PathBuf>) -> Result<Roots, ExportError> {
    let Some(file) = ca else {
        return Ok(Roots::read("/".as_ref())?);
    };
    let no_ca = || ExportError::Ca(file.clone());
    let certificate = CertificateDer::from_pem_file(file).map_err(|_| no_ca())?;
    Roots::only(certificate).ok_or_else(no_ca)
}

const JSON: &str = "application/json";
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const LONGEST: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use aizen_protocol::id::{BootId, RoundId};
    use aizen_protocol::record::{Body, Reach, ReachRole};
    use aizen_sanitizer::{Observation, Policy, Sanitizer, SanitizerKey};
    use serde_json::Value;
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    fn receiver(port: u16) -> Receiver {
        let url = format!("http://127.0.0.1:{port}/v1/metrics");
        Receiver::new(url.parse().unwrap()).unwrap()
    }

    #[test]
    fn without_tls_only_a_collector_on_this_device_is_told() {
        for url in [
            "http://192.0.2.1:4318/v1/metrics",
            "http://collector.example/v1/metrics",
            "http://localhost:4318/v1/metrics",
        ] {
            assert_eq!(Receiver::new(url.parse().unwrap()), None, "{url}");
        }
        let elsewhere = "https://collector.example:4318/v1/metrics";
        assert!(Receiver::new(elsewhere.parse().unwrap()).is_some());
        receiver(4318);
    }

    /// A collector with TLS under the name `localhost`, its certificate and one of somebody else.
    async fn secured(folder: &std::path::Path) -> (u16, PathBuf, PathBuf) {
        use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (ours, theirs) = (folder.join("ca.pem"), folder.join("other.pem"));
        std::fs::write(&ours, made.cert.pem()).unwrap();
        std::fs::write(&theirs, other.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(crate::stream::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut heard = vec![0; 16];
                stream.read_exact(&mut heard).await.unwrap();
                assert!(heard.starts_with(b"POST /v1/metrics"), "{heard:?}");
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.ok();
            }
        });
        (port, ours, theirs)
    }

    #[tokio::test]
    async fn a_collector_elsewhere_is_told_if_its_ca_vouches_for_it_and_else_not() {
        let folder = tempfile::tempdir().unwrap();
        let (port, ours, theirs) = secured(folder.path()).await;
        let url: Url = format!("https://localhost:{port}/v1/metrics")
            .parse()
            .unwrap();
        let to = |ca: &PathBuf| {
            Receiver::new(url.clone())
                .unwrap()
                .vouched_by(Some(ca.clone()))
        };
        send(&to(&ours), &[]).await.unwrap();
        let refused = send(&to(&theirs), &[]).await.unwrap_err();
        assert!(matches!(refused, ExportError::Tls(_)), "{refused}");
        let absent = send(&to(&folder.path().join("none.pem")), &[]).await;
        assert!(matches!(absent, Err(ExportError::Ca(_))));
    }

    #[tokio::test]
    async fn a_collector_gets_pseudonyms_and_no_value_of_this_device() {
        let record = Record {
            round: RoundId(1),
            at: clock::now(),
            boot: BootId::fresh(),
            body: Body::Reach(vec![Reach {
                target: "198.51.100.77".parse().unwrap(),
                role: ReachRole::Anchor,
                sent: 5,
                received: 4,
                rtt_us: vec![1000; 4],
                no_route: false,
            }]),
        };
        let mut sanitizer = Sanitizer::new(SanitizerKey::generate().unwrap(), Policy::default());
        let records = vec![sanitizer.sanitize(Observation::new(record)).unwrap()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = receiver(listener.local_addr().unwrap().port());
        let collector = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
            String::from_utf8(body).unwrap()
        });
        send(&to, &records).await.unwrap();
        let body = collector.await.unwrap();
        assert!(!body.contains("198.51.100.77"), "{body}");
        let value: Value = serde_json::from_str(&body).unwrap();
        let metrics = value["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].clone();
        let lost = metrics
            .as_array()
            .unwrap()
            .iter()
            .find(|m| m["name"] == "aizen_echo_received");
        let point = &lost.unwrap()["gauge"]["dataPoints"][0];
        assert_eq!(point["asDouble"], 4.0);
        assert!(point["timeUnixNano"].is_string());
        assert_eq!(point["attributes"][0]["key"], "target");
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_is_an_error_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = receiver(listener.local_addr().unwrap().port());
        drop(listener);
        assert!(matches!(send(&to, &[]).await, Err(ExportError::Http(_))));
    }
}
