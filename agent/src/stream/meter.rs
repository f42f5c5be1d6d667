//! Bytes that left the device, by purpose: metered links cost money.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::lane::Class;

/// Counts what is sent, over all connections since the start.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Sent>>);

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    total: u64,
    telemetry: u64,
    results: u64,
}

impl Meter {
    /// Bytes by purpose: `telemetry` and `results` are frames, `overhead` is TLS, WebSocket and everything else that
    /// was handed to TCP.
    #[must_use]
    pub fn by_purpose(&self) -> BTreeMap<String, u64> {
        let sent = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = sent.telemetry + sent.results;
        [
            ("telemetry", sent.telemetry),
            ("results", sent.results),
            ("overhead", sent.total.saturating_sub(frames)),
        ]
        .map(|(purpose, bytes)| (purpose.to_owned(), bytes))
        .into()
    }

    pub(super) fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    pub(super) fn frame(&self, class: Class, bytes: usize) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match class {
            Class::Record => sent.telemetry += bytes as u64,
            Class::Signed => sent.results += bytes as u64,
        }
    }

    fn wrote(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total += bytes as u64;
    }
}

/// A TCP connection whose written bytes are counted.
#[derive(Debug)]
pub struct Metered {
    tcp: TcpStream,
    meter: Meter,
}

impl Metered {
    pub(super) fn new(tcp: TcpStream, meter: Meter) -> Self {
        Self { tcp, meter }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            this.meter.wrote(bytes);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
