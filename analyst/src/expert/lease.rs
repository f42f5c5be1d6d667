//! A DHCP client without a lease.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Dhcp, DhcpOffer, Lease, Link};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::link;
use super::unit::list;
use crate::case::{Family, Pass, Seen, View, Way, default_route, has_default};

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    if let Some(seen) = &view.now().dhcp {
        for name in wanted(view, &seen.value) {
            match view.links().iter().find(|link| link.name == *name) {
                Some(link)
                    if is_without_lease(view, view.now(), link) && !is_ipv6_only(view, link) =>
                {
                    examined.drafts.extend(no_lease(view, seen, link));
                }
                Some(_) | None => {}
            }
        }
    }
    examined
}

/// Links that a DHCP client is to configure. Where that isn't known, a link towards the provider that gave itself an
/// address shows that its client found nobody.
fn wanted<'a>(view: &View<'a>, dhcp: &'a Dhcp) -> Vec<&'a String> {
    if !dhcp.wanted.is_empty() {
        return dhcp.wanted.iter().collect();
    }
    let wan = view.profile().map_or(&[][..], |seen| &seen.value.wan);
    wan.iter()
        .filter(|name| {
            let link = view.links().iter().find(|link| link.name == **name);
            link.is_some_and(|link| self_made(view.now(), link.index).is_some())
        })
        .collect()
}

/// Addresses of IPv4 that lead anywhere.
pub(super) fn has_address(pass: &Pass, link: u32) -> bool {
    let all = pass.addresses.iter().flat_map(|seen| &seen.value);
    all.filter(|address| address.link == link)
        .any(|address| match address.address.address {
            IpAddr::V4(address) => !address.is_link_local(),
            IpAddr::V6(_) => false,
        })
}

/// An address of 169.254.0.0/16, which a host gives itself where no server answers (RFC 3927).
pub(super) fn self_made(pass: &Pass, link: u32) -> Option<IpAddr> {
    let all = pass.addresses.iter().flat_map(|seen| &seen.value);
    all.filter(|address| address.link == link)
        .map(|address| address.address.address)
        .find(|address| matches!(address, IpAddr::V4(address) if address.is_link_local()))
}

fn lease<'a>(dhcp: &'a Dhcp, name: &str) -> Option<&'a Lease> {
    let mut leases = dhcp.leases.iter();
    leases.find(|lease| lease.link == name && lease.address.is_ipv4())
}

/// Up, with a carrier, and without an address: a client that was given one shows it.
fn is_without_lease(view: &View<'_>, pass: &Pass, link: &Link) -> bool {
    let links = pass.links.iter().flat_map(|seen| &seen.value);
    let mut then = links.filter(|then| then.index == link.index);
    let carries = then.any(|then| then.admin_up && !link::is_without_carrier(then));
    let is_port = view
        .link(link.index)
        .is_some_and(|link| link.master.is_some());
    pass.addresses.is_some() && carries && !is_port && !has_address(pass, link.index)
}

/// The network leads outside over IPv6 and never gave an IPv4 address: its clients ask for one in vain by design
/// (RFC 8925).
fn is_ipv6_only(view: &View<'_>, link: &Link) -> bool {
    default_route(view.routes(), Family::V6).is_some_and(|route| route.link == Some(link.index))
        && self_made(view.now(), link.index).is_none()
        && !view.this_boot().any(|pass| has_address(pass, link.index))
}

fn offers<'a>(view: &View<'a>, link: u32) -> Option<(Timestamp, &'a [DhcpOffer])> {
    let seen = view.now().dhcp_probes.as_ref()?;
    let probe = seen.value.iter().find(|probe| probe.link == link)?;
    Some((seen.at, &probe.offers))
}

