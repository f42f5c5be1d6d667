//! HTTP/1.1 (RFC 9112), as much as a probe needs: one question, one bounded answer, from servers that may be hostile.

pub(crate) mod response;
pub(crate) mod url;

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub use self::response::{HttpFault, Response};
pub(crate) use self::response::{begin_response, read_response};
pub use self::url::{InvalidUrl, Url};

/// Asks for a URL without TLS at this address; the caller holds the deadline. A body longer than `most` bytes is cut.
///
/// # Errors
/// An [`HttpFault`] if no whole answer comes.
pub async fn get(url: &Url, address: SocketAddr, most: usize) -> Result<Response, HttpFault> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: aizen\r\nAccept: */*\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n",
        url.path,
        url.authority()
    );
    let mut tcp = TcpStream::connect(address).await?;
    exchange(&mut tcp, request.as_bytes(), &[], most).await
}

/// Sends a body to a URL without TLS at this address; the rest is as with [`get`].
///
/// # Errors
/// An [`HttpFault`] if no whole answer comes.
pub async fn post(
    url: &Url,
    address: SocketAddr,
    media_type: &str,
    body: &[u8],
    most: usize,
) -> Result<Response, HttpFault> {
    post_over(
        &mut TcpStream::connect(address).await?,
        url,
        media_type,
        body,
        most,
    )
    .await
}

/// The same over a connection that is there already, with or without TLS.
///
/// # Errors
/// An [`HttpFault`] if no whole answer comes.
pub async fn post_over<S>(
    stream: &mut S,
    url: &Url,
    media_type: &str,
    body: &[u8],
    most: usize,
) -> Result<Response, HttpFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: aizen\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        url.path,
        url.authority(),
        body.len()
    );
    exchange(stream, request.as_bytes(), body, most).await
}

async fn exchange<S>(
    stream: &mut S,
    head: &[u8],
    body: &[u8],
    most: usize,
) -> Result<Response, HttpFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(head).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    read_response(stream, most).await
}
