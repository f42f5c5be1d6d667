//! No IPv4 address where one is needed: nothing can lead outside without.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Address, Link};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::{lease, link, pppoe, route};
use crate::case::{Family, Seen, View, Way, default_route, has_default};

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().addresses else {
        return examined;
    };
    if view.now().routes.is_none() || has_default(view.routes(), Family::V4) {
        return examined;
    }
    let bare = towards_provider(view).find(|link| is_bare(view, link));
    if let Some(link) = bare.filter(|link| is_needed(view, link)) {
        examined.drafts.push(on_link(view, seen.at, link));
    } else if bare.is_none() && !has_any(view) {
        examined.drafts.extend(nowhere(view, seen));
    }
    examined
}

/// The links that the operator calls the way outside.
fn towards_provider<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Link> {
    let wan = view.profile().map_or(&[][..], |seen| &seen.value.wan);
    view.links().iter().filter(|link| wan.contains(&link.name))
}

/// Up, with a carrier, and without an address that nobody else is to give it: a DHCP client's and a PPPoE session's
/// rules say more.
fn is_bare(view: &View<'_>, link: &Link) -> bool {
    let is_dhcp = view.now().dhcp.as_ref().is_some_and(|seen| {
        let leases = &seen.value.leases;
        seen.value.wanted.contains(&link.name) || leases.iter().any(|l| l.link == link.name)
    });
    let leads_over_ipv6 =
        default_route(view.routes(), Family::V6).is_some_and(|r| r.link == Some(link.index));
    let asked_in_vain = lease::self_made(view.now(), link.index).is_some();
    link.admin_up
        && !asked_in_vain
        && !link::is_without_carrier(link)
        && link.master.is_none()
        && !pppoe::is_session(&link.name)
        && !is_dialled_over(view, link)
        && !lease::has_address(view.now(), link.index)
        && !is_dhcp
        && !leads_over_ipv6
}

/// A PPPoE concentrator answers there: the session gets the address.
fn is_dialled_over(view: &View<'_>, link: &Link) -> bool {
    let mut probes = view.now().pppoe_probes.iter().flat_map(|seen| &seen.value);
    probes.any(|probe| probe.link == link.index && !probe.concentrators.is_empty())
}

/// Something says that it should have one.
fn is_needed(view: &View<'_>, link: &Link) -> bool {
    let gateway = view.profile().and_then(|seen| seen.value.gateway);
    gateway.is_some_and(|gateway| gateway.is_ipv4())
        || had_address(view, link).is_some()
        || !route::refused(view, Family::V4).is_empty()
}

fn had_address(view: &View<'_>, link: &Link) -> Option<Timestamp> {
    let before = view
        .this_boot()
        .find(|pass| lease::has_address(pass, link.index))?;
    before.addresses.as_ref().map(|seen| seen.at)
}

fn has_any(view: &View<'_>) -> bool {
    view.global_addresses()
        .any(|address| address.address.address.is_ipv4())
}

fn on_link(view: &View<'_>, at: Timestamp, link: &Link) -> Draft {
    let name = &link.name;
    let mut draft = Draft::new(
        "no_address",
        Layer::Address,
        name.as_str(),
        Severity::Critical,
        format!("{name} has no IPv4 address"),
    );
    let fact = format!("{name} is up and has no IPv4 address, and there is no default route");
    draft.shown("addresses", "absent", at, fact);
    if let Some(before) = had_address(view, link) {
        let fact = format!("{name} had an IPv4 address earlier in this boot");
        draft.backed("addresses", "earlier", before, fact);
    }
    if let Some(profile) = view.profile() {
        let fact = match profile.value.gateway {
            Some(gateway) => {
                format!("the operator says that {name} leads outside, over the gateway {gateway}")
            }
            None => format!("the operator says that {name} leads outside"),
        };
        draft.backed("profile", "expected", profile.at, fact);
    }
    draft.rests_on = Some(Way {
        link: Some(link.index),
        beyond: None,
    });
    finish(&mut draft, view);
    draft.next(format!(
        "Bring {name} up again from the network configuration, or start its DHCP client: its address is gone, so no \
         route can lead outside"
    ));
    draft
}

