//! Neighbours: next hops that nobody answers for, addresses that change hands, tables that are full.

mod next_hop;
mod table;

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::private::Mac;
use aizen_protocol::record::NeighbourState;
use jiff::SignedDuration;

use super::draft::{Draft, Examined, Layer};
use super::duplicate::is_virtual_router;
use crate::case::{Family, Pass, View, default_route};

/// How far back changes are counted.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// Changes of hardware address within the window: a router that was replaced makes one, and back again two.
const CHANGES: usize = 3;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    table::tables(view, &mut examined);
    for family in [Family::V4, Family::V6] {
        examined.drafts.extend(changing(view, family));
    }
    let mut told: Vec<IpAddr> = Vec::new();
    for route in view.routes() {
        if let Some(hop) = next_hop::next_hop(route).filter(|hop| !told.contains(hop)) {
            told.push(hop);
            examined.drafts.extend(next_hop::failed(view, route, hop));
        }
    }
    examined
}

fn state_in(pass: &Pass, link: u32, address: IpAddr) -> Option<(NeighbourState, Option<Mac>)> {
    let seen = pass.neighbours.as_ref()?;
    seen.value
        .iter()
        .find(|entry| entry.link == link && entry.address == address)
        .map(|entry| (entry.state, entry.mac))
}

