//! Does each resolver answer, how fast, and is what it says to be believed?
//!
//! Each question has its own socket and its own deadline, all side by side: a dead server costs no other anything, and
//! a refusal of the kernel ends its question at once.

pub(crate) mod absent;
mod encrypted;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aizen_protocol::private::Name;
use aizen_protocol::record::{DnsAnswer, DnsProbe, DnsPurpose, DnsTransport, Resolvers};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::Seen;
use crate::clock;
use crate::probe::dns::{self, Failure, Kind, Options, Question, Reply, Server, Transport, Udp};

/// How one question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The answer, or what came instead.
    pub answer: DnsAnswer,
    /// Round trip, where an answer came.
    pub rtt: Option<Duration>,
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

impl Asking {
    /// For what is asked after the lookups, so that both fit into a round.
    fn afterwards(&self) -> Duration {
        self.deadline.min(AFTERWARDS)
    }
}

/// Asks `resolver` once for the address of `name`; for the root's name servers where `name` is `.`.
pub async fn ask(resolver: IpAddr, name: &str, deadline: Duration) -> Asked {
    let ended = ask_udp(resolver, question(name, Kind::A), deadline).await;
    Asked {
        answer: answer(&ended),
        rtt: ended.ok().map(|reply| reply.rtt),
    }
}

async fn ask_udp(
    resolver: IpAddr,
    question: Option<Question>,
    deadline: Duration,
) -> Result<Reply, Failure> {
    let until = Instant::now() + deadline;
    // What can't be written as a name is not sent.
    let question = question.ok_or(Failure::Garbage)?;
    let mut udp = Udp::connect(Server::at(resolver).socket(&Transport::Udp))?;
    udp.ask(&question, until).await
}

fn question(name: &str, kind: Kind) -> Option<Question> {
    Question::new(name, if name == ROOT { Kind::NS } else { kind })
}

fn answer(ended: &Result<Reply, Failure>) -> DnsAnswer {
    match ended {
        Ok(reply) => DnsAnswer::Rcode(u8::try_from(reply.message.rcode).unwrap_or(u8::MAX)),
        Err(failure) => failure.answer(),
    }
}

/// What is asked, and of whom besides the resolvers themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Names that should resolve; with none the root's name servers are asked for.
    pub(crate) names: &'a [String],
    /// Servers that are asked over TLS, too.
    pub(crate) encrypted: &'a [Server],
    /// What stands before `/etc`: where root certificates are.
    pub(crate) root: &'a Path,
    /// How often and how long.
    pub(crate) asking: Asking,
}

/// Asks all resolvers for all names, side by side.
pub(crate) async fn collect(resolvers: &Resolvers, wanted: Wanted<'_>) -> Seen<Vec<DnsProbe>> {
    let mut gaps = Vec::new();
    if resolvers.configured.is_empty() {
        gaps.push("no resolver is configured".to_owned());
    }
    let all = if wanted.names.is_empty() {
        vec![ROOT.to_owned()]
    } else {
        wanted.names.to_vec()
    };
    if all.len() > MAX_NAMES {
        let more = all.len() - MAX_NAMES;
        gaps.push(format!("{more} more names were left out"));
    }
    let names = &all[..all.len().min(MAX_NAMES)];
    let mut servers: Vec<(IpAddr, bool)> = Vec::new();
    let configured = resolvers.configured.iter().map(|r| (*r, true));
    for (server, configured) in configured.chain(resolvers.alternates.iter().map(|r| (*r, false))) {
        if !servers.iter().any(|(known, _)| *known == server) {
            servers.push((server, configured));
        }
    }
    let room = Semaphore::new(IN_FLIGHT);
    let resolvers = servers.iter().map(|(server, configured)| Resolver {
        address: *server,
        configured: *configured,
        asking: wanted.asking,
        room: &room,
    });
    let (probes, secure) = tokio::join!(
        join_all(resolvers.map(|resolver| resolver.probe(names))),
        encrypted::probe(wanted, names, &servers),
    );
    let (lookups, others): (Vec<_>, Vec<_>) = probes.into_iter().unzip();
    let mut value: Vec<_> = lookups.into_iter().chain(others).flatten().collect();
    value.extend(secure.value);
    gaps.extend(secure.gaps);
    Seen { value, gaps }
}

/// One that is asked.
#[derive(Clone, Copy)]
struct Resolver<'a> {
    address: IpAddr,
    configured: bool,
    asking: Asking,
    room: &'a Semaphore,
}

