//! The path to a target that does not answer, or when somebody asks for a look.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use aizen_protocol::record::{Hop, Reach, Resolvers, Trace};

use super::{CollectError, Seen, aside};
use crate::probe::echo::Target;
use crate::probe::trace::{self, Method, Path, Plan, TraceError};

/// The first anchor; without anchors the first resolver that packets leave the device for. Nobody, if all of them
/// answer and nobody asked.
pub(crate) fn target(
    anchors: &[IpAddr],
    resolvers: Option<&Resolvers>,
    reach: Option<&Vec<Reach>>,
    asked: bool,
) -> Option<IpAddr> {
    let configured = resolvers.iter().flat_map(|r| &r.configured);
    let candidates: Vec<IpAddr> = if anchors.is_empty() {
        let leaves = |a: &&IpAddr| !a.is_loopback() && !is_link_local(a);
        configured.filter(leaves).take(1).copied().collect()
    } else {
        anchors.to_vec()
    };
    let answers = |target: &IpAddr| {
        reach
            .into_iter()
            .flatten()
            .any(|r| r.target == *target && r.received > 0)
    };
    let wanted = asked || !candidates.iter().all(answers);
    candidates.into_iter().next().filter(|_| wanted)
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// Traces the path to `target`, if there is one: two probes to each of at most 30 hops.
pub(crate) async fn collect(
    target: Option<IpAddr>,
    deadline: Duration,
) -> Result<Seen<Vec<Trace>>, CollectError> {
    let Some(target) = target else {
        return Ok(Seen {
            value: Vec::new(),
            gaps: Vec::new(),
        });
    };
    // Ends by itself a little earlier, so that what is known by then is told.
    let deadline = deadline * 9 / 10;
    let plan = Plan {
        target: Target {
            address: target,
            link: None,
        },
        method: Method::Icmp,
        rounds: Some(2),
        max_hops: 30,
        gap: GAP,
        every: Duration::ZERO,
        wait: WAIT.min(deadline / 2),
        device: None,
        deadline: Some(deadline),
    };
    let (mut value, mut gaps) = (Vec::new(), Vec::new());
    match aside::run("aizen-trace", move || either(plan)).await? {
        Ok(path) => value.push(record(target, &path)),
        // The routes say so already.
        Err(TraceError::Send { .. }) => {}
        Err(error) => gaps.push(format!("path to {target}: {error}")),
    }
    Ok(Seen { value, gaps })
}

/// By ICMP where the kernel lets us, as its answers are filtered least; by UDP otherwise.
fn either(plan: Plan) -> Result<Path, TraceError> {
    let mut quiet = |_: &Path| ControlFlow::Continue(());
    match trace::run(&plan, None, &mut quiet) {
        Err(TraceError::Open(_)) => {
            let plan = Plan {
                method: Method::Udp,
                ..plan
            };
            trace::run(&plan, None, &mut quiet)
        }
        result => result,
    }
}

fn record(target: IpAddr, path: &Path) -> Trace {
    let count = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    let hops = path.hops.iter().map(|hop| Hop {
        ttl: hop.ttl,
        addresses: hop.addresses.clone(),
        sent: count(hop.tally.sent),
        received: count(hop.tally.received),
        rtt_us: hop.rtts.iter().copied().map(super::micros).collect(),
        mtu: hop.mtu,
    });
    Trace {
        target,
        hops: hops.collect(),
        reached: path.reached().is_some(),
    }
}

/// Routers answer only so many probes in a second.
const GAP: Duration = Duration::from_millis(8);
const WAIT: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use aizen_protocol::record::ReachRole;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn reach(target: &str, received: u16) -> Reach {
        Reach {
            target: ip(target),
            role: ReachRole::Anchor,
            sent: 3,
            received,
            rtt_us: Vec::new(),
            no_route: false,
        }
    }

    #[test]
    fn the_first_anchor_is_traced_when_one_of_them_is_silent_or_somebody_asks() {
        let anchors = [ip("198.51.100.1"), ip("198.51.100.2")];
        let all = vec![reach("198.51.100.1", 3), reach("198.51.100.2", 1)];
        assert_eq!(target(&anchors, None, Some(&all), false), None);
        assert_eq!(target(&anchors, None, Some(&all), true), Some(anchors[0]));
        let one = vec![reach("198.51.100.1", 3), reach("198.51.100.2", 0)];
        assert_eq!(target(&anchors, None, Some(&one), false), Some(anchors[0]));
        assert_eq!(target(&anchors, None, None, false), Some(anchors[0]));
    }

    #[test]
    fn without_anchors_the_first_far_resolver_takes_their_place() {
        let resolvers = Resolvers {
            configured: vec![ip("127.0.0.53"), ip("192.0.2.53")],
            ..Resolvers::default()
        };
        let silent = vec![reach("192.0.2.53", 0)];
        assert_eq!(
            target(&[], Some(&resolvers), Some(&silent), false),
            Some(ip("192.0.2.53"))
        );
        assert_eq!(target(&[], None, None, true), None);
    }

    #[tokio::test]
    async fn this_machine_is_its_own_first_hop() {
        let seen = collect(Some(ip("127.0.0.1")), Duration::from_secs(20))
            .await
            .unwrap();
        let trace = &seen.value[0];
        assert!(trace.reached, "{trace:?}");
        assert_eq!(trace.hops.len(), 1);
        assert_eq!(trace.hops[0].addresses, [ip("127.0.0.1")]);
    }
}
