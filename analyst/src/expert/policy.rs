//! Routes with several ways of which one is dead, and policy rules that lead nowhere.

use std::collections::BTreeSet;

use aizen_protocol::finding::Severity;
use aizen_protocol::limit;
use aizen_protocol::private::Prefix;
use aizen_protocol::record::{NeighbourState, NextHop, Route, Rule};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::unit::list;
use crate::case::{Family, View, Way};

/// `default`, `main` and `local`: the first is empty on every device.
const KERNELS_OWN: [u32; 4] = [0, 253, 254, 255];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().routes else {
        return examined;
    };
    for route in seen.value.iter().filter(|route| route.next_hops.len() > 1) {
        examined.drafts.extend(dead_ways(view, seen.at, route));
    }
    // A list that was cut can't tell that a table is empty.
    if seen.value.len() < limit::OBJECTS {
        let filled: BTreeSet<(u32, Family)> = seen
            .value
            .iter()
            .map(|route| (route.table, Family::of(route.destination.address)))
            .collect();
        let rules = view.now().rules.iter().flat_map(|seen| &seen.value);
        let mut told: Vec<(u32, u8)> = Vec::new();
        for rule in rules.filter(|rule| leads_nowhere(rule, &filled)) {
            if !told.contains(&(rule.table, rule.family)) {
                told.push((rule.table, rule.family));
                examined.drafts.extend(missing_table(view, rule));
            }
        }
    }
    examined
}

/// The kernel says so, or nobody answers for the next hop although its link is fine.
fn is_dead(view: &View<'_>, hop: &NextHop) -> bool {
    let failed = |pass: &crate::case::Pass| {
        let entries = pass.neighbours.iter().flat_map(|seen| &seen.value);
        hop.gateway.is_some_and(|gateway| {
            let mut own = entries.filter(|e| e.link == hop.link && e.address == gateway);
            own.any(|e| matches!(e.state, NeighbourState::Failed | NeighbourState::Incomplete))
        })
    };
    let before = view.read_anew(|pass| pass.neighbours.as_ref()).nth(1);
    hop.dead || failed(view.now()) && before.is_some_and(failed)
}

