//! Answers over HTTP/1.1, read within bounds.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `Location`, if there is one.
    pub location: Option<String>,
    /// The body, cut where it was longer than wanted.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpFault {
    /// The connection failed or ended.
    #[error("no HTTP answer: {0}")]
    Io(#[from] io::Error),
    /// What came is no HTTP, or its head is endless.
    #[error("what came back is no HTTP")]
    NotHttp,
}

/// How a body ends (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    After(usize),
    WithChunks,
    WithConnection,
}

struct Head {
    response: Response,
    ends: Ends,
    length: usize,
}

/// Reads one answer to a GET or POST, of the body at most `most` bytes. The caller holds the deadline.
pub(crate) async fn read_response<S>(stream: &mut S, most: usize) -> Result<Response, HttpFault>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = Vec::new();
    let mut head = read_head(stream, &mut bytes).await?;
    // Chunks cost some bytes each; who sends tiny ones gets cut earlier.
    let longest = match head.ends {
        Ends::After(length) => length.min(most),
        Ends::WithChunks => most.saturating_mul(2).saturating_add(MAX_HEAD),
        Ends::WithConnection => most,
    };
    let mut content = Vec::new();
    loop {
        let whole = head.ends == Ends::WithChunks && unchunk(&mut bytes, &mut content, most);
        if whole || bytes.len() >= longest || !more(stream, &mut bytes).await? {
            break;
        }
    }
    if head.ends != Ends::WithChunks {
        content = bytes;
    }
    content.truncate(most.min(longest));
    head.response.body = content;
    Ok(head.response)
}

/// How an answer begins, and how much of its body came along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Status code.
    pub(crate) status: u16,
    /// `Location`, if there is one.
    pub(crate) location: Option<String>,
    /// Bytes of the body that are still to come; none if only the end of the connection tells.
    pub(crate) left: Option<u64>,
    /// Bytes of the body that came with the head.
    pub(crate) came: u64,
}

/// Reads up to the body and leaves the rest to the caller, who holds the deadline.
pub(crate) async fn begin_response<S>(stream: &mut S) -> Result<Begun, HttpFault>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = Vec::new();
    let head = read_head(stream, &mut bytes).await?;
    let came = bytes.len() as u64;
    let left = match head.ends {
        Ends::After(length) => Some((length as u64).saturating_sub(came)),
        Ends::WithChunks | Ends::WithConnection => None,
    };
    Ok(Begun {
        status: head.response.status,
        location: head.response.location,
        left,
        came,
    })
}

/// Reads the head of the answer itself; what came of the body stays in `bytes`.
async fn read_head<S>(stream: &mut S, bytes: &mut Vec<u8>) -> Result<Head, HttpFault>
where
    S: AsyncRead + Unpin,
{
    loop {
        match parse_head(bytes)? {
            // "Early hints" and the like: the answer follows.
            Some(head) if (100..200).contains(&head.response.status) => {
                bytes.drain(..head.length);
            }
            Some(head) => {
                bytes.drain(..head.length);
                return Ok(head);
            }
            None if bytes.len() >= MAX_HEAD => return Err(HttpFault::NotHttp),
            None => {
                if !more(stream, bytes).await? {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

/// Reads what there is; false at the end.
async fn more<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> Result<bool, HttpFault> {
    let mut buffer = [0; 4096];
    let length = match stream.read(&mut buffer).await {
        Ok(length) => length,
        // Many servers end TLS without saying so.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(error.into()),
    };
    bytes.extend_from_slice(&buffer[..length]);
    Ok(length > 0)
}

/// The head, once it is whole.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, HttpFault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HttpFault::NotHttp),
    };
    let status = parsed.code.ok_or(HttpFault::NotHttp)?;
    let value = |name: &str| {
        let found = parsed
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name));
        found.map(|h| String::from_utf8_lossy(h.value).trim().to_owned())
    };
    let chunked =
        value("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked"));
    let ends = match value("content-length").map(|v| v.parse()) {
        _ if status == 204 || status == 304 => Ends::After(0),
        _ if chunked => Ends::WithChunks,
        Some(Ok(length)) => Ends::After(length),
        Some(Err(_)) => return Err(HttpFault::NotHttp),
        None => Ends::WithConnection,
    };
    Ok(Some(Head {
        response: Response {
            status,
            location: value("location"),
            body: Vec::new(),
        },
        ends,
        length,
    }))
}

/// Moves the chunks that are whole from `bytes` to `content`; true if nothing more is wanted.
fn unchunk(bytes: &mut Vec<u8>, content: &mut Vec<u8>, most: usize) -> bool {
    let mut at = 0;
    let ended = loop {
        let rest = &bytes[at..];
        let (start, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((start, size))) => (start, size),
            Ok(httparse::Status::Partial) => break false,
            Err(_) => break true,
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size == 0 {
            break true;
        }
        let wanted = size.min(most - content.len());
        let Some(chunk) = rest[start..].get(..wanted) else {
            break false;
        };
        content.extend_from_slice(chunk);
        if content.len() == most {
            break true;
        }
        // The line break behind a chunk may be still to come: then the whole chunk is read again.
        let Some(after) = (start + size)
            .checked_add(2)
            .filter(|after| *after <= rest.len())
        else {
            content.truncate(content.len() - chunk.len());
            break false;
        };
        at += after;
    };
    bytes.drain(..at);
    ended
}

const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], most: usize) -> Result<Response, HttpFault> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async { read_response(&mut &bytes[..], most).await })
    }

    #[test]
    fn a_body_ends_by_length_by_chunks_or_with_the_connection() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            let response = read(answer, 100).unwrap();
            assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
        }
        let redirect = read(
            b"HTTP/1.1 302 Found\r\nlocation: http://portal.example/\r\n\r\n",
            9,
        )
        .unwrap();
        assert_eq!(redirect.location.as_deref(), Some("http://portal.example/"));
    }

    #[test]
    fn a_long_body_is_cut_and_an_endless_head_is_no_http() {
        let long = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 50_000]].concat();
        assert_eq!(read(&long, 8192).unwrap().body.len(), 8192);
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 50_000]].concat();
        assert!(matches!(read(&endless, 10), Err(HttpFault::NotHttp)));
        assert!(matches!(
            read(b"SSH-2.0-x\r\n\r\n", 10),
            Err(HttpFault::NotHttp)
        ));
        assert!(matches!(
            read(b"HTTP/1.1 200 OK\r\nCon", 10),
            Err(HttpFault::Io(_))
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_within_bounds(
            head in prop_oneof![Just(""), Just("HTTP/1.1 200 OK\r\n"), Just("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Just("HTTP/1.1 200 OK\r\n\r\n")],
            tail in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'f')], 0..300),
            most in 0_usize..64,
        ) {
            let bytes = [head.as_bytes(), &tail].concat();
            prop_assert!(read(&bytes, most).is_ok_and(|r| r.body.len() > most).then_some(()).is_none());
        }
    }
}
