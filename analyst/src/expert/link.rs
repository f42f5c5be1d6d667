//! Cable and port: links that should carry traffic and don't.

mod fault;
mod flap;

use aizen_protocol::limit;
use aizen_protocol::record::{Link, OperState};

use super::draft::Examined;
use super::pppoe;
use super::unit::list;
use crate::case::{Family, View, default_route, same_link};

/// Kinds whose carrier says something about a cable or a peer. A bridge without guests, a tunnel without a client are
/// down by design.
const KINDS_WITH_CARRIER: [&str; 7] = ["veth", "vlan", "bond", "team", "macvlan", "ipvlan", "dsa"];

/// Why a link matters.
#[derive(Debug, Default)]
struct Duty {
    /// The operator named it.
    named: bool,
    /// The default route leaves through it, or did in this boot.
    default: Vec<Family>,
    /// Its own addresses.
    addresses: Vec<String>,
}

/// The links of the default routes that count, or of the last ones in this boot; none where none was ever seen.
type WaysOut = [(Family, Option<Option<u32>>); 2];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().links else {
        return examined;
    };
    let mut well = Vec::new();
    let out = ways_out(view);
    let named = named(view);
    let flaps = flap::flaps(view);
    for (place, link) in seen.value.iter().enumerate().filter(|(_, l)| !l.loopback) {
        if let Some(flap) = flaps.iter().find(|flap| flap.index == link.index) {
            let duty = duty(view, link, &out);
            examined.drafts.push(flap.draft(view, link, &duty));
        } else if link.admin_up && is_without_carrier(link) {
            let duty = duty(view, link, &out);
            if is_expected_to_carry(view, link, place, &duty) {
                examined.drafts.push(fault::down(view, link, &duty));
            }
        } else if !link.admin_up {
            let name = link.name.as_str();
            if named.contains(&name) && pppoe::is_session(name) {
                // Nobody switched it off: each attempt makes it anew.
                examined.drafts.push(fault::absent(view, name, &out));
            } else if named.contains(&name) {
                let duty = duty(view, link, &out);
                examined.drafts.push(fault::switched_off(view, link, &duty));
            }
        } else if link.carrier == Some(true) {
            well.push(link.name.as_str());
        }
    }
    // A list that was cut can't tell that a link is missing.
    if seen.value.len() < limit::OBJECTS {
        let absent = named
            .into_iter()
            .filter(|name| seen.value.iter().all(|link| link.name != *name));
        examined
            .drafts
            .extend(absent.map(|name| fault::absent(view, name, &out)));
    }
    if !well.is_empty() {
        let links = list(well);
        examined.well.push(format!("Links with a carrier: {links}"));
    }
    examined
}

fn named<'a>(view: &View<'a>) -> Vec<&'a str> {
    let Some(profile) = view.profile() else {
        return Vec::new();
    };
    let mut names: Vec<&str> = Vec::new();
    for name in profile.value.wan.iter().chain(&profile.value.expected_up) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// True if it is a fault when this link has no carrier.
pub(super) fn is_expected(view: &View<'_>, link: &Link) -> bool {
    is_expected_to_carry(view, link, 0, &duty(view, link, &ways_out(view)))
}

fn duty(view: &View<'_>, link: &Link, out: &WaysOut) -> Duty {
    Duty {
        named: named(view).contains(&link.name.as_str()),
        default: cut_off(view, &link.name, Some(link.index), out),
        addresses: view
            .global_addresses()
            .filter(|address| address.link == link.index)
            .map(|address| address.address.to_string())
            .collect(),
    }
}

fn ways_out(view: &View<'_>) -> WaysOut {
    [Family::V4, Family::V6].map(|family| {
        let last = view.backwards().find_map(|pass| {
            let routes = pass.routes.as_ref()?;
            default_route(&routes.value, family)
        });
        (family, last.map(|route| route.link))
    })
}