fn dead_ways(view: &View<'_>, at: Timestamp, route: &Route) -> Option<Draft> {
    let dead: Vec<&NextHop> = route
        .next_hops
        .iter()
        .filter(|hop| is_dead(view, hop))
        .collect();
    let first = *dead.first()?;
    let all = dead.len() == route.next_hops.len();
    let severity = if all {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let to = route.destination;
    let mut draft = Draft::new(
        "dead_next_hop",
        Layer::Route,
        to.to_string(),
        severity,
        format!(
            "{} of {} ways to {to} are dead",
            dead.len(),
            route.next_hops.len()
        ),
    );
    let whole: u32 = route
        .next_hops
        .iter()
        .map(|hop| u32::from(hop.weight))
        .sum();
    for hop in &dead {
        let name = view.link_name(hop.link);
        let via = hop
            .gateway
            .map_or_else(String::new, |gateway| format!(" via {gateway}"));
        let share = u32::from(hop.weight) * 100 / whole.max(1);
        if hop.dead {
            let fact = format!(
                "the kernel marks the way to {to}{via} on {name} as dead ({share} % of the traffic)"
            );
            draft.shown("routes", &format!("{name}{via}"), at, fact);
        } else if let Some(seen) = &view.now().neighbours {
            let fact = format!(
                "nobody on {name} answers for the way to {to}{via} ({share} % of the traffic)"
            );
            draft.shown("neighbours", &format!("{name}{via}"), seen.at, fact);
        }
    }
    draft.rests_on = Some(Way {
        link: Some(first.link),
        beyond: None,
    });
    if all && to.is_default() {
        draft.breaks_beyond.push(Family::of(to.address));
    }
    draft.explains(format!(
        "A share of the connections to {to} stalls while others work"
    ));
    draft.misses(format!(
        "whether the next hop answers other hosts (`aizen ping`, `aizen neighbours`), and who makes the route to {to}"
    ));
    draft.next(format!(
        "Take the dead way out of the route to {to} until its next hop answers: {}",
        list(dead.iter().map(|hop| view.link_name(hop.link)))
    ));
    Some(draft)
}

/// A rule that picks some of the traffic and sends it to a table without any route. One that picks all is a chain's end.
fn leads_nowhere(rule: &Rule, filled: &BTreeSet<(u32, Family)>) -> bool {
    let family = if rule.family == 4 {
        Family::V4
    } else {
        Family::V6
    };
    let narrows = |prefix: Option<Prefix>| prefix.is_some_and(|prefix| prefix.length > 0);
    let picks = narrows(rule.from) || narrows(rule.to) || rule.iif.is_some() || rule.mark.is_some();
    rule.action == "to_table"
        && picks
        && !KERNELS_OWN.contains(&rule.table)
        && !filled.contains(&(rule.table, family))
}

fn missing_table(view: &View<'_>, rule: &Rule) -> Option<Draft> {
    let seen = view.now().rules.as_ref()?;
    let table = rule.table;
    // A rule that waits for a VPN leads to an empty table by design: it must have led somewhere.
    let before = view.this_boot().find_map(|pass| {
        let routes = pass.routes.as_ref()?;
        let same = |route: &&Route| {
            route.table == table && route.destination.address.is_ipv4() == (rule.family == 4)
        };
        Some((routes.at, routes.value.iter().find(same)?))
    });
    let (at, old) = before?;
    let mut draft = Draft::new(
        "rule_missing_table",
        Layer::Route,
        format!("table {table}"),
        Severity::Warning,
        format!("A policy rule leads to routing table {table}, which is empty"),
    );
    let picked = [
        rule.from.map(|from| format!("from {from}")),
        rule.to.map(|to| format!("to {to}")),
        rule.iif.as_ref().map(|iif| format!("in on {iif}")),
        rule.mark.map(|mark| format!("with mark {mark:#x}")),
    ];
    let fact = format!(
        "rule {} sends packets {} to table {table}",
        rule.priority,
        list(picked.into_iter().flatten())
    );
    draft.shown("rules", "rule", seen.at, fact);
    if let Some(routes) = &view.now().routes {
        let fact = format!("none of {} routes is in table {table}", routes.value.len());
        draft.shown("routes", "empty", routes.at, fact);
    }
    let to = if old.destination.is_default() {
        "anywhere".into()
    } else {
        old.destination.to_string()
    };
    let fact = format!("table {table} held a route to {to} earlier in this boot");
    draft.backed("routes", "earlier", at, fact);
    draft.rests_on = Some(Way {
        link: old.link,
        beyond: None,
    });
    draft.explains(
        "These packets take the default way instead of their own, and answers may be dropped",
    );
    draft.misses(format!("who fills table {table}: a network service, a VPN client or a script (`ip route show table {table}`)"));
    draft.next(format!(
        "Restart what fills table {table}, or bring its interface up again; if it is no longer needed, remove the rule"
    ));
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use super::*;
    use crate::fixture::lower;
    use crate::fixture::{Evidence, LAN, WAN, healthy, ip, neighbour, only, route, verdict};

    fn hop(gateway: &str, link: u32, dead: bool) -> NextHop {
        NextHop {
            gateway: Some(ip(gateway)),
            link,
            weight: 1,
            dead,
        }
    }

    fn multipath(round: u64, dead: bool) -> Evidence {
        let mut evidence = healthy(round);
        let mut both = route("10.9.0.0/16", None, WAN);
        both.link = None;
        both.next_hops = vec![
            hop("192.168.40.7", LAN, dead),
            hop(crate::fixture::GATEWAY, WAN, false),
        ];
        evidence.routes.push(both);
        evidence
    }

    #[test]
    fn a_dead_way_of_two_is_told_with_its_share() {
        let told = multipath(1, true).verdict();
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("dead_next_hop", "10.9.0.0/16")
        );
        assert!(finding.evidence[0].fact.0.contains("50 %"));
        assert_eq!(multipath(1, false).verdict().health, Health::Healthy);
    }

    #[test]
    fn a_way_whose_next_hop_nobody_answers_for_is_dead_though_the_kernel_keeps_it() {
        let rounds = [1, 2].map(|round| {
            let mut evidence = multipath(round, false);
            evidence
                .neighbours
                .push(neighbour(LAN, "192.168.40.7", "", NeighbourState::Failed));
            evidence
        });
        assert_eq!(only(&verdict(&rounds)).cause.0, "dead_next_hop");
        assert_eq!(rounds[1].verdict().health, Health::Healthy);
    }

    #[test]
    fn a_way_over_a_dead_port_is_explained_by_the_port() {
        let mut evidence = multipath(1, true);
        evidence.link(LAN).carrier = Some(false);
        let told = evidence.verdict();
        assert_eq!(only(&told).cause.0, "link_down");
        assert_eq!(only(&told).consequences.len(), 1);
    }

    fn ruled(round: u64, filled: bool) -> Evidence {
        let mut evidence = healthy(round);
        lower::ruled(&mut evidence, filled);
        evidence
    }

    #[test]
    fn a_table_that_lost_its_routes_is_told_and_one_that_waits_for_a_vpn_is_not() {
        let told = verdict(&[ruled(1, true), ruled(2, false)]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("rule_missing_table", "table 100")
        );
        assert_eq!(finding.confidence, Confidence::Certain);
        for rounds in [
            [ruled(1, false), ruled(2, false)],
            [ruled(1, true), ruled(2, true)],
        ] {
            assert_eq!(verdict(&rounds).health, Health::Healthy);
        }
    }
}
