//! One connection to the orchestrator: where it is, TCP, TLS and the WebSocket upgrade, each within its time.
//!
//! The addresses that answered with the pinned CA's certificate are remembered on storage, so that a dead resolver
//! does not silence the device. Attempts are staggered: a dead address costs no more than a moment.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::frame::SUBPROTOCOL;
use aizen_protocol::{limit, strict};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::meter::{Meter, Metered};
use crate::identity::{Access, write_file};

/// A WebSocket over TLS over TCP.
pub(crate) type Connection = WebSocketStream<TlsStream<Metered>>;

/// Where the orchestrator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address; its certificate must be for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no server: wss://HOST[:PORT] or HOST[:PORT], port {DEFAULT_PORT} if none is given"
)]
pub struct InvalidServer(String);

impl FromStr for Server {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let invalid = || InvalidServer(text.chars().take(200).collect());
        let rest = text.trim();
        let rest = ["wss://", "https://"]
            .iter()
            .find_map(|scheme| rest.strip_prefix(scheme))
            .unwrap_or(rest);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(invalid)?;
                (host, port.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (rest, None),
            },
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |p| p.parse().map_err(|_| invalid()))?;
        if port == 0 || ServerName::try_from(host).is_err() {
            return Err(invalid());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "wss://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "wss://{}:{}", self.host, self.port)
        }
    }
}

/// Bounds of dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The resolver must have answered by then.
    pub resolve: Duration,
    /// An address must have answered with a finished upgrade by then.
    pub attempt: Duration,
    /// Bytes that were sent must be acknowledged by TCP by then (`TCP_USER_TIMEOUT`, tcp(7)).
    pub unacknowledged: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            attempt: Duration::from_secs(10),
            unacknowledged: Duration::from_secs(20),
        }
    }
}

