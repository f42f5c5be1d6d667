//! One way to one server: opened once, asked as often as wanted, each time with a deadline.

use std::io;
use std::time::Duration;

use aizen_protocol::record::DnsAnswer;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::http2::{self, Http2};
use super::message::Message;
use super::question::Question;
use super::server::{Server, Transport};
use super::udp::Udp;
use super::{https, stream};
use crate::clock;
use crate::probe::roots::{NoRoots, Roots};
use crate::probe::tls;
use crate::probe::web::{HttpFault, Url};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it says.
    pub message: Message,
    /// From the question's last byte to the answer's, without the opening of a connection.
    pub rtt: Duration,
    /// Length of the message.
    pub bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing, in time.
    #[error("no answer in time")]
    Timeout,
    /// ICMP port unreachable, or a TCP reset in answer to the first packet.
    #[error("nothing listens there")]
    Refused,
    /// No route, or ICMP said so.
    #[error("no way there: {0}")]
    Unreachable(io::Error),
    /// Bytes that are no answer to the question.
    #[error("what came back is no answer to the question")]
    Garbage,
    /// The stream ended before the answer.
    #[error("the server closed the connection: {0}")]
    Closed(io::Error),
    /// The handshake failed, or the certificate is not the wanted one.
    #[error("TLS: {0}")]
    Tls(String),
    /// Nothing to judge a certificate by.
    #[error(transparent)]
    NoRoots(#[from] NoRoots),
    /// HTTP said something else than 200.
    #[error("HTTP status {0}")]
    Http(u16),
    /// It spoke no HTTP.
    #[error(transparent)]
    NoHttp(#[from] HttpFault),
}

impl Failure {
    pub(super) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed(error),
            // rustls says so of records that are none, and of the peer's alerts.
            io::ErrorKind::InvalidData => Self::Tls(error.to_string()),
            // The kernel gave up on a connection by itself.
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable(error),
        }
    }

    /// As records have it.
    #[must_use]
    pub fn answer(&self) -> DnsAnswer {
        match self {
            Self::Timeout => DnsAnswer::Timeout,
            Self::Refused => DnsAnswer::PortUnreachable,
            Self::Unreachable(_) => DnsAnswer::Unreachable,
            Self::Garbage | Self::Closed(_) | Self::Http(_) | Self::NoHttp(_) => DnsAnswer::Garbage,
            Self::Tls(_) | Self::NoRoots(_) => DnsAnswer::Tls,
        }
    }
}

/// A number for a question that nobody can guess (RFC 5452, 4.3).
pub(super) fn draw_id() -> Result<u16, Failure> {
    let mut id = [0; 2];
    fill(&mut id)?;
    Ok(u16::from_be_bytes(id))
}

/// Several of them at once.
pub(super) fn draw_ids(wanted: usize) -> Result<Vec<u16>, Failure> {
    let mut bytes = vec![0; 2 * wanted];
    fill(&mut bytes)?;
    let (pairs, _) = bytes.as_chunks();
    Ok(pairs.iter().copied().map(u16::from_be_bytes).collect())
}

fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|error| Failure::Unreachable(io::Error::other(error)))
}

/// An open way to one server.
#[derive(Debug)]
pub struct Client {
    way: Way,
    /// How long opening it took: nothing for UDP; TCP, and TLS over it.
    pub setup: Duration,
    /// True if the server showed a certificate for its name that leads to a known root; none without TLS.
    pub verified: Option<bool>,
}

#[derive(Debug)]
enum Way {
    Udp(Udp),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Https(Box<TlsStream<TcpStream>>, Url),
    Http2(Box<Http2>),
}

impl Client {
    /// Opens the way. A server whose name is known must show a certificate for it; one without is taken with any, and
    /// [`Client::verified`] says so.
    ///
    /// # Errors
    /// A [`Failure`] if it does not open before `until`.
    pub async fn connect(
        server: &Server,
        transport: &Transport,
        roots: Option<&Roots>,
        until: Instant,
    ) -> Result<Self, Failure> {
        let began = clock::since_boot();
        let socket = server.socket(transport);
        let opening = async {
            Ok(match transport {
                Transport::Udp => (Way::Udp(Udp::connect(socket)?), None),
                Transport::Tcp => (Way::Tcp(open(socket).await?), None),
                Transport::Tls => {
                    let tcp = open(socket).await?;
                    let (stream, verified) =
                        secure(tcp, server, server.name.as_deref(), roots, &[]).await?;
                    (Way::Tls(Box::new(stream)), Some(verified))
                }
                Transport::Https(url) => {
                    let tcp = open(socket).await?;
                    let protocols = [http2::PROTOCOL.to_vec(), b"http/1.1".to_vec()];
                    let (stream, verified) =
                        secure(tcp, server, Some(&url.host), roots, &protocols).await?;
                    let url = url.clone();
                    let way = if stream.get_ref().1.alpn_protocol() == Some(http2::PROTOCOL) {
                        Way::Http2(Box::new(Http2::open(stream, url).await?))
                    } else {
                        Way::Https(Box::new(stream), url)
                    };
                    (way, Some(verified))
                }
            })
        };
        let (way, verified) = in_time(until, opening).await?;
        let setup = match way {
            Way::Udp(_) => Duration::ZERO,
            Way::Tcp(_) | Way::Tls(_) | Way::Https(..) | Way::Http2(_) => {
                clock::since_boot().0.saturating_sub(began.0)
            }
        };
        Ok(Self {
            way,
            setup,
            verified,
        })
    }

