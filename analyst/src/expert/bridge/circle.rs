//! Frames that go round: addresses that jump between ports, and storms of multicast.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{FdbMoves, Link, LinkDetail, LogOrigin};
use jiff::SignedDuration;

use super::ways_out;
use crate::case::{View, counted};
use crate::expert::draft::{Draft, Layer};
use crate::expert::duplicate::is_virtual_router;
use crate::expert::unit::list;

/// Moves of one address between ports in one round: a guest that roams makes one or two.
const MOVES: u32 = 10;

/// Multicast packets a second on a port that are a storm.
const STORM: u64 = 1_000;

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

pub(super) fn looping(view: &View<'_>, bridge: &Link) -> Option<Draft> {
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
