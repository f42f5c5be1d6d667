//! Accepts connections: handshakes run beside each other, each with its time, all with a bound.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aizen_protocol::key::PublicKey;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::device_key;
use crate::config::Settings;

/// A listener whose connections finished their handshake.
pub(crate) struct TlsListener {
    local: SocketAddr,
    ready: mpsc::Receiver<(Secured, SocketAddr)>,
}

impl TlsListener {
    /// Starts to accept on a bound socket. The task ends, and with it the socket and every handshake, once the
    /// listener is dropped.
    pub(crate) fn start(
        tcp: TcpListener,
        config: Arc<ServerConfig>,
        settings: &Settings,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let local = tcp.local_addr()?;
        let (finished, ready) = mpsc::channel(16);
        let accepting = Accepting {
            tcp,
            acceptor: TlsAcceptor::from(config),
            pending: Arc::new(Semaphore::new(settings.pending_handshakes)),
            slots: Arc::new(Semaphore::new(settings.connections)),
            within: settings.handshake_within,
            anonymous_life: settings.anonymous_life,
            finished,
        };
        let task = tokio::spawn(accepting.run());
        Ok((Self { local, ready }, task))
    }
}

impl Listener for TlsListener {
    type Io = Secured;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task never returns by itself; without it there is nothing to wait for.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// Accepts and shakes hands until nobody wants connections any more.
struct Accepting {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    pending: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    within: Duration,
    anonymous_life: Duration,
    finished: mpsc::Sender<(Secured, SocketAddr)>,
}

impl Accepting {
    async fn run(self) {
        let mut handshakes = JoinSet::new();
        loop {
            while handshakes.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = self.finished.closed() => return,
            };
            let Some(Accepted {
                stream,
                address,
                pending,
                slot,
            }) = accepted
            else {
                continue;
            };
            let handshake = self.acceptor.accept(stream);
            let finished = self.finished.clone();
            let (within, life) = (self.within, self.anonymous_life);
            handshakes.spawn(async move {
                let outcome = timeout(within, handshake).await;
                drop(pending);
                match outcome {
                    Ok(Ok(stream)) => {
                        stream.get_ref().0.set_nodelay(true).ok();
                        let anonymous = stream.get_ref().1.peer_certificates().is_none();
                        let secured = Secured {
                            stream,
                            life: anonymous.then(|| Box::pin(sleep(life))),
                            _slot: slot,
                        };
                        // A server that stops takes no more connections.
                        finished.send((secured, address)).await.ok();
                    }
                    Ok(Err(error)) => tracing::debug!(%address, %error, "handshake failed"),
                    Err(_) => tracing::debug!(%address, "handshake took too long"),
                }
            });
        }
    }

    /// The next connection, once there is room for it.
    async fn accept(&self) -> Option<Accepted> {
        // Neither semaphore is ever closed.
        let pending = self.pending.clone().acquire_owned().await.ok()?;
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        match self.tcp.accept().await {
            Ok((stream, address)) => Some(Accepted {
                stream,
                address,
                pending,
                slot,
            }),
            Err(error) => {
                // Out of descriptors, or the peer left: wait for some to be closed.
                tracing::warn!(%error, "accept failed");
                sleep(Duration::from_millis(200)).await;
                None
            }
        }
    }
}

struct Accepted {
    stream: TcpStream,
    address: SocketAddr,
    pending: OwnedSemaphorePermit,
    slot: OwnedSemaphorePermit,
}

/// A connection after its handshake; its slot is free again when it is dropped.
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    /// The end of a connection without a client certificate: one that sends a byte now and then would keep its slot.
    life: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(life) = &mut self.life
            && life.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Address and port.
    pub(crate) address: SocketAddr,
    /// The key of its client certificate, verified by the handshake.
    pub(crate) key: Option<PublicKey>,
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(incoming: IncomingStream<'_, TlsListener>) -> Self {
        let (_, session) = incoming.io().stream.get_ref();
        Self {
            address: *incoming.remote_addr(),
            key: session
                .peer_certificates()
                .and_then(<[_]>::first)
                .and_then(device_key),
        }
    }
}
