//! Routes that swallow: a blackhole, unreachable or prohibit route over something that should be reached.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{ReachRole, Route};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::question;
use super::reach;
use super::unit::list;
use crate::case::{Family, View, default_route};
use crate::repair;

/// The kernel's `main` table.
const MAIN: u32 = 254;
const KINDS: [&str; 3] = ["blackhole", "unreachable", "prohibit"];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().routes else {
        return examined;
    };
    let holes: Vec<&Route> = seen.value.iter().filter(|route| swallows(route)).collect();
    if holes.is_empty() {
        return examined;
    }
    let targets = unanswered(view);
    for hole in holes {
        let lost: Vec<IpAddr> = targets
            .iter()
            .copied()
            .filter(|target| {
                best(&seen.value, *target).is_some_and(|best| std::ptr::eq(best, hole))
            })
            .collect();
        // Where there is no default route at all, that is the fault: a blackhole below it is a usual safety net.
        let family = Family::of(hole.destination.address);
        let is_net = hole.destination.is_default() && default_route(&seen.value, family).is_none();
        if !lost.is_empty() && !is_net {
            examined.drafts.push(draft(view, seen.at, hole, &lost));
        }
    }
    examined
}

fn swallows(route: &Route) -> bool {
    route.table == MAIN && KINDS.contains(&route.kind.as_str())
}

/// The route that the kernel takes, swallowing ones among them.
fn best(routes: &[Route], address: IpAddr) -> Option<&Route> {
    routes
        .iter()
        .filter(|route| {
            route.table == MAIN
                && (route.kind == "unicast" || swallows(route))
                && route.destination.contains(address)
        })
        .min_by_key(|route| {
            (
                u8::MAX - route.destination.length,
                route.metric.unwrap_or(0),
                swallows(route),
            )
        })
}

/// Targets that should answer and don't: what the operator or the resolver configuration names.
fn unanswered(view: &View<'_>) -> Vec<IpAddr> {
    let now = view.now();
    let mut targets: Vec<IpAddr> = Vec::new();
    for reach in now.reach.iter().flat_map(|seen| &seen.value) {
        let answered = reach::ping(now, reach.target).is_some_and(|ping| ping.received > 0);
        let is_own = reach.role == ReachRole::Resolver;
        if !answered && !is_own && !targets.contains(&reach.target) {
            targets.push(reach.target);
        }
    }
    for tally in question::tallies(now) {
        if tally.configured && !tally.is_alive() && !targets.contains(&tally.resolver) {
            targets.push(tally.resolver);
        }
    }
    targets
}

