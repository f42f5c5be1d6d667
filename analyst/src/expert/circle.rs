//! Packets that two routers send to each other until they die.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Hop, Trace};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::reach;
use super::unit::list;
use crate::case::{Family, View, Way};

/// Times that one of the two routers must be met: a path that meets a router twice is odd but no circle.
const MET: usize = 3;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().traces else {
        return examined;
    };
    for trace in &seen.value {
        if trace.reached {
            examined
                .well
                .push(format!("The path to {} ends there", trace.target));
            continue;
        }
        let answers = reach::ping(view.now(), trace.target).is_some_and(|ping| ping.received > 0);
        let Some(circle) = circle(&trace.hops).filter(|_| !answers) else {
            continue;
        };
        // Several targets behind the same two routers are one fault.
        let told = examined.drafts.iter_mut().find(|draft: &&mut Draft| {
            let [a, b] = circle;
            draft.is_about(&component([a, b])) || draft.is_about(&component([b, a]))
        });
        let fact = fact(trace, circle);
        match told {
            Some(draft) => draft.shown("traces", &trace.target.to_string(), seen.at, fact),
            None => examined.drafts.push(draft(view, seen.at, trace, circle)),
        }
    }
    examined
}

/// The two routers that a path alternates between from some hop to its end, in the order of the path. Routers answer
/// only so many probes in a second: hops may stay silent, but none may be anybody else.
fn circle(hops: &[Hop]) -> Option<[IpAddr; 2]> {
    let one = |hop: &Hop| match hop.addresses.as_slice() {
        [address] => Some(*address),
        _ => None,
    };
    (0..hops.len()).find_map(|start| {
        let rest = &hops[start..];
        let [a, b] = [one(rest.first()?)?, one(rest.get(1)?)?];
        let in_turn = rest.iter().enumerate().all(|(place, hop)| {
            hop.addresses.is_empty() || one(hop) == Some(if place % 2 == 0 { a } else { b })
        });
        let met = |router| rest.iter().filter(|hop| one(hop) == Some(router)).count();
        (in_turn && a != b && met(a).max(met(b)) >= MET).then_some([a, b])
    })
}

fn component([a, b]: [IpAddr; 2]) -> String {
    format!("{a} and {b}")
}

fn fact(trace: &Trace, [a, b]: [IpAddr; 2]) -> String {
    let times = trace
        .hops
        .iter()
        .filter(|hop| hop.addresses.contains(&a) || hop.addresses.contains(&b))
        .count();
    format!(
        "{times} of {} hops on the path to {} are {a} or {b} in turn",
        trace.hops.len(),
        trace.target
    )
}

