//! IPv6 router advertisements (RFC 4861): gone, or heard and ignored.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Advertisement, Link, Route};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::link;
use super::unit::list;
use crate::case::{Family, Pass, View, Way, default_route};
use crate::repair;

/// `accept_ra`: take advertisements unless the link forwards.
const UNLESS_FORWARDING: u8 = 1;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().router_probes else {
        return examined;
    };
    // A default route of IPv6 shows that somebody's advertisements, or a hand, led the way.
    if let Some(route) = default_route(view.routes(), Family::V6) {
        if route.protocol == "ra" {
            let name = route
                .link
                .map_or_else(|| "its link".into(), |link| view.link_name(link));
            examined.well.push(format!(
                "Router advertisements on {name} are heard and taken"
            ));
        }
        return examined;
    }
    for probe in &seen.value {
        let Some(link) = view.link(probe.link) else {
            continue;
        };
        if !link.admin_up || link::is_without_carrier(link) {
            continue;
        }
        let live: Vec<&Advertisement> = probe
            .advertisements
            .iter()
            .filter(|advertisement| advertisement.lifetime_s > 0)
            .collect();
        if live.is_empty() {
            let resigned = !probe.advertisements.is_empty();
            examined
                .drafts
                .extend(missing(view, seen.at, link, resigned));
        } else if is_ignoring(view, link) {
            examined.drafts.push(ignored(view, seen.at, link, &live));
        }
    }
    examined
}

fn led_through(pass: &Pass, link: u32) -> Option<(Timestamp, &Route)> {
    let seen = pass.routes.as_ref()?;
    let route = default_route(&seen.value, Family::V6)?;
    (route.link == Some(link) && route.protocol == "ra").then_some((seen.at, route))
}

fn severity(view: &View<'_>) -> Severity {
    if default_route(view.routes(), Family::V4).is_some() {
        Severity::Warning
    } else {
        Severity::Critical
    }
}

/// Nobody advertises any more where somebody did in this boot. Where nobody ever did, there is no IPv6, which is no fault.
fn missing(view: &View<'_>, at: Timestamp, link: &Link, resigned: bool) -> Option<Draft> {
    let (before, route) = view
        .this_boot()
        .find_map(|pass| led_through(pass, link.index))?;
    let name = &link.name;
    let mut draft = Draft::new(
        "ra_missing",
        Layer::Address,
        name.as_str(),
        severity(view),
        format!("No router on {name} advertises itself for IPv6 any more"),
    );
    let fact = if resigned {
        format!(
            "a router on {name} advertises a lifetime of 0: it no longer wants to be the default router"
        )
    } else {
        format!("nobody on {name} answered a router solicitation")
    };
    draft.shown("router_probes", "silence", at, fact);
    if let Some(routes) = &view.now().routes {
        let fact = "there is no IPv6 default route".into();
        draft.shown("routes", "absent", routes.at, fact);
    }
    let via = route
        .gateway
        .map_or_else(String::new, |gateway| format!(" over {gateway}"));
    let fact =
        format!("an advertisement gave the IPv6 default route{via} on {name} earlier in this boot");
    draft.backed("routes", "earlier", before, fact);
    draft.rests_on = Some(Way {
        link: Some(link.index),
        beyond: None,
    });
    draft.breaks_beyond.push(Family::V6);
    draft.explains("IPv6 reaches nothing outside; programs fall back to IPv4 after a wait");
    draft.misses(format!(
        "whether advertisements are on the wire (`rdisc6 {name}` or `tcpdump -n -i {name} icmp6`), and whether the router's \
         own IPv6 works"
    ));
    draft.next(format!(
        "Restart the router advertisement service (odhcpd, radvd) of the router on {name}; if it is the provider's, report \
         that its IPv6 is gone"
    ));
    Some(draft)
}

/// The link towards the provider hears advertisements, forwards, and so ignores them.
fn is_ignoring(view: &View<'_>, link: &Link) -> bool {
    let is_wan = view
        .profile()
        .is_some_and(|seen| seen.value.wan.contains(&link.name));
    let leads = default_route(view.routes(), Family::V4)
        .is_some_and(|route| route.link == Some(link.index));
    let ignores = link.ipv6.is_some_and(|settings| {
        !settings.disabled && settings.forwarding && settings.accept_ra == UNLESS_FORWARDING
    });
    (is_wan || leads) && ignores
}

