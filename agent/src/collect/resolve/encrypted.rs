//! The same names over TLS (RFC 7858), from the servers that the operator named: what nobody on the way can rewrite.

use std::net::IpAddr;

use aizen_protocol::record::{DnsProbe, DnsTransport};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Wanted, question, told};
use crate::collect::{Seen, aside};
use crate::probe::dns::{Client, Failure, Kind, Reply, Server, Transport};
use crate::probe::roots::{NoRoots, Roots};

/// Asks each server for all names over one connection.
pub(super) async fn probe(
    wanted: Wanted<'_>,
    names: &[String],
    known: &[(IpAddr, bool)],
) -> Seen<Vec<DnsProbe>> {
    let mut gaps = Vec::new();
    let mut roots = None;
    if wanted.encrypted.iter().any(|server| server.name.is_some()) {
        let root = wanted.root.to_owned();
        let read = aside::run("aizen-roots", move || Roots::read(&root)).await;
        match read.unwrap_or(Err(NoRoots)) {
            Ok(found) => roots = Some(found),
            Err(error) => gaps.push(format!("DNS over TLS: {error}")),
        }
    }
    let probes = wanted.encrypted.iter().take(MAX_SERVERS).map(|server| {
        let configured = known.contains(&(server.address, true));
        ask_all(
            server,
            configured,
            names,
            roots.as_ref(),
            wanted.asking.deadline,
        )
    });
    let value = join_all(probes).await.into_iter().flatten().collect();
    Seen { value, gaps }
}

async fn ask_all(
    server: &Server,
    configured: bool,
    names: &[String],
    roots: Option<&Roots>,
    deadline: std::time::Duration,
) -> Vec<DnsProbe> {
    // Without roots nothing can be said about a server by its name: no probe, and a gap that says why.
    if server.name.is_some() && roots.is_none() {
        return Vec::new();
    }
    let until = Instant::now() + deadline;
    let mut client = Client::connect(server, &Transport::Tls, roots, until).await;
    let mut probes = Vec::new();
    for name in names {
        let ended = match &mut client {
            Ok(client) => match question(name, Kind::A) {
                Some(question) => client.ask(&question, until).await,
                None => Err(Failure::Garbage),
            },
            Err(_) => break,
        };
        probes.push(tell(server, configured, name, ended));
    }
    if let (Err(failure), Some(name)) = (client, names.first()) {
        probes.push(tell(server, configured, name, Err(failure)));
    }
    probes
}

fn tell(server: &Server, configured: bool, name: &str, ended: Result<Reply, Failure>) -> DnsProbe {
    DnsProbe {
        transport: DnsTransport::Tls,
        ..told(server.address, configured, name, &[ended])
    }
}

const MAX_SERVERS: usize = 4;