/// Why one address gave no connection.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// TCP failed.
    #[error("no TCP connection: {0}")]
    Tcp(io::Error),
    /// TLS failed.
    #[error("no TLS connection: {0}")]
    Tls(io::Error),
    /// The upgrade failed.
    #[error("no WebSocket: {0}")]
    Upgrade(Box<tungstenite::Error>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// The name can't stand in a certificate or a request.
    #[error("'{0}' is no host name")]
    Name(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{server} can't be reached{}{}", by_name(.resolve), by_address(.attempts))]
pub struct DialError {
    /// The server.
    pub server: Server,
    /// What the resolver said, if it gave no address.
    pub resolve: Option<io::Error>,
    /// What each address said.
    pub attempts: Vec<(SocketAddr, AttemptError)>,
}

fn by_name(resolve: &Option<io::Error>) -> String {
    resolve
        .as_ref()
        .map(|error| format!("; its name can't be resolved: {error}"))
        .unwrap_or_default()
}

fn by_address(attempts: &[(SocketAddr, AttemptError)]) -> String {
    attempts
        .iter()
        .map(|(address, error)| format!("; {address}: {error}"))
        .collect()
}

/// Dials one server.
pub(crate) struct Dialer {
    server: Server,
    path: &'static str,
    tls: Arc<ClientConfig>,
    patience: Patience,
    meter: Meter,
    remembered: Remembered,
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Dialer {
    pub(crate) fn new(
        server: Server,
        path: &'static str,
        tls: Arc<ClientConfig>,
        patience: Patience,
        meter: Meter,
    ) -> Self {
        Self {
            remembered: Remembered::none(&server),
            server,
            path,
            tls,
            patience,
            meter,
            lookup: None,
        }
    }

    /// Remembers addresses in this file.
    pub(crate) fn remembering(mut self, file: PathBuf) -> Self {
        self.remembered = Remembered::read(file, &self.server);
        self
    }

    /// The first address that gives a WebSocket.
    pub(crate) async fn dial(&mut self) -> Result<(Connection, SocketAddr), DialError> {
        let began = Instant::now();
        let remembered = self.remembered.addresses(self.server.port);
        let mut waiting: VecDeque<SocketAddr> = remembered.into();
        // The resolver's order is better than memory, if it answers.
        let mut start = if waiting.is_empty() {
            began
        } else {
            began + HEAD_START
        };
        let mut resolve_error = None;
        let mut resolving = true;
        let mut failed: Vec<(SocketAddr, AttemptError)> = Vec::new();
        let mut tried: Vec<SocketAddr> = Vec::new();
        let (server, tls, patience) = (&self.server, &self.tls, self.patience);
        let (path, meter, lookup) = (self.path, &self.meter, &mut self.lookup);
        let mut running = FuturesUnordered::new();
        let mut resolved = Box::pin(resolve(server, lookup, patience.resolve));
        loop {
            if !resolving && waiting.is_empty() && running.is_empty() {
                return Err(DialError {
                    server: server.clone(),
                    resolve: resolve_error,
                    attempts: failed,
                });
            }
            tokio::select! {
                found = &mut resolved, if resolving => {
                    resolving = false;
                    start = Instant::now();
                    match found {
                        Ok(addresses) => {
                            let memory = std::mem::take(&mut waiting);
                            waiting.extend(addresses.iter().take(MAX_ADDRESSES).filter(|a| !tried.contains(a)));
                            waiting.extend(memory.iter().filter(|a| !addresses.contains(a)));
                        }
                        Err(error) => resolve_error = Some(error),
                    }
                }
                () = sleep_until(start), if !waiting.is_empty() => {
                    if let Some(address) = waiting.pop_front() {
                        tried.push(address);
                        start = Instant::now() + STAGGER;
                        running.push(async move {
                            (address, attempt(server, path, tls, patience, meter, address).await)
                        });
                    }
                }
                Some((address, result)) = running.next(), if !running.is_empty() => match result {
                    Ok(connection) => return Ok((connection, address)),
                    Err(error) => {
                        failed.push((address, error));
                        start = Instant::now();
                    }
                }
            }
        }
    }

    /// `address` answered as the orchestrator does: it is tried first when the resolver is silent.
    pub(crate) async fn answered(&mut self, address: SocketAddr) {
        if let Some((file, json)) = self.remembered.add(address.ip()) {
            let write = move || write_file(&file, &json, Access::private());
            let written = tokio::task::spawn_blocking(write).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "the address that answered is remembered in memory only");
            }
        }
    }
}

/// Asks the system's resolver. A lookup that outlives its deadline is not started a second time: the system's
/// functions can't be cancelled, and each holds a thread.
async fn resolve(
    server: &Server,
    lookup: &mut Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    deadline: Duration,
) -> io::Result<Vec<SocketAddr>> {
    let answer = async {
        if let Some(earlier) = lookup.as_mut() {
            let answer = earlier.await;
            *lookup = None;
            // A failure may be older than the network: ask again.
            if let Ok(Ok(addresses)) = answer {
                return Ok(addresses);
            }
        }
        let (host, port) = (server.host.clone(), server.port);
        let running = lookup.insert(tokio::spawn(async move {
            Ok(tokio::net::lookup_host((host, port)).await?.collect())
        }));
        let answer = running.await;
        *lookup = None;
        answer.map_err(io::Error::other)?
    };
    let addresses = timeout(deadline, answer).await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the resolver gave no answer within {deadline:?}"),
        ))
    })?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
    }
    Ok(addresses)
}

async fn attempt(
    server: &Server,
    path: &'static str,
    tls: &Arc<ClientConfig>,
    patience: Patience,
    meter: &Meter,
    address: SocketAddr,
) -> Result<Connection, AttemptError> {
    let connected = async {
        let name = || AttemptError::Name(server.host.clone());
        let server_name = ServerName::try_from(server.host.clone()).map_err(|_| name())?;
        let tcp = TcpStream::connect(address)
            .await
            .map_err(AttemptError::Tcp)?;
        let options = socket2::SockRef::from(&tcp);
        options
            .set_tcp_nodelay(true)
            .and_then(|()| options.set_tcp_user_timeout(Some(patience.unacknowledged)))
            // What waits in the kernel delays a ping and can't be taken back.
            .and_then(|()| options.set_tcp_notsent_lowat(16 << 10))
            .map_err(AttemptError::Tcp)?;
        let tls = TlsConnector::from(Arc::clone(tls))
            .connect(server_name, Metered::new(tcp, meter.clone()))
            .await
            .map_err(AttemptError::Tls)?;
        let upgrade = |error| AttemptError::Upgrade(Box::new(error));
        let mut request = format!("{server}{path}")
            .into_client_request()
            .map_err(upgrade)?;
        request.headers_mut().insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(request, tls, Some(websocket_config()))
                .await
                .map_err(upgrade)?;
        Ok(socket)
    };
    timeout(patience.attempt, connected)
        .await
        .unwrap_or(Err(AttemptError::Slow(patience.attempt)))
}

