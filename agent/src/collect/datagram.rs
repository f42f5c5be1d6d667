//! A connected UDP socket whose reader is woken by what ICMP says about its peer.
//!
//! tokio's own `UdpSocket` waits for data alone; a refusal would be seen at the deadline only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// One exchange with one peer, from a port that the kernel draws.
#[derive(Debug)]
pub(crate) struct Datagram(UdpSocket);

impl Datagram {
    /// Opens a socket that only `peer` can send to.
    pub(crate) fn connect(peer: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        // Without it the kernel keeps "host unreachable" to itself (ip(7), ipv6(7)).
        match peer {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        socket.connect(peer)?;
        Ok(Self(adopt(socket.into())?))
    }

    /// Sends one datagram; a full send buffer is an error, as nothing else was sent.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.forget_readiness();
        Ok(nix::sys::socket::send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT).map(drop)?)
    }

    /// What is there now answers nothing that is sent now. So the next wait begins with waiting, not with a read in vain;
    /// whatever comes after this wakes it, and then everything is read, the earlier first.
    fn forget_readiness(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        self.0
            .try_io(Interest::READABLE | Interest::ERROR, nothing)
            .ok();
    }

    /// The next datagram, or what ICMP said.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        heard(&self.0, |socket| {
            Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
        })
        .await
    }
}

/// Hands a socket of any kind to the runtime. tokio's UDP type is the one whose registration is safe; nothing but its
/// readiness is used.
pub(crate) fn adopt(socket: socket2::Socket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket.into())
}

/// Runs `read`, which must not block, each time there is data or an error, until it has a result.
pub(crate) async fn heard<T>(
    socket: &UdpSocket,
    mut read: impl FnMut(&UdpSocket) -> io::Result<T>,
) -> io::Result<T> {
    socket
        .async_io(Interest::READABLE | Interest::ERROR, || read(socket))
        .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_closed_port_ends_the_wait_at_once() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let socket = Datagram::connect(closed).unwrap();
        socket.send(b"?").unwrap();
        let answer = timeout(Duration::from_secs(5), socket.receive(&mut [0; 16]))
            .await
            .unwrap();
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn what_came_before_a_question_does_not_hide_its_answer() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = Datagram::connect(server.local_addr().unwrap()).unwrap();
        let ours = socket.0.local_addr().unwrap();
        let mut buffer = [0; 16];
        for (late, answer) in [(b"late 1", b"answer"), (b"late 2", b"second")] {
            server.send_to(late, ours).unwrap();
            server.send_to(late, ours).unwrap();
            socket.0.readable().await.unwrap();
            socket.send(b"?").unwrap();
            server.send_to(answer, ours).unwrap();
            for expected in [late, late, answer] {
                let length = timeout(Duration::from_secs(5), socket.receive(&mut buffer))
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(&buffer[..length], expected);
            }
        }
    }

    #[tokio::test]
    async fn a_datagram_of_somebody_else_is_not_received() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = Datagram::connect(server.local_addr().unwrap()).unwrap();
        let ours = socket.0.local_addr().unwrap();
        stranger.send_to(b"no", ours).unwrap();
        server.send_to(b"yes", ours).unwrap();
        let mut buffer = [0; 16];
        let length = timeout(Duration::from_secs(5), socket.receive(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&buffer[..length], b"yes");
    }
}
