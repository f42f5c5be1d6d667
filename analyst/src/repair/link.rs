//! Switching a link on, and lowering its MTU.

use aizen_protocol::package::manifest::{Link as LinkSettings, LinkOperation, Operation};
use aizen_protocol::proposal::Proposal;
use aizen_protocol::record::{Link, PathMtu};

use super::{Draft, answering, interface};
use crate::case::View;

/// IPv6 needs 1280 bytes on every link (RFC 8200 section 5); below, the kernel would drop IPv6 from it.
const LEAST_MTU: u16 = 1280;

/// Switches on a link that the operator expects to be up.
pub(crate) fn switch_on(view: &View<'_>, link: &Link) -> Option<Proposal> {
    let dev = interface(view, link.index)?;
    let mut draft = Draft::new();
    draft.operations.push(set(dev, Some(true), None));
    if let Some(target) = answered_through(view, link.index) {
        draft.must_answer(target);
    }
    let script = format!(
        "#!/bin/sh\n\
         # Switches on a link that is expected to be up.\n\
         set -eu\n\
         change link set {dev} up\n"
    );
    Some(draft.propose(format!("Switch the link {dev} on"), script))
}

/// Lowers a link's MTU to what the path carries.
pub(crate) fn lower_mtu(
    view: &View<'_>,
    link: Option<u32>,
    mtu: u16,
    targets: String,
    holes: &[&PathMtu],
) -> Option<Proposal> {
    let index = link?;
    let dev = interface(view, index)?;
    let is_lower = u32::from(mtu) < view.link(index)?.mtu;
    if mtu < LEAST_MTU || !is_lower {
        return None;
    }
    let mut draft = Draft::new();
    draft.operations.push(set(dev, None, Some(mtu.into())));
    for path in holes.iter().take(2) {
        draft.must_answer(path.target);
    }
    if let Some(target) = answering(view) {
        draft.must_answer(target);
    }
    let script = format!(
        "#!/bin/sh\n\
         # Sends packets no larger than the path carries: {mtu} bytes.\n\
         set -eu\n\
         change link set {dev} mtu {mtu}\n"
    );
    let intent =
        format!("Lower the MTU of {dev} to {mtu} bytes, the largest that reaches {targets}");
    Some(draft.propose(intent, script))
}

/// Gives a link its earlier MTU back.
pub(crate) fn restore_mtu(view: &View<'_>, link: &Link, mtu: u32) -> Option<Proposal> {
    let dev = interface(view, link.index)?;
    let mut draft = Draft::new();
    draft.operations.push(set(dev, None, Some(mtu)));
    if let Some(target) = answering(view) {
        draft.must_answer(target);
    }
    let script = format!(
        "#!/bin/sh\n\
         # Gives the link the MTU back that it had before: {mtu} bytes.\n\
         set -eu\n\
         change link set {dev} mtu {mtu}\n"
    );
    let intent = format!("Give {dev} its MTU of {mtu} bytes back");
    Some(draft.propose(intent, script))
}

fn set(dev: &str, up: Option<bool>, mtu: Option<u32>) -> Operation {
    Operation::Link(LinkOperation::Set(LinkSettings {
        dev: dev.to_owned(),
        up,
        mtu,
    }))
}

/// A neighbour or gateway that answered through this link earlier in this boot.
fn answered_through(view: &View<'_>, index: u32) -> Option<std::net::IpAddr> {
    view.this_boot().find_map(|pass| {
        let routes = pass.routes.as_ref()?;
        let reach = pass.reach.as_ref()?;
        let through = |address| {
            routes.value.iter().any(|route| {
                route.link == Some(index)
                    && (route.gateway == Some(address)
                        || route.gateway.is_none()
                            && !route.destination.is_default()
                            && route.destination.contains(address))
            })
        };
        let mut answered = reach.value.iter().filter(|reach| reach.received > 0);
        answered
            .find(|reach| through(reach.target))
            .map(|reach| reach.target)
    })
}