impl Resolver<'_> {
    /// The lookups of each name, and what else is asked.
    async fn probe(self, names: &[String]) -> (Vec<DnsProbe>, Vec<DnsProbe>) {
        let (looked_up, absent) = tokio::join!(
            join_all(names.iter().map(|name| self.look_up(name))),
            self.absent(names),
        );
        let (lookups, afterwards): (Vec<_>, Vec<_>) = looked_up.into_iter().unzip();
        let others = afterwards.into_iter().flatten().chain([absent]).collect();
        (lookups, others)
    }

    async fn look_up(self, name: &str) -> (DnsProbe, Vec<DnsProbe>) {
        let asked = (0..self.asking.times).map(|n| async move {
            sleep(self.asking.pause * u32::from(n)).await;
            self.ask(question(name, Kind::A), self.asking.deadline)
                .await
        });
        let v6 = async {
            if name == ROOT {
                return None;
            }
            let ended = self
                .ask(question(name, Kind::AAAA), self.asking.deadline)
                .await;
            Some(self.tell(DnsTransport::Udp, DnsPurpose::Ipv6, name, &[ended]))
        };
        let (ended, v6) = tokio::join!(join_all(asked), v6);
        let lookup = self.tell(DnsTransport::Udp, DnsPurpose::Lookup, name, &ended);
        let mut others: Vec<_> = v6.into_iter().collect();
        if lookup.answers.last() == Some(&DnsAnswer::Rcode(SERVFAIL)) {
            others.push(self.unvalidated(name).await);
        }
        let silent = lookup.answers.iter().all(|a| *a == DnsAnswer::Timeout);
        let cut = ended
            .iter()
            .flatten()
            .any(|reply| reply.message.flags.truncated);
        if (silent && self.configured && !ended.is_empty()) || cut {
            others.push(self.over_tcp(name).await);
        }
        (lookup, others)
    }

    async fn ask(self, question: Option<Question>, deadline: Duration) -> Result<Reply, Failure> {
        // It is never closed; without a permit the question is asked all the same.
        let _place = self.room.acquire().await.ok();
        ask_udp(self.address, question, deadline).await
    }

    async fn unvalidated(self, name: &str) -> DnsProbe {
        let options = Options {
            unvalidated: true,
            ..Options::default()
        };
        let question = question(name, Kind::A).map(|q| q.with(options));
        let ended = self.ask(question, self.asking.afterwards()).await;
        self.tell(DnsTransport::Udp, DnsPurpose::Unvalidated, name, &[ended])
    }

    async fn over_tcp(self, name: &str) -> DnsProbe {
        let until = Instant::now() + self.asking.afterwards();
        let ended = match question(name, Kind::A) {
            Some(question) => {
                let server = Server::at(self.address);
                dns::ask(&server, &Transport::Tcp, None, &question, until).await
            }
            None => Err(Failure::Garbage),
        };
        self.tell(DnsTransport::Tcp, DnsPurpose::Lookup, name, &[ended])
    }

    /// A name that can't exist. If it has an address all the same, the operator's zone may answer for every name
    /// (RFC 4592): then one is asked for below a zone that doesn't, and that answer counts.
    async fn absent(self, names: &[String]) -> DnsProbe {
        let zone = absent::zone(names.first().map(String::as_str));
        let name = absent::name(clock::since_boot(), &zone);
        let probe = self.absent_once(&name).await;
        if probe.addresses.is_empty() || zone == absent::WITHOUT_WILDCARD {
            return probe;
        }
        let name = absent::name(clock::since_boot(), absent::WITHOUT_WILDCARD);
        self.absent_once(&name).await
    }

    async fn absent_once(self, name: &str) -> DnsProbe {
        let ended = self
            .ask(question(name, Kind::A), self.asking.afterwards())
            .await;
        self.tell(DnsTransport::Udp, DnsPurpose::Nonexistent, name, &[ended])
    }

    fn tell(
        self,
        transport: DnsTransport,
        purpose: DnsPurpose,
        name: &str,
        ended: &[Result<Reply, Failure>],
    ) -> DnsProbe {
        let configured = self.configured;
        DnsProbe {
            transport,
            purpose,
            ..told(self.address, configured, name, ended)
        }
    }
}

/// What is known after all questions about one name.
fn told(
    resolver: IpAddr,
    configured: bool,
    name: &str,
    ended: &[Result<Reply, Failure>],
) -> DnsProbe {
    let replies = || ended.iter().flatten();
    let addresses = |reply: &Reply| reply.message.addresses().take(MAX_ADDRESSES).collect();
    DnsProbe {
        resolver,
        configured,
        transport: DnsTransport::Udp,
        purpose: DnsPurpose::Lookup,
        name: Name(name.to_owned()),
        addresses: replies()
            .map(addresses)
            .rfind(|found: &Vec<IpAddr>| !found.is_empty())
            .unwrap_or_default(),
        authentic: replies()
            .next_back()
            .is_some_and(|r| r.message.flags.authentic),
        answers: ended.iter().map(answer).collect(),
        rtt_us: replies().map(|reply| super::micros(reply.rtt)).collect(),
    }
}

/// Asked for where no name is configured: every resolver can know it, and it tells nothing about this device.
const ROOT: &str = ".";
const SERVFAIL: u8 = 2;
const MAX_NAMES: usize = 4;
const MAX_ADDRESSES: usize = 16;
const IN_FLIGHT: usize = 64;
const AFTERWARDS: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_name_that_cant_be_asked_is_not_sent() {
        let deadline = Duration::from_millis(50);
        let asked = ask(Ipv4Addr::LOCALHOST.into(), "a..b", deadline).await;
        assert_eq!(asked.answer, DnsAnswer::Garbage);
    }

    #[test]
    fn lookups_and_what_follows_them_fit_into_a_probes_budget() {
        let asking = Asking::default();
        let last = asking.pause * u32::from(asking.times) + asking.deadline + asking.afterwards();
        assert!(
            last + Duration::from_millis(500) < super::super::schedule::Budgets::default().probe
        );
    }
}
