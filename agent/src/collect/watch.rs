//! Notices of the kernel that wake the daemon: links, addresses, routes.
//!
//! Neighbours are left out: the probes of a round move neighbour entries, so each round would cause the next.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use netlink_sys::{AsyncSocket, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::netlink;

/// A kind of object that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    /// An interface came, went, or changed its state.
    Links,
    /// An interface address.
    Addresses,
    /// A route.
    Routes,
    /// Notices were lost: anything may have changed.
    Anything,
}

/// What changed within a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetEvent {
    /// The kinds.
    pub changed: BTreeSet<Changed>,
}

/// Listens until the receiver is dropped. A burst is one event: sent after [`QUIET`] without notice, at the latest
/// [`LONGEST`] after the first. A full channel holds the listener up; what the kernel then can't keep is reported as
/// [`Changed::Anything`].
///
/// # Errors
/// When a netlink socket can't be opened or read.
pub async fn watch(tx: mpsc::Sender<NetEvent>) -> io::Result<()> {
    let mut socket = subscribe()?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        let mut event = NetEvent::default();
        tokio::select! {
            () = tx.closed() => return Ok(()),
            heard = listen(&mut socket, &mut datagram) => event.changed.extend(heard?),
        }
        let latest = Instant::now() + LONGEST;
        loop {
            let until = latest.min(Instant::now() + QUIET);
            match timeout_at(until, listen(&mut socket, &mut datagram)).await {
                Ok(heard) => event.changed.extend(heard?),
                Err(_) => break,
            }
            if Instant::now() >= latest {
                break;
            }
        }
        if tx.send(event).await.is_err() {
            return Ok(());
        }
    }
}

/// The next notice of interest. When the kernel says that it lost some (`ENOBUFS`, netlink(7)), the queue is stale:
/// a fresh socket takes its place.
async fn listen(socket: &mut TokioSocket, datagram: &mut Vec<u8>) -> io::Result<BTreeSet<Changed>> {
    loop {
        match netlink::receive(socket, datagram).await {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                *socket = subscribe()?;
                return Ok(BTreeSet::from([Changed::Anything]));
            }
            Err(error) => return Err(error),
        }
        let changed: BTreeSet<_> = netlink::parts(datagram)
            .filter_map(|p| changed(p.header.message_type))
            .collect();
        if !changed.is_empty() {
            return Ok(changed);
        }
    }
}

fn changed(message_type: u16) -> Option<Changed> {
    match message_type {
        RTM_NEWLINK | RTM_DELLINK => Some(Changed::Links),
        RTM_NEWADDR | RTM_DELADDR => Some(Changed::Addresses),
        RTM_NEWROUTE | RTM_DELROUTE => Some(Changed::Routes),
        _ => None,
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group)?;
    }
    Ok(socket)
}

/// Without a notice for this long a burst is over.
pub const QUIET: Duration = Duration::from_millis(150);
/// A burst that doesn't end is reported all the same.
pub const LONGEST: Duration = Duration::from_millis(500);

const DATAGRAM: usize = 64 << 10;
/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE` (linux/rtnetlink.h).
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
