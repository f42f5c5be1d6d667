//! ICMP echo to gateways, resolvers and anchors (RFC 792, RFC 4443).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::record::{Reach, ReachRole, Resolvers, Route};
use futures_util::future::join_all;
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{Seen, route};

/// Whom to send to, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    /// Interface that an IPv6 link-local address belongs to.
    pub(crate) link: Option<u32>,
}

/// How often and how long to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinging {
    /// Requests to each target.
    pub times: u16,
    /// Between two requests.
    pub pause: Duration,
    /// For each reply.
    pub deadline: Duration,
}

impl Default for Pinging {
    /// A silent neighbour takes the kernel 3 s to give up (`mcast_solicit` × `retrans_time`, arp(7)): the last deadline
    /// is after that, so that its entry says FAILED by then.
    fn default() -> Self {
        Self {
            times: 5,
            pause: Duration::from_millis(250),
            deadline: Duration::from_millis(2200),
        }
    }
}

/// The next hops of the default routes, the resolvers and the anchors. `expected` is the gateway that should be there:
/// asked while its family has no default route.
pub(crate) fn targets(
    routes: &[Route],
    resolvers: &Resolvers,
    anchors: &[IpAddr],
    expected: Option<IpAddr>,
) -> Vec<(Target, ReachRole)> {
    let mut targets: Vec<(Target, ReachRole)> = Vec::new();
    let mut add = |address: IpAddr, link, role| {
        let scoped = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        let target = Target {
            address,
            link: if scoped { link } else { None },
        };
        let useful = !address.is_loopback() && !address.is_unspecified() && !address.is_multicast();
        if useful && targets.len() < MAX_TARGETS && !targets.contains(&(target, role)) {
            targets.push((target, role));
        }
    };
    let defaults = || {
        routes
            .iter()
            .filter(|r| r.destination.is_default() && r.kind == "unicast")
    };
    for route in defaults().filter(|r| r.table == route::MAIN) {
        let ways = route
            .next_hops
            .iter()
            .map(|hop| (hop.gateway, Some(hop.link)));
        for (gateway, link) in ways.chain([(route.gateway, route.link)]) {
            if let Some(gateway) = gateway {
                add(gateway, link, ReachRole::Gateway);
            }
        }
    }
    if let Some(gateway) = expected
        && !defaults().any(|r| r.destination.address.is_ipv4() == gateway.is_ipv4())
    {
        add(gateway, None, ReachRole::Gateway);
    }
    for resolver in resolvers.configured.iter().chain(&resolvers.alternates) {
        add(*resolver, None, ReachRole::Resolver);
    }
    for anchor in anchors {
        add(*anchor, None, ReachRole::Anchor);
    }
    targets
}

/// Sends echo requests to all targets, side by side; an address with two roles is asked once and reported as both.
pub(crate) async fn ping(targets: &[(Target, ReachRole)], pinging: Pinging) -> Seen<Vec<Reach>> {
    let mut gaps = Vec::new();
    let mut client = |kind, wanted: bool| {
        let client = wanted.then(|| Client::new(&Config::builder().kind(kind).build()))?;
        client
            .map_err(|error| gaps.push(no_socket(kind, &error)))
            .ok()
    };
    let ipv4 = client(ICMP::V4, targets.iter().any(|(t, _)| t.address.is_ipv4()));
    let ipv6 = client(ICMP::V6, targets.iter().any(|(t, _)| t.address.is_ipv6()));
    let mut unique: Vec<Target> = targets.iter().map(|(target, _)| *target).collect();
    unique.sort_unstable();
    unique.dedup();
    let room = Semaphore::new(IN_FLIGHT);
    let asked = unique.iter().enumerate().filter_map(|(n, target)| {
        let client = if target.address.is_ipv4() {
            &ipv4
        } else {
            &ipv6
        };
        // Each target has its own numbers: two link-local targets may share one address.
        let first = u16::try_from(n)
            .unwrap_or_default()
            .saturating_mul(pinging.times);
        Some(ping_one(client.as_ref()?, *target, first, pinging, &room))
    });
    let seen: BTreeMap<Target, Echoes> = join_all(asked).await.into_iter().collect();
    let value = targets
        .iter()
        .filter_map(|(target, role)| {
            let echoes = seen.get(target)?;
            Some(Reach {
                target: target.address,
                role: *role,
                sent: echoes.sent,
                received: u16::try_from(echoes.rtt_us.len()).unwrap_or(u16::MAX),
                rtt_us: echoes.rtt_us.clone(),
                no_route: echoes.no_route,
            })
        })
        .collect();
    Seen { value, gaps }
}

#[derive(Debug, Default)]
struct Echoes {
    sent: u16,
    rtt_us: Vec<u32>,
    no_route: bool,
}

