//! Questions over HTTPS (RFC 8484) to servers that speak no HTTP/2: one POST over HTTP/1.1, and the connection ends.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::client::{Failure, Reply};
use super::question::{Judged, Question};
use crate::clock;
use crate::probe::web::{Url, read_response};

/// Asks once over a fresh connection; the caller holds the deadline.
pub(super) async fn ask<S>(stream: &mut S, url: &Url, question: &Question) -> Result<Reply, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bytes = question.bytes(ID);
    let mut request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAccept: {TYPE}\r\nContent-Type: {TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        url.path,
        url.authority(),
        bytes.len()
    )
    .into_bytes();
    request.extend(bytes);
    let sent = clock::since_boot();
    stream.write_all(&request).await.map_err(Failure::from_io)?;
    stream.flush().await.map_err(Failure::from_io)?;
    let response = read_response(stream, MAX_MESSAGE).await?;
    if response.status != 200 {
        return Err(Failure::Http(response.status));
    }
    match question.judge(ID, &response.body) {
        Judged::Answer(message) => Ok(Reply {
            message,
            rtt: clock::since_boot().0.saturating_sub(sent.0),
            bytes: response.body.len(),
        }),
        Judged::Other | Judged::Malformed => Err(Failure::Garbage),
    }
}

/// The same for every question, so that caches know it again (RFC 8484, 4.1).
pub(super) const ID: u16 = 0;
pub(super) const TYPE: &str = "application/dns-message";
pub(super) const MAX_MESSAGE: usize = 65_535;
