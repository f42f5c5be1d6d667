//! Notices that nobody waits for: the kernel keeps them until the next round asks.
//!
//! A bridge in a loop tells of thousands of moves a second. Waking for each would cost the device more than they
//! are worth; the kernel's bounded queue keeps the first few hundred, and says if there were more.

use std::io;

use netlink_sys::{Socket, protocols};

use super::{Part, parts};

/// A subscribed socket.
pub(crate) struct Ear(Socket);

impl Ear {
    /// Subscribes to groups of rtnetlink.
    pub(crate) fn route(groups: &[u32]) -> io::Result<Self> {
        Self::new(protocols::NETLINK_ROUTE, groups)
    }

    /// Subscribes to groups of a generic netlink family.
    pub(crate) fn generic(groups: &[u32]) -> io::Result<Self> {
        Self::new(protocols::NETLINK_GENERIC, groups)
    }

    fn new(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self(socket))
    }

    /// Hands over what came since the last call, at most [`DATAGRAMS`]; true if the kernel had to drop some.
    pub(crate) fn hear(&self, mut on: impl FnMut(&Part<'_>)) -> io::Result<bool> {
        let mut lost = false;
        let mut datagram = Vec::with_capacity(DATAGRAM);
        for _ in 0..DATAGRAMS {
            datagram.clear();
            match self.0.recv_from(&mut datagram, 0) {
                Ok((_, from)) if from.port_number() == 0 => {
                    parts(&datagram).for_each(|part| on(&part));
                }
                // Another process.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ear")
    }
}

const DATAGRAM: usize = 16 << 10;
/// More than the kernel's queue of the usual size holds.
const DATAGRAMS: usize = 4096;