async fn ping_one(
    client: &Client,
    target: Target,
    first: u16,
    pinging: Pinging,
    room: &Semaphore,
) -> (Target, Echoes) {
    let one = |n: u16| async move {
        sleep(pinging.pause * u32::from(n)).await;
        let mut identifier = [0; 2];
        // Any identifier will do; the kernel draws it for ping sockets anyway.
        getrandom::fill(&mut identifier).ok();
        let mut pinger = client
            .pinger(
                target.address,
                PingIdentifier(u16::from_ne_bytes(identifier)),
            )
            .await;
        pinger.timeout(pinging.deadline);
        pinger.scope_id(target.link.unwrap_or_default());
        // It is never closed; without a permit the request is sent all the same.
        let _place = room.acquire().await.ok();
        pinger
            .ping(PingSequence(first.wrapping_add(n)), PAYLOAD)
            .await
    };
    let mut echoes = Echoes::default();
    for result in join_all((0..pinging.times).map(one)).await {
        match result {
            Ok((packet, rtt)) => {
                echoes.sent += 1;
                if is_reply(&packet) {
                    echoes.rtt_us.push(super::micros(rtt));
                }
            }
            Err(SurgeError::IOError(error)) => echoes.no_route |= is_no_route(&error),
            Err(_) => echoes.sent += 1,
        }
    }
    (target, echoes)
}

/// A raw socket also brings the errors that a router on the way sends.
fn is_reply(packet: &IcmpPacket) -> bool {
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == 0,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == 129,
    }
}

fn is_no_route(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
    )
}

fn no_socket(kind: ICMP, error: &io::Error) -> String {
    let family = if kind == ICMP::V4 { "IPv4" } else { "IPv6" };
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{family} echo needs net.ipv4.ping_group_range to cover this process's group, or CAP_NET_RAW"
        ),
        _ => format!("{family} echo: {error}"),
    }
}

const MAX_TARGETS: usize = 24;
/// Beyond 128 in flight surge-ping loses replies that did arrive (measured: 36 % at 200).
const IN_FLIGHT: usize = 64;
const PAYLOAD: &[u8] = b"aizen reach probe, 32 bytes long";

#[cfg(test)]
mod tests {
    use super::*;

    fn default_route(gateway: &str, link: u32) -> Route {
        let gateway: IpAddr = gateway.parse().unwrap();
        Route {
            next_hops: Vec::new(),
            dead: false,
            expires_s: None,
            destination: if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            }
            .parse()
            .unwrap(),
            gateway: Some(gateway),
            link: Some(link),
            table: route::MAIN,
            metric: None,
            protocol: "dhcp".to_owned(),
            kind: "unicast".to_owned(),
            source: None,
        }
    }

    fn resolvers(configured: &[&str]) -> Resolvers {
        Resolvers {
            configured: configured.iter().map(|a| a.parse().unwrap()).collect(),
            ..Resolvers::default()
        }
    }

    #[test]
    fn a_gateway_that_also_resolves_is_asked_in_both_roles() {
        let targets = targets(
            &[default_route("192.0.2.1", 2)],
            &resolvers(&["192.0.2.1", "127.0.0.53"]),
            &[],
            None,
        );
        assert_eq!(
            targets.iter().map(|(_, role)| *role).collect::<Vec<_>>(),
            [ReachRole::Gateway, ReachRole::Resolver]
        );
    }

    #[test]
    fn only_link_local_gateways_are_bound_to_their_link() {
        let routes = [
            default_route("fe80::1", 2),
            default_route("fe80::1", 3),
            default_route("192.0.2.1", 2),
        ];
        let links: Vec<_> = targets(&routes, &resolvers(&[]), &[], None)
            .iter()
            .map(|(t, _)| t.link)
            .collect();
        assert_eq!(links, [Some(2), Some(3), None]);
    }

    #[test]
    fn the_expected_gateway_is_asked_only_while_its_family_has_no_default_route() {
        let expected: IpAddr = "192.0.2.254".parse().unwrap();
        let asked = |gateway| {
            targets(
                &[default_route(gateway, 2)],
                &resolvers(&[]),
                &[],
                Some(expected),
            )
        };
        assert_eq!(asked("192.0.2.1").len(), 1);
        let over_ipv6 = asked("fe80::1");
        assert_eq!(over_ipv6[1].0.address, expected);
    }

    #[tokio::test]
    async fn loopback_answers_every_request() {
        let target = Target {
            address: "127.0.0.1".parse().unwrap(),
            link: None,
        };
        let pinging = Pinging {
            times: 3,
            pause: Duration::from_millis(5),
            deadline: Duration::from_secs(2),
        };
        let seen = ping(&[(target, ReachRole::Anchor)], pinging).await;
        if seen.value.is_empty() {
            assert!(seen.gaps[0].contains("ping_group_range"), "{:?}", seen.gaps);
        } else {
            assert_eq!((seen.value[0].sent, seen.value[0].received), (3, 3));
        }
    }
}
