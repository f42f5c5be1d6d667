//! VLANs that one end of a cable carries and the other doesn't, or that both number differently.

mod native;

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Link, LinkDetail, Lldp, NeighbourState};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::link;
use crate::case::{Family, Over, Seen, View, Way, counted, default_route};

/// How long nothing came.
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

/// Packets sent in that time that should have met an answer.
const SENT: u64 = 3;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let over = view.links_over(WINDOW);
    for link in view.links() {
        if let Some(LinkDetail::Vlan { id, .. }) = link.detail
            && let Some(over) = &over
        {
            examined.drafts.extend(unanswered(view, over, link, id));
        }
        examined.drafts.extend(native::native(view, link));
    }
    examined
}

/// What the other end of this cable announces.
fn peer<'a>(view: &View<'a>, link: u32) -> Option<(Timestamp, &'a Lldp)> {
    let seen: &Seen<Vec<Lldp>> = view.now().lldp.as_ref()?;
    let peer = seen.value.iter().find(|peer| peer.link == link)?;
    Some((seen.at, peer))
}

/// The gateway of a default route through this link.
fn gateway(view: &View<'_>, link: u32) -> Option<IpAddr> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|family| default_route(view.routes(), family))
        .find(|route| route.link == Some(link))?
        .gateway
}

/// Tagged frames leave and none comes back, while the cable below carries others.
fn unanswered(view: &View<'_>, over: &Over<'_>, link: &Link, id: u16) -> Option<Draft> {
    let parent = link.parent?;
    let (below_before, below) = over.links.iter().find(|(_, l)| l.index == parent)?;
    let below_received = counted(below_before, below, |c| c.rx_packets)?;
    let (received, sent, time) = traffic(over, link)?;
    let silent = received == 0 && sent >= SENT && below_received > 0;
    if !silent || !link.admin_up || link::is_without_carrier(link) {
        return None;
    }
    let announced = peer(view, parent).filter(|(_, peer)| peer.vlans.len() > 1);
    let denied = announced.filter(|(_, peer)| !peer.vlans.contains(&id));
    // A guest network that nobody is in sends and hears nothing either: somebody must be awaited there, and never have
    // been heard. A VLAN that once worked needs the word of the other end.
    let never = link
        .counters
        .is_some_and(|counters| counters.rx_packets == 0);
    let awaited = unresolved(view, link);
    if denied.is_none() && !(never && awaited.is_some()) {
        return None;
    }
    let name = &link.name;
    let default: Vec<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|&family| {
            default_route(view.routes(), family).is_some_and(|route| route.link == Some(link.index))
        })
        .collect();
    let severity = if default.is_empty() {
        Severity::Warning
    } else {
        Severity::Critical
    };
    let summary = format!("VLAN {id} of {name} does not reach the other end of the cable");
    let mut draft = Draft::new(
        "vlan_mismatch",
        Layer::Link,
        name.as_str(),
        severity,
        summary,
    );
    let fact = format!(
        "{name} sent {sent} packets with tag {id} and received 0 {time}, while {} below it received {below_received} in \
         {} s",
        below.name,
        over.seconds()
    );
    draft.shown("links", "traffic", over.to, fact);
    if let Some((at, address, state)) = awaited {
        let fact =
            format!("{address} on {name} does not answer ARP or neighbour solicitations ({state})");
        draft.shown("neighbours", "unanswered", at, fact);
    }
    match (denied, announced) {
        (Some((at, _)), _) => {
            let fact = format!("the other end of {} does not announce VLAN {id}", below.name);
            draft.shown("lldp", "vlans", at, fact);
        }
        (None, Some((at, _))) => {
            let fact = format!("the other end of {} announces VLAN {id}", below.name);
            draft.contradicted("lldp", at, fact);
        }
        (None, None) => draft.misses(format!(
            "the VLANs that the other end of {} carries (`aizen links` with LLDP, or the switch's own status)",
            below.name
        )),
    }
    draft.rests_on = Some(Way {
        link: Some(parent),
        beyond: None,
    });
    draft.breaks_links.push(link.index);
    draft.breaks_beyond = default;
    draft.misses(format!(
        "whether ARP leaves with the tag and nothing comes back (`tcpdump -e -n -i {} vlan`)",
        below.name
    ));
    draft.next(format!(
        "Allow VLAN {id} tagged on the switch port at the other end of {}, or correct the number of {name}",
        below.name
    ));
    Some(draft)
}

