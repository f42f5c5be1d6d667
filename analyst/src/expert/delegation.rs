//! IPv6 prefixes whose time ran out: the one delegated to the LAN (RFC 8415), or the addresses of the way out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Address;
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::link;
use super::unit::list;
use crate::case::{Family, Pass, View, Way, default_route};

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(route) = default_route(view.routes(), Family::V6) else {
        return examined;
    };
    let (Some(out), Some(seen)) = (route.link, &view.now().addresses) else {
        return examined;
    };
    let before = earlier(view);
    for link in view.links() {
        // One that never had an address of the provider's prefix isn't meant to.
        let Some(before) = before
            .get(&link.index)
            .copied()
            .or_else(|| running_out(view, link.index))
        else {
            continue;
        };
        let is_usable = link.admin_up && !link::is_without_carrier(link);
        if !is_usable || preferred(view.now(), link.index).is_some() {
            continue;
        }
        let stale: Vec<&Address> = global(view.now(), link.index).collect();
        let draft = if link.index == out {
            expired(view, seen.at, out, &stale, before)
        } else if link.ipv6.is_none_or(|settings| settings.forwarding) {
            lost(view, seen.at, link.index, &stale, before)
        } else {
            continue;
        };
        examined.drafts.push(draft);
    }
    if examined.drafts.is_empty() && preferred(view.now(), out).is_some() {
        examined.well.push(format!(
            "{} has an IPv6 address that is preferred",
            view.link_name(out)
        ));
    }
    examined
}

/// What a link was given: preferred, or running out.
type Given<'a> = (Timestamp, &'a Address);

/// An address whose time runs out, as a round ago: it was given for a while and not renewed. One that somebody keeps from
/// new connections on purpose stays for ever.
fn running_out<'a>(view: &View<'a>, link: u32) -> Option<Given<'a>> {
    let runs = |pass: &'a Pass| global(pass, link).find(|address| address.valid_s.is_some());
    let mut before = view.this_boot().filter(|pass| pass.addresses.is_some());
    let before = before.next()?;
    let address = runs(before).filter(|_| runs(view.now()).is_some())?;
    Some((before.addresses.as_ref()?.at, address))
}

/// What each link last had to offer to new connections in this boot, and when.
fn earlier<'a>(view: &View<'a>) -> BTreeMap<u32, Given<'a>> {
    let mut all = BTreeMap::new();
    for seen in view.this_boot().filter_map(|pass| pass.addresses.as_ref()) {
        for address in seen
            .value
            .iter()
            .filter(|a| is_global(a) && is_preferred(a))
        {
            all.entry(address.link).or_insert((seen.at, address));
        }
    }
    all
}

/// An address that the whole internet knows (2000::/3, RFC 4291).
fn is_global(address: &Address) -> bool {
    let is_global = match address.address.address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
    };
    is_global && !address.dad_failed
}

/// One that new connections take.
fn is_preferred(address: &Address) -> bool {
    !address.deprecated && address.preferred_s != Some(0)
}

fn global(pass: &Pass, link: u32) -> impl Iterator<Item = &Address> {
    let all = pass.addresses.iter().flat_map(|seen| &seen.value);
    all.filter(move |address| address.link == link && is_global(address))
}

/// Temporary addresses are deprecated one after the other, but not all at once (RFC 8981).
fn preferred(pass: &Pass, link: u32) -> Option<&Address> {
    global(pass, link).find(|address| is_preferred(address))
}

