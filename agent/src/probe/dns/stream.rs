//! Questions over a stream: two bytes of length before each message (RFC 1035, 4.2.2; RFC 7766; RFC 7858).

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::client::{Failure, Reply};
use super::question::{Judged, Question};
use crate::clock;

/// Asks once over an open stream; the caller holds the deadline.
pub(super) async fn ask<S>(stream: &mut S, question: &Question) -> Result<Reply, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let id = super::client::draw_id()?;
    let bytes = question.bytes(id);
    // In one piece: some servers answer only that.
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    let framed = [&length.to_be_bytes()[..], &bytes].concat();
    let sent = clock::since_boot();
    stream.write_all(&framed).await.map_err(Failure::from_io)?;
    stream.flush().await.map_err(Failure::from_io)?;
    for _ in 0..MAX_STRAY {
        let length = stream.read_u16().await.map_err(Failure::from_io)?;
        let mut message = vec![0; length.into()];
        stream
            .read_exact(&mut message)
            .await
            .map_err(Failure::from_io)?;
        match question.judge(id, &message) {
            Judged::Answer(message) => {
                return Ok(Reply {
                    message,
                    rtt: clock::since_boot().0.saturating_sub(sent.0),
                    bytes: length.into(),
                });
            }
            // A late answer to an earlier question, perhaps.
            Judged::Other => {}
            Judged::Malformed => return Err(Failure::Garbage),
        }
    }
    Err(Failure::Garbage)
}

const MAX_STRAY: usize = 4;
