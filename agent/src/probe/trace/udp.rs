//! UDP probes: the number of a probe is its destination port, which every ICMP error quotes (RFC 792: 8 bytes behind
//! the IP header).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, SockaddrStorage, TimestampingFlag, recvfrom, sendto, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::channel::{AT_ONCE, Heard, NUMBERS, PAYLOAD, heard};
use super::path::Answer;
use crate::probe::connect::address;
use crate::probe::echo::Target;
use crate::probe::errors::{self, Entry};

/// One socket for all probes.
pub(super) struct UdpProbes(Socket);

impl UdpProbes {
    pub(super) fn open(ipv4: bool, device: Option<&str>) -> io::Result<Self> {
        let domain = if ipv4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if ipv4 {
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        let any = if ipv4 {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        socket.bind_device(device.map(str::as_bytes))?;
        socket.bind(&any.into())?;
        socket.set_nonblocking(true)?;
        setsockopt(
            &socket,
            sockopt::Timestamping,
            &(TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
                | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE),
        )?;
        Ok(Self(socket))
    }

    pub(super) fn send(&self, target: Target, number: u16, ttl: u8) -> io::Result<()> {
        if target.address.is_ipv4() {
            self.0.set_ttl_v4(u32::from(ttl))?;
        } else {
            self.0.set_unicast_hops_v6(u32::from(ttl))?;
        }
        let to: SockaddrStorage = address(target, FIRST_PORT + number % NUMBERS).into();
        let send = || {
            sendto(
                self.0.as_raw_fd(),
                &[0; PAYLOAD],
                &to,
                MsgFlags::MSG_DONTWAIT,
            )
        };
        // What the network said of an earlier probe ends the next call.
        send().or_else(|_| {
            drop(self.0.take_error());
            send()
        })?;
        Ok(())
    }

    pub(super) fn hear(&self, target: Target) -> io::Result<Vec<Heard>> {
        let mut all = Vec::new();
        for _ in 0..AT_ONCE {
            match errors::next(self.0.as_fd())? {
                None => break,
                Some(Entry::Error(error)) => {
                    let number = error
                        .to
                        .filter(|to| to.ip() == target.address)
                        .and_then(|to| number(to.port()));
                    all.extend(number.and_then(|number| heard(number, &error, target)));
                }
                Some(Entry::Sent { .. } | Entry::Noise) => {}
            }
        }
        // Somebody may listen there after all.
        let mut datagram = [0; 16];
        for _ in 0..AT_ONCE {
            match recvfrom::<SockaddrStorage>(self.0.as_raw_fd(), &mut datagram) {
                Ok((_, from)) => {
                    let from = from.as_ref().and_then(errors::socket_addr);
                    let answered = from
                        .filter(|from| from.ip() == target.address)
                        .and_then(|from| Some((from.ip(), number(from.port())?)));
                    all.extend(answered.map(|(from, number)| Heard {
                        number,
                        from,
                        answer: Answer::Target,
                        at_ns: None,
                    }));
                }
                Err(Errno::EAGAIN) => break,
                // Told by the error queue, too.
                Err(_) => {}
            }
        }
        Ok(all)
    }
}

impl AsFd for UdpProbes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn number(port: u16) -> Option<u16> {
    port.checked_sub(FIRST_PORT).filter(|n| *n < NUMBERS)
}

/// As traceroute(8) has it.
const FIRST_PORT: u16 = 33434;
