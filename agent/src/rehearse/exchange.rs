//! A question and its answer through the shadow's own kernel: packets that leave, cross the filters, and come back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

/// Longest wait for an answer. Only what does not answer takes it; a link that came up a moment ago needs one of it.
pub(super) const BOUND: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes each way: more than one packet of a usual link, so that a path for small packets alone shows.
const BLOCK: usize = 4096;
/// Of these, the address that the other end saw, as text.
const SEEN: usize = 64;
/// Exchanges of one listener at a time.
const BACKLOG: i32 = 16;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An answer came back. The other end saw this address; none for a datagram.
    Answer { seen_as: Option<IpAddr> },
    /// The kernel would not send it, errno(3).
    Refused(i32),
    /// Nothing came back.
    Silence,
}

impl Heard {
    pub(super) fn is_answer(self) -> bool {
        matches!(self, Self::Answer { .. })
    }
}

fn any(ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// A socket that doesn't block. With a link it sends and takes on that one alone, with addresses that are not its
/// host's too (`IP_TRANSPARENT`).
fn socket(kind: Type, ipv6: bool, link: Option<&str>) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let protocol = match kind {
        Type::DGRAM => Protocol::UDP,
        _ => Protocol::TCP,
    };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if let Some(link) = link {
        socket.bind_device(Some(link.as_bytes()))?;
        if ipv6 {
            socket.set_ip_transparent_v6(true)?;
        } else {
            socket.set_ip_transparent_v4(true)?;
        }
    }
    if ipv6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Answers streams on a port until the runtime ends.
pub(super) fn answer_streams(port: u16, ipv6: bool, link: Option<&str>) -> io::Result<()> {
    let socket = socket(Type::STREAM, ipv6, link)?;
    socket.bind(&SocketAddr::new(any(ipv6), port).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    tokio::spawn(async move {
        while let Ok((stream, from)) = listener.accept().await {
            // One that breaks off is the asker's to tell.
            tokio::spawn(async move { timeout(BOUND, answer(stream, from.ip())).await });
        }
    });
    Ok(())
}

async fn answer(mut stream: TcpStream, from: IpAddr) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    stream.read_exact(&mut block).await?;
    block.fill(b' ');
    let text = from.to_string();
    block[..text.len()].copy_from_slice(text.as_bytes());
    stream.write_all(&block).await
}

/// Answers datagrams to one address until the runtime ends.
pub(super) fn answer_datagrams(at: SocketAddr, link: &str) -> io::Result<()> {
    let socket = socket(Type::DGRAM, at.is_ipv6(), Some(link))?;
    socket.bind(&at.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    tokio::spawn(async move {
        let mut bytes = [0; 64];
        loop {
            match socket.recv_from(&mut bytes).await {
                // What can't be sent is missed by the asker.
                Ok((length, from)) => drop(socket.send_to(&bytes[..length], from).await),
                // An error of an earlier datagram.
                Err(_) => sleep(PAUSE).await,
            }
        }
    });
    Ok(())
}

/// Asks by a stream: `from` is a link and an address to come from, for a question from outside.
pub(super) async fn ask(to: SocketAddr, from: Option<(&str, IpAddr)>) -> Heard {
    within(async || {
        let socket = socket(Type::STREAM, to.is_ipv6(), from.map(|(link, _)| link))?;
        if let Some((_, address)) = from {
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        let mut stream = TcpSocket::from_std_stream(socket.into())
            .connect(to)
            .await?;
        let mut block = vec![b' '; BLOCK];
        stream.write_all(&block).await?;
        stream.read_exact(&mut block).await?;
        let seen = String::from_utf8_lossy(&block[..SEEN]);
        Ok(seen.trim().parse().ok())
    })
    .await
}

/// Asks by datagrams.
pub(super) async fn ask_by_datagram(to: SocketAddr) -> Heard {
    within(async || {
        let socket = UdpSocket::bind(SocketAddr::new(any(to.is_ipv6()), 0)).await?;
        socket.connect(to).await?;
        let mut bytes = [0; 64];
        loop {
            socket.send(b"aizen").await?;
            if let Ok(read) = timeout(PAUSE, socket.recv(&mut bytes)).await {
                return read.map(|_| None);
            }
        }
    })
    .await
}

/// Tries until it succeeds or the time is over: a route may come back with its link.
async fn within(mut question: impl AsyncFnMut() -> io::Result<Option<IpAddr>>) -> Heard {
    let mut last = Heard::Silence;
    let tries = async {
        loop {
            match question().await {
                Ok(seen_as) => return Heard::Answer { seen_as },
                Err(error) => {
                    last = error.raw_os_error().map_or(Heard::Silence, Heard::Refused);
                }
            }
            sleep(PAUSE).await;
        }
    };
    match timeout(BOUND, tries).await {
        Ok(heard) => heard,
        Err(_) => last,
    }
}
