//! `GET /metrics` on a loopback port: HTTP/1.1 as far as a scraper needs it, one answer a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::record::Record;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::text;

/// A loopback address and port: nothing listens where others could reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loopback(SocketAddr);

impl Loopback {
    /// None for an address that others can reach.
    #[must_use]
    pub fn new(address: SocketAddr) -> Option<Self> {
        address.ip().is_loopback().then_some(Self(address))
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// Serves what `newest` gives, for as long as the future lives.
///
/// # Errors
/// If the port can't be opened.
pub async fn serve(
    at: Loopback,
    newest: impl Fn() -> Arc<Vec<Record>> + Clone + Send + 'static,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(at.0).await?;
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    let newest = newest.clone();
                    open.spawn(async move {
                        // A scraper that goes away in the middle is nobody's fault.
                        timeout(PATIENCE, answer(stream, newest)).await.ok();
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a scraper");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = open.join_next() => drop(ended),
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    newest: impl Fn() -> Arc<Vec<Record>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 1024];
    let whole = loop {
        let read = stream.read(&mut part).await?;
        request.extend_from_slice(&part[..read]);
        if request.windows(4).any(|end| end == b"\r\n\r\n") {
            break true;
        }
        if read == 0 || request.len() > LONGEST {
            break false;
        }
    };
    let (status, body) = if whole {
        respond(&request, &newest)
    } else {
        ("400 Bad Request", "no HTTP request\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text::MEDIA_TYPE,
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn respond(request: &[u8], newest: &impl Fn() -> Arc<Vec<Record>>) -> (&'static str, String) {
    let line = request
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", super::text(&newest())),
        (Some(b"GET"), Some(_)) => ("404 Not Found", "there is only /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    }
}

const AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request that is read.
const LONGEST: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use aizen_protocol::id::{BootId, RoundId};
    use aizen_protocol::record::{Body, Host};
    use jiff::Timestamp;

    use super::*;

    async fn asked(question: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let at = Loopback::new(address).unwrap();
        let record = Record {
            round: RoundId(1),
            at: Timestamp::UNIX_EPOCH,
            boot: BootId::fresh(),
            body: Body::Host(Host::default()),
        };
        let records = Arc::new(vec![record]);
        let serving = tokio::spawn(serve(at, move || Arc::clone(&records)));
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream.write_all(question).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn a_scraper_gets_the_metrics_and_nothing_else() {
        let answer = asked(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("aizen_uptime_seconds 0\n"), "{answer}");
        let answer = asked(b"GET /etc/passwd HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let answer = asked(b"POST /metrics HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }

    #[tokio::test]
    async fn a_request_without_end_is_refused() {
        let answer = asked(&[b'x'; LONGEST + 1024]).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }

    #[test]
    fn only_a_loopback_address_is_listened_on() {
        assert!(Loopback::new("127.0.0.1:9751".parse().unwrap()).is_some());
        assert!(Loopback::new("[::1]:9751".parse().unwrap()).is_some());
        assert!(Loopback::new("0.0.0.0:9751".parse().unwrap()).is_none());
        assert!(Loopback::new("192.0.2.1:9751".parse().unwrap()).is_none());
    }
}