fn draft(view: &View<'_>, at: Timestamp, hole: &Route, lost: &[IpAddr]) -> Draft {
    let family = Family::of(hole.destination.address);
    let net = hole.destination;
    let far = reach::far(view, family, None);
    let all_lost = !far.iter().any(|far| far.answered);
    let mut draft = Draft::new(
        "blackhole_route",
        Layer::Route,
        net.to_string(),
        Severity::Critical,
        format!(
            "The {} route to {net} swallows what is sent to {}",
            hole.kind,
            list(lost)
        ),
    );
    let metric = hole
        .metric
        .map_or_else(String::new, |metric| format!(" with metric {metric}"));
    let fact = format!(
        "table main holds a route to {net} of kind {}{metric}, made by {}",
        hole.kind, hole.protocol
    );
    draft.shown("routes", "hole", at, fact);
    for target in lost.iter().take(4) {
        if let Some(ping) = reach::ping(view.now(), *target) {
            draft.shown("reach", &target.to_string(), ping.at, ping.fact(*target));
        } else if let Some(tally) = question::tally(view.now(), *target) {
            draft.shown("dns", &target.to_string(), tally.at, tally.fact());
        }
    }
    draft.breaks_prefixes.push(net);
    if all_lost {
        draft.breaks_beyond.push(family);
    }
    let answered_before = view.this_boot().any(|pass| {
        let has_hole = pass
            .routes
            .iter()
            .flat_map(|seen| &seen.value)
            .any(|route| swallows(route) && route.destination == net);
        let answered =
            |target: &IpAddr| reach::ping(pass, *target).is_some_and(|ping| ping.received > 0);
        !has_hole && lost.iter().any(answered)
    });
    if answered_before {
        let fact = format!(
            "{} answered earlier in this boot, before that route was there",
            list(lost)
        );
        draft.backed("reach", "earlier", at, fact);
    }
    draft.misses(format!(
        "who made it, and whether on purpose: routing daemons, intrusion prevention and VPN clients do (`ip route show \
         {net}`)"
    ));
    draft.next(format!(
        "Find out who made the {} route to {net}; if nobody wants it, remove it (`ip route del {} {net}`)",
        hole.kind, hole.kind
    ));
    draft.propose(repair::route::remove_hole(view, hole, lost));
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::DnsAnswer;

    use super::*;
    use crate::fixture::{
        ANCHOR, Evidence, FAR_ANCHOR, RESOLVER, WAN, healthy, only, route, verdict,
    };

    fn hole(destination: &str, kind: &str, metric: Option<u32>) -> Route {
        let mut hole = route(destination, None, WAN);
        (hole.kind, hole.link, hole.metric) = (kind.into(), None, metric);
        hole
    }

    fn swallowed(round: u64) -> Evidence {
        let mut evidence = healthy(round);
        evidence
            .routes
            .push(hole("198.18.4.0/24", "blackhole", None));
        evidence.silence(ANCHOR);
        for reach in evidence
            .reach
            .iter_mut()
            .filter(|r| r.target == crate::fixture::ip(ANCHOR))
        {
            (reach.sent, reach.no_route) = (0, true);
        }
        evidence
    }

    #[test]
    fn a_blackhole_over_an_anchor_is_removed_by_the_proposal() {
        let told = verdict(&[healthy(1), swallowed(2)]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("blackhole_route", "198.18.4.0/24")
        );
        assert_eq!(finding.confidence, Confidence::Certain);
        let proposal = finding.proposal.as_ref().unwrap();
        assert!(
            proposal
                .script
                .ends_with("change route delete \"$NET_198_18_4_0_24\"\n"),
            "{}",
            proposal.script
        );
        assert!(!proposal.script.contains("198.18"));
        assert!(proposal.manifest.is_bounded());
        assert!(proposal.manifest.confirm.probes.len() >= 2);
    }

    #[test]
    fn a_resolver_in_the_hole_is_its_consequence_and_one_outside_is_not() {
        let mut evidence = healthy(1);
        evidence
            .routes
            .push(hole("10.83.7.53/32", "prohibit", Some(50)));
        evidence.answers(RESOLVER, DnsAnswer::Unreachable);
        evidence.silence(RESOLVER);
        let told = evidence.verdict();
        assert_eq!(only(&told).cause.0, "blackhole_route");
        let script = &only(&told).proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("\"$NET_10_83_7_53_32\" metric 50\n"),
            "{script}"
        );
        let mut beside = swallowed(1);
        beside.answers(RESOLVER, DnsAnswer::PortUnreachable);
        let causes: Vec<String> = beside
            .verdict()
            .findings
            .into_iter()
            .map(|finding| finding.cause.0)
            .collect();
        assert_eq!(causes, ["blackhole_route", "resolver_dead"]);
    }

    #[test]
    fn a_blackhole_that_beats_the_default_route_is_found() {
        let mut evidence = healthy(1);
        evidence.silence_outside();
        evidence.routes[0].metric = Some(100);
        evidence.routes.push(hole("0.0.0.0/0", "blackhole", None));
        let told = evidence.verdict();
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("blackhole_route", "0.0.0.0/0")
        );
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change route delete default\n"),
            "{script}"
        );
    }

    #[test]
    fn holes_over_nothing_safety_nets_and_more_specific_routes_do_not_alarm() {
        for extra in [
            hole("10.0.0.0/8", "blackhole", None),
            hole("0.0.0.0/0", "blackhole", Some(4_278_198_272)),
            hole("2001:db8:40::/56", "unreachable", Some(2_147_483_647)),
            hole("198.18.4.0/24", "throw", None),
        ] {
            let mut evidence = healthy(1);
            evidence.routes.push(extra);
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
        // It answers: policy routing leads around the hole.
        let mut around = healthy(1);
        around.routes.push(hole("198.18.4.0/24", "blackhole", None));
        assert_eq!(around.verdict().health, Health::Healthy);
        // An anchor that blocks echo, under a wider hole than its own route.
        let mut specific = healthy(1);
        specific
            .routes
            .push(hole("198.18.0.0/16", "blackhole", None));
        specific
            .routes
            .push(route("198.18.200.0/24", Some(crate::fixture::GATEWAY), WAN));
        specific
            .reach
            .retain(|reach| reach.target == crate::fixture::ip(FAR_ANCHOR));
        assert_eq!(specific.verdict().health, Health::Healthy);
    }
}
