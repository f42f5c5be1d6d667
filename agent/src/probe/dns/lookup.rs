//! The addresses of a host that another probe goes to, asked from the device's own resolvers.

use std::net::IpAddr;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::client;
use super::kind::Kind;
use super::question::Question;
use super::server::{Server, Transport};

/// The addresses of `host`, IPv4 first, at most so many as a probe tries; `host` itself if it is an address. All
/// resolvers are asked side by side and the first that knows counts, so that a dead one delays nothing. `/etc/hosts`
/// is not read.
pub async fn addresses(host: &str, resolvers: &[IpAddr], until: Instant) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    let (v4, v6) = tokio::join!(
        first(host, Kind::A, resolvers, until),
        first(host, Kind::AAAA, resolvers, until),
    );
    v4.into_iter().chain(v6).take(MOST).collect()
}

async fn first(host: &str, kind: Kind, resolvers: &[IpAddr], until: Instant) -> Vec<IpAddr> {
    let Some(question) = Question::new(host, kind) else {
        return Vec::new();
    };
    let mut asked: FuturesUnordered<_> = resolvers
        .iter()
        .map(|resolver| async {
            client::ask(
                &Server::at(*resolver),
                &Transport::Udp,
                None,
                &question,
                until,
            )
            .await
        })
        .collect();
    while let Some(reply) = asked.next().await {
        // NOERROR and NXDOMAIN are what there is to know; anything else may be one server's own trouble.
        if let Ok(reply) = reply
            && [0, 3].contains(&reply.message.rcode)
        {
            return reply.message.addresses().take(MOST).collect();
        }
    }
    Vec::new()
}

const MOST: usize = 4;
