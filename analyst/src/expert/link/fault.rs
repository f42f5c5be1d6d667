//! The three ways in which a link is down: without a carrier, switched off, gone.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Link, OperState};

use super::{Duty, WaysOut, cut_off, is_without_carrier};
use crate::case::{Family, View, Way, default_route, growth};
use crate::expert::draft::{Draft, Layer};
use crate::expert::optic;
use crate::expert::pppoe;
use crate::expert::unit::list;
use crate::repair;

/// Administratively up, but nothing on the other end.
pub(super) fn down(view: &View<'_>, link: &Link, duty: &Duty) -> Draft {
    let severity = if duty.named || !duty.default.is_empty() {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let summary = format!("{} is switched on but has no carrier", link.name);
    let mut draft = Draft::new(
        "link_down",
        Layer::Link,
        link.name.as_str(),
        severity,
        summary,
    );
    let at = view
        .now()
        .links
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    let carrier = match link.carrier {
        Some(true) => "on",
        Some(false) => "off",
        None => "not told by the driver",
    };
    let oper = oper_name(link.oper);
    draft.shown(
        "links",
        "carrier",
        at,
        format!(
            "{}: administratively up, operational state {oper}, carrier {carrier}",
            link.name
        ),
    );
    traffic(&mut draft, view, link);
    why(&mut draft, view, link, duty);
    dark(&mut draft, view, link);
    // What else says that this very link can't carry (weak light, a bond that lost a port) explains it.
    draft.rests_on = Some(Way {
        link: Some(lower_link(view, link).unwrap_or(link.index)),
        beyond: session_family(link, duty),
    });
    draft.breaks_links.push(link.index);
    draft.breaks_beyond.clone_from(&duty.default);
    draft.misses(format!(
        "the other end's view: whether the peer of {} is powered and its port is on (`aizen links --watch` shows \
         the carrier here)",
        link.name
    ));
    draft.next(format!(
        "Check that the device at the other end of {} is powered and its port is on; reseat the cable or SFP at both \
         ends, then try another cable and another port",
        link.name
    ));
    draft
}

/// Expected by the operator, but administratively down.
pub(super) fn switched_off(view: &View<'_>, link: &Link, duty: &Duty) -> Draft {
    let summary = format!(
        "{} is switched off although it is expected to be up",
        link.name
    );
    let mut draft = Draft::new(
        "link_admin_down",
        Layer::Link,
        link.name.as_str(),
        Severity::Critical,
        summary,
    );
    let at = view
        .now()
        .links
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    draft.shown(
        "links",
        "admin",
        at,
        format!("{}: administratively down (IFF_UP is missing)", link.name),
    );
    traffic(&mut draft, view, link);
    why(&mut draft, view, link, duty);
    draft.breaks_links.push(link.index);
    draft.breaks_beyond.clone_from(&duty.default);
    draft.misses(format!(
        "who switched it off, and whether on purpose: the configuration of {} and the log of the network service \
         (`aizen links` shows its state)",
        link.name
    ));
    draft.next(format!(
        "Find out whether somebody switched {0} off on purpose; if not, switch it on (`ip link set {0} up`)",
        link.name
    ));
    draft.propose(repair::link::switch_on(view, link));
    draft
}

/// Expected by the operator, but the kernel has no such link; or a dial-up session's that waits for its session.
pub(super) fn absent(view: &View<'_>, name: &str, out: &WaysOut) -> Draft {
    let waits = view.links().iter().any(|link| link.name == name);
    let summary = if waits {
        format!("{name} is expected to be up but its dial-up has no session")
    } else {
        format!("{name} is expected to be up but does not exist")
    };
    let mut draft = Draft::new("link_down", Layer::Link, name, Severity::Critical, summary);
    let at = view
        .now()
        .links
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    let fact = if waits {
        format!("{name} is not switched on: whoever dials does that once the session stands")
    } else {
        format!("the kernel lists no interface named {name}")
    };
    draft.shown("links", "absent", at, fact);
    if let Some(profile) = view.profile() {
        let fact = format!("the operator expects {name} to be up");
        draft.backed("profile", "expected", profile.at, fact);
    }
    let earlier = view.this_boot().find_map(|pass| {
        let links = pass.links.as_ref()?;
        let index = links.value.iter().find(|link| link.name == name)?.index;
        Some((links.at, index))
    });
    if let Some((at, index)) = earlier {
        draft.backed(
            "links",
            "earlier",
            at,
            format!("{name} was there earlier in this boot"),
        );
        draft.breaks_links.push(index);
    }
    draft.breaks_beyond = cut_off(view, name, earlier.map(|(_, index)| index), out);
    if pppoe::is_session(name) {
        draft.rests_on = Some(Way {
            link: pppoe::carrier(view),
            beyond: draft.breaks_beyond.first().copied(),
        });
    }
    if waits {
        draft.misses(format!("the log of the program that dials {name}"));
        draft.next(format!(
            "Read what the program that dials {name} logged, and check the account and the line"
        ));
        return draft;
    }
    draft.misses("the kernel's messages about the adapter or module (`dmesg`)");
    draft.next(format!(
        "Check that the adapter behind {name} is plugged in and powered, and that the interface still has this name \
         (`aizen links`)"
    ));
    draft
}

/// What the counters did since the pass before.
fn traffic(draft: &mut Draft, view: &View<'_>, link: &Link) {
    let before = view.this_boot().find_map(|pass| {
        let links = pass.links.as_ref()?;
        links
            .value
            .iter()
            .find(|older| older.index == link.index && older.name == link.name)
    });
    let Some((before, seen)) = before.zip(view.now().links.as_ref()) else {
        return;
    };
    let growth = growth(before, link);
    if let Some(changes) = growth.carrier_changes.filter(|&changes| changes > 0) {
        let fact = format!(
            "the carrier of {} came or went {changes} times since the round before",
            link.name
        );
        draft.noted("links", seen.at, fact);
    }
    match (growth.rx_packets, growth.tx_packets) {
        (Some(0), Some(sent)) => draft.noted(
            "links",
            seen.at,
            format!(
                "{} received 0 and sent {sent} packets since the round before",
                link.name
            ),
        ),
        (Some(received), _) if before.carrier == Some(false) => draft.contradicted(
            "links",
            seen.at,
            format!(
                "{} received {received} packets since the round before",
                link.name
            ),
        ),
        _ => {}
    }
}

/// Why it is a fault that this link is down.
fn why(draft: &mut Draft, view: &View<'_>, link: &Link, duty: &Duty) {
    if let Some(profile) = view.profile().filter(|_| duty.named) {
        let fact = format!("the operator expects {} to be up", link.name);
        draft.backed("profile", "expected", profile.at, fact);
    }
    let now = view.now();
    let default = default_route(view.routes(), Family::V4)
        .or_else(|| default_route(view.routes(), Family::V6));
    if let Some((seen, _)) = now
        .routes
        .as_ref()
        .zip(default)
        .filter(|(_, route)| route.link == Some(link.index))
    {
        let fact = format!("the default route leaves through {}", link.name);
        draft.backed("routes", "default", seen.at, fact);
    }
    if let Some(seen) = now
        .addresses
        .as_ref()
        .filter(|_| !duty.addresses.is_empty())
    {
        let fact = format!("{} carries {}", link.name, list(&duty.addresses));
        draft.backed("addresses", "carried", seen.at, fact);
    }
    let carried = view.this_boot().find_map(|pass| {
        let links = pass.links.as_ref()?;
        let had = |older: &Link| older.index == link.index && older.carrier == Some(true);
        links.value.iter().any(had).then_some(links.at)
    });
    if let Some(at) = carried {
        let fact = format!("{} had a carrier earlier in this boot", link.name);
        draft.noted("links", at, fact);
    }
}

/// What the module in the port and the driver say about the missing carrier.
fn dark(draft: &mut Draft, view: &View<'_>, link: &Link) {
    if let Some((at, fact)) = optic::no_light(view, link.index) {
        draft.backed("modules", "light", at, fact);
    }
    let ports = view.now().ethernet.as_ref();
    let reason = ports.and_then(|seen| {
        let port = seen.value.iter().find(|port| port.link == link.index)?;
        Some((seen.at, port.down_reason.as_ref()?))
    });
    if let Some((at, reason)) = reason {
        let fact = format!("the driver of {} says: {reason}", link.name);
        draft.noted("ethernet", at, fact);
    }
}

/// A dial-up session is down with the line under it, which cuts off its family and may have no number.
fn session_family(link: &Link, duty: &Duty) -> Option<Family> {
    duty.default
        .first()
        .copied()
        .filter(|_| pppoe::is_session(&link.name))
}

/// The link below: the parent of a VLAN, or a port of a bridge or bond that is down itself.
fn lower_link(view: &View<'_>, link: &Link) -> Option<u32> {
    if pppoe::is_session(&link.name) {
        return pppoe::carrier(view);
    }
    let kind = link.driver_kind.as_deref();
    // A veth's lower link is its peer, which may have its number in another namespace.
    let is_stacked = kind.is_some_and(|kind| ["vlan", "macvlan", "ipvlan"].contains(&kind));
    if let Some(parent) = link.parent.filter(|_| is_stacked) {
        return Some(parent);
    }
    if let Some(parent) = link
        .name
        .rsplit_once('.')
        .and_then(|(parent, _)| view.links().iter().find(|other| other.name == parent))
    {
        return Some(parent.index);
    }
    view.links()
        .iter()
        .find(|port| port.master == Some(link.index) && port.admin_up && is_without_carrier(port))
        .map(|port| port.index)
}

/// RFC 2863's name of the state.
fn oper_name(state: OperState) -> &'static str {
    match state {
        OperState::Unknown => "unknown",
        OperState::NotPresent => "notPresent",
        OperState::Down => "down",
        OperState::LowerLayerDown => "lowerLayerDown",
        OperState::Testing => "testing",
        OperState::Dormant => "dormant",
        OperState::Up => "up",
    }
}
