//! Bridges: frames that go round in circles, uplinks that spanning tree blocks, a root that changed.

use aizen_protocol::finding::Severity;
use aizen_protocol::private::Mac;
use aizen_protocol::record::{FdbMoves, Link, LinkDetail, LogOrigin, Port, PortState};
use jiff::SignedDuration;

use super::draft::{Draft, Examined, Layer};
use super::duplicate::is_virtual_router;
use super::link;
use super::unit::list;
use crate::case::{Family, View, counted, default_route};

/// Moves of one address between ports in one round: a guest that roams makes one or two.
const MOVES: u32 = 10;
/// Multicast packets a second on a port that are a storm.
const STORM: u64 = 1_000;
/// How far back a change of the root counts.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let bridges = view
        .links()
        .iter()
        .filter(|link| link.admin_up && matches!(link.detail, Some(LinkDetail::Bridge { .. })));
    let mut calm = Vec::new();
    for bridge in bridges {
        let before = examined.drafts.len();
        examined.drafts.extend(looping(view, bridge));
        examined.drafts.extend(blocked(view, bridge));
        examined.drafts.extend(switched_off(view, bridge));
        examined.drafts.extend(new_root(view, bridge));
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

/// Addresses that jump between ports of the bridge; routers that share a virtual one do so on purpose.
fn jumping<'a>(view: &View<'a>, bridge: &Link) -> Vec<&'a FdbMoves> {
    let moves = view.now().fdb.iter().flat_map(|seen| &seen.value.moves);
    let is_port =
        |index: &u32| view.link(*index).and_then(|link| link.master) == Some(bridge.index);
    moves
        .filter(|moved| {
            moved.moves >= MOVES
                && !is_virtual_router(moved.mac)
                && moved.links.iter().filter(|link| is_port(link)).count() >= 2
        })
        .collect()
}

fn looping(view: &View<'_>, bridge: &Link) -> Option<Draft> {
    let seen = view.now().fdb.as_ref()?;
    let jumping = jumping(view, bridge);
    let worst = jumping.iter().max_by_key(|moved| moved.moves)?;
    let mut between: Vec<u32> = jumping.iter().flat_map(|m| m.links.clone()).collect();
    between.sort_unstable();
    between.dedup();
    let names = list(between.iter().map(|&link| view.link_name(link)));
    let name = &bridge.name;
    let mut draft = Draft::new(
        "bridge_loop",
        Layer::Link,
        name.as_str(),
        Severity::Critical,
        format!("Frames go round in circles through {name}: its ports {names} are joined outside"),
    );
    let fact = format!(
        "{} moved {} times between {} in one round",
        worst.mac,
        worst.moves,
        list(worst.links.iter().map(|&link| view.link_name(link)))
    );
    draft.shown("fdb", "moves", seen.at, fact);
    if jumping.len() > 1 {
        let fact = format!("{} addresses jump between the same ports", jumping.len());
        draft.noted("fdb", seen.at, fact);
    }
    storm(&mut draft, view, bridge);
    own_address(&mut draft, view, &between);
    if let Some(LinkDetail::Bridge { stp: false, .. }) = bridge.detail {
        let at = view.now().links.as_ref().map_or(seen.at, |links| links.at);
        let fact = format!("{name} runs no spanning tree that would cut the circle");
        draft.noted("links", at, fact);
    }
    draft.breaks_links.push(bridge.index);
    draft.breaks_links.extend(&between);
    draft.breaks_beyond = ways_out(view, bridge);
    draft.explains(format!(
        "Hosts behind {name} are reached at random or not at all"
    ));
    draft.misses("which cable closes the circle: the newest one, or a small switch plugged into itself (`aizen links`)");
    draft.next(format!(
        "Unplug one of {names}, the one that was plugged in last; then switch on spanning tree or loop protection"
    ));
    Some(draft)
}

