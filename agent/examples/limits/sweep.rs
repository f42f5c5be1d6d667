//! Echo requests to many loopback addresses with as little work as can be: batches of one size, the kernel's stamp of
//! receiving alone, and nothing is read of an answer but that it came.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

const BATCH: usize = 64;
/// An ICMP header and the 56 bytes that ping(8) sends.
const LENGTH: usize = 64;
/// Milliseconds without an answer after which the rest is lost.
const PATIENCE: u16 = 1000;

pub(crate) fn run(targets: usize, times: usize) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    let all: Vec<Option<SockaddrIn>> = (first..)
        .take(targets)
        .map(|ip| Some(SocketAddrV4::new(Ipv4Addr::from(ip), 0).into()))
        .collect();
    // An echo request of zeros, and its checksum.
    let mut packet = [0; LENGTH];
    (packet[0], packet[2]) = (8, !8);
    packet[3] = !0;
    let slices = [[IoSlice::new(&packet)]; BATCH];
    let mut heard = Heard::default();
    for _ in 0..times {
        for batch in all.chunks(BATCH) {
            let mut headers = MultiHeaders::preallocate(batch.len(), None);
            let slices = &slices[..batch.len()];
            let flags = MsgFlags::MSG_DONTWAIT;
            sendmmsg(socket.as_raw_fd(), &mut headers, slices, batch, [], flags)?;
            heard.all(&socket)?;
        }
    }
    // A raw socket on loopback hears the requests, too.
    while heard.messages < 2 * targets * times {
        let mut wait = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wait, PATIENCE)? == 0 {
            break;
        }
        heard.all(&socket)?;
    }
    writeln!(io::stdout(), "{{\"answered\":{}}}", heard.messages / 2)
}

#[derive(Default)]
struct Heard {
    messages: usize,
}

impl Heard {
    fn all(&mut self, socket: &Socket) -> io::Result<()> {
        let mut room = [[0; 128]; BATCH];
        loop {
            let mut slices = room.each_mut().map(|place| [IoSliceMut::new(place)]);
            let control = nix::cmsg_space!(TimeSpec);
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, Some(control));
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = socket.as_raw_fd();
            match recvmmsg(fd, &mut headers, slices.iter_mut(), flags, None) {
                Ok(messages) => self.messages += messages.count(),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
