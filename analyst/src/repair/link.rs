//! Switching a link on, and lowering its MTU.

use std::net::IpAddr;

use aizen_protocol::package::manifest::{
    Link as LinkSettings, LinkOperation, Operation, Route, RouteOperation, Value,
};
use aizen_protocol::proposal::Proposal;
use aizen_protocol::record::{Link, PathMtu};

use super::{Draft, answering, interface};
use crate::case::{Family, View, default_route, has_default};

/// IPv6 needs 1280 bytes on every link (RFC 8200 section 5); below, the kernel would drop IPv6 from it.
const LEAST_MTU: u16 = 1280;

/// Switches on a link that the operator expects to be up. The kernel dropped the routes over it when it was switched
/// off: the default route is put back with it.
pub(crate) fn switch_on(view: &View<'_>, link: &Link) -> Option<Proposal> {
    let dev = interface(view, link.index)?;
    let mut draft = Draft::new();
    draft.operations.push(set(dev, Some(true), None));
    if let Some(target) = answered_through(view, link.index) {
        draft.must_answer(target);
    }
    let (mut value, mut route) = (String::new(), String::new());
    if let Some(gateway) = lost_gateway(view, link) {
        let via = draft.address(gateway);
        draft
            .operations
            .push(Operation::Route(RouteOperation::Replace(Route {
                dst: Value::from("default"),
                via: Some(Value(via.clone())),
                dev: Some(dev.to_owned()),
                table: None,
                metric: None,
            })));
        // Before the first change: without the value nothing may change.
        value = format!("gateway=\"{via}\"\n");
        route = format!(
            "# The default route went with it. One that is back by then is replaced by the same.\n\
             change route replace default via \"$gateway\" dev {dev}\n"
        );
    }
    let script = format!(
        "#!/bin/sh\n\
         # Switches on a link that is expected to be up.\n\
         set -eu\n\
         {value}change link set {dev} up\n\
         {route}"
    );
    Some(draft.propose(format!("Switch the link {dev} on"), script))
}

/// The gateway of the IPv4 default route that the link lost; none if a DHCP client sets it again.
fn lost_gateway(view: &View<'_>, link: &Link) -> Option<IpAddr> {
    if has_default(view.routes(), Family::V4) || is_leased(view, link) {
        return None;
    }
    let expected = view.profile().and_then(|seen| seen.value.gateway);
    let before = || {
        view.this_boot().find_map(|pass| {
            let route = default_route(&pass.routes.as_ref()?.value, Family::V4)?;
            route.gateway.filter(|_| route.link == Some(link.index))
        })
    };
    expected
        .or_else(before)
        .filter(|gateway| gateway.is_ipv4() && view.connected(*gateway) == Some(link.index))
}

fn is_leased(view: &View<'_>, link: &Link) -> bool {
    view.now().dhcp.as_ref().is_some_and(|seen| {
        let leases = &seen.value.leases;
        seen.value.wanted.contains(&link.name) || leases.iter().any(|l| l.link == link.name)
    })
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
fn answered_through(view: &View<'_>, index: u32) -> Option<IpAddr> {
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