/// Multicast explodes on two ports or more.
fn storm(draft: &mut Draft, view: &View<'_>, bridge: &Link) {
    let Some(over) = view.links_over(SignedDuration::from_mins(1)) else {
        return;
    };
    let stormy = over.links.iter().filter_map(|(before, link)| {
        let frames = counted(before, link, |c| c.multicast)? / over.seconds();
        let is_storm = link.master == Some(bridge.index) && frames >= STORM;
        is_storm.then(|| format!("{} {frames} a second", link.name))
    });
    let stormy: Vec<String> = stormy.collect();
    if stormy.len() >= 2 {
        let fact = format!("multicast explodes on several ports: {}", list(stormy));
        draft.shown("links", "multicast", over.to, fact);
    }
}

/// The kernel hears its own address from outside. Programs can't write lines of the kernel.
fn own_address(draft: &mut Draft, view: &View<'_>, between: &[u32]) {
    let lines = view.now().log.iter().flat_map(|seen| &seen.value);
    let names: Vec<String> = between.iter().map(|&link| view.link_name(link)).collect();
    let mut heard = lines.filter(|line| {
        line.origin == LogOrigin::Kernel
            && line.text.0.contains("with own address as source address")
            && names.iter().any(|name| line.text.0.contains(name.as_str()))
    });
    if let Some(line) = heard.next() {
        let fact = "the kernel logged a frame from outside that bears its own address".into();
        draft.backed("log", "own_address", line.at, fact);
    }
}

/// Spanning tree blocks every way towards the provider, and did so a round ago.
fn blocked(view: &View<'_>, bridge: &Link) -> Option<Draft> {
    let Some(LinkDetail::Bridge {
        stp: true,
        root_port,
        ..
    }) = &bridge.detail
    else {
        return None;
    };
    let wan = view.profile().map_or(&[][..], |seen| &seen.value.wan);
    let live: Vec<&Link> = ports(view, bridge)
        .filter(|port| port.admin_up && !link::is_without_carrier(port))
        .collect();
    let named: Vec<&Link> = live
        .iter()
        .copied()
        .filter(|port| wan.contains(&port.name))
        .collect();
    // One of several ports that blocks is what spanning tree is for.
    let uplinks = if named.is_empty() { live } else { named };
    let stays =
        |port: &&Link| is_blocking(port) && a_round_ago(view, port).is_some_and(is_blocking);
    if uplinks.is_empty() || !uplinks.iter().all(stays) {
        return None;
    }
    let seen = view.now().links.as_ref()?;
    let name = &bridge.name;
    let names = list(uplinks.iter().map(|port| &port.name));
    // A single way out is the broken thing itself.
    let component = match uplinks.as_slice() {
        [port] => port.name.as_str(),
        _ => name.as_str(),
    };
    let mut draft = Draft::new(
        "stp_blocking",
        Layer::Link,
        component,
        Severity::Critical,
        format!("Spanning tree blocks every uplink of {name}: {names}"),
    );
    let fact =
        format!("{names} of {name} have a carrier and are in state blocking, as a round ago");
    draft.shown("links", "blocking", seen.at, fact);
    if let Some(older) = view.this_boot().find_map(|pass| pass.links.as_ref()) {
        draft.held_since(older.at);
    }
    let fact = format!("the root of the spanning tree is behind port {root_port} of {name}");
    draft.noted("links", seen.at, fact);
    draft.breaks_links.push(bridge.index);
    draft
        .breaks_links
        .extend(uplinks.iter().map(|port| port.index));
    draft.breaks_beyond = ways_out(view, bridge);
    draft.misses(
        "which bridge is the root, and by which priority (the switches' own status; `bridge link` and `ip -d link` here)",
    );
    draft.next(format!(
        "Find the second way that spanning tree prefers over {names}, and set the bridge priorities so that the core \
         switch is the root"
    ));
    Some(draft)
}

fn a_round_ago<'a>(view: &View<'a>, link: &Link) -> Option<&'a Link> {
    let before = view.this_boot().find_map(|pass| pass.links.as_ref())?;
    before.value.iter().find(|older| older.index == link.index)
}