/// The families for which this link is the way out: the default route leaves through it or, where there is none any more,
/// the last one did; where none was ever seen, it is the only link towards the provider.
fn cut_off(view: &View<'_>, name: &str, index: Option<u32>, out: &WaysOut) -> Vec<Family> {
    let only_wan = view.profile().is_some_and(|seen| seen.value.wan == [name]);
    let leaves =
        |last: Option<Option<u32>>| last.map_or(only_wan, |link| index.is_some() && link == index);
    out.iter()
        .filter(|(_, last)| leaves(*last))
        .map(|(family, _)| *family)
        .collect()
}

pub(super) fn is_without_carrier(link: &Link) -> bool {
    match link.carrier {
        Some(carrier) => !carrier,
        None => matches!(
            link.oper,
            OperState::Down | OperState::LowerLayerDown | OperState::NotPresent
        ),
    }
}

fn is_expected_to_carry(view: &View<'_>, link: &Link, place: usize, duty: &Duty) -> bool {
    let has_carrier_by_kind = link
        .driver_kind
        .as_deref()
        .is_none_or(|kind| KINDS_WITH_CARRIER.contains(&kind));
    duty.named
        || !duty.default.is_empty()
        || has_carrier_by_kind && (!duty.addresses.is_empty() || carried(view, link, place))
}

