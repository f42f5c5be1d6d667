//! The default route: gone although the device needs one.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Route;
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::question;
use super::unit::list;
use crate::case::{Family, View, Way, default_route, has_default};
use crate::repair;

/// What says that there should be a default route.
#[derive(Debug, Default)]
struct Need {
    /// Targets to which the kernel refused to send.
    refused: Vec<(&'static str, Timestamp, IpAddr)>,
    /// The default route that was there earlier in this boot, and when it was last seen.
    before: Option<(Timestamp, Route)>,
    /// The gateway the operator expects.
    gateway: Option<IpAddr>,
    /// The operator named interfaces towards the provider.
    wan: bool,
}

impl Need {
    fn of(view: &View<'_>, family: Family) -> Self {
        let profile = view.profile().map(|seen| &seen.value);
        Self {
            refused: refused(view, family),
            before: view.this_boot().find_map(|pass| {
                let seen = pass.routes.as_ref()?;
                Some((seen.at, default_route(&seen.value, family)?.clone()))
            }),
            gateway: profile
                .and_then(|profile| profile.gateway)
                .filter(|gateway| Family::of(*gateway) == family),
            wan: profile.is_some_and(|profile| !profile.wan.is_empty()) && family == Family::V4,
        }
    }

    /// A host without one is no fault by itself. For IPv6, which comes and goes with the provider's advertisements, the
    /// operator must have asked for it, or the device must have nothing else.
    fn is_felt(&self, view: &View<'_>, family: Family) -> bool {
        let symptom = !self.refused.is_empty() || self.before.is_some();
        match family {
            Family::V4 => self.gateway.is_some() || self.wan || symptom,
            Family::V6 => {
                let alone = view.global_addresses().all(|a| a.address.address.is_ipv6());
                self.gateway.is_some() || alone && symptom
            }
        }
    }
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    if view.now().routes.is_none() {
        return examined;
    }
    for family in [Family::V4, Family::V6] {
        if let Some(route) = default_route(view.routes(), family) {
            let leads = leads(view, route);
            examined.well.push(format!(
                "There is an {} default route{leads}",
                family.name()
            ));
            continue;
        }
        let has_address = view
            .global_addresses()
            .any(|address| Family::of(address.address.address) == family);
        if has_default(view.routes(), family) || !has_address {
            continue;
        }
        let need = Need::of(view, family);
        if need.is_felt(view, family) {
            examined.drafts.push(absent(view, family, &need));
        }
    }
    examined
}

/// ` via 10.0.0.1 on wan`.
fn leads(view: &View<'_>, route: &Route) -> String {
    let via = route
        .gateway
        .map_or_else(String::new, |gateway| format!(" via {gateway}"));
    let dev = route
        .link
        .map_or_else(String::new, |link| format!(" on {}", view.link_name(link)));
    format!("{via}{dev}")
}

/// Targets to which the kernel refused to send for want of a route.
pub(super) fn refused(view: &View<'_>, family: Family) -> Vec<(&'static str, Timestamp, IpAddr)> {
    let now = view.now();
    let mut all: Vec<(&'static str, Timestamp, IpAddr)> = Vec::new();
    let unrouted = |address: IpAddr| {
        let way = view.way_to(address);
        way.link.is_none() && way.beyond == Some(family)
    };
    if let Some(seen) = &now.reach {
        for reach in seen
            .value
            .iter()
            .filter(|reach| reach.no_route && unrouted(reach.target))
        {
            all.push(("reach", seen.at, reach.target));
        }
    }
    for tally in question::tallies(now) {
        if tally.unreachable == tally.asked && unrouted(tally.resolver) {
            all.push(("dns", tally.at, tally.resolver));
        }
    }
    all
}

fn absent(view: &View<'_>, family: Family, need: &Need) -> Draft {
    let now = view.now();
    let at = now.routes.as_ref().map_or(now.ended.at, |seen| seen.at);
    let mut draft = Draft::new(
        "no_default_route",
        Layer::Route,
        format!("{} default route", family.name()),
        Severity::Critical,
        format!("There is no {} default route", family.name()),
    );
    draft.shown(
        "routes",
        "absent",
        at,
        format!(
            "none of {} routes is an {} default route",
            view.routes().len(),
            family.name()
        ),
    );
    for (source, at, target) in need.refused.iter().take(4) {
        let fact = format!("the kernel found no route to {target}");
        draft.shown(source, "no_route", *at, fact);
    }
    if let Some((at, route)) = &need.before {
        let leads = leads(view, route);
        let fact = format!("earlier in this boot there was a default route{leads}");
        draft.backed("routes", "earlier", *at, fact);
    }
    if let Some(profile) = view
        .profile()
        .filter(|_| need.gateway.is_some() || need.wan)
    {
        let fact = match need.gateway {
            Some(gateway) => format!("the operator expects {gateway} as the default gateway"),
            None => format!(
                "the operator says that {} leads outside",
                list(&profile.value.wan)
            ),
        };
        draft.backed("profile", "expected", profile.at, fact);
    }
    addresses(&mut draft, view, family);
    // What the lost route rested on: the link it left through, or the only one towards the provider.
    let link = need
        .before
        .as_ref()
        .and_then(|(_, route)| route.link)
        .or_else(|| {
            let wan = &view.profile()?.value.wan;
            let [name] = wan.as_slice() else { return None };
            view.links()
                .iter()
                .find(|link| link.name == *name)
                .map(|link| link.index)
        });
    draft.rests_on = Some(Way {
        link,
        // A WAN interface that vanished cuts off its family and has no number.
        beyond: Some(family),
    });
    draft.breaks_beyond.push(family);
    draft.explains("Nothing outside the connected networks is reached");
    draft.misses("whether the DHCP client or the network service still runs, and what it logged");
    let gateway = need
        .gateway
        .or_else(|| need.before.as_ref().and_then(|(_, route)| route.gateway));
    let proposal = gateway.and_then(|gateway| repair::route::put_back(view, gateway));
    draft.next(match (gateway, proposal.is_some()) {
        (Some(gateway), true) => format!(
            "Renew the DHCP lease or bring the interface up again; if that does not help, put the route over {gateway} \
             back"
        ),
        (Some(gateway), false) => format!(
            "Renew the DHCP lease or bring the interface up again: no connected network holds the gateway {gateway}"
        ),
        (None, _) => "Renew the DHCP lease or bring the interface towards the provider up again".into(),
    });
    draft.propose(proposal);
    draft
}

fn addresses(draft: &mut Draft, view: &View<'_>, family: Family) {
    let Some(seen) = &view.now().addresses else {
        return;
    };
    let ours: Vec<String> = view
        .global_addresses()
        .filter(|address| Family::of(address.address.address) == family)
        .take(4)
        .map(|address| format!("{} on {}", address.address, view.link_name(address.link)))
        .collect();
    draft.noted(
        "addresses",
        seen.at,
        format!("addresses are there: {}", list(ours)),
    );
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use crate::fixture::{
        Evidence, GATEWAY, WAN, healthy, lose_default_route, only, pull_cable, route, verdict,
    };

    #[test]
    fn a_lost_default_route_is_put_back_over_the_expected_gateway() {
        let mut broken = healthy(2);
        lose_default_route(&mut broken);
        let verdict = verdict(&[healthy(1), broken]);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "no_default_route");
        assert_eq!(finding.confidence, Confidence::Certain);
        let proposal = finding.proposal.as_ref().unwrap();
        let line = "change route add default via \"$IP_100_64_7_1\" dev wan\n";
        assert!(proposal.script.ends_with(line), "{}", proposal.script);
        assert_eq!(proposal.bindings[0].pseudonym, GATEWAY);
    }

    #[test]
    fn a_gateway_outside_every_connected_network_is_not_proposed() {
        let mut broken = healthy(1);
        lose_default_route(&mut broken);
        broken.profile.gateway = Some("203.0.113.9".parse().unwrap());
        assert_eq!(only(&broken.verdict()).proposal, None);
    }

    #[test]
    fn a_route_over_a_link_without_carrier_is_not_proposed() {
        let mut broken = healthy(1);
        lose_default_route(&mut broken);
        broken.profile.wan.clear();
        broken.profile.expected_up.clear();
        assert!(only(&broken.verdict()).proposal.is_some());
        let wan = broken.link(WAN);
        (wan.admin_up, wan.carrier) = (false, None);
        assert_eq!(only(&broken.verdict()).proposal, None);
    }

    #[test]
    fn a_network_without_a_way_out_by_design_does_not_alarm() {
        let mut evidence = healthy(1);
        evidence.profile.gateway = None;
        evidence.profile.wan.clear();
        evidence
            .routes
            .retain(|route| !route.destination.is_default());
        evidence.reach.clear();
        evidence.dns.clear();
        evidence.path_mtu.clear();
        assert_eq!(evidence.verdict().health, Health::Healthy);
    }

    #[test]
    fn other_forms_of_a_default_route_do_not_alarm() {
        let forms: [fn(&mut Evidence); 3] = [
            // The two halves that VPN clients set.
            |e| {
                e.routes[0] = route("0.0.0.0/1", None, WAN);
                e.routes.push(route("128.0.0.0/1", None, WAN));
            },
            |e| e.routes[0].gateway = None,
            |e| e.routes[0].table = 100,
        ];
        for (number, change) in forms.into_iter().enumerate() {
            let mut evidence = healthy(1);
            change(&mut evidence);
            assert_eq!(evidence.verdict().health, Health::Healthy, "{number}");
        }
    }

    #[test]
    fn a_blackhole_is_no_default_route() {
        let mut broken = healthy(1);
        lose_default_route(&mut broken);
        let mut hole = route("0.0.0.0/0", None, WAN);
        hole.kind = "blackhole".into();
        broken.routes.push(hole);
        assert_eq!(only(&broken.verdict()).cause.0, "no_default_route");
    }

    #[test]
    fn ipv6_that_comes_and_goes_does_not_alarm_beside_ipv4() {
        let mut before = healthy(1);
        before.routes.push(route("::/0", Some("fe80::1"), WAN));
        let mut after = healthy(2);
        after
            .addresses
            .push(crate::fixture::address(WAN, "2001:db8::7/64", "global"));
        assert_eq!(verdict(&[before, after]).findings, []);
    }

    #[test]
    fn a_route_that_went_with_its_cable_is_a_consequence() {
        let mut broken = healthy(2);
        pull_cable(&mut broken);
        lose_default_route(&mut broken);
        let verdict = verdict(&[healthy(1), broken]);
        assert_eq!(only(&verdict).cause.0, "link_down");
    }
}