/// The library's default buffers cost 149 KiB a connection (performance figures, section 7).
fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(4 << 10)
        .max_write_buffer_size(2 * limit::FRAME)
        .max_message_size(Some(limit::FRAME))
        .max_frame_size(Some(limit::FRAME))
}

/// Addresses that last authenticated, the latest first.
#[derive(Debug)]
struct Remembered {
    file: Option<PathBuf>,
    memory: Memory,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    server: String,
    addresses: Vec<IpAddr>,
}

impl Remembered {
    fn none(server: &Server) -> Self {
        Self {
            file: None,
            memory: Memory {
                server: server.to_string(),
                addresses: Vec::new(),
            },
        }
    }

    /// What is not readable, or about another server, is forgotten.
    fn read(file: PathBuf, server: &Server) -> Self {
        let mut remembered = Self::none(server);
        let memory = std::fs::read(&file)
            .ok()
            .and_then(|bytes| strict::from_slice::<Memory>(&bytes, MEMORY_BYTES).ok())
            .filter(|memory| memory.server == remembered.memory.server);
        if let Some(mut memory) = memory {
            memory.addresses.truncate(MAX_REMEMBERED);
            remembered.memory = memory;
        }
        remembered.file = Some(file);
        remembered
    }

    fn addresses(&self, port: u16) -> Vec<SocketAddr> {
        let with_port = |&ip| SocketAddr::new(ip, port);
        self.memory.addresses.iter().map(with_port).collect()
    }

    /// Puts `address` first; gives what is to be written, if that changed anything.
    fn add(&mut self, address: IpAddr) -> Option<(PathBuf, Vec<u8>)> {
        let file = self.file.clone()?;
        if self.memory.addresses.first() == Some(&address) {
            return None;
        }
        self.memory.addresses.retain(|known| *known != address);
        self.memory.addresses.insert(0, address);
        self.memory.addresses.truncate(MAX_REMEMBERED);
        Some((file, serde_json::to_vec(&self.memory).ok()?))
    }
}

/// The port of the orchestrator's listener.
const DEFAULT_PORT: u16 = 8443;
/// How long the resolver is waited for before remembered addresses are tried.
const HEAD_START: Duration = Duration::from_millis(500);
/// After so long without an answer the next address is tried beside it (RFC 8305 section 5 says 250 ms; a TLS upgrade
/// takes longer than a TCP handshake).
const STAGGER: Duration = Duration::from_millis(500);
const MAX_ADDRESSES: usize = 8;
const MAX_REMEMBERED: usize = 4;
const MEMORY_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_with_and_without_scheme_port_and_brackets() {
        for (text, host, port) in [
            ("cloud.example", "cloud.example", 8443),
            ("wss://cloud.example:9443/", "cloud.example", 9443),
            ("https://192.0.2.1", "192.0.2.1", 8443),
            ("[2001:db8::1]:1", "2001:db8::1", 1),
            ("2001:db8::1", "2001:db8::1", 8443),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port), "{text}");
            assert_eq!(server.to_string().parse::<Server>().unwrap(), server);
        }
        for text in [
            "",
            "http://a:b:c",
            "a b",
            "x:0",
            "x:99999",
            "[::1",
            "a/b",
            "wss://",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn remembered_addresses_survive_and_belong_to_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("addresses.json");
        let server: Server = "a.example".parse().unwrap();
        let mut remembered = Remembered::read(file.clone(), &server);
        for last in [1, 2, 3, 4, 5, 3] {
            let (file, json) = remembered.add(IpAddr::from([192, 0, 2, last])).unwrap();
            std::fs::write(file, json).unwrap();
        }
        let again = Remembered::read(file.clone(), &server);
        let expected = [3, 5, 4, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 7)));
        assert_eq!(again.addresses(7), expected);
        let other = Remembered::read(file.clone(), &"b.example".parse().unwrap());
        assert_eq!(other.addresses(7), []);
        std::fs::write(&file, b"{rubbish").unwrap();
        assert_eq!(Remembered::read(file, &server).addresses(7), []);
    }
}
