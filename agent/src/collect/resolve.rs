//! Does each resolver answer, and how fast? A probe of our own over UDP.
//!
//! A library resolver retries for seconds and hides which server failed; here each question has its own socket and its
//! own deadline, and a refusal of the kernel ends it at once.

mod message;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aizen_protocol::private::Name;
use aizen_protocol::record::{DnsAnswer, DnsProbe, DnsPurpose, DnsTransport, Resolvers};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use self::message::{Judged, Kind, Question};
use super::Seen;
use super::datagram::Datagram;
use crate::clock;

/// How one question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The answer, or what came instead.
    pub answer: DnsAnswer,
    /// Round trip, where an answer came.
    pub rtt: Option<Duration>,
}

impl Asked {
    fn without_answer(answer: DnsAnswer) -> Self {
        Self { answer, rtt: None }
    }
}

/// How often and how long to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Questions to each resolver for each name.
    pub times: u16,
    /// Between the starts of two questions.
    pub pause: Duration,
    /// For each question.
    pub deadline: Duration,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            times: 5,
            pause: Duration::from_millis(120),
            deadline: Duration::from_secs(2),
        }
    }
}

/// Asks `resolver` once for the address of `name`; for the root's name servers where `name` is `.`.
pub async fn ask(resolver: IpAddr, name: &str, deadline: Duration) -> Asked {
    let until = Instant::now() + deadline;
    match ask_until(resolver, name, until).await {
        Ok(asked) => asked,
        Err(error) => Asked::without_answer(refused(&error)),
    }
}

async fn ask_until(resolver: IpAddr, name: &str, until: Instant) -> io::Result<Asked> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let kind = if name == ROOT { Kind::Ns } else { Kind::A };
    let Some(question) = Question::new(u16::from_be_bytes(id), name, kind) else {
        return Ok(Asked::without_answer(DnsAnswer::Garbage));
    };
    let socket = Datagram::connect(SocketAddr::new(resolver, PORT))?;
    let sent = clock::since_boot();
    socket.send(question.bytes())?;
    let mut datagram = [0; DATAGRAM];
    let mut at_the_end = DnsAnswer::Timeout;
    loop {
        let length = match timeout_at(until, socket.receive(&mut datagram)).await {
            Err(_) => return Ok(Asked::without_answer(at_the_end)),
            Ok(received) => received?,
        };
        match question.judge(&datagram[..length]) {
            Judged::Rcode(rcode) => {
                let rtt = clock::since_boot().0.saturating_sub(sent.0);
                return Ok(Asked {
                    answer: DnsAnswer::Rcode(rcode),
                    rtt: Some(rtt),
                });
            }
            // The answer may still come: whoever guesses must not end the question.
            Judged::Other | Judged::Malformed => at_the_end = DnsAnswer::Garbage,
        }
    }
}

fn refused(error: &io::Error) -> DnsAnswer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DnsAnswer::PortUnreachable,
        _ => DnsAnswer::Unreachable,
    }
}

/// Asks all resolvers for all names, side by side: a dead one costs no other anything.
pub(crate) async fn collect(
    resolvers: &Resolvers,
    names: &[String],
    asking: Asking,
) -> Seen<Vec<DnsProbe>> {
    let mut gaps = Vec::new();
    if resolvers.configured.is_empty() {
        gaps.push("no resolver is configured".to_owned());
    }
    let names = if names.is_empty() {
        vec![ROOT.to_owned()]
    } else {
        names.to_vec()
    };
    if names.len() > MAX_NAMES {
        gaps.push(format!(
            "{} more names were left out",
            names.len() - MAX_NAMES
        ));
    }
    let mut servers: Vec<(IpAddr, bool)> = Vec::new();
    let configured = resolvers.configured.iter().map(|r| (*r, true));
    for (server, configured) in configured.chain(resolvers.alternates.iter().map(|r| (*r, false))) {
        if !servers.iter().any(|(known, _)| *known == server) {
            servers.push((server, configured));
        }
    }
    let room = Semaphore::new(IN_FLIGHT);
    let probes = servers.iter().flat_map(|(server, configured)| {
        let room = &room;
        names
            .iter()
            .take(MAX_NAMES)
            .map(move |name| probe(*server, *configured, name, asking, room))
    });
    Seen {
        value: join_all(probes).await,
        gaps,
    }
}

async fn probe(
    resolver: IpAddr,
    configured: bool,
    name: &str,
    asking: Asking,
    room: &Semaphore,
) -> DnsProbe {
    let asked = (0..asking.times).map(|n| async move {
        sleep(asking.pause * u32::from(n)).await;
        // It is never closed; without a permit the question is asked all the same.
        let _place = room.acquire().await.ok();
        ask(resolver, name, asking.deadline).await
    });
    let asked = join_all(asked).await;
    DnsProbe {
        resolver,
        configured,
        transport: DnsTransport::Udp,
        purpose: DnsPurpose::Lookup,
        addresses: Vec::new(),
        authentic: false,
        name: Name(name.to_owned()),
        answers: asked.iter().map(|a| a.answer).collect(),
        rtt_us: asked
            .iter()
            .filter_map(|a| a.rtt)
            .map(super::micros)
            .collect(),
    }
}

/// Asked for where no name is configured: every resolver can know it, and it tells nothing about this device.
const ROOT: &str = ".";
const PORT: u16 = 53;
/// Larger than any answer to a question without EDNS (RFC 1035: 512).
const DATAGRAM: usize = 4096;
const MAX_NAMES: usize = 4;
const IN_FLIGHT: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn only_a_closed_port_is_port_unreachable() {
        assert_eq!(
            refused(&io::ErrorKind::ConnectionRefused.into()),
            DnsAnswer::PortUnreachable
        );
        for kind in [
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::PermissionDenied,
        ] {
            assert_eq!(refused(&kind.into()), DnsAnswer::Unreachable);
        }
    }

    #[tokio::test]
    async fn a_name_that_cant_be_asked_is_not_sent() {
        let asked = ask(
            Ipv4Addr::LOCALHOST.into(),
            "a..b",
            Duration::from_millis(50),
        )
        .await;
        assert_eq!(asked.answer, DnsAnswer::Garbage);
    }
}