/// The gateway's address is answered for by one host, then by another, and again.
fn changing(view: &View<'_>, family: Family) -> Option<Draft> {
    let route = default_route(view.routes(), family)?;
    let (gateway, index) = (route.gateway?, route.link?);
    let now = view.now().neighbours.as_ref()?;
    let mut macs: Vec<Mac> = Vec::new();
    let mut changes = 0;
    let mut oldest = now.at;
    for pass in view.backwards() {
        let Some(seen) = &pass.neighbours else {
            continue;
        };
        if now.at.duration_since(seen.at) > WINDOW {
            break;
        }
        let Some((_, Some(mac))) = state_in(pass, index, gateway) else {
            continue;
        };
        if is_virtual_router(mac) {
            return None;
        }
        if macs.last().is_some_and(|last| *last != mac) {
            changes += 1;
            oldest = seen.at;
        }
        macs.push(mac);
    }
    macs.sort_unstable();
    macs.dedup();
    if changes < CHANGES || macs.len() < 2 {
        return None;
    }
    let name = view.link_name(index);
    let mut draft = Draft::new(
        "duplicate_address",
        Layer::Address,
        format!("{gateway} on {name}"),
        Severity::Critical,
        format!("Two hosts on {name} answer for the gateway {gateway}"),
    );
    let fact = format!(
        "the neighbour entry of {gateway} changed {changes} times between {} since {oldest}",
        super::unit::list(&macs)
    );
    draft.shown("neighbours", "changes", now.at, fact);
    draft.explains(format!(
        "Connections over {gateway} break whenever the other host answers first"
    ));
    draft.misses(
        "which of the two is the gateway: the switch ports behind both (the switch's forwarding table, `aizen neighbours`)",
    );
    draft.next(format!(
        "Find the host that answers for {gateway} without being the gateway and give it another address; if nobody \
         knows it, take it off the network: it may listen in"
    ));
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, LogLine, LogOrigin, NeighbourTable};

    use super::*;
    use crate::fixture::{
        Evidence, GATEWAY, LAN, at, healthy, neighbour, only, pull_cable, route, verdict,
    };

    fn filled(round: u64, entries: u32, overflows: u64) -> Evidence {
        let mut evidence = healthy(round);
        evidence
            .extra
            .push(Body::NeighbourTables(vec![NeighbourTable {
                family: 4,
                entries,
                thresholds: [128, 512, 1024],
                overflows,
            }]));
        evidence
    }

    #[test]
    fn a_table_that_overflows_gets_a_higher_limit() {
        let mut rounds = [filled(1, 1024, 7), filled(2, 1024, 45)];
        rounds[1].extra.push(Body::Log(vec![LogLine {
            at: at(2),
            origin: LogOrigin::Kernel,
            program: "kernel".into(),
            severity: 6,
            text: "neighbour: arp_cache: neighbor table overflow!".into(),
        }]));
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(finding.cause.0, "neighbour_table_full");
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Critical, Confidence::Certain)
        );
        assert!(finding.evidence[1].fact.0.contains("38 times"));
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change sysctl net.ipv4.neigh.default.gc_thresh3=2048\n"),
            "{script}"
        );
    }

    #[test]
    fn a_table_with_room_or_that_makes_room_and_old_overflows_do_not_alarm() {
        for rounds in [
            [filled(1, 1020, 0), filled(2, 1024, 0)],
            [filled(1, 900, 0), filled(2, 900, 0)],
            [filled(1, 200, 900), filled(2, 200, 900)],
        ] {
            assert_eq!(verdict(&rounds).health, Health::Healthy);
        }
        // The first round of a boot knows no growth.
        assert_eq!(filled(1, 200, 900).verdict().health, Health::Healthy);
    }

    fn routed(round: u64, state: NeighbourState) -> Evidence {
        let mut evidence = healthy(round);
        let hop = "192.168.40.77";
        evidence.routes.push(route("10.9.0.0/16", Some(hop), LAN));
        evidence.neighbours.push(neighbour(LAN, hop, "", state));
        evidence
    }

    #[test]
    fn a_next_hop_that_fails_twice_is_told_and_once_it_is_not() {
        use NeighbourState as N;
        let told = verdict(&[routed(1, N::Failed), routed(2, N::Incomplete)]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("neighbour_failed", "192.168.40.77")
        );
        assert_eq!(finding.confidence, Confidence::Suspected);
        for rounds in [
            [routed(1, N::Stale), routed(2, N::Failed)],
            [routed(1, N::Reachable), routed(2, N::Stale)],
        ] {
            assert_eq!(verdict(&rounds).health, Health::Healthy);
        }
    }

    #[test]
    fn a_next_hop_behind_a_dead_port_is_its_consequence() {
        let mut rounds = [
            routed(1, NeighbourState::Failed),
            routed(2, NeighbourState::Failed),
        ];
        rounds
            .iter_mut()
            .for_each(|evidence| evidence.link(LAN).carrier = Some(false));
        let told = verdict(&rounds);
        assert_eq!(only(&told).cause.0, "link_down");
        assert_eq!(only(&told).consequences.len(), 1);
    }

    fn answered_by(macs: &[&str]) -> Vec<Evidence> {
        let rounds = macs.iter().zip(1..).map(|(mac, round)| {
            let mut evidence = healthy(round);
            evidence.neighbours[0].mac = Some(mac.parse().unwrap());
            evidence
        });
        rounds.collect()
    }

    #[test]
    fn a_gateway_that_changes_hands_is_a_duplicate_and_a_replaced_one_is_not() {
        let (a, b) = ("02:00:5e:10:07:01", "02:00:5e:10:07:99");
        let told = verdict(&answered_by(&[a, b, a, b]));
        let finding = only(&told);
        assert_eq!(finding.cause.0, "duplicate_address");
        assert!(finding.component.0.starts_with(GATEWAY));
        let vrrp = "00:00:5e:00:01:0a";
        for rounds in [
            answered_by(&[a, a, b, b]),
            answered_by(&[a, b, a, a]),
            answered_by(&[vrrp, a, vrrp, a]),
        ] {
            assert_eq!(verdict(&rounds).health, Health::Healthy);
        }
    }

    #[test]
    fn a_full_table_beside_a_pulled_cable_is_a_fault_of_its_own() {
        let mut rounds = [filled(1, 1024, 7), filled(2, 1024, 45)];
        pull_cable(&mut rounds[1]);
        let causes: Vec<String> = verdict(&rounds)
            .findings
            .into_iter()
            .map(|finding| finding.cause.0)
            .collect();
        assert_eq!(causes, ["link_down", "neighbour_table_full"]);
    }
}
