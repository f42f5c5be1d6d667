//! ICMP echo to gateways, resolvers and anchors (RFC 792, RFC 4443).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use aizen_protocol::record::{Reach, ReachRole, Resolvers, Route};
use nix::errno::Errno;

use super::{Seen, aside, route};
pub(crate) use crate::probe::echo::Target;
use crate::probe::echo::{self, Kind, Outcome, Plan};

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
    let mut unique: Vec<Target> = targets.iter().map(|(target, _)| *target).collect();
    unique.sort_unstable();
    unique.dedup();
    let plan = Plan {
        targets: unique.clone(),
        times: Some(u32::from(pinging.times)),
        between: Duration::ZERO,
        each: pinging.pause,
        wait: pinging.deadline,
        size: PAYLOAD,
        device: None,
        // A thread whose caller no longer listens ends by itself.
        deadline: Some(pinging.pause * u32::from(pinging.times) + pinging.deadline * 2),
    };
    let echoes = match aside::run("aizen-echo", move || ask(&plan)).await {
        Ok(Ok(echoes)) => echoes,
        Ok(Err(error)) | Err(error) => {
            return Seen {
                value: Vec::new(),
                gaps: vec![format!("echo: {error}")],
            };
        }
    };
    let mut gaps = echoes.outcome.unasked.clone();
    let value = targets
        .iter()
        .filter_map(|(target, role)| {
            let place = unique.binary_search(target).ok()?;
            let reach = echoes.reach(place, *target, *role)?;
            gaps.extend(echoes.overflow(place, target.address));
            Some(reach)
        })
        .collect();
    gaps.dedup();
    Seen { value, gaps }
}

struct Echoes {
    outcome: Outcome,
    /// Of each target, in the order sent.
    rtt_us: Vec<BTreeMap<u32, u32>>,
    no_route: Vec<bool>,
}

fn ask(plan: &Plan) -> io::Result<Echoes> {
    let mut rtt_us = vec![BTreeMap::new(); plan.targets.len()];
    let mut no_route = vec![false; plan.targets.len()];
    let outcome = echo::run(plan, None, &mut |event| {
        match event.kind {
            Kind::Reply(rtt) => {
                rtt_us[event.target].insert(event.number, super::micros(rtt));
            }
            Kind::Refused(errno) => {
                no_route[event.target] |= matches!(
                    Errno::from_raw(errno),
                    Errno::ENETUNREACH | Errno::EHOSTUNREACH
                );
            }
            Kind::Duplicate(_)
            | Kind::Late(_)
            | Kind::Error { .. }
            | Kind::Lost
            | Kind::NotMeasured => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(Echoes {
        outcome,
        rtt_us,
        no_route,
    })
}

impl Echoes {
    /// None for a target that was not asked. What was not measured counts as never sent.
    fn reach(&self, place: usize, target: Target, role: ReachRole) -> Option<Reach> {
        let tally = &self.outcome.tallies[place];
        if tally.sent + tally.refused == 0 {
            return None;
        }
        let count = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        Some(Reach {
            target: target.address,
            role,
            sent: count(tally.sent - tally.not_measured),
            received: count(tally.received),
            rtt_us: self.rtt_us[place].values().copied().collect(),
            no_route: self.no_route[place],
        })
    }

    fn overflow(&self, place: usize, target: IpAddr) -> Option<String> {
        let lost = self.outcome.tallies[place].not_measured;
        (lost > 0).then(|| {
            format!("{lost} echoes to {target} were not measured: this device's socket overflowed")
        })
    }
}

const MAX_TARGETS: usize = 24;
/// Bytes.
const PAYLOAD: u16 = 32;

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