/// True if it had a carrier earlier in this boot.
fn carried(view: &View<'_>, link: &Link, place: usize) -> bool {
    view.this_boot()
        .filter_map(|pass| pass.links.as_ref())
        .filter_map(|seen| same_link(&seen.value, link, place))
        .any(|older| older.carrier == Some(true))
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health, Severity};

    use super::*;
    use crate::fixture::{
        Evidence, LAN, SPARE, WAN, healthy, link, only, pull_cable, switch_link_off, verdict,
    };

    #[test]
    fn a_pulled_cable_is_one_finding_and_all_that_follows_are_its_consequences() {
        let mut broken = healthy(2);
        pull_cable(&mut broken);
        let verdict = verdict(&[healthy(1), broken]);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("link_down", "wan")
        );
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Critical, Confidence::Certain)
        );
        assert_eq!(finding.proposal, None);
        let consequences: Vec<&str> = finding
            .consequences
            .iter()
            .map(|text| text.0.as_str())
            .collect();
        assert!(
            consequences
                .iter()
                .any(|text| text.starts_with("The default gateway")),
            "{consequences:#?}"
        );
        assert!(
            consequences
                .iter()
                .any(|text| text.starts_with("The resolver")),
            "{consequences:#?}"
        );
    }

    #[test]
    fn a_dead_lan_port_leaves_the_way_outside_alone() {
        let mut broken = healthy(1);
        broken.link(LAN).carrier = Some(false);
        broken.answers(
            crate::fixture::RESOLVER,
            aizen_protocol::record::DnsAnswer::PortUnreachable,
        );
        let verdict = broken.verdict();
        let causes: Vec<&str> = verdict
            .findings
            .iter()
            .map(|finding| finding.cause.0.as_str())
            .collect();
        assert_eq!(causes, ["link_down", "resolver_dead"]);
    }

    #[test]
    fn a_link_that_is_off_but_expected_is_switched_on_by_the_proposal() {
        let mut broken = healthy(2);
        switch_link_off(&mut broken);
        let verdict = verdict(&[healthy(1), broken]);
        let finding = only(&verdict);
        let proposal = finding.proposal.as_ref().unwrap();
        assert!(
            proposal.script.contains("change link set wan up\n"),
            "{}",
            proposal.script
        );
        // The kernel took its default route away with it.
        assert!(
            proposal
                .script
                .ends_with("change route replace default via \"$gateway\" dev wan\n")
        );
    }

    #[test]
    fn an_expected_link_that_does_not_exist_is_down_without_a_proposal() {
        let mut broken = healthy(1);
        broken.profile.expected_up.push("lte0".into());
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.component.0.as_str(), finding.proposal.is_none()),
            ("lte0", true)
        );
    }

    #[test]
    fn links_that_nobody_uses_or_expects_do_not_alarm() {
        let quiet: [fn(&mut Evidence); 8] = [
            // The fixture's spare port and its bridge without guests are down in all of these.
            |_| {},
            |e| e.link(SPARE).admin_up = false,
            |e| (e.link(SPARE).oper, e.link(SPARE).carrier) = (OperState::LowerLayerDown, None),
            |e| e.links.push(link(9, "wg0", true)),
            |e| {
                let mut tunnel = link(9, "tun0", false);
                tunnel.driver_kind = Some("tun".into());
                e.links.push(tunnel);
                e.addresses
                    .push(crate::fixture::address(9, "10.99.0.1/24", "global"));
            },
            // The driver says nothing of a carrier.
            |e| (e.link(LAN).carrier, e.link(LAN).oper) = (None, OperState::Unknown),
            |e| (e.link(LAN).carrier, e.link(LAN).oper) = (None, OperState::Dormant),
            // The state lags behind the carrier for a moment.
            |e| e.link(WAN).oper = OperState::Down,
        ];
        for (number, change) in quiet.into_iter().enumerate() {
            let mut evidence = healthy(1);
            change(&mut evidence);
            assert_eq!(evidence.verdict().health, Health::Healthy, "{number}");
        }
    }

    #[test]
    fn a_port_that_had_a_carrier_in_this_boot_warns_and_one_of_an_earlier_boot_does_not() {
        let mut before = healthy(1);
        before.link(SPARE).carrier = Some(true);
        let verdict_of = |boot| {
            let mut before = before.clone();
            before.boot = boot;
            verdict(&[before, healthy(2)])
        };
        let same = verdict_of("boot-1");
        assert_eq!(
            (only(&same).component.0.as_str(), only(&same).severity),
            ("lan4", Severity::Warning)
        );
        assert_eq!(verdict_of("boot-0").findings, []);
    }

    #[test]
    fn a_vlan_and_a_bridge_over_a_dead_port_are_its_consequences() {
        let mut broken = healthy(1);
        broken.link(LAN).carrier = Some(false);
        broken.link(LAN).master = Some(7);
        let mut bridge = link(7, "br-lan", false);
        bridge.driver_kind = Some("bridge".into());
        let mut vlan = link(8, "br-lan.10", false);
        (vlan.driver_kind, vlan.oper) = (Some("vlan".into()), OperState::LowerLayerDown);
        broken.links.extend([vlan, bridge]);
        broken
            .profile
            .expected_up
            .extend(["br-lan".into(), "br-lan.10".into()]);
        let verdict = broken.verdict();
        assert_eq!(only(&verdict).component.0, "lan");
        assert_eq!(only(&verdict).consequences.len(), 2);
    }

    #[test]
    fn links_that_rest_on_each_other_in_a_circle_still_end_in_one_finding() {
        let mut broken = healthy(1);
        let mut parent = link(7, "sw", false);
        (parent.driver_kind, parent.master) = (Some("bridge".into()), None);
        let mut child = link(8, "sw.1", false);
        (child.driver_kind, child.master) = (Some("vlan".into()), Some(7));
        broken.links.extend([parent, child]);
        broken
            .profile
            .expected_up
            .extend(["sw".into(), "sw.1".into()]);
        assert_eq!(only(&broken.verdict()).component.0, "sw");
    }

    #[test]
    fn a_second_way_out_keeps_what_lies_beyond_apart_from_a_dead_first_one() {
        let mut broken = healthy(2);
        broken.link(WAN).carrier = Some(false);
        broken.links.push(link(9, "lte0", true));
        broken.routes[0] = crate::fixture::route("0.0.0.0/0", Some("10.64.0.1"), 9);
        broken.answers(
            crate::fixture::RESOLVER,
            aizen_protocol::record::DnsAnswer::PortUnreachable,
        );
        let verdict = verdict(&[healthy(1), broken]);
        let causes: Vec<&str> = verdict
            .findings
            .iter()
            .map(|finding| finding.cause.0.as_str())
            .collect();
        assert_eq!(causes, ["link_down", "resolver_dead"]);
    }
}
