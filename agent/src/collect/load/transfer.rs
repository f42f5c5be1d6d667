//! Filling a line over HTTP: a file that is fetched again and again, or a body that is sent and thrown away.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use aizen_protocol::record::LoadDirection;
use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;

use super::{Plan, Server};
use crate::probe::tls;
use crate::probe::web::{HttpFault, begin_response};

/// Why nothing is moved.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("no TLS: {0}")]
    Tls(String),
    #[error(transparent)]
    Http(#[from] HttpFault),
    #[error("the server answers with status {0}{1}")]
    Status(u16, &'static str),
    #[error("the server redirects to {0}: name that URL")]
    Redirect(String),
    #[error("the server moves nothing")]
    Silent,
    #[error("what the server gives is too small to load a line: name a larger file")]
    Small,
}

/// What is left to move, and what was moved, by all connections of one transfer together.
#[derive(Debug)]
pub(super) struct Meter {
    left: Cell<u64>,
    moved: Cell<u64>,
}

impl Meter {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            left: Cell::new(bytes),
            moved: Cell::new(0),
        }
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved.get()
    }

    /// Counts what was moved; false if it is enough.
    fn count(&self, bytes: u64) -> bool {
        self.moved.set(self.moved.get().saturating_add(bytes));
        self.left.set(self.left.get().saturating_sub(bytes));
        self.left.get() > 0
    }
}

/// Moves until the meter is at its end. The caller holds the deadline. One connection that fails costs nothing as long
/// as another does not.
pub(super) async fn fill(
    plan: &Plan,
    direction: LoadDirection,
    server: &Server,
    meter: &Meter,
) -> Result<(), TransferError> {
    // Not all alike: some links compress.
    let mut block = vec![0; BLOCK];
    getrandom::fill(&mut block).map_err(|error| TransferError::Connect(error.into()))?;
    let share = plan.bytes.div_ceil(u64::from(plan.streams.max(1)));
    let stream = Stream {
        plan,
        server,
        meter,
        block: &block,
        share,
    };
    let all = (0..plan.streams).map(|_| stream.run(direction));
    let mut ended = join_all(all).await;
    if ended.iter().any(Result::is_ok) {
        return Ok(());
    }
    ended.pop().unwrap_or(Err(TransferError::Silent))
}

struct Stream<'p> {
    plan: &'p Plan,
    server: &'p Server,
    meter: &'p Meter,
    block: &'p [u8],
    share: u64,
}

