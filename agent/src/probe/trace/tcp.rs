//! TCP probes: a connect whose SYN ends on the way. The kernel keeps the ICMP error on the socket (`IP_RECVERR`), so
//! no raw socket is needed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::channel::{Heard, heard};
use super::path::Answer;
use crate::probe::connect::{address, is_under_way};
use crate::probe::echo::Target;
use crate::probe::errors::{self, Entry};

/// A socket for each probe.
pub(super) struct TcpProbes {
    port: u16,
    device: Option<String>,
    open: VecDeque<(u16, Socket)>,
    /// Connects that ended at once.
    ended: Vec<Heard>,
}

impl TcpProbes {
    pub(super) fn new(port: u16, device: Option<&str>) -> Self {
        Self {
            port,
            device: device.map(str::to_owned),
            open: VecDeque::new(),
            ended: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, target: Target, number: u16, ttl: u8) -> io::Result<()> {
        let to = address(target, self.port);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(self.device.as_deref().map(str::as_bytes))?;
        if to.is_ipv4() {
            socket.set_ttl_v4(u32::from(ttl))?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            socket.set_unicast_hops_v6(u32::from(ttl))?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        match socket.connect(&to.into()) {
            Err(error) if is_under_way(&error) => self.open.push_back((number, socket)),
            Ok(()) => self.ended.push(answer(number, target)),
            Err(error) if is_answer(&error) => self.ended.push(answer(number, target)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn sockets(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        self.open
            .iter()
            .map(|(_, socket)| (socket.as_fd(), PollFlags::POLLOUT))
            .collect()
    }

    pub(super) fn hear(&mut self, target: Target) -> io::Result<Vec<Heard>> {
        let mut all = std::mem::take(&mut self.ended);
        let mut failed = None;
        self.open.retain(|(number, socket)| {
            match ended(*number, socket, target) {
                Ok(Some(heard)) => all.push(heard),
                Ok(None) => return true,
                Err(error) => failed = Some(error),
            }
            false
        });
        failed.map_or(Ok(all), Err)
    }

    pub(super) fn forget(&mut self, number: u16) {
        self.open.retain(|(open, _)| *open != number);
    }
}

/// How a connect ended, if it did.
fn ended(number: u16, socket: &Socket, target: Target) -> io::Result<Option<Heard>> {
    while let Some(entry) = errors::next(socket.as_fd())? {
        if let Entry::Error(error) = entry
            && let Some(heard) = heard(number, &error, target)
        {
            return Ok(Some(heard));
        }
    }
    Ok(match socket.take_error()? {
        Some(error) => is_answer(&error).then(|| answer(number, target)),
        None => socket.peer_addr().is_ok().then(|| answer(number, target)),
    })
}

fn is_answer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

fn answer(number: u16, target: Target) -> Heard {
    Heard {
        number,
        from: target.address,
        answer: Answer::Target,
        at_ns: None,
    }
}
