//! Default routes that get in each other's way, or that lead over another gateway than the operator expects.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{NeighbourState, Route};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::reach;
use super::unit::list;
use crate::case::{Family, View, Way, default_route};
use crate::repair;

/// The kernel's `main` table.
const MAIN: u32 = 254;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().routes else {
        return examined;
    };
    // IPv6 routers that advertise themselves beside each other are no conflict: hosts choose (RFC 4861, 6.3.6).
    let all: Vec<&Route> = seen.value.iter().filter(|route| competes(route)).collect();
    let conflict = conflict(view, seen.at, &all);
    match conflict {
        Some(draft) => examined.drafts.push(draft),
        None => examined.drafts.extend(unexpected(view, seen.at)),
    }
    examined
}

fn competes(route: &Route) -> bool {
    route.destination.is_default()
        && route.destination.address.is_ipv4()
        && route.kind == "unicast"
        && route.table == MAIN
        && route.next_hops.is_empty()
        && !route.dead
}

fn metric(route: &Route) -> u32 {
    route.metric.unwrap_or(0)
}

/// True if the next hop shows life.
fn lives(view: &View<'_>, gateway: IpAddr) -> Option<(&'static str, Timestamp, String)> {
    if let Some(ping) = reach::ping(view.now(), gateway).filter(|ping| ping.received > 0) {
        return Some(("reach", ping.at, ping.fact(gateway)));
    }
    let seen = view.now().neighbours.as_ref()?;
    let reachable = |state| state == NeighbourState::Reachable;
    seen.value
        .iter()
        .find(|entry| entry.address == gateway && reachable(entry.state))?;
    let fact = format!("the neighbour entry of {gateway} is REACHABLE");
    Some(("neighbours", seen.at, fact))
}

/// Two of the same metric that lead different ways: which one counts depends on the order in which they came.
fn conflict(view: &View<'_>, at: Timestamp, all: &[&Route]) -> Option<Draft> {
    let best = all.iter().map(|route| metric(route)).min()?;
    let equal: Vec<&Route> = all
        .iter()
        .copied()
        .filter(|route| metric(route) == best)
        .collect();
    let first = *equal.first()?;
    let other = equal
        .iter()
        .find(|other| (other.gateway, other.link) != (first.gateway, first.link))?;
    let words: Vec<String> = equal.iter().map(|route| way(view, route)).collect();
    let mut draft = Draft::new(
        "default_route_conflict",
        Layer::Route,
        "IPv4 default route",
        Severity::Warning,
        format!("{} default routes have the same metric", equal.len()),
    );
    let fact = format!("default routes with metric {best}: {}", list(words));
    draft.shown("routes", "equal", at, fact);
    for gateway in equal.iter().filter_map(|route| route.gateway) {
        if let Some((source, at, fact)) = lives(view, gateway) {
            draft.noted(source, at, fact);
        } else if reach::is_silent(view, gateway)
            && let Some(ping) = reach::ping(view.now(), gateway)
        {
            draft.shown("reach", &gateway.to_string(), ping.at, ping.fact(gateway));
        }
    }
    let expected = view.profile().and_then(|seen| {
        let gateway = seen.value.gateway?;
        let is_one = equal.iter().any(|route| route.gateway == Some(gateway));
        is_one.then_some((seen.at, gateway))
    });
    if let Some((at, gateway)) = expected {
        let fact = format!("the operator expects {gateway} as the default gateway");
        draft.backed("profile", "expected", at, fact);
    }
    draft.rests_on = Some(Way {
        link: other.link,
        beyond: None,
    });
    draft.explains("Packets may leave the wrong side, and answers to them are lost");
    draft
        .misses("which way packets take now (`ip route get` to an address outside, `aizen trace`)");
    let loser = loser(view, &equal, expected.map(|(_, gateway)| gateway));
    let proposal = loser.and_then(|(loser, keeper)| repair::route::demote(view, loser, keeper));
    draft.next(match (loser, proposal.is_some()) {
        (Some((loser, _)), true) => format!(
            "Give the default route {} a higher metric, and set it so in the network configuration",
            way(view, loser)
        ),
        _ => "Give one of the default routes a higher metric in the network configuration: the one that is for spare".into(),
    });
    draft.propose(proposal);
    Some(draft)
}

/// The one to step back and the gateway that stays: the operator's word, else the only one that lives.
fn loser<'a>(
    view: &View<'_>,
    equal: &[&'a Route],
    expected: Option<IpAddr>,
) -> Option<(&'a Route, IpAddr)> {
    let [a, b] = equal else { return None };
    let (one, two) = (a.gateway?, b.gateway?);
    let keeper =
        expected.or_else(
            || match (lives(view, one).is_some(), lives(view, two).is_some()) {
                (true, false) => Some(one),
                (false, true) => Some(two),
                _ => None,
            },
        )?;
    let loser = if keeper == one { b } else { a };
    Some((loser, keeper))
}

/// `via 10.0.0.1 on wan`.
fn way(view: &View<'_>, route: &Route) -> String {
    let via = route
        .gateway
        .map_or_else(|| "direct".into(), |gateway| format!("via {gateway}"));
    let dev = route
        .link
        .map_or_else(String::new, |link| format!(" on {}", view.link_name(link)));
    format!("{via}{dev}")
}

