//! ICMP echo of a chosen size that must not be fragmented, and what routers say about it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::collect::datagram::{adopt, heard};
use crate::probe::{Entry, Judged, Why, judge, next_error, request};

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A reply to the request with this number.
    Reply(u16),
    /// "Fragmentation needed" or "packet too big": who says so, and the MTU.
    TooBig(IpAddr, u16),
    /// Something else.
    Noise,
}

impl From<Judged> for Heard {
    fn from(judged: Judged) -> Self {
        match judged {
            Judged::Reply(number) => Self::Reply(number),
            Judged::Noise => Self::Noise,
        }
    }
}

/// How packets look on this socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A ping socket: the kernel keeps the identifier, and brings our replies alone.
    Ping,
    /// A raw socket: it brings all ICMP of the target, for IPv4 with the IP header.
    Raw { identifier: u16 },
}

/// A socket to one target that sends with "don't fragment" and ignores the path MTU that the kernel remembers.
#[derive(Debug)]
pub(super) struct Echo {
    socket: UdpSocket,
    target: IpAddr,
    form: Form,
}

impl Echo {
    /// Opens a ping socket, or a raw one where the kernel gives only that (icmp(7), raw(7)).
    pub(super) fn open(target: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (socket, form) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, Form::Ping),
            Err(_) => {
                let mut identifier = [0; 2];
                getrandom::fill(&mut identifier).map_err(io::Error::other)?;
                let identifier = u16::from_be_bytes(identifier);
                (
                    Socket::new(domain, Type::RAW, Some(protocol))?,
                    Form::Raw { identifier },
                )
            }
        };
        match target {
            IpAddr::V4(_) => {
                set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            }
            IpAddr::V6(_) => {
                set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?;
                setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            }
        }
        socket.connect(&SocketAddr::new(target, 0).into())?;
        Ok(Self {
            socket: adopt(socket)?,
            target,
            form,
        })
    }

    /// Sends one request that makes an IP packet of `size` bytes.
    pub(super) fn send(&self, number: u16, size: u16) -> io::Result<()> {
        let identifier = match self.form {
            Form::Ping => 0,
            Form::Raw { identifier } => identifier,
        };
        let bytes = usize::from(size).saturating_sub(ip_header(self.target));
        let packet = request(self.target.is_ipv4(), identifier, number, bytes);
        Ok(send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_DONTWAIT).map(drop)?)
    }

    /// Waits for the next thing that comes back.
    pub(super) async fn hear(&self) -> io::Result<Heard> {
        heard(&self.socket, |socket| self.hear_now(socket)).await
    }

    fn hear_now(&self, socket: &UdpSocket) -> io::Result<Heard> {
        if let Some(heard) = error_queue(socket)? {
            return Ok(heard);
        }
        let mut packet = [0; 128];
        match recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(self.judge(&packet[..length])),
            Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            // The same that stands in the error queue, told a second time.
            Err(_) => Ok(Heard::Noise),
        }
    }

    fn judge(&self, packet: &[u8]) -> Heard {
        match (self.form, self.target) {
            (Form::Ping, target) => judge(packet, target.is_ipv4(), None).into(),
            (Form::Raw { identifier }, IpAddr::V6(_)) => {
                judge(packet, false, Some(identifier)).into()
            }
            (Form::Raw { identifier }, IpAddr::V4(_)) => {
                let header = packet.first().map_or(0, |b| usize::from(b & 0x0f) * 4);
                packet.get(header..).map_or(Heard::Noise, |icmp| {
                    judge(icmp, true, Some(identifier)).into()
                })
            }
        }
    }
}

/// The next entry of the socket's error queue.
fn error_queue(socket: &UdpSocket) -> io::Result<Option<Heard>> {
    Ok(next_error(socket.as_fd())?.map(|entry| match entry {
        Entry::Error(error) => match error.why {
            Why::TooBig(mtu) => Heard::TooBig(error.from, mtu),
            _ => Heard::Noise,
        },
        Entry::Sent { .. } | Entry::Noise => Heard::Noise,
    }))
}

fn ip_header(target: IpAddr) -> usize {
    if target.is_ipv4() { 20 } else { 40 }
}