fn ignored(view: &View<'_>, at: Timestamp, link: &Link, live: &[&Advertisement]) -> Draft {
    let name = &link.name;
    let mut draft = Draft::new(
        "ra_ignored",
        Layer::Address,
        name.as_str(),
        severity(view),
        format!("{name} hears IPv6 router advertisements and ignores them"),
    );
    let routers = list(live.iter().map(|advertisement| advertisement.router));
    let fact = format!("{routers} on {name} advertises itself as a default router");
    draft.shown("router_probes", "advertised", at, fact);
    if let Some(links) = &view.now().links {
        let fact =
            format!("{name} forwards IPv6 and has accept_ra 1, which then means no; 2 means yes");
        draft.shown("links", "accept_ra", links.at, fact);
    }
    if let Some(routes) = &view.now().routes {
        let fact = "there is no IPv6 default route".into();
        draft.shown("routes", "absent", routes.at, fact);
    }
    draft.rests_on = Some(Way {
        link: Some(link.index),
        beyond: None,
    });
    draft.breaks_beyond.push(Family::V6);
    draft.misses(format!(
        "whether a program is meant to take the advertisements itself (systemd-networkd, odhcp6c: their configuration for \
         {name})"
    ));
    draft.next(format!(
        "Set net.ipv6.conf.{name}.accept_ra to 2, also in the network configuration"
    ));
    draft.propose(repair::advertisement::accept(view, link));
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, Ipv6Settings, RouterProbe};

    use super::*;
    use crate::fixture::{Evidence, LAN, WAN, healthy, ip, only, pull_cable, route, verdict};

    fn probed(round: u64, link: u32, lifetimes: &[u16]) -> Evidence {
        let mut evidence = healthy(round);
        let advertisements = lifetimes.iter().map(|&lifetime_s| Advertisement {
            router: ip("fe80::1"),
            lifetime_s,
            mtu: None,
            prefixes: vec![],
            resolvers: vec![],
            managed: false,
        });
        evidence.extra.push(Body::RouterProbes(vec![RouterProbe {
            link,
            advertisements: advertisements.collect(),
        }]));
        evidence
    }

    fn led(round: u64) -> Evidence {
        let mut evidence = probed(round, WAN, &[1800]);
        let mut default = route("::/0", Some("fe80::1"), WAN);
        default.protocol = "ra".into();
        evidence.routes.push(default);
        evidence
    }

    fn forwarding(mut evidence: Evidence, link: u32, accept_ra: u8) -> Evidence {
        evidence.link(link).ipv6 = Some(Ipv6Settings {
            forwarding: true,
            accept_ra,
            ..Ipv6Settings::default()
        });
        evidence
    }

    #[test]
    fn advertisements_that_stopped_are_told_and_so_is_a_router_that_resigned() {
        for lifetimes in [&[][..], &[0]] {
            let told = verdict(&[led(1), probed(2, WAN, lifetimes)]);
            let finding = only(&told);
            assert_eq!(
                (finding.cause.0.as_str(), finding.component.0.as_str()),
                ("ra_missing", "wan")
            );
            assert_eq!(
                (finding.severity, finding.confidence),
                (Severity::Warning, Confidence::Certain)
            );
        }
    }

    #[test]
    fn a_network_without_ipv6_and_one_whose_router_was_not_asked_do_not_alarm() {
        let never = [probed(1, WAN, &[]), probed(2, WAN, &[])];
        let not_asked = [led(1), healthy(2)];
        let mut rebooted = [led(1), probed(2, WAN, &[])];
        rebooted[0].boot = "boot-0";
        let well = [led(1), led(2)];
        for rounds in [never, not_asked, rebooted, well] {
            assert_eq!(verdict(&rounds).health, Health::Healthy);
        }
    }

    #[test]
    fn advertisements_stop_with_the_cable() {
        let mut broken = probed(2, WAN, &[]);
        pull_cable(&mut broken);
        assert_eq!(only(&verdict(&[led(1), broken])).cause.0, "link_down");
    }

    #[test]
    fn a_router_that_forwards_and_ignores_advertisements_is_told_to_take_them() {
        let evidence = forwarding(probed(1, WAN, &[1800]), WAN, 1);
        let told = evidence.verdict();
        let finding = only(&told);
        assert_eq!(finding.cause.0, "ra_ignored");
        assert_eq!(finding.confidence, Confidence::Certain);
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change sysctl net/ipv6/conf/wan/accept_ra=2\n"),
            "{script}"
        );
    }

    #[test]
    fn programs_that_take_advertisements_themselves_and_lan_sides_do_not_alarm() {
        for evidence in [
            forwarding(probed(1, WAN, &[1800]), WAN, 0),
            forwarding(probed(1, WAN, &[1800]), WAN, 2),
            forwarding(probed(1, LAN, &[1800]), LAN, 1),
            forwarding(led(1), WAN, 1),
        ] {
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }
}