/// The LAN's prefix went while the way out kept its own.
fn lost(view: &View<'_>, at: Timestamp, link: u32, stale: &[&Address], before: Given<'_>) -> Draft {
    let name = view.link_name(link);
    let summary = format!("{name} lost the IPv6 prefix that the provider delegated");
    let mut draft = Draft::new(
        "prefix_delegation_lost",
        Layer::Address,
        name.as_str(),
        Severity::Warning,
        summary,
    );
    facts(&mut draft, &name, at, stale, before);
    if let Some(routes) = &view.now().routes {
        let fact = "the IPv6 default route is still there, so the line itself carries IPv6".into();
        draft.backed("routes", "default", routes.at, fact);
    }
    draft.rests_on = Some(Way {
        link: default_route(view.routes(), Family::V6).and_then(|route| route.link),
        beyond: Some(Family::V6),
    });
    draft.explains(format!(
        "Hosts behind {name} keep stale IPv6 addresses whose answers never arrive"
    ));
    draft.misses(
        "what the DHCPv6 client was answered: an IA_PD without a prefix, or nothing (its log)",
    );
    draft.next(format!(
        "Renew the DHCPv6 lease of the link towards the provider; if no prefix comes for {name}, ask the provider for prefix \
         delegation"
    ));
    draft
}

/// Every address of the way out ran out.
fn expired(
    view: &View<'_>,
    at: Timestamp,
    link: u32,
    stale: &[&Address],
    before: Given<'_>,
) -> Draft {
    let name = view.link_name(link);
    let summary = format!("The IPv6 addresses of {name} ran out and were not renewed");
    let mut draft = Draft::new(
        "ipv6_address_deprecated",
        Layer::Address,
        name.as_str(),
        Severity::Warning,
        summary,
    );
    facts(&mut draft, &name, at, stale, before);
    let probes = view.now().router_probes.as_ref();
    let probe = probes.and_then(|seen| {
        let probe = seen.value.iter().find(|probe| probe.link == link)?;
        Some((seen.at, probe))
    });
    match probe {
        Some((at, probe)) => {
            let mut offered = probe.advertisements.iter().flat_map(|a| &a.prefixes);
            match offered.next() {
                None => {
                    let fact = format!("no router on {name} advertises a prefix");
                    draft.shown("router_probes", "prefixes", at, fact);
                }
                Some(prefix) => {
                    let fact = format!("a router on {name} advertises {prefix}");
                    draft.contradicted("router_probes", at, fact);
                }
            }
        }
        None => draft.misses(format!(
            "whether a router on {name} still advertises a prefix (`rdisc6 {name}`)"
        )),
    }
    draft.rests_on = Some(Way {
        link: Some(link),
        beyond: Some(Family::V6),
    });
    draft.explains("New IPv6 connections to the outside have no address to come from");
    draft.misses(
        "what the DHCPv6 client or the kernel was told last (`ip -6 address`, the client's log)",
    );
    draft.next(format!(
        "Renew the DHCPv6 lease of {name} or bring it up again; if no address comes, ask the provider"
    ));
    draft
}

