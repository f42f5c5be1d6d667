//! Bridges: frames that go round in circles, uplinks that spanning tree blocks, a root that changed.

mod circle;
mod spanning;

use aizen_protocol::record::{Link, LinkDetail};

use super::draft::Examined;
use super::unit::list;
use crate::case::{Family, View, default_route};

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let bridges = view
        .links()
        .iter()
        .filter(|link| link.admin_up && matches!(link.detail, Some(LinkDetail::Bridge { .. })));
    let mut calm = Vec::new();
    for bridge in bridges {
        let before = examined.drafts.len();
        examined.drafts.extend(circle::looping(view, bridge));
        examined.drafts.extend(spanning::blocked(view, bridge));
        examined.drafts.extend(spanning::switched_off(view, bridge));
        examined.drafts.extend(spanning::new_root(view, bridge));
        if examined.drafts.len() == before {
            calm.push(bridge.name.as_str());
        }
    }
    if view.now().fdb.is_some() && !calm.is_empty() {
        examined
            .well
            .push(format!("No address moves between ports of {}", list(calm)));
    }
    examined
}

fn ports<'a>(view: &View<'a>, bridge: &Link) -> impl Iterator<Item = &'a Link> {
    let index = bridge.index;
    view.links()
        .iter()
        .filter(move |link| link.master == Some(index))
}

/// The families whose default route leaves through the bridge.
fn ways_out(view: &View<'_>, bridge: &Link) -> Vec<Family> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter(|&family| {
            default_route(view.routes(), family)
                .is_some_and(|route| route.link == Some(bridge.index))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::private::Mac;
    use aizen_protocol::record::{Body, Fdb, FdbMoves, LogLine, LogOrigin, Port, PortState};

    use super::*;
    use crate::fixture::{Evidence, LAN, SPARE, at, healthy, only, verdict};

    const BRIDGE: u32 = 7;

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0x5e, 0x10, 0x70, last])
    }

    /// A router whose LAN ports are bridged, with or without spanning tree.
    fn bridged(round: u64, stp: bool) -> Evidence {
        let mut evidence = healthy(round);
        let mut bridge = crate::fixture::link(BRIDGE, "br-lan", true);
        bridge.driver_kind = Some("bridge".into());
        bridge.detail = Some(LinkDetail::Bridge {
            stp,
            priority: 32_768,
            root: Some(mac(1)),
            root_priority: 4_096,
            root_port: 1,
            topology_change: false,
            vlan_filtering: false,
        });
        evidence.links.push(bridge);
        for index in [LAN, SPARE] {
            let link = evidence.link(index);
            (link.master, link.carrier) = (Some(BRIDGE), Some(true));
            link.oper = aizen_protocol::record::OperState::Up;
            link.port = Some(Port::Bridge {
                state: PortState::Forwarding,
                pvid: None,
                vlans: vec![],
            });
        }
        evidence
    }

    fn moves(mac: Mac, moves: u32) -> Body {
        Body::Fdb(Fdb {
            entries: vec![],
            total: 40,
            moves: vec![FdbMoves {
                mac,
                links: vec![LAN, SPARE],
                moves,
            }],
        })
    }

    #[test]
    fn an_address_that_jumps_between_two_ports_is_a_loop() {
        let mut rounds = [bridged(1, false), bridged(2, false)];
        rounds[1].extra.push(moves(mac(9), 480));
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("bridge_loop", "br-lan")
        );
        assert_eq!(finding.confidence, Confidence::Suspected);
        assert!(finding.next_step.0.contains("lan, lan4"));
        for index in [LAN, SPARE] {
            for (round, evidence) in rounds.iter_mut().enumerate() {
                let mut counters = evidence.link(index).counters.unwrap_or_default();
                counters.multicast = 90_000 * u64::try_from(round).unwrap();
                evidence.link(index).counters = Some(counters);
            }
        }
        rounds[1].extra.push(Body::Log(vec![LogLine {
            at: at(2),
            origin: LogOrigin::Kernel,
            program: "kernel".into(),
            severity: 4,
            text: "lan4: received packet on lan4 with own address as source address".into(),
        }]));
        let told = verdict(&rounds);
        assert_eq!(only(&told).confidence, Confidence::Certain);
        assert_eq!(only(&told).proposal, None);
    }

    #[test]
    fn guests_that_roam_virtual_routers_and_busy_multicast_do_not_alarm() {
        let mut roaming = [bridged(1, false), bridged(2, false)];
        roaming[1].extra.push(moves(mac(9), 2));
        let mut vrrp = [bridged(1, false), bridged(2, false)];
        vrrp[1].extra.push(moves(Mac([0, 0, 0x5e, 0, 1, 7]), 60));
        // Television over multicast.
        let mut video = [bridged(1, true), bridged(2, true)];
        video[1].link(LAN).counters.as_mut().unwrap().multicast = 500_000;
        for (number, rounds) in [roaming, vrrp, video].iter().enumerate() {
            assert_eq!(verdict(rounds).health, Health::Healthy, "{number}");
        }
    }

    fn block(evidence: &mut Evidence, index: u32) {
        evidence.link(index).port = Some(Port::Bridge {
            state: PortState::Blocking,
            pvid: None,
            vlans: vec![],
        });
    }

    #[test]
    fn one_blocked_port_of_two_is_what_spanning_tree_is_for_and_all_of_them_are_a_fault() {
        let mut rounds = [bridged(1, true), bridged(2, true)];
        rounds
            .iter_mut()
            .for_each(|evidence| block(evidence, SPARE));
        assert_eq!(verdict(&rounds).health, Health::Healthy);
        rounds.iter_mut().for_each(|evidence| block(evidence, LAN));
        let told = verdict(&rounds);
        assert_eq!(only(&told).cause.0, "stp_blocking");
        // Ports block for a moment after they come up.
        assert_eq!(rounds[1].verdict().health, Health::Healthy);
    }

    #[test]
    fn an_expected_port_that_its_bridge_switched_off_is_told_and_no_other() {
        let off = |index| {
            [1, 2].map(|round| {
                let mut evidence = bridged(round, false);
                evidence.link(index).port = Some(Port::Bridge {
                    state: PortState::Disabled,
                    pvid: None,
                    vlans: vec![],
                });
                evidence
            })
        };
        let told = verdict(&off(LAN));
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("stp_blocking", "lan")
        );
        // Nobody expects that one, and the other was enabled a round ago.
        assert_eq!(verdict(&off(SPARE)).health, Health::Healthy);
        let just = [bridged(1, false), off(LAN)[1].clone()];
        assert_eq!(verdict(&just).health, Health::Healthy);
    }

    fn set_root(evidence: &mut Evidence, new: Mac, port: u16) {
        if let Some(LinkDetail::Bridge {
            root, root_port, ..
        }) = &mut evidence.link(BRIDGE).detail
        {
            (*root, *root_port) = (Some(new), port);
        }
    }

    #[test]
    fn another_root_is_told_and_a_bridge_that_is_its_own_root_may_change_its_address() {
        let mut rounds = [bridged(1, true), bridged(2, true)];
        set_root(&mut rounds[1], mac(2), 2);
        let told = verdict(&rounds);
        assert_eq!(only(&told).cause.0, "stp_root_changed");
        set_root(&mut rounds[0], mac(3), 0);
        set_root(&mut rounds[1], mac(2), 0);
        assert_eq!(verdict(&rounds).health, Health::Healthy);
        let off = [bridged(1, false), {
            let mut after = bridged(2, false);
            set_root(&mut after, mac(2), 2);
            after
        }];
        assert_eq!(verdict(&off).health, Health::Healthy);
    }
}
