//! Sends the newest numbers to an OpenTelemetry collector on this device, which sends them on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;
use jiff::SignedDuration;
use tokio::time::timeout;

use super::otlp;
use crate::clock;
use crate::probe::web::{self, HttpFault, Url};

/// A collector's URL on a loopback address: what goes further is the collector's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    url: Url,
    address: SocketAddr,
}

impl Receiver {
    /// None for HTTPS, a name, or an address beyond this device.
    #[must_use]
    pub fn new(url: Url) -> Option<Self> {
        let address = SocketAddr::new(url.host.parse().ok()?, url.port);
        let is_here = address.ip().is_loopback() && !url.secure;
        is_here.then_some(Self { url, address })
    }
}

/// Why a collector has not got the numbers.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Http(#[from] HttpFault),
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
                tracing::warn!(%error, at = %to.address, "the OpenTelemetry collector takes nothing");
            }
            Err(_) => {}
        }
    }
}

async fn send(to: &Receiver, records: &[Sanitized<Record>]) -> Result<(), ExportError> {
    let now = clock::now();
    let since_boot = SignedDuration::try_from(clock::since_boot().0).unwrap_or_default();
    let body = otlp::request(records, now - since_boot, now).to_string();
    let asked = web::post(&to.url, to.address, JSON, body.as_bytes(), LONGEST);
    let response = timeout(PATIENCE, asked)
        .await
        .map_err(|_| ExportError::Silent)??;
    if (200..300).contains(&response.status) {
        Ok(())
    } else {
        Err(ExportError::Status(response.status))
    }
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
    fn only_a_collector_on_this_device_is_told() {
        for url in [
            "http://192.0.2.1:4318/v1/metrics",
            "http://collector.example/v1/metrics",
            "https://127.0.0.1:4318/v1/metrics",
        ] {
            assert_eq!(Receiver::new(url.parse().unwrap()), None, "{url}");
        }
        receiver(4318);
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
