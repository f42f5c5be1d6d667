//! How probes leave and answers come, one kind for each method. A probe has a number below [`NUMBERS`].

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::poll::PollFlags;

use super::path::Answer;
use super::tcp::TcpProbes;
use super::udp::UdpProbes;
use super::{Method, Plan, TraceError};
use crate::probe::echo::Target;
use crate::probe::errors::{Entry, IcmpError, Why};
use crate::probe::packet::{HEADER, request};
use crate::probe::socket::IcmpSocket;

/// What came back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) number: u16,
    pub(super) from: IpAddr,
    pub(super) answer: Answer,
    /// When the kernel took it, since 1970.
    pub(super) at_ns: Option<u64>,
}

pub(super) enum Channel {
    Icmp(IcmpSocket),
    Udp(UdpProbes),
    Tcp(TcpProbes),
}

impl Channel {
    pub(super) fn open(plan: &Plan) -> Result<Self, TraceError> {
        let device = plan.device.as_deref();
        let ipv4 = plan.target.address.is_ipv4();
        Ok(match plan.method {
            Method::Icmp => Self::Icmp(IcmpSocket::open(ipv4, device)?),
            Method::Udp => Self::Udp(UdpProbes::open(ipv4, device)?),
            Method::Tcp(port) => Self::Tcp(TcpProbes::new(port, device)),
        })
    }

    /// Sends one probe.
    pub(super) fn send(&mut self, target: Target, number: u16, ttl: u8) -> io::Result<()> {
        match self {
            Self::Icmp(socket) => send_echo(socket, target, number, ttl),
            Self::Udp(probes) => probes.send(target, number, ttl),
            Self::Tcp(probes) => probes.send(target, number, ttl),
        }
    }

    /// What to wait for.
    pub(super) fn sockets(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::Icmp(socket) => vec![(socket.as_fd(), PollFlags::POLLIN)],
            Self::Udp(probes) => vec![(probes.as_fd(), PollFlags::POLLIN)],
            Self::Tcp(probes) => probes.sockets(),
        }
    }

    /// Takes what came.
    pub(super) fn hear(&mut self, target: Target) -> io::Result<Vec<Heard>> {
        match self {
            Self::Icmp(socket) => hear_echo(socket, target),
            Self::Udp(probes) => probes.hear(target),
            Self::Tcp(probes) => probes.hear(target),
        }
    }

    /// Nobody waits for this probe any more.
    pub(super) fn forget(&mut self, number: u16) {
        match self {
            Self::Icmp(_) | Self::Udp(_) => {}
            Self::Tcp(probes) => probes.forget(number),
        }
    }
}

/// An ICMP error about one probe: from the target it is an answer of the target.
pub(super) fn heard(number: u16, error: &IcmpError, target: Target) -> Option<Heard> {
    let answer = match error.why {
        Why::Other => return None,
        why if error.from == target.address && why != Why::TimeExceeded => Answer::Target,
        why => Answer::Router(why),
    };
    Some(Heard {
        number,
        from: error.from,
        answer,
        at_ns: error.at_ns,
    })
}

fn send_echo(socket: &IcmpSocket, target: Target, number: u16, ttl: u8) -> io::Result<()> {
    let identifier = socket.identifier.unwrap_or_default();
    let packet = request(socket.ipv4, identifier, number, HEADER + PAYLOAD);
    socket.set_hops(ttl)?;
    let to = [Some(IcmpSocket::address(target.address, target.link))];
    // What the network said of an earlier probe ends the next call.
    let sent = socket.send(&packet, packet.len(), &to).or_else(|_| {
        socket.clear_error();
        socket.send(&packet, packet.len(), &to)
    })?;
    if sent == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(())
}

fn hear_echo(socket: &IcmpSocket, target: Target) -> io::Result<Vec<Heard>> {
    let mut all = Vec::new();
    socket.receive(|reply| {
        if reply.from == target.address {
            all.push(Heard {
                number: reply.number,
                from: reply.from,
                answer: Answer::Target,
                at_ns: reply.at_ns,
            });
        }
    })?;
    for entry in socket.take_errors(AT_ONCE)? {
        if let Entry::Error(error) = entry {
            let number = socket.number_of(&error.quote);
            all.extend(number.and_then(|number| heard(number, &error, target)));
        }
    }
    Ok(all)
}

/// Numbers of probes repeat after so many.
pub(super) const NUMBERS: u16 = 2048;
/// Entries of an error queue taken in one go.
pub(super) const AT_ONCE: usize = 64;
/// Bytes behind the header, of ICMP and UDP.
pub(super) const PAYLOAD: usize = 32;