/// The operator's gateway lives, and the default route leads over another one.
fn unexpected(view: &View<'_>, at: Timestamp) -> Option<Draft> {
    let profile = view.profile()?;
    let expected = profile.value.gateway?;
    let family = Family::of(expected);
    let route = default_route(view.routes(), family)?;
    let gateway = route.gateway.filter(|gateway| *gateway != expected)?;
    let (source, alive_at, alive) = lives(view, expected)?;
    let silent = !reach::all_silent(&reach::far(view, family, Some(gateway))).is_empty();
    let severity = if silent {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut draft = Draft::new(
        "wrong_gateway",
        Layer::Route,
        format!("{} default route", family.name()),
        severity,
        format!("The default route leads over {gateway} instead of {expected}"),
    );
    let fact = format!(
        "the default route that counts leads {} with metric {}",
        way(view, route),
        metric(route)
    );
    draft.shown("routes", "default", at, fact);
    let fact = format!("the operator expects {expected} as the default gateway");
    draft.backed("profile", "expected", profile.at, fact);
    draft.shown(source, "alive", alive_at, alive);
    let link = view.connected(expected);
    draft.rests_on = Some(Way { link, beyond: None });
    if silent {
        draft.breaks_beyond.push(family);
    }
    draft.misses(
        "who set it: a second DHCP client, a VPN, or somebody by hand (`ip route`, `aizen routes`)",
    );
    draft.next(format!(
        "Find out who set the default route over {gateway}; give it a higher metric than the one over {expected}"
    ));
    draft.propose(repair::route::prefer(view, expected, route));
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use super::*;
    use crate::fixture::{Evidence, GATEWAY, LAN, WAN, healthy, neighbour, only, route, verdict};

    const OTHER: &str = "192.168.40.254";

    fn second(metric: Option<u32>) -> Evidence {
        let mut evidence = healthy(1);
        let mut other = route("0.0.0.0/0", Some(OTHER), LAN);
        other.metric = metric;
        evidence.routes.push(other);
        evidence
    }

    #[test]
    fn two_default_routes_of_one_metric_conflict_and_the_unexpected_one_steps_back() {
        let told = second(None).verdict();
        let finding = only(&told);
        assert_eq!(finding.cause.0, "default_route_conflict");
        assert_eq!(finding.confidence, Confidence::Likely);
        let proposal = finding.proposal.as_ref().unwrap();
        assert!(
            proposal.script.ends_with(
                "change route add default via \"$IP_192_168_40_254\" dev lan metric 1024\n\
                 change route delete default via \"$IP_192_168_40_254\" dev lan\n"
            ),
            "{}",
            proposal.script
        );
        assert_eq!(proposal.manifest.operations.len(), 2);
    }

    #[test]
    fn without_the_operators_word_the_living_gateway_stays_and_a_tie_is_left_to_people() {
        let mut evidence = second(None);
        evidence.profile.gateway = None;
        assert!(only(&evidence.verdict()).proposal.is_some());
        evidence.neighbours.push(neighbour(
            LAN,
            OTHER,
            "02:00:5e:10:40:fe",
            NeighbourState::Reachable,
        ));
        assert_eq!(only(&evidence.verdict()).proposal, None);
    }

    #[test]
    fn fail_over_by_metric_multipath_and_other_tables_do_not_alarm() {
        let mut table = second(None);
        table.routes.last_mut().unwrap().table = 100;
        let mut twice = healthy(1);
        twice.routes.push(twice.routes[0].clone());
        let mut dead = second(None);
        dead.routes.last_mut().unwrap().dead = true;
        let mut ipv6 = healthy(1);
        for router in ["fe80::1", "fe80::2"] {
            let mut route = route("::/0", Some(router), WAN);
            (route.metric, route.protocol) = (Some(1024), "ra".into());
            ipv6.routes.push(route);
        }
        for evidence in [second(Some(500)), table, twice, dead, ipv6] {
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }

    #[test]
    fn another_gateway_than_expected_is_wrong_while_the_expected_one_lives() {
        let mut evidence = healthy(1);
        evidence.routes[0] = route("0.0.0.0/0", Some(OTHER), LAN);
        evidence.routes[0].metric = Some(100);
        let told = evidence.verdict();
        let finding = only(&told);
        assert_eq!(finding.cause.0, "wrong_gateway");
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Warning, Confidence::Certain)
        );
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change route add default via \"$IP_100_64_7_1\" dev wan\n"),
            "{script}"
        );
        evidence.routes[0].metric = None;
        let told = evidence.verdict();
        let script = &only(&told).proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change route replace default via \"$IP_100_64_7_1\" dev wan\n"),
            "{script}"
        );
    }

    #[test]
    fn silence_behind_the_wrong_gateway_is_its_consequence() {
        let mut evidence = healthy(1);
        evidence.silence_outside();
        evidence.routes[0] = route("0.0.0.0/0", Some(OTHER), LAN);
        let told = evidence.verdict();
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.severity),
            ("wrong_gateway", Severity::Critical)
        );
        assert!(!finding.consequences.is_empty());
    }

    #[test]
    fn fail_over_from_a_dead_gateway_or_a_dead_link_is_no_wrong_gateway() {
        let mut evidence = healthy(1);
        evidence.routes[0] = route("0.0.0.0/0", Some(OTHER), LAN);
        evidence.silence(GATEWAY);
        evidence.neighbour_is(GATEWAY, NeighbourState::Failed);
        assert_eq!(evidence.verdict().health, Health::Healthy);
        evidence.neighbour_is(GATEWAY, NeighbourState::Reachable);
        evidence.link(WAN).carrier = Some(false);
        assert_eq!(only(&verdict(&[evidence])).cause.0, "link_down");
    }
}