/// A port that the operator expects to work, whose bridge neither learns nor forwards there. The kernel enables a port
/// as soon as it has a carrier: somebody switched it off (`bridge link set … state`), or a guard against loops did.
fn switched_off(view: &View<'_>, bridge: &Link) -> Option<Draft> {
    let expected = &view.profile()?.value.expected_up;
    let is_off = |link: &Link| state(link) == Some(PortState::Disabled);
    let port = ports(view, bridge).find(|port| {
        expected.contains(&port.name)
            && port.admin_up
            && !link::is_without_carrier(port)
            && is_off(port)
            && a_round_ago(view, port).is_some_and(is_off)
    })?;
    let seen = view.now().links.as_ref()?;
    let (name, port_name) = (&bridge.name, &port.name);
    let mut draft = Draft::new(
        "stp_blocking",
        Layer::Link,
        port_name.as_str(),
        Severity::Critical,
        format!("{name} forwards nothing through its port {port_name}"),
    );
    let fact =
        format!("{port_name} of {name} has a carrier and is in state disabled, as a round ago");
    draft.shown("links", "disabled", seen.at, fact);
    if let Some(older) = view.this_boot().find_map(|pass| pass.links.as_ref()) {
        draft.held_since(older.at);
    }
    if let Some(profile) = view.profile() {
        let fact = format!("the operator expects {port_name} to be up");
        draft.backed("profile", "expected", profile.at, fact);
    }
    draft.breaks_links.push(port.index);
    draft.explains(format!("Hosts behind {port_name} are cut off"));
    draft.misses(
        "who switched it off: a guard against loops or foreign bridges, or a hand (its log)",
    );
    draft.next(format!(
        "Make sure that no loop is behind {port_name}, then let the bridge forward there again (`bridge link set dev \
         {port_name} state 3`)"
    ));
    Some(draft)
}

fn state(link: &Link) -> Option<PortState> {
    match link.port {
        Some(Port::Bridge { state, .. }) => Some(state),
        _ => None,
    }
}

fn is_blocking(link: &Link) -> bool {
    state(link) == Some(PortState::Blocking)
}

/// Root, its priority, and whether somebody else is it.
fn root(bridge: &Link) -> Option<(Mac, u16, bool)> {
    match &bridge.detail {
        Some(LinkDetail::Bridge {
            stp: true,
            root: Some(root),
            root_priority,
            root_port,
            ..
        }) => Some((*root, *root_priority, *root_port != 0)),
        _ => None,
    }
}

fn new_root(view: &View<'_>, bridge: &Link) -> Option<Draft> {
    let (root_now, priority, elsewhere) = root(bridge)?;
    let over = view.links_over(WINDOW)?;
    let (before, _) = over.links.iter().find(|(_, l)| l.index == bridge.index)?;
    let (root_before, old_priority, was_elsewhere) = root(before)?;
    // A bridge that is its own root gets another address with another port.
    if root_now == root_before || !(elsewhere || was_elsewhere) {
        return None;
    }
    let name = &bridge.name;
    let mut draft = Draft::new(
        "stp_root_changed",
        Layer::Link,
        name.as_str(),
        Severity::Warning,
        format!("The root of the spanning tree of {name} changed"),
    );
    let fact = format!(
        "{root_now} with priority {priority} is the root of {name}; {} s earlier it was {root_before} with priority \
         {old_priority}",
        over.seconds()
    );
    draft.shown("links", "root", over.to, fact);
    if let Some(LinkDetail::Bridge {
        topology_change: true,
        ..
    }) = bridge.detail
    {
        let fact = format!("a topology change of {name} is under way");
        draft.backed("links", "topology", over.to, fact);
    }
    draft.explains(format!(
        "Traffic behind {name} stops for up to 50 s with each change and may take a longer way"
    ));
    draft.misses("which switch bears the new root's address, and whether it was added on purpose (`aizen links`)");
    draft.next(format!(
        "Find the bridge with {root_now}; give the switch that should be the root the lowest priority, and guard the \
         ports to guests against foreign roots"
    ));
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, Fdb, LogLine};

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
