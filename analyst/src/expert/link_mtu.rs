//! Links whose MTU is below what their protocols need.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Link;
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use crate::case::{Family, Pass, View, same_link};
use crate::repair;

/// Below, the kernel takes IPv6 off the link (RFC 8200, 5).
const IPV6: u32 = 1280;
/// Every host takes packets of this size (RFC 791).
const IPV4: u32 = 576;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().links else {
        return examined;
    };
    for (place, link) in seen.value.iter().enumerate() {
        if link.loopback || !link.admin_up || link.mtu >= IPV6 {
            continue;
        }
        if let Some(fact) = ipv6(view, link) {
            examined
                .drafts
                .push(draft(view, seen.at, link, place, IPV6, Some(fact)));
        } else if link.mtu < IPV4 && has(view.now(), link.index, Family::V4) {
            examined
                .drafts
                .push(draft(view, seen.at, link, place, IPV4, None));
        }
    }
    examined
}

fn has(pass: &Pass, link: u32, family: Family) -> bool {
    let all = pass.addresses.iter().flat_map(|seen| &seen.value);
    all.filter(|address| address.link == link)
        .any(|address| Family::of(address.address.address) == family)
}

/// What shows that the link is meant to carry IPv6. As the kernel takes it off, the past may be the only witness.
fn ipv6(view: &View<'_>, link: &Link) -> Option<(&'static str, Timestamp, String)> {
    if link.ipv6.is_some_and(|settings| settings.disabled) {
        return None;
    }
    view.backwards()
        .find(|pass| has(pass, link.index, Family::V6))
        .and_then(|pass| pass.addresses.as_ref())
        .map(|seen| {
            let fact = format!("{} has or had IPv6 addresses in this boot", link.name);
            ("addresses", seen.at, fact)
        })
}

fn draft(
    view: &View<'_>,
    at: Timestamp,
    link: &Link,
    place: usize,
    least: u32,
    meant: Option<(&'static str, Timestamp, String)>,
) -> Draft {
    let (name, mtu) = (&link.name, link.mtu);
    let family = if least == IPV6 { "IPv6" } else { "IPv4" };
    let mut draft = Draft::new(
        "link_mtu_too_small",
        Layer::Link,
        name.as_str(),
        Severity::Critical,
        format!("The MTU of {name} is {mtu} bytes: {family} needs {least}"),
    );
    let fact = format!("{name} has an MTU of {mtu} bytes");
    draft.shown("links", "mtu", at, fact);
    if let Some((source, at, fact)) = meant {
        draft.backed(source, "ipv6", at, fact);
    }
    let before = view.this_boot().find_map(|pass| {
        let links = pass.links.as_ref()?;
        let older = same_link(&links.value, link, place)?;
        (older.mtu >= least).then_some((links.at, older.mtu))
    });
    if let Some((at, before)) = before {
        let fact = format!("{name} had an MTU of {before} bytes earlier in this boot");
        draft.backed("links", "earlier", at, fact);
        draft.propose(repair::link::restore_mtu(view, link, before));
    }
    draft.explains(format!(
        "{family} does not work on {name}, or only in fragments"
    ));
    draft.misses(format!(
        "who set it: the network configuration, a tunnel or a DHCP option of {name} (`ip -d link show {name}`)"
    ));
    draft.next(format!(
        "Set the MTU of {name} to what the other end has (1500 on Ethernet, 1492 over PPPoE), at least {least}"
    ));
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use crate::fixture::{SPARE, WAN, healthy, only, verdict};

    #[test]
    fn an_mtu_below_ipv6_takes_it_off_the_link_and_is_put_back() {
        let mut after = healthy(2);
        after.link(WAN).mtu = 1000;
        after
            .addresses
            .retain(|ours| ours.link != WAN || ours.address.address.is_ipv4());
        let told = verdict(&[healthy(1), after]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("link_mtu_too_small", "wan")
        );
        assert_eq!(finding.confidence, Confidence::Certain);
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change link set wan mtu 1500\n"),
            "{script}"
        );
    }

    #[test]
    fn an_mtu_below_ipv4_is_told_where_ipv6_never_was() {
        let mut evidence = healthy(1);
        evidence.link(crate::fixture::LAN).mtu = 500;
        let told = evidence.verdict();
        assert_eq!(only(&told).cause.0, "link_mtu_too_small");
        assert_eq!(only(&told).proposal, None);
    }

    #[test]
    fn small_links_that_carry_no_ipv6_or_nothing_at_all_do_not_alarm() {
        let mut tunnel = healthy(1);
        tunnel.link(crate::fixture::LAN).mtu = 1200;
        let mut idle = healthy(1);
        idle.link(SPARE).mtu = 72;
        for evidence in [tunnel, idle] {
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }
}