fn no_lease(view: &View<'_>, seen: &Seen<Dhcp>, link: &Link) -> Option<Draft> {
    // A client needs a moment after the link came up: a round ago it was the same.
    let before = view.read_anew(|pass| pass.addresses.as_ref()).nth(1)?;
    if !is_without_lease(view, before, link) {
        return None;
    }
    let now = view.now();
    let name = &link.name;
    let profile = view.profile().map(|seen| &seen.value);
    let is_wan = profile.is_some_and(|profile| profile.wan.contains(name));
    let is_way_out = is_wan && !has_default(view.routes(), Family::V4);
    let severity = if is_way_out {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let summary = format!("The DHCP client on {name} has no lease");
    let mut draft = Draft::new(
        "dhcp_no_lease",
        Layer::Address,
        name.as_str(),
        severity,
        summary,
    );
    let addresses = now.addresses.as_ref()?;
    match self_made(now, link.index) {
        Some(address) => draft.shown(
            "addresses",
            "none",
            addresses.at,
            format!("{name} gave itself {address} because no server answered"),
        ),
        None => draft.shown(
            "addresses",
            "none",
            addresses.at,
            format!("{name} has a carrier and no IPv4 address, as in the round before"),
        ),
    }
    if let Some(older) = &before.addresses {
        draft.held_since(older.at);
    }
    client(&mut draft, seen, name);
    let step = asked(&mut draft, view, link);
    draft.rests_on = Some(Way {
        link: Some(link.index),
        beyond: None,
    });
    if is_way_out {
        draft.breaks_beyond.push(Family::V4);
    }
    draft.misses(format!(
        "what the DHCP client logged (`journalctl` or `logread`), and whether its questions leave {name} (`tcpdump -n -i \
         {name} port 67`)"
    ));
    draft.next(step);
    Some(draft)
}

/// What our own question on the link was answered, and the step that follows from it.
fn asked(draft: &mut Draft, view: &View<'_>, link: &Link) -> String {
    let name = &link.name;
    let mut step = format!(
        "Check that the DHCP server behind {name} runs and that this port is in its VLAN, then renew the lease"
    );
    match offers(view, link.index) {
        None => draft.misses(format!(
            "whether a server offers a lease on {name} (`aizen diagnose`)"
        )),
        Some((at, [])) => {
            let fact = format!("nobody on {name} answered a DHCP DISCOVER of ours");
            draft.shown("dhcp_probes", "silence", at, fact);
        }
        Some((at, offers)) => {
            let servers = list(offers.iter().map(|offer| offer.server));
            let refuses = offers.iter().all(|offer| offer.address.is_none());
            if refuses {
                let fact = format!("{servers} answered with NAK");
                draft.backed("dhcp_probes", "nak", at, fact);
                step = format!(
                    "Remove the old lease of {name} and start its client again: the server refuses what it asks for"
                );
            } else {
                let fact = format!("{servers} offered a lease on {name}");
                draft.contradicted("dhcp_probes", at, fact);
                step = format!(
                    "Restart the DHCP client of {name}: a server offers leases there and the client takes none"
                );
            }
        }
    }
    step
}

/// The client's own file.
fn client(draft: &mut Draft, seen: &Seen<Dhcp>, name: &str) {
    let wants = seen.value.wanted.iter().any(|wanted| wanted == name);
    match lease(&seen.value, name) {
        Some(lease) if lease.expires.is_some_and(|expires| expires < seen.at) => {
            let fact = format!("the lease of {} on {name} ran out", lease.address);
            draft.shown("dhcp", "expired", seen.at, fact);
        }
        Some(lease) => {
            let fact = format!(
                "{} keeps a lease of {} for {name}",
                lease.client, lease.address
            );
            draft.contradicted("dhcp", seen.at, fact);
        }
        None if wants => {
            let fact = format!("a DHCP client is to configure {name} and holds no lease");
            draft.shown("dhcp", "no_lease", seen.at, fact);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::Body;

    use super::*;
    use crate::fixture::lower::{offer, offered};
    use crate::fixture::{
        Evidence, GATEWAY, SPARE, WAN, address, healthy, lose_default_route, only, verdict,
    };

    fn dhcp(change: fn(&mut Dhcp)) -> Body {
        let mut dhcp = Dhcp {
            leases: vec![],
            pools: vec![],
            wanted: vec!["wan".into()],
        };
        change(&mut dhcp);
        Body::Dhcp(dhcp)
    }

    /// The WAN lost its address and with it the way out.
    fn leaseless(round: u64) -> Evidence {
        let mut evidence = healthy(round);
        lose_default_route(&mut evidence);
        evidence.silence(GATEWAY);
        evidence.neighbours.remove(0);
        evidence.routes.retain(|route| route.link != Some(WAN));
        evidence
            .addresses
            .retain(|ours| ours.link != WAN || ours.address.address.is_ipv6());
        evidence.extra.push(dhcp(|_| {}));
        evidence
    }

    #[test]
    fn a_client_without_lease_is_told_and_the_lost_default_route_follows_from_it() {
        let mut rounds = [healthy(1), leaseless(2), leaseless(3)];
        for evidence in &mut rounds[1..] {
            evidence.extra.push(offered(WAN, vec![]));
        }
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("dhcp_no_lease", "wan")
        );
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Critical, Confidence::Certain)
        );
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.contains("no IPv4 default route"))
        );
    }

    #[test]
    fn a_server_that_offers_shows_that_the_client_is_to_blame() {
        let mut rounds = [leaseless(1), leaseless(2)];
        rounds[1]
            .extra
            .push(offered(WAN, vec![offer(GATEWAY, GATEWAY)]));
        let told = verdict(&rounds);
        assert!(
            only(&told)
                .next_step
                .0
                .starts_with("Restart the DHCP client")
        );
        let Some(Body::DhcpProbes(probes)) = rounds[1].extra.last_mut() else {
            unreachable!()
        };
        probes[0].offers[0].address = None;
        let told = verdict(&rounds);
        assert!(only(&told).next_step.0.starts_with("Remove the old lease"));
    }

    #[test]
    fn an_address_of_its_own_making_shows_a_client_that_found_nobody() {
        let rounds = [1, 2].map(|round| {
            let mut evidence = leaseless(round);
            evidence.extra = vec![dhcp(|dhcp| dhcp.wanted.clear())];
            evidence
                .addresses
                .push(address(WAN, "169.254.8.9/16", "link"));
            evidence
        });
        let told = verdict(&rounds);
        assert_eq!(only(&told).cause.0, "dhcp_no_lease");
        assert!(only(&told).evidence[0].fact.0.contains("169.254.8.9"));
    }

    #[test]
    fn a_client_that_just_began_and_links_that_nobody_configures_do_not_alarm() {
        // A round ago the address was there.
        let mut begun = [healthy(1), leaseless(2)];
        begun[1].routes = healthy(2).routes;
        begun[1].reach = healthy(2).reach;
        begun[1].dns = healthy(2).dns;
        begun[1].path_mtu.clear();
        assert_eq!(verdict(&begun).health, Health::Healthy);
        let mut fixed = healthy(1);
        fixed
            .extra
            .push(dhcp(|dhcp| dhcp.wanted = vec!["wan".into(), "lan4".into()]));
        let second = Evidence {
            round: 2,
            ..fixed.clone()
        };
        assert_eq!(verdict(&[fixed, second]).health, Health::Healthy);
    }

    #[test]
    fn a_network_that_is_ipv6_alone_does_not_alarm() {
        let rounds = [1, 2].map(|round| {
            let mut evidence = healthy(round);
            let spare = evidence.link(SPARE);
            (spare.carrier, spare.oper) = (Some(true), aizen_protocol::record::OperState::Up);
            let route = crate::fixture::route("::/0", Some("fe80::1"), SPARE);
            evidence.routes.push(route);
            evidence
                .extra
                .push(dhcp(|dhcp| dhcp.wanted = vec!["lan4".into()]));
            evidence
        });
        assert_eq!(verdict(&rounds).health, Health::Healthy);
    }

    #[test]
    fn a_client_on_a_dead_link_has_no_lease_because_of_the_link() {
        let mut rounds = [leaseless(1), leaseless(2)];
        rounds[1].link(WAN).carrier = Some(false);
        assert_eq!(only(&verdict(&rounds)).cause.0, "link_down");
    }
}