/// No link has one, and something outside was to be reached.
fn nowhere(view: &View<'_>, seen: &Seen<Vec<Address>>) -> Option<Draft> {
    if route::refused(view, Family::V4).is_empty() {
        return None;
    }
    let mut draft = Draft::new(
        "no_address",
        Layer::Address,
        "IPv4",
        Severity::Critical,
        "No link has an IPv4 address".into(),
    );
    let fact = format!(
        "none of {} addresses is an IPv4 address that leads outside",
        seen.value.len()
    );
    draft.shown("addresses", "absent", seen.at, fact);
    // A link towards the provider that is down explains it.
    let mut outside = towards_provider(view);
    draft.rests_on = Some(Way {
        link: outside.next().map(|link| link.index),
        beyond: Some(Family::V4),
    });
    finish(&mut draft, view);
    draft.next(
        "Connect this device to its network: bring the interface up from the network configuration, or start its DHCP \
         client",
    );
    Some(draft)
}

fn finish(draft: &mut Draft, view: &View<'_>) {
    for (source, at, target) in route::refused(view, Family::V4).into_iter().take(4) {
        draft.shown(
            source,
            "no_route",
            at,
            format!("the kernel found no route to {target}"),
        );
    }
    draft.breaks_beyond.push(Family::V4);
    draft.explains("Nothing outside is reached over IPv4");
    draft.misses("what the network service logged, and what it is to set (its configuration)");
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Health;
    use aizen_protocol::record::DnsAnswer;

    use crate::fixture::{Evidence, WAN, healthy, lose_default_route, only, verdict};

    /// No address on these links, and no route to anything outside.
    fn bare(links: &[u32]) -> Evidence {
        let mut evidence = healthy(2);
        lose_default_route(&mut evidence);
        evidence
            .addresses
            .retain(|address| !links.contains(&address.link));
        evidence
            .routes
            .retain(|route| route.link.is_none_or(|link| !links.contains(&link)));
        for reach in &mut evidence.reach {
            (reach.sent, reach.received, reach.no_route) = (0, 0, true);
            reach.rtt_us.clear();
        }
        for probe in &mut evidence.dns {
            probe.answers = vec![DnsAnswer::Unreachable; 3];
            probe.rtt_us.clear();
        }
        evidence.time.servers.clear();
        evidence.path_mtu.clear();
        evidence.neighbours.clear();
        evidence
    }

    #[test]
    fn an_address_that_went_is_the_cause_and_nobody_is_sent_to_the_resolver() {
        let told = verdict(&[healthy(1), bare(&[WAN])]);
        let finding = only(&told);
        assert_eq!(finding.cause.0, "no_address");
        assert_eq!(finding.component.0, "wan");
        assert!(finding.consequences.len() >= 2, "{finding:#?}");
        assert!(!finding.next_step.0.contains("DNS"));
    }

    #[test]
    fn a_device_without_any_address_is_told_so_instead_of_a_dead_resolver() {
        let mut alone = bare(&[1, 2, 3, 4, 5]);
        alone.addresses.clear();
        alone.routes.clear();
        alone.profile = aizen_protocol::record::Profile::default();
        let told = alone.verdict();
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("no_address", "IPv4")
        );
    }

    #[test]
    fn a_link_outside_without_an_address_is_none_while_another_one_leads_there() {
        let mut evidence = healthy(1);
        evidence.profile.wan.push("spare".into());
        let mut spare = evidence.link(WAN).clone();
        (spare.index, spare.name) = (9, "spare".into());
        evidence.links.push(spare);
        assert_eq!(evidence.verdict().health, Health::Healthy);
    }
}
