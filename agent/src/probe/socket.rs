//! One ICMP socket for many targets: a ping socket (icmp(7)), or a raw one (raw(7)) where the kernel gives only that.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, TimestampingFlag, recvmmsg,
    sendmmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::drops;
use super::errors::{self, Entry};
use super::packet::{HEADER, Judged, inside_ipv4, judge, quoted};

/// Why there is no ICMP socket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither a ping socket nor a raw one.
    #[error(
        "{family} echo needs net.ipv4.ping_group_range to cover this process's group, or CAP_NET_RAW"
    )]
    NotAllowed {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// The interface can't be used.
    #[error("can't send from interface {device}: {source}")]
    Device {
        /// Its name.
        device: String,
        /// Why.
        source: io::Error,
    },
    /// Another failure.
    #[error("{family} echo: {source}")]
    Io {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// An open socket.
#[derive(Debug)]
pub(super) struct IcmpSocket {
    socket: Socket,
    pub(super) ipv4: bool,
    /// Of a raw socket; the kernel keeps that of a ping socket.
    pub(super) identifier: Option<u16>,
    inode: Option<u64>,
}

/// An echo reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) from: IpAddr,
    pub(super) number: u16,
    /// The start of the payload.
    pub(super) payload: &'a [u8],
    /// When the kernel took it, since 1970.
    pub(super) at_ns: Option<u64>,
}

impl IcmpSocket {
    /// Opens one for a family, with kernel stamps, an error queue and as large a buffer as the kernel allows.
    pub(super) fn open(ipv4: bool, device: Option<&str>) -> Result<Self, OpenError> {
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        let opened = Self::open_any(ipv4).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::NotAllowed { family },
            _ => OpenError::Io { family, source },
        })?;
        if let Some(device) = device {
            opened
                .socket
                .bind_device(Some(device.as_bytes()))
                .map_err(|source| OpenError::Device {
                    device: device.to_owned(),
                    source,
                })?;
        }
        opened
            .prepare()
            .map_err(|source| OpenError::Io { family, source })?;
        Ok(opened)
    }

    fn open_any(ipv4: bool) -> io::Result<Self> {
        let (domain, protocol) = if ipv4 {
            (Domain::IPV4, Protocol::ICMPV4)
        } else {
            (Domain::IPV6, Protocol::ICMPV6)
        };
        let (socket, identifier) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, None),
            Err(_) => {
                let mut identifier = [0; 2];
                getrandom::fill(&mut identifier).map_err(io::Error::other)?;
                let identifier = u16::from_be_bytes(identifier);
                let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
                socket.attach_filter(&replies_only(ipv4, identifier))?;
                (socket, Some(identifier))
            }
        };
        let inode = drops::inode(&socket);
        Ok(Self {
            socket,
            ipv4,
            identifier,
            inode,
        })
    }

    fn prepare(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        // Only CAP_NET_ADMIN may go beyond `net.core.rmem_max`; then the other one gives what there is.
        if setsockopt(&self.socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            self.socket.set_recv_buffer_size(BUFFER)?;
        }
        if self.ipv4 {
            setsockopt(&self.socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&self.socket, sockopt::Ipv6RecvErr, &true)?;
        }
        setsockopt(&self.socket, sockopt::RxqOvfl, &1)?;
        Ok(setsockopt(
            &self.socket,
            sockopt::Timestamping,
            &(TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
                | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE),
        )?)
    }

    /// Stamps what is sent, too; packets are numbered from 0 from here on. The stamp is made before the queueing
    /// discipline: a packet that waits in this device's own queue is late as well.
    pub(super) fn stamp_sending(&self) -> io::Result<()> {
        let receive = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE;
        // Off and on: that starts the count again.
        setsockopt(&self.socket, sockopt::Timestamping, &receive)?;
        let both = receive
            | TimestampingFlag::from_bits_retain(libc::SOF_TIMESTAMPING_TX_SCHED)
            | TimestampingFlag::SOF_TIMESTAMPING_OPT_ID
            | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
        Ok(setsockopt(&self.socket, sockopt::Timestamping, &both)?)
    }

    /// How far packets go.
    pub(super) fn set_hops(&self, hops: u8) -> io::Result<()> {
        if self.ipv4 {
            self.socket.set_ttl_v4(u32::from(hops))
        } else {
            self.socket.set_unicast_hops_v6(u32::from(hops))
        }
    }

    /// Sends equally long packets, one to each address; gives how many left. An error is about the first of them.
    pub(super) fn send(
        &self,
        packets: &[u8],
        length: usize,
        to: &[Option<SockaddrStorage>],
    ) -> Result<usize, Errno> {
        let slices: Vec<[IoSlice<'_>; 1]> = packets
            .chunks_exact(length)
            .map(|packet| [IoSlice::new(packet)])
            .collect();
        let mut headers = MultiHeaders::preallocate(to.len(), None);
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.as_raw_fd();
        Ok(sendmmsg(fd, &mut headers, &slices, to, [], flags)?.count())
    }

    /// Takes up to [`BATCH`] messages, gives each reply of ours to `each`, and says how many messages there were and
    /// what the drop counter reads, if it came along.
    pub(super) fn receive(
        &self,
        mut each: impl FnMut(Reply<'_>),
    ) -> io::Result<(usize, Option<u32>)> {
        let mut room = vec![0; BATCH * MESSAGE];
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = room
            .chunks_exact_mut(MESSAGE)
            .map(|place| [IoSliceMut::new(place)])
            .collect();
        // Made anew each time: the kernel shortens the room for control messages to what it used.
        let control = nix::cmsg_space!([TimeSpec; 3], u32);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(control));
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let fd = self.socket.as_raw_fd();
        let messages = match recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None) {
            Ok(messages) => messages,
            Err(Errno::EAGAIN) => return Ok((0, None)),
            Err(
                error @ (Errno::EBADF
                | Errno::ENOTSOCK
                | Errno::EFAULT
                | Errno::EINVAL
                | Errno::ENOMEM),
            ) => return Err(error.into()),
            // What stands in the error queue, told a second time.
            Err(_) => return Ok((1, None)),
        };
        let (mut taken, mut dropped) = (0, None);
        for message in messages {
            taken += 1;
            let (mut at_ns, mut from) = (None, None);
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmTimestampsns(stamps) => {
                        at_ns = errors::nanos(stamps.system);
                    }
                    ControlMessageOwned::RxqOvfl(count) => dropped = Some(count),
                    _ => {}
                }
            }
            if let Some(address) = message.address.as_ref().and_then(errors::socket_addr) {
                from = Some(address.ip());
            }
            if let (Some(from), Some(bytes)) = (from, message.iovs().next())
                && let Some((number, payload)) = self.judge(bytes)
            {
                each(Reply {
                    from,
                    number,
                    payload,
                    at_ns,
                });
            }
        }
        Ok((taken, dropped))
    }

    fn judge<'a>(&self, bytes: &'a [u8]) -> Option<(u16, &'a [u8])> {
        let icmp = match self.identifier {
            Some(_) if self.ipv4 => inside_ipv4(bytes)?,
            _ => bytes,
        };
        match judge(icmp, self.ipv4, self.identifier) {
            Judged::Reply(number) => Some((number, icmp.get(HEADER..)?)),
            Judged::Noise => None,
        }
    }

    /// Takes up to `most` entries of the error queue; fewer if it is empty then.
    pub(super) fn take_errors(&self, most: usize) -> io::Result<Vec<Entry>> {
        errors::take(self.socket.as_fd(), most)
    }

    /// The number of the request that an error quotes.
    pub(super) fn number_of(&self, quote: &[u8]) -> Option<u16> {
        quoted(quote, self.ipv4, self.identifier)
    }

    /// Takes the error that the next call would otherwise end with.
    pub(super) fn clear_error(&self) {
        // Reading it is what clears it.
        drop(self.socket.take_error());
    }

    /// How many messages this socket had no room for.
    pub(super) fn dropped(&self) -> Option<u32> {
        let table = match (self.identifier, self.ipv4) {
            (None, true) => "icmp",
            (None, false) => "icmp6",
            (Some(_), true) => "raw",
            (Some(_), false) => "raw6",
        };
        drops::of(table, self.inode?)
    }

    /// The address of a target for [`Self::send`].
    pub(super) fn address(target: IpAddr, link: Option<u32>) -> SockaddrStorage {
        match target {
            IpAddr::V4(_) => SocketAddr::new(target, 0).into(),
            IpAddr::V6(ip) => {
                std::net::SocketAddrV6::new(ip, 0, 0, link.unwrap_or_default()).into()
            }
        }
    }
}

impl AsFd for IcmpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A filter (classic BPF) that keeps echo replies with our identifier from all ICMP that a raw socket would get.
fn replies_only(ipv4: bool, identifier: u16) -> Vec<SockFilter> {
    const LOAD_BYTE_AT_X: u16 = 0x50;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const X_IS_IP_HEADER: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let (reply, byte, half) = if ipv4 {
        (0, LOAD_BYTE_AT_X, LOAD_HALF_AT_X)
    } else {
        (129, LOAD_BYTE, LOAD_HALF)
    };
    let mut filter = Vec::new();
    if ipv4 {
        filter.push(SockFilter::new(X_IS_IP_HEADER, 0, 0, 0));
    }
    filter.extend([
        SockFilter::new(byte, 0, 0, 0),
        SockFilter::new(JUMP_EQUAL, 0, 3, reply),
        SockFilter::new(half, 0, 0, 4),
        SockFilter::new(JUMP_EQUAL, 0, 1, u32::from(identifier)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]);
    filter
}

/// Messages in one call.
pub(super) const BATCH: usize = 64;
/// The start of a message is enough: the longest IPv4 header, the ICMP header and the mark.
const MESSAGE: usize = 128;
const BUFFER: usize = 8 << 20;
