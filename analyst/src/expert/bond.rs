//! Bonds that run on fewer ports than they have.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Link, LinkDetail, Port};

use super::draft::{Draft, Examined, Layer};
use super::link;
use super::unit::list;
use crate::case::View;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    for bond in view.links() {
        let Some(LinkDetail::Bond { mode, .. }) = &bond.detail else {
            continue;
        };
        let ports: Vec<&Link> = view
            .links()
            .iter()
            .filter(|port| port.master == Some(bond.index))
            .collect();
        let lost: Vec<&Link> = ports
            .iter()
            .copied()
            .filter(|port| is_lost(view, port, mode))
            .collect();
        // With none left the ports themselves are the fault.
        let carries = ports.iter().any(|port| is_up(port));
        if !bond.admin_up || ports.len() < 2 || !carries {
            continue;
        }
        if lost.is_empty() {
            examined.well.push(format!(
                "{} carries on each port that ever did: {}",
                bond.name,
                list(ports.iter().map(|port| &port.name))
            ));
        } else {
            examined
                .drafts
                .extend(degraded(view, bond, &ports, &lost, mode));
        }
    }
    examined
}

fn is_up(port: &Link) -> bool {
    let mii = matches!(port.port, Some(Port::Bond { mii_up: true, .. }));
    mii && port.admin_up && !link::is_without_carrier(port)
}

/// True for LACP, where a port takes part only if the other end agrees.
fn negotiates(mode: &str) -> bool {
    matches!(mode, "802.3ad" | "lacp" | "4")
}

/// A port that carried and no longer does. One that never had a cable stays out of the bond by design.
fn is_lost(view: &View<'_>, port: &Link, mode: &str) -> bool {
    let Some(Port::Bond {
        active, failures, ..
    }) = port.port
    else {
        return false;
    };
    let before = |wanted: fn(&Link) -> bool| {
        view.this_boot()
            .filter_map(|pass| pass.links.as_ref())
            .filter_map(|seen| seen.value.iter().find(|older| older.index == port.index))
            .any(|older| older.master == port.master && wanted(older))
    };
    if !is_up(port) {
        let profile = view.profile();
        let named = profile.is_some_and(|seen| seen.value.expected_up.contains(&port.name));
        return named || failures > 0 || before(is_up);
    }
    let was_active = |older: &Link| matches!(older.port, Some(Port::Bond { active: true, .. }));
    negotiates(mode) && !active && before(was_active)
}

fn degraded(
    view: &View<'_>,
    bond: &Link,
    ports: &[&Link],
    lost: &[&Link],
    mode: &str,
) -> Option<Draft> {
    let seen = view.now().links.as_ref()?;
    let name = &bond.name;
    let names = list(lost.iter().map(|port| &port.name));
    let mut draft = Draft::new(
        "bond_degraded",
        Layer::Link,
        name.as_str(),
        Severity::Warning,
        format!(
            "{name} runs on {} of {} ports: {names} is out",
            ports.len() - lost.len(),
            ports.len()
        ),
    );
    for port in lost {
        let failures = match port.port {
            Some(Port::Bond { failures, .. }) => failures,
            _ => 0,
        };
        let state = if !port.admin_up {
            "is switched off"
        } else if is_up(port) {
            "has a link, but the other end does not take it into the aggregate"
        } else {
            "has no link"
        };
        let fact = format!(
            "{} of {name} {state}; its link failed {failures} times",
            port.name
        );
        draft.shown("links", &port.name, seen.at, fact);
        draft.breaks_links.push(port.index);
    }
    let partner = view.now().lldp.as_ref().and_then(|told| {
        let peer = told
            .value
            .iter()
            .find(|peer| lost.iter().any(|port| port.index == peer.link))?;
        Some((told.at, peer))
    });
    if let Some((at, peer)) = partner {
        let fact = format!("the lost port leads to {} port {}", peer.chassis, peer.port);
        draft.noted("lldp", at, fact);
    }
    draft.explains(format!(
        "{name} has less throughput, and the next loss may cut it off (mode {mode})"
    ));
    draft.misses(format!(
        "the other end's view of {names}: port state and aggregate (its own status page; `aizen links` here)"
    ));
    draft.next(format!(
        "Reseat the cable of {names} at both ends and check that both ports belong to the same aggregate at the switch"
    ));
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Health;

    use super::*;
    use crate::fixture::{Evidence, healthy, link, only, verdict};

    fn port(index: u32, name: &str, up: bool, failures: u32) -> Link {
        let mut port = link(index, name, up);
        port.master = Some(10);
        port.port = Some(Port::Bond {
            active: up,
            mii_up: up,
            failures,
        });
        port
    }

    fn bonded(round: u64, ports: Vec<Link>) -> Evidence {
        let mut evidence = healthy(round);
        let mut bond = link(
            10,
            "bond0",
            ports.iter().any(|port| port.carrier == Some(true)),
        );
        bond.driver_kind = Some("bond".into());
        bond.detail = Some(LinkDetail::Bond {
            mode: "802.3ad".into(),
            active: None,
        });
        evidence.links.push(bond);
        evidence.links.extend(ports);
        evidence
    }

    #[test]
    fn a_port_that_lost_its_link_degrades_the_bond_and_is_no_finding_of_its_own() {
        let before = bonded(
            1,
            vec![port(11, "eth1", true, 0), port(12, "eth2", true, 0)],
        );
        let after = bonded(
            2,
            vec![port(11, "eth1", true, 0), port(12, "eth2", false, 1)],
        );
        let told = verdict(&[before, after]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("bond_degraded", "bond0")
        );
        assert!(finding.summary.0.contains("1 of 2 ports: eth2"));
        assert_eq!(finding.consequences.len(), 2);
    }

    #[test]
    fn a_port_that_the_other_end_no_longer_takes_is_lost_though_its_link_is_up() {
        let before = bonded(
            1,
            vec![port(11, "eth1", true, 0), port(12, "eth2", true, 0)],
        );
        let mut standing_by = port(12, "eth2", true, 0);
        standing_by.port = Some(Port::Bond {
            active: false,
            mii_up: true,
            failures: 0,
        });
        let after = bonded(2, vec![port(11, "eth1", true, 0), standing_by]);
        assert_eq!(only(&verdict(&[before, after])).cause.0, "bond_degraded");
    }

    #[test]
    fn a_bond_of_one_port_or_with_a_port_that_never_had_a_cable_does_not_alarm() {
        let one = bonded(1, vec![port(11, "eth1", true, 0)]);
        let spare = bonded(
            1,
            vec![port(11, "eth1", true, 3), port(12, "eth2", false, 0)],
        );
        for evidence in [one, spare] {
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }

    #[test]
    fn a_bond_without_any_port_left_is_a_dead_link() {
        let before = bonded(
            1,
            vec![port(11, "eth1", true, 0), port(12, "eth2", true, 0)],
        );
        let after = bonded(
            2,
            vec![port(11, "eth1", false, 1), port(12, "eth2", false, 1)],
        );
        let causes: Vec<String> = verdict(&[before, after])
            .findings
            .into_iter()
            .map(|finding| finding.cause.0)
            .collect();
        assert_eq!(causes, ["link_down", "link_down"]);
    }
}
