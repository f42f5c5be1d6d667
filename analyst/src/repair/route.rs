//! Putting a lost default route back.

use std::net::IpAddr;

use aizen_protocol::package::manifest::{Operation, Route, RouteOperation, Value};
use aizen_protocol::proposal::Proposal;

use super::{Draft, interface};
use crate::case::View;

/// A default route over the expected gateway; none if no connected network of a usable link holds it.
pub(crate) fn put_back(view: &View<'_>, gateway: IpAddr) -> Option<Proposal> {
    let index = view.connected(gateway)?;
    let link = view.link(index)?;
    if !link.admin_up || link.carrier == Some(false) {
        return None;
    }
    let dev = interface(view, index)?;
    // An address of our own is no gateway.
    if view
        .global_addresses()
        .any(|ours| ours.address.address == gateway)
    {
        return None;
    }
    let mut draft = Draft::new();
    let via = draft.address(gateway);
    let dst = if gateway.is_ipv4() {
        "default"
    } else {
        "default6"
    };
    draft
        .operations
        .push(Operation::Route(RouteOperation::Add(Route {
            dst: Value::from(dst),
            via: Some(Value(via.clone())),
            dev: Some(dev.to_owned()),
            table: None,
            metric: None,
        })));
    if has_answered(view, gateway) {
        draft.must_answer(gateway);
    }
    if let Some(target) = refused(view, gateway) {
        draft.must_answer(target);
    }
    let script = format!(
        "#!/bin/sh\n\
         # Puts the default route back. `add` fails, and nothing changes, if there is one by then.\n\
         set -eu\n\
         change route add {dst} via \"{via}\" dev {dev}\n"
    );
    let intent = format!("Put the default route over {gateway} on {dev} back");
    Some(draft.propose(intent, script))
}

/// True if the address answers echo requests: one that never did may block them, and would fail a good repair.
fn has_answered(view: &View<'_>, address: IpAddr) -> bool {
    view.backwards()
        .filter_map(|pass| pass.reach.as_ref())
        .flat_map(|seen| &seen.value)
        .any(|reach| reach.target == address && reach.received > 0)
}

/// A target to which the kernel refused to send and that answered while the route was there: it shows that the symptom
/// is gone.
fn refused(view: &View<'_>, gateway: IpAddr) -> Option<IpAddr> {
    let now = view.now().reach.as_ref()?;
    now.value
        .iter()
        .find(|reach| {
            reach.no_route
                && reach.target.is_ipv4() == gateway.is_ipv4()
                && reach.target != gateway
                && has_answered(view, reach.target)
        })
        .map(|reach| reach.target)
}