    /// Asks once. Over HTTP/1.1 a client answers one question: the connection ends with it.
    ///
    /// # Errors
    /// A [`Failure`] if no answer comes before `until`.
    pub async fn ask(&mut self, question: &Question, until: Instant) -> Result<Reply, Failure> {
        match &mut self.way {
            // It keeps the deadline itself: it knows what came until then.
            Way::Udp(udp) => udp.ask(question, until).await,
            Way::Tcp(tcp) => in_time(until, stream::ask(tcp, question)).await,
            Way::Tls(tls) => in_time(until, stream::ask(tls, question)).await,
            Way::Https(tls, url) => in_time(until, https::ask(tls, url, question)).await,
            Way::Http2(http) => in_time(until, http.ask(question)).await,
        }
    }

    /// True if another question can follow.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        !matches!(self.way, Way::Https(..))
    }
}

/// Opens, asks once, closes; a truncated answer over UDP is asked for again over TCP, as programs do.
///
/// # Errors
/// A [`Failure`] if no answer comes before `until`. The truncated answer counts if TCP gives none.
pub async fn ask(
    server: &Server,
    transport: &Transport,
    roots: Option<&Roots>,
    question: &Question,
    until: Instant,
) -> Result<Reply, Failure> {
    let mut client = Client::connect(server, transport, roots, until).await?;
    let reply = client.ask(question, until).await?;
    if !reply.message.flags.truncated || *transport != Transport::Udp {
        return Ok(reply);
    }
    let whole = async {
        let mut client = Client::connect(server, &Transport::Tcp, None, until).await?;
        client.ask(question, until).await
    };
    Ok(whole.await.unwrap_or(reply))
}

async fn in_time<T>(
    until: Instant,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout_at(until, work)
        .await
        .unwrap_or(Err(Failure::Timeout))
}

async fn open(socket: std::net::SocketAddr) -> Result<TcpStream, Failure> {
    let tcp = TcpStream::connect(socket).await.map_err(Failure::from_io)?;
    tcp.set_nodelay(true).map_err(Failure::from_io)?;
    Ok(tcp)
}

/// TLS over `tcp`; true if the certificate was judged and is good.
async fn secure(
    tcp: TcpStream,
    server: &Server,
    name: Option<&str>,
    roots: Option<&Roots>,
    protocols: &[Vec<u8>],
) -> Result<(TlsStream<TcpStream>, bool), Failure> {
    let wanted = match name {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| Failure::Tls(format!("'{name}' can't stand in a certificate")))?,
        None => ServerName::IpAddress(server.address.into()),
    };
    if name.is_some() && roots.is_none() {
        return Err(NoRoots.into());
    }
    let (stream, shown) = tls::handshake(tcp, wanted, roots, protocols).await;
    let stream = stream.map_err(|error| Failure::Tls(error.to_string()))?;
    match shown.and_then(|shown| shown.verdict) {
        Some(Ok(())) => Ok((stream, true)),
        // Whose name is not known can't be judged: better encrypted than not (RFC 7435).
        Some(Err(_)) | None if name.is_none() => Ok((stream, false)),
        Some(Err(error)) => Err(Failure::Tls(tls::reason(&error))),
        None => Err(Failure::Tls("the server showed no certificate".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_port_is_port_unreachable() {
        let answer = |kind: io::ErrorKind| Failure::from_io(kind.into()).answer();
        assert_eq!(
            answer(io::ErrorKind::ConnectionRefused),
            DnsAnswer::PortUnreachable
        );
        for kind in [
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::PermissionDenied,
        ] {
            assert_eq!(answer(kind), DnsAnswer::Unreachable);
        }
        assert_eq!(answer(io::ErrorKind::UnexpectedEof), DnsAnswer::Garbage);
    }
}
