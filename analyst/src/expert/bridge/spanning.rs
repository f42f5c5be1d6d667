//! Spanning tree: uplinks that it blocks, ports that it switched off, a root that changed.

use aizen_protocol::finding::Severity;
use aizen_protocol::private::Mac;
use aizen_protocol::record::{Link, LinkDetail, Port, PortState};
use jiff::SignedDuration;

use super::{ports, ways_out};
use crate::case::View;
use crate::expert::draft::{Draft, Layer};
use crate::expert::link;
use crate::expert::unit::list;

/// How far back a change of the root counts.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// Spanning tree blocks every way towards the provider, and did so a round ago.
pub(super) fn blocked(view: &View<'_>, bridge: &Link) -> Option<Draft> {
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
pub(super) fn switched_off(view: &View<'_>, bridge: &Link) -> Option<Draft> {
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

pub(super) fn new_root(view: &View<'_>, bridge: &Link) -> Option<Draft> {
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
