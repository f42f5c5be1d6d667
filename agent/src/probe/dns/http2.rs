//! Questions over HTTPS as RFC 8484 recommends it: HTTP/2 (RFC 9113), many questions over one connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::{Failure, Reply};
use super::https::{ID, MAX_MESSAGE, TYPE};
use super::question::{Judged, Question};
use crate::clock;
use crate::probe::web::{HttpFault, Url};

/// What ALPN calls it (RFC 9113, 3.2).
pub(super) const PROTOCOL: &[u8] = b"h2";

/// A connection that both sides have agreed to speak HTTP/2 over.
#[derive(Debug)]
pub(super) struct Http2 {
    requests: SendRequest<Bytes>,
    connection: Connection<TlsStream<TcpStream>, Bytes>,
    url: Url,
}

impl Http2 {
    /// Says hello; the server's settings may follow later.
    pub(super) async fn open(stream: TlsStream<TcpStream>, url: Url) -> Result<Self, Failure> {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOW)
            .max_header_list_size(MAX_HEADERS);
        let (requests, connection) = builder.handshake(stream).await.map_err(failure)?;
        Ok(Self {
            requests,
            connection,
            url,
        })
    }

    /// Asks once; the caller holds the deadline.
    pub(super) async fn ask(&mut self, question: &Question) -> Result<Reply, Failure> {
        let bytes = Bytes::from(question.bytes(ID));
        let request = Request::post(self.url.to_string())
            .header(ACCEPT, TYPE)
            .header(CONTENT_TYPE, TYPE)
            .header(http::header::CONTENT_LENGTH, bytes.len())
            .body(())
            .map_err(|_| HttpFault::NotHttp)?;
        let requests = self.requests.clone();
        let exchange = async move {
            let mut requests = requests.ready().await?;
            let sent = clock::since_boot();
            let (answer, mut body) = requests.send_request(request, false)?;
            body.send_data(bytes, true)?;
            let (head, mut body) = answer.await?.into_parts();
            let mut message = Vec::new();
            while let Some(part) = body.data().await {
                let part = part?;
                if message.len() + part.len() > MAX_MESSAGE {
                    return Ok((head.status, None, sent));
                }
                message.extend_from_slice(&part);
                body.flow_control().release_capacity(part.len())?;
            }
            Ok::<_, h2::Error>((head.status, Some(message), sent))
        };
        // Nothing moves unless somebody drives the connection.
        let connection = &mut self.connection;
        let ended = poll_fn(|context| Pin::new(&mut *connection).poll(context));
        let (status, message, sent) = tokio::select! {
            biased;
            answered = exchange => answered.map_err(failure)?,
            ended = ended => return Err(ended.err().map_or_else(closed, failure)),
        };
        if status != StatusCode::OK {
            return Err(Failure::Http(status.as_u16()));
        }
        let message = message.ok_or(Failure::Garbage)?;
        match question.judge(ID, &message) {
            Judged::Answer(read) => Ok(Reply {
                message: read,
                rtt: clock::since_boot().0.saturating_sub(sent.0),
                bytes: message.len(),
            }),
            Judged::Other | Judged::Malformed => Err(Failure::Garbage),
        }
    }
}

fn closed() -> Failure {
    Failure::Closed(io::ErrorKind::UnexpectedEof.into())
}

fn failure(error: h2::Error) -> Failure {
    if error.is_io() {
        return error.into_io().map_or_else(closed, Failure::from_io);
    }
    if error.is_remote() {
        return Failure::Closed(io::Error::other(error));
    }
    HttpFault::NotHttp.into()
}

/// More than one message; bytes that a server may send unasked.
const WINDOW: u32 = 128 << 10;
/// A hostile server's headers are cut here.
const MAX_HEADERS: u32 = 16 << 10;
