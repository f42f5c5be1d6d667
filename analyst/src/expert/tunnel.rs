//! Tunnels without a handshake (VXLAN, GRE, IP in IP): for the kernel they are up whether or not the other end hears them.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Link, LinkDetail};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::reach;
use crate::case::{View, counted};

/// Kinds of links (`IFLA_INFO_KIND`) whose other end is never asked whether it is there.
const KINDS: [&str; 14] = [
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "erspan",
    "ip6gre",
    "ip6gretap",
    "ip6erspan",
    "ipip",
    "sit",
    "ip6tnl",
    "vti",
    "vti6",
    "l2tp",
];
/// Packets sent since the round before that should have met an answer.
const SENT: u64 = 3;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let tunnels = view.links().iter().filter(|link| {
        let kind = link.driver_kind.as_deref();
        link.admin_up && kind.is_some_and(|kind| KINDS.contains(&kind))
    });
    for link in tunnels {
        let behind: Vec<IpAddr> = view
            .now()
            .reach
            .iter()
            .flat_map(|seen| &seen.value)
            .map(|reach| reach.target)
            .filter(|target| view.way_to(*target).link == Some(link.index))
            .collect();
        let answers =
            |target: &IpAddr| reach::ping(view.now(), *target).is_some_and(|p| p.received > 0);
        if behind.iter().any(answers) {
            examined
                .well
                .push(format!("The tunnel {} carries both ways", link.name));
        } else {
            examined.drafts.extend(silent(view, link, &behind));
        }
    }
    examined
}

/// When somebody last answered in this boot.
fn answered(view: &View<'_>, target: IpAddr) -> Option<Timestamp> {
    view.this_boot()
        .filter_map(|pass| reach::ping(pass, target))
        .find(|ping| ping.received > 0)
        .map(|ping| ping.at)
}

/// Packets leave, none comes, and somebody behind it who answered earlier in this boot is silent: one who never answered
/// may not want to.
fn silent(view: &View<'_>, link: &Link, behind: &[IpAddr]) -> Option<Draft> {
    let (target, before_at) = behind
        .iter()
        .filter(|target| reach::is_silent(view, **target))
        .find_map(|target| Some((*target, answered(view, *target)?)))?;
    // The reading just before: older ones were taken while it still worked.
    let over = view.links_over(SignedDuration::ZERO)?;
    let (before, _) = over.links.iter().find(|(_, l)| l.index == link.index)?;
    let sent = counted(before, link, |c| c.tx_packets)?;
    let received = counted(before, link, |c| c.rx_packets)?;
    if sent < SENT || received > 0 {
        return None;
    }
    let name = &link.name;
    let mut draft = Draft::new(
        "vpn_no_data",
        Layer::Path,
        name.as_str(),
        Severity::Critical,
        format!("The tunnel {name} is up, but nothing comes back through it"),
    );
    let fact = format!(
        "{name} sent {sent} packets and received 0 in {} s",
        over.seconds()
    );
    draft.shown("links", "traffic", over.to, fact);
    let ping = reach::ping(view.now(), target)?;
    draft.shown("reach", "behind", ping.at, ping.fact(target));
    let fact = format!("{target} behind {name} answered earlier in this boot");
    draft.noted("reach", before_at, fact);
    if let Some(LinkDetail::Tunnel {
        remote: Some(remote),
        ..
    }) = &link.detail
    {
        draft.rests_on = Some(view.way_to(*remote));
    }
    draft.breaks_links.push(link.index);
    draft.explains(format!("Networks behind {name} are not reached"));
    draft.misses(
        "whether its packets reach the other end (`tcpdump` there), and whether the other end itself is up (`aizen ping`)",
    );
    draft.next(format!(
        "Check that the other end of {name} is up and knows this device's present address, and that no packet filter on \
         the way drops the tunnel's protocol"
    ));
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{LinkCounters, ReachRole};

    use crate::fixture::{Evidence, address, healthy, link, only, reach, route, verdict};

    const TUNNEL: u32 = 9;
    const OFFICE: &str = "10.99.1.2";

    fn through(round: u64, received: u64, answered: u16) -> Evidence {
        let mut evidence = healthy(round);
        let mut tunnel = link(TUNNEL, "vx0", true);
        tunnel.driver_kind = Some("vxlan".into());
        tunnel.counters = Some(LinkCounters {
            tx_packets: 10 * round,
            rx_packets: received,
            ..LinkCounters::default()
        });
        evidence.links.push(tunnel);
        let ours = address(TUNNEL, "10.99.1.1/24", "global");
        evidence.addresses.push(ours);
        evidence.routes.push(route("10.99.1.0/24", None, TUNNEL));
        let probe = reach(OFFICE, ReachRole::Anchor, answered, 900);
        evidence.reach.push(probe);
        evidence
    }

    #[test]
    fn a_tunnel_that_carried_and_brings_nothing_back_is_told() {
        let told = verdict(&[through(1, 50, 5), through(2, 80, 0), through(3, 80, 0)]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("vpn_no_data", "vx0")
        );
        assert_eq!(finding.confidence, Confidence::Likely);
    }

    #[test]
    fn a_host_that_never_answered_and_a_tunnel_that_still_carries_do_not_alarm() {
        for rounds in [
            [through(1, 50, 0), through(2, 50, 0), through(3, 50, 0)],
            [through(1, 50, 5), through(2, 80, 0), through(3, 95, 0)],
            [through(1, 50, 5), through(2, 80, 0), through(3, 80, 5)],
        ] {
            assert_eq!(verdict(&rounds).health, Health::Healthy);
        }
    }
}