fn draft(view: &View<'_>, at: Timestamp, trace: &Trace, circle: [IpAddr; 2]) -> Draft {
    let [a, b] = circle;
    let family = Family::of(trace.target);
    let far = reach::far(view, family, None);
    let all_dead = !reach::all_silent(&far).is_empty();
    let severity = if all_dead {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut draft = Draft::new(
        "routing_loop",
        Layer::Upstream,
        component(circle),
        severity,
        format!(
            "{a} and {b} send packets to {} back and forth",
            trace.target
        ),
    );
    draft.shown("traces", &trace.target.to_string(), at, fact(trace, circle));
    if reach::is_silent(view, trace.target)
        && let Some(ping) = reach::ping(view.now(), trace.target)
    {
        let fact = ping.fact(trace.target);
        draft.shown("reach", &trace.target.to_string(), ping.at, fact);
    }
    draft.rests_on = Some(Way {
        link: view.way_to(trace.target).link,
        beyond: None,
    });
    if all_dead {
        draft.breaks_beyond.push(family);
    }
    let neighbours: Vec<IpAddr> = circle
        .into_iter()
        .filter(|hop| {
            view.routes()
                .iter()
                .any(|route| route.gateway == Some(*hop))
                || view
                    .global_addresses()
                    .any(|ours| ours.address.address == *hop)
        })
        .collect();
    draft.misses(format!(
        "the routes of {a} and of {b} towards {} (`aizen trace` from another host)",
        trace.target
    ));
    draft.next(if neighbours.is_empty() {
        format!("Tell the provider that {a} and {b} send packets to {} in a circle", trace.target)
    } else {
        format!(
            "Compare the static and default routes of this device and of {} (one of them sends {} back where it came from)",
            list(&neighbours),
            trace.target
        )
    });
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::Body;

    use super::*;
    use crate::fixture::{ANCHOR, Evidence, FAR_ANCHOR, GATEWAY, healthy, ip, only, pull_cable};

    fn trace(target: &str, hops: &[&str]) -> Trace {
        let hop = |(ttl, address): (u8, &&str)| Hop {
            ttl,
            addresses: address.parse().into_iter().collect(),
            sent: 3,
            received: 3,
            rtt_us: vec![900; 3],
            mtu: None,
        };
        Trace {
            target: ip(target),
            hops: (1..).zip(hops).map(hop).collect(),
            reached: hops.last() == Some(&target),
        }
    }

    const FAR: &str = "198.18.9.1";
    const ROUND: [&str; 7] = [GATEWAY, FAR, GATEWAY, FAR, GATEWAY, FAR, GATEWAY];

    fn traced(traces: Vec<Trace>) -> Evidence {
        let mut evidence = healthy(1);
        evidence.extra.push(Body::Traces(traces));
        evidence
    }

    #[test]
    fn two_routers_in_turn_are_a_loop_and_the_silence_beyond_follows() {
        let mut evidence = traced(vec![trace(ANCHOR, &ROUND), trace(FAR_ANCHOR, &ROUND)]);
        evidence.silence_outside();
        let told = evidence.verdict();
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.confidence),
            ("routing_loop", Confidence::Certain)
        );
        assert_eq!(finding.component.0, format!("{GATEWAY} and {FAR}"));
        assert!(finding.next_step.0.contains("static and default routes"));
    }

    #[test]
    fn routers_that_answer_few_probes_are_a_loop_all_the_same() {
        let mut evidence = traced(vec![trace(
            FAR_ANCHOR,
            &[GATEWAY, FAR, GATEWAY, "", GATEWAY, "", "", ""],
        )]);
        evidence.silence_outside();
        let told = evidence.verdict();
        assert_eq!(only(&told).cause.0, "routing_loop");
        assert_eq!(only(&told).component.0, format!("{GATEWAY} and {FAR}"));
    }

    #[test]
    fn silent_hops_a_router_met_twice_and_a_target_that_answers_do_not_alarm() {
        let mut silent = trace(FAR_ANCHOR, &[GATEWAY, "", "", "", "", "", ""]);
        silent.reached = false;
        for traces in [
            vec![trace(ANCHOR, &[GATEWAY, FAR, ANCHOR])],
            vec![silent],
            vec![trace(
                FAR_ANCHOR,
                &[GATEWAY, FAR, GATEWAY, FAR, "198.18.9.2"],
            )],
            vec![trace(FAR_ANCHOR, &[FAR; 9])],
            vec![trace(FAR_ANCHOR, &[GATEWAY, FAR, GATEWAY, "", "", ""])],
            vec![trace(FAR_ANCHOR, &[GATEWAY, "", GATEWAY, "", GATEWAY, ""])],
            vec![trace(
                FAR_ANCHOR,
                &[GATEWAY, FAR, GATEWAY, "", GATEWAY, "198.18.9.2", ""],
            )],
            // The circle was there when the path was traced, and is gone.
            vec![trace(ANCHOR, &ROUND)],
        ] {
            assert_eq!(traced(traces).verdict().health, Health::Healthy);
        }
    }

    #[test]
    fn a_path_that_was_traced_before_the_cable_was_pulled_is_no_finding_of_its_own() {
        let mut evidence = traced(vec![trace(ANCHOR, &ROUND)]);
        pull_cable(&mut evidence);
        assert_eq!(only(&evidence.verdict()).cause.0, "link_down");
    }
}