fn facts(
    draft: &mut Draft,
    name: &str,
    at: Timestamp,
    stale: &[&Address],
    (before_at, before): Given<'_>,
) {
    let fact = if stale.is_empty() {
        format!("{name} has no global IPv6 address")
    } else {
        format!(
            "{name} has none but deprecated IPv6 addresses: {}",
            list(stale.iter().take(4).map(|address| address.address))
        )
    };
    draft.shown("addresses", "deprecated", at, fact);
    let fact = if is_preferred(before) {
        format!(
            "{} on {name} was preferred earlier in this boot",
            before.address
        )
    } else {
        format!(
            "{} on {name} is valid for a while and was not renewed, as a round ago",
            before.address
        )
    };
    draft.backed("addresses", "earlier", before_at, fact);
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use crate::fixture::{Evidence, LAN, WAN, address, healthy, only, pull_cable, route, verdict};

    const OURS: &str = "2001:db8:40::1/64";
    const OUT: &str = "2001:db8:7::20/64";

    fn delegated(round: u64) -> Evidence {
        let mut evidence = healthy(round);
        evidence.routes.push(route("::/0", Some("fe80::1"), WAN));
        evidence.addresses.push(address(WAN, OUT, "global"));
        evidence.addresses.push(address(LAN, OURS, "global"));
        evidence
    }

    fn change(evidence: &mut Evidence, text: &str) -> usize {
        let wanted = text.parse().unwrap();
        let mut all = evidence.addresses.iter();
        all.position(|ours| ours.address == wanted).unwrap()
    }

    #[test]
    fn an_address_that_runs_out_was_given_once_and_one_kept_aside_on_purpose_was_not() {
        let stale = |valid_s| {
            [1, 2].map(|round| {
                let mut evidence = delegated(round);
                let place = change(&mut evidence, OURS);
                let ours = &mut evidence.addresses[place];
                (ours.deprecated, ours.preferred_s) = (true, Some(0));
                ours.valid_s = valid_s;
                evidence
            })
        };
        let told = verdict(&stale(Some(600)));
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("prefix_delegation_lost", "lan")
        );
        assert_eq!(verdict(&stale(None)).health, Health::Healthy);
        // A round ago there was nothing.
        let mut just = stale(Some(600));
        just[0] = healthy(1);
        assert_eq!(verdict(&just).health, Health::Healthy);
        // The new prefix is there already.
        let mut renumbered = stale(Some(600));
        for evidence in &mut renumbered {
            let new = address(LAN, "2001:db8:41::1/64", "global");
            evidence.addresses.push(new);
        }
        assert_eq!(verdict(&renumbered).health, Health::Healthy);
    }

    #[test]
    fn a_prefix_that_ran_out_on_the_lan_while_the_line_has_ipv6_is_told() {
        let mut deprecated = delegated(2);
        let place = change(&mut deprecated, OURS);
        deprecated.addresses[place].deprecated = true;
        let mut gone = delegated(2);
        let place = change(&mut gone, OURS);
        gone.addresses.remove(place);
        for after in [deprecated, gone] {
            let told = verdict(&[delegated(1), after]);
            let finding = only(&told);
            assert_eq!(
                (finding.cause.0.as_str(), finding.component.0.as_str()),
                ("prefix_delegation_lost", "lan")
            );
            assert_eq!(finding.confidence, Confidence::Certain);
        }
    }

    #[test]
    fn addresses_of_the_way_out_that_ran_out_are_told() {
        let mut after = delegated(2);
        let place = change(&mut after, OUT);
        (
            after.addresses[place].deprecated,
            after.addresses[place].preferred_s,
        ) = (true, Some(0));
        let told = verdict(&[delegated(1), after]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("ipv6_address_deprecated", "wan")
        );
    }

    #[test]
    fn renumbering_temporary_addresses_and_no_ipv6_at_all_do_not_alarm() {
        let mut renumbered = delegated(2);
        let place = change(&mut renumbered, OURS);
        renumbered.addresses[place].deprecated = true;
        renumbered
            .addresses
            .push(address(LAN, "2001:db8:41::1/64", "global"));
        let mut temporary = delegated(2);
        let mut old = address(WAN, "2001:db8:7::beef/64", "global");
        old.deprecated = true;
        temporary.addresses.push(old);
        // The family left as a whole: no default route either.
        let withdrawn = healthy(2);
        let mut rebooted = delegated(2);
        rebooted
            .addresses
            .retain(|ours| ours.link != LAN || ours.address.address.is_ipv4());
        rebooted.boot = "boot-2";
        for after in [renumbered, temporary, withdrawn, rebooted] {
            assert_eq!(verdict(&[delegated(1), after]).health, Health::Healthy);
        }
        assert_eq!(verdict(&[healthy(1), healthy(2)]).health, Health::Healthy);
    }

    #[test]
    fn a_prefix_that_went_with_the_cable_is_the_cables_fault() {
        let mut after = delegated(2);
        pull_cable(&mut after);
        let place = change(&mut after, OURS);
        after.addresses[place].deprecated = true;
        assert_eq!(only(&verdict(&[delegated(1), after])).cause.0, "link_down");
    }
}