/// Packets received and sent, and in which time: one that was made since counted from nothing.
fn traffic(over: &Over<'_>, link: &Link) -> Option<(u64, u64, String)> {
    let Some((before, _)) = over.links.iter().find(|(_, l)| l.index == link.index) else {
        let all = link.counters.as_ref()?;
        let time = "since it was made".to_owned();
        return Some((all.rx_packets, all.tx_packets, time));
    };
    let received = counted(before, link, |c| c.rx_packets)?;
    let sent = counted(before, link, |c| c.tx_packets)?;
    Some((received, sent, format!("in {} s", over.seconds())))
}

/// Somebody on this link who is awaited: its gateway, or any host of a link that the operator named; and nobody there
/// has a hardware address.
fn unresolved<'a>(view: &View<'a>, link: &Link) -> Option<(Timestamp, IpAddr, &'static str)> {
    let seen = view.now().neighbours.as_ref()?;
    let here = || seen.value.iter().filter(|entry| entry.link == link.index);
    let profile = view.profile().map(|seen| &seen.value);
    let named = profile.is_some_and(|profile| {
        profile.wan.contains(&link.name) || profile.expected_up.contains(&link.name)
    });
    let gateway = gateway(view, link.index);
    let is_dead = |state| matches!(state, NeighbourState::Failed | NeighbourState::Incomplete);
    if here()
        .any(|entry| !is_dead(entry.state) && entry.mac.is_some() && !is_multicast(entry.address))
    {
        return None;
    }
    let entry = here().find(|entry| {
        is_dead(entry.state) && (named || gateway.is_none_or(|gateway| gateway == entry.address))
    })?;
    let awaited = named || gateway == Some(entry.address);
    awaited.then(|| {
        (
            seen.at,
            entry.address,
            super::gateway::state_name(entry.state),
        )
    })
}