impl Stream<'_> {
    /// One request after the other, each on a connection of its own.
    async fn run(&self, direction: LoadDirection) -> Result<(), TransferError> {
        for _ in 0..REQUESTS {
            if self.meter.left.get() == 0 {
                return Ok(());
            }
            let mut tcp = TcpStream::connect(self.server.address).await?;
            // What is over is over: what waits in the socket is not sent behind our back, and hardly anything waits.
            let socket = SockRef::from(&tcp);
            socket.set_linger(Some(Duration::ZERO))?;
            socket.set_tcp_notsent_lowat(UNSENT)?;
            if self.server.url.secure {
                let mut tls = self.secure(tcp).await?;
                self.once(direction, &mut tls).await?;
            } else {
                self.once(direction, &mut tcp).await?;
            }
        }
        Err(TransferError::Small)
    }

    async fn secure(
        &self,
        tcp: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, TransferError> {
        let name = ServerName::try_from(self.server.url.host.clone())
            .map_err(|error| TransferError::Tls(error.to_string()))?;
        let (stream, shown) =
            tls::handshake(tcp, name, self.plan.roots.as_ref(), &[b"http/1.1".to_vec()]).await;
        let stream = stream.map_err(|error| TransferError::Tls(error.to_string()))?;
        match shown.and_then(|shown| shown.verdict) {
            Some(Ok(())) => Ok(stream),
            Some(Err(error)) => Err(TransferError::Tls(tls::reason(&error))),
            None => Err(TransferError::Tls(
                "this device has no root certificates to judge the server's by".to_owned(),
            )),
        }
    }

    async fn once<S>(&self, direction: LoadDirection, stream: &mut S) -> Result<(), TransferError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match direction {
            LoadDirection::Down => self.download(stream).await,
            LoadDirection::Up => self.upload(stream).await,
        }
    }

    async fn download<S>(&self, stream: &mut S) -> Result<(), TransferError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let url = &self.server.url;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: aizen\r\nAccept: */*\r\nAccept-Encoding: identity\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n",
            url.path,
            url.authority()
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let begun = begin_response(stream).await?;
        judge(begun.status, begun.location)?;
        let mut left = begun.left;
        let mut more = self.meter.count(begun.came);
        let mut buffer = vec![0; BLOCK];
        while more && left != Some(0) {
            let length = match stream.read(&mut buffer).await {
                Ok(0) => break,
                // Many servers end TLS without saying so.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                length => length? as u64,
            };
            left = left.map(|left| left.saturating_sub(length));
            more = self.meter.count(length);
        }
        Ok(())
    }

    async fn upload<S>(&self, stream: &mut S) -> Result<(), TransferError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let url = &self.server.url;
        let mut left = self.share.min(self.meter.left.get());
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: aizen\r\nContent-Type: application/octet-stream\r\nContent-Length: {left}\r\nConnection: close\r\n\r\n",
            url.path,
            url.authority()
        );
        let (mut reader, mut writer) = split(stream);
        writer.write_all(request.as_bytes()).await?;
        let mut answer = pin!(begin_response(&mut reader));
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let written = tokio::select! {
                // Before all was sent: it has seen enough, or does not want it.
                answer = &mut answer => {
                    let answer = answer?;
                    return judge(answer.status, answer.location);
                }
                written = writer.write(&self.block[..most]) => written,
            };
            match written {
                Ok(length) => {
                    left = left.saturating_sub(length as u64);
                    self.meter.count(length as u64);
                }
                Err(error) => {
                    // Its answer may say why it hung up.
                    let Ok(answer) = answer.await else {
                        return Err(error.into());
                    };
                    return judge(answer.status, answer.location);
                }
            }
        }
        writer.flush().await?;
        let answer = answer.await?;
        judge(answer.status, answer.location)
    }
}

/// Only 2xx moves what was asked for.
fn judge(status: u16, location: Option<String>) -> Result<(), TransferError> {
    match (status, location) {
        (200..300, _) => Ok(()),
        (300..400, Some(location)) => {
            let plain = location.chars().filter(|c| !c.is_control());
            Err(TransferError::Redirect(plain.take(MOST_TEXT).collect()))
        }
        (405 | 411 | 413 | 501, _) => Err(TransferError::Status(
            status,
            ": it takes no uploads there (name another with --up)",
        )),
        _ => Err(TransferError::Status(status, "")),
    }
}

const BLOCK: usize = 64 << 10;
/// Bytes that wait in a socket before they are sent (`TCP_NOTSENT_LOWAT`, tcp(7)): more would be counted too early.
const UNSENT: u32 = 128 << 10;
/// Requests of one connection after the other: a small file is not fetched for ever.
const REQUESTS: usize = 100;
const MOST_TEXT: usize = 200;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::probe::echo::Target;

    const LONG: Duration = Duration::from_secs(60);

    /// Answers every connection: reads up to the end of the head and so much of a body, answers, and reads on.
    async fn serve(listener: TcpListener, answer: String, wanted: usize) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let (mut heard, mut buffer) = (Vec::new(), vec![0; 4096]);
                let end = |heard: &[u8]| heard.windows(4).position(|w| w == b"\r\n\r\n");
                while end(&heard).is_none_or(|end| heard.len() - end - 4 < wanted) {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(length) => heard.extend(&buffer[..length]),
                    }
                }
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
                while stream
                    .read(&mut buffer)
                    .await
                    .is_ok_and(|length| length > 0)
                {}
            });
        }
    }

    async fn moved(
        direction: LoadDirection,
        answer: &str,
        wanted: usize,
        bytes: u64,
    ) -> (u64, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, answer.to_owned(), wanted));
        let server = Server {
            url: format!("http://{address}/x").parse().unwrap(),
            address,
        };
        let plan = Plan {
            target: Target {
                address: address.ip(),
                link: None,
            },
            port: address.port(),
            transfers: Vec::new(),
            streams: 2,
            time: LONG,
            bytes,
            roots: None,
        };
        let meter = Meter::new(bytes);
        let filled = tokio::time::timeout(LONG, fill(&plan, direction, &server, &meter));
        let filled = filled.await.unwrap();
        serving.abort();
        (meter.moved(), filled.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_download_goes_on_until_its_bytes_are_there_and_hardly_beyond() {
        let body = "x".repeat(300_000);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{body}");
        let (moved, filled) = moved(LoadDirection::Down, &answer, 0, 2_000_000).await;
        assert_eq!(filled, Ok(()));
        let beyond = 2 * (BLOCK as u64);
        assert!((2_000_000..2_000_000 + beyond).contains(&moved), "{moved}");
    }

    #[tokio::test]
    async fn an_upload_sends_what_it_may_and_no_byte_more() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let (moved, filled) = moved(LoadDirection::Up, answer, 500_000, 1_000_000).await;
        assert_eq!((moved, filled), (1_000_000, Ok(())));
    }

    #[tokio::test]
    async fn a_server_that_takes_no_uploads_is_told_with_its_answer() {
        let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
        let (_, filled) = moved(LoadDirection::Up, answer, 0, 100_000_000).await;
        let why = filled.unwrap_err();
        assert!(why.contains("413") && why.contains("--up"), "{why}");
    }

    #[tokio::test]
    async fn a_redirect_an_empty_file_and_a_refusal_end_it() {
        use LoadDirection::Down;
        for (answer, want) in [
            (
                "HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\n\r\n",
                "http://other.example/",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "too small"),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
            ("SSH-2.0-x\r\n\r\n", "no HTTP"),
        ] {
            let (moved, filled) = moved(Down, answer, 0, 1000).await;
            let why = filled.unwrap_err();
            assert!(why.contains(want) && moved == 0, "{answer}: {why}");
        }
    }
}