fn is_multicast(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, LinkCounters, Port};

    use super::*;
    use crate::fixture::{
        Evidence, GATEWAY, LAN, WAN, address, at, healthy, kill_gateway, only, verdict,
    };

    const VLAN: u32 = 9;

    /// A router with a VLAN on its LAN port that sends `sent` and receives `received` packets in each round.
    fn tagged(round: u64, sent: u64, received: u64) -> Evidence {
        let mut evidence = healthy(round);
        let mut vlan = crate::fixture::link(VLAN, "lan.20", true);
        (vlan.driver_kind, vlan.parent) = (Some("vlan".into()), Some(LAN));
        vlan.detail = Some(LinkDetail::Vlan {
            id: 20,
            protocol: 0x8100,
        });
        vlan.counters = Some(LinkCounters {
            tx_packets: sent * round,
            rx_packets: received * round,
            ..LinkCounters::default()
        });
        evidence.links.push(vlan);
        evidence
            .addresses
            .push(address(VLAN, "192.168.20.1/24", "global"));
        evidence.neighbours.push(crate::fixture::neighbour(
            VLAN,
            "192.168.20.9",
            "",
            NeighbourState::Failed,
        ));
        evidence
    }

    fn lldp(link: u32, pvid: u16, vlans: &[u16]) -> Body {
        Body::Lldp(vec![Lldp {
            link,
            chassis: "switch".into(),
            port: "7".into(),
            system: None,
            pvid: Some(pvid),
            vlans: vlans.to_vec(),
            mtu: None,
        }])
    }

    #[test]
    fn a_tag_that_the_other_end_does_not_announce_is_told() {
        let mut rounds = [tagged(1, 9, 0), tagged(2, 9, 0)];
        rounds[1].extra.push(lldp(LAN, 1, &[1, 30]));
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("vlan_mismatch", "lan.20")
        );
        assert_eq!(finding.confidence, Confidence::Likely);
    }

    #[test]
    fn a_vlan_that_was_made_a_moment_ago_is_judged_by_all_that_it_counted() {
        let awaited = |round: u64, received: u64| {
            let mut evidence = tagged(round, 9, received);
            evidence.profile.expected_up.push("lan.20".into());
            for entry in evidence.neighbours.iter_mut().filter(|n| n.link == VLAN) {
                (entry.state, entry.mac) = (NeighbourState::Failed, None);
            }
            evidence
        };
        // Not there yet in the oldest reading of the last minute.
        let rounds = |received| [healthy(1), awaited(2, received), awaited(3, received)];
        let told = verdict(&rounds(0));
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("vlan_mismatch", "lan.20")
        );
        assert!(
            finding.evidence[0].fact.0.contains("27 packets"),
            "{told:?}"
        );
        let heard = verdict(&rounds(1));
        assert!(heard.findings.iter().all(|f| f.cause.0 != "vlan_mismatch"));
    }

    #[test]
    fn a_way_out_over_a_tag_that_nobody_answers_swallows_its_dead_gateway() {
        let rounds = [1, 2].map(|round| {
            let mut evidence = healthy(round);
            kill_gateway(&mut evidence);
            let mut wan = crate::fixture::link(VLAN, "wan.7", true);
            (wan.driver_kind, wan.parent) = (Some("vlan".into()), Some(WAN));
            wan.detail = Some(LinkDetail::Vlan {
                id: 7,
                protocol: 0x8100,
            });
            wan.counters = Some(LinkCounters {
                tx_packets: 30 * round,
                ..LinkCounters::default()
            });
            evidence.links.push(wan);
            evidence.profile.wan = vec!["wan.7".into()];
            for address in evidence.addresses.iter_mut().filter(|a| a.link == WAN) {
                address.link = VLAN;
            }
            for route in evidence.routes.iter_mut().filter(|r| r.link == Some(WAN)) {
                route.link = Some(VLAN);
            }
            evidence.neighbours[0].link = VLAN;
            evidence.neighbours[0].mac = None;
            evidence
        });
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(finding.cause.0, "vlan_mismatch");
        assert_eq!(finding.confidence, Confidence::Certain);
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.contains(GATEWAY))
        );
    }

    #[test]
    fn a_vlan_without_guests_and_one_that_works_do_not_alarm() {
        let empty = [tagged(1, 9, 0), tagged(2, 9, 0)];
        let mut empty_with_peer = [tagged(1, 9, 0), tagged(2, 9, 0)];
        empty_with_peer[1].extra.push(lldp(LAN, 1, &[1, 20]));
        let mut works = [tagged(1, 9, 5), tagged(2, 9, 5)];
        works[1].extra.push(lldp(LAN, 1, &[1, 30]));
        // Announces no VLAN at all, as most do.
        let mut quiet_peer = [tagged(1, 9, 0), tagged(2, 9, 0)];
        quiet_peer[1].extra.push(lldp(LAN, 1, &[]));
        for (number, rounds) in [empty, empty_with_peer, works, quiet_peer]
            .iter()
            .enumerate()
        {
            assert_eq!(verdict(rounds).health, Health::Healthy, "{number}");
        }
    }

    #[test]
    fn a_vlan_over_a_dead_port_is_explained_by_the_port() {
        let mut rounds = [tagged(1, 9, 0), tagged(2, 9, 0)];
        rounds[1].extra.push(lldp(LAN, 1, &[1, 30]));
        rounds[1].link(LAN).carrier = Some(false);
        rounds[1].link(VLAN).oper = aizen_protocol::record::OperState::LowerLayerDown;
        rounds[1].link(VLAN).carrier = Some(false);
        let told = verdict(&rounds);
        assert_eq!(only(&told).cause.0, "link_down");
        assert_eq!(only(&told).component.0, "lan");
    }

    fn trunk(ours: u16, vlans: &[u16], peer: Body) -> Evidence {
        let mut evidence = healthy(1);
        evidence.link(LAN).port = Some(Port::Bridge {
            state: aizen_protocol::record::PortState::Forwarding,
            pvid: Some(ours),
            vlans: vlans.to_vec(),
        });
        evidence.extra.push(peer);
        evidence
    }

    #[test]
    fn untagged_numbers_that_differ_on_a_trunk_are_told_and_on_an_access_port_they_are_not() {
        let told = trunk(1, &[1, 20], lldp(LAN, 99, &[20, 99])).verdict();
        let finding = only(&told);
        assert_eq!(finding.cause.0, "native_vlan_mismatch");
        assert_eq!(finding.evidence[1].at, at(1));
        for evidence in [
            trunk(1, &[1], lldp(LAN, 99, &[20, 99])),
            trunk(1, &[1, 20], lldp(LAN, 99, &[])),
            trunk(1, &[1, 20], lldp(LAN, 1, &[1, 20])),
            trunk(1, &[1, 20], lldp(LAN, 0, &[1, 20])),
            trunk(1, &[1, 20], lldp(WAN, 99, &[20, 99])),
        ] {
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }
}
