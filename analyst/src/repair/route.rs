//! Default routes put back, put in order; routes that swallow removed.

use std::net::IpAddr;

use aizen_protocol::package::manifest::{Operation, Route, RouteOperation, Value};
use aizen_protocol::proposal::Proposal;
use aizen_protocol::record;

use super::{Draft, answering, interface};
use crate::case::View;

/// The metric of a default route that steps back.
const SPARE_METRIC: u32 = 1024;

/// A default route over the expected gateway; none if no connected network of a usable link holds it.
pub(crate) fn put_back(view: &View<'_>, gateway: IpAddr) -> Option<Proposal> {
    let dev = usable(view, gateway)?;
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

/// The link of the connected network that holds the gateway, if it can carry.
fn usable<'a>(view: &View<'a>, gateway: IpAddr) -> Option<&'a str> {
    let index = view.connected(gateway)?;
    let link = view.link(index)?;
    // An address of our own is no gateway.
    let is_ours = view
        .global_addresses()
        .any(|ours| ours.address.address == gateway);
    let carries = link.admin_up && link.carrier != Some(false) && !is_ours;
    carries.then(|| interface(view, index)).flatten()
}

/// Lets the expected gateway's default route count before the present one. IPv4 alone: in IPv6 no metric means 1024, and
/// routes of one metric stand beside each other.
pub(crate) fn prefer(
    view: &View<'_>,
    gateway: IpAddr,
    present: &record::Route,
) -> Option<Proposal> {
    let dev = usable(view, gateway).filter(|_| gateway.is_ipv4())?;
    let mut draft = Draft::new();
    let via = draft.address(gateway);
    let route = Route {
        dst: Value::from("default"),
        via: Some(Value(via.clone())),
        dev: Some(dev.to_owned()),
        table: None,
        metric: None,
    };
    // Of metric 0 there can be one: it is replaced. Before any other metric it simply comes first.
    let (word, operation) = if present.metric.unwrap_or(0) == 0 {
        ("replace", RouteOperation::Replace(route))
    } else {
        ("add", RouteOperation::Add(route))
    };
    draft.operations.push(Operation::Route(operation));
    if has_answered(view, gateway) {
        draft.must_answer(gateway);
    }
    if let Some(target) = answering(view) {
        draft.must_answer(target);
    }
    let script = format!(
        "#!/bin/sh\n\
         # Lets the default route over the expected gateway count.\n\
         set -eu\n\
         change route {word} default via \"{via}\" dev {dev}\n"
    );
    let intent = format!("Let the default route over {gateway} on {dev} count");
    Some(draft.propose(intent, script))
}

/// Gives one of two default routes of the same metric a higher one, so that the one over `keeper` counts.
pub(crate) fn demote(view: &View<'_>, loser: &record::Route, keeper: IpAddr) -> Option<Proposal> {
    let gateway = loser.gateway.filter(IpAddr::is_ipv4)?;
    let dev = interface(view, loser.link?)?;
    let old = loser.metric.filter(|metric| *metric != 0);
    let is_taken = view.routes().iter().any(|route| {
        route.destination == loser.destination
            && route.table == loser.table
            && route.metric == Some(SPARE_METRIC)
    });
    if is_taken || old.is_some_and(|old| old >= SPARE_METRIC) {
        return None;
    }
    let mut draft = Draft::new();
    let via = draft.address(gateway);
    let with = |metric| Route {
        dst: Value::from("default"),
        via: Some(Value(via.clone())),
        dev: Some(dev.to_owned()),
        table: None,
        metric,
    };
    draft.operations.extend([
        Operation::Route(RouteOperation::Add(with(Some(SPARE_METRIC)))),
        Operation::Route(RouteOperation::Delete(with(old))),
    ]);
    if has_answered(view, keeper) {
        draft.must_answer(keeper);
    }
    if let Some(target) = answering(view) {
        draft.must_answer(target);
    }
    let old = old.map_or_else(String::new, |old| format!(" metric {old}"));
    let script = format!(
        "#!/bin/sh\n\
         # Keeps the second default route for spare, with a higher metric.\n\
         set -eu\n\
         change route add default via \"{via}\" dev {dev} metric {SPARE_METRIC}\n\
         change route delete default via \"{via}\" dev {dev}{old}\n"
    );
    let intent = format!(
        "Give the default route over {gateway} on {dev} the metric {SPARE_METRIC}, so that the one over {keeper} counts"
    );
    Some(draft.propose(intent, script))
}

/// Removes a route that swallows what should be reached.
pub(crate) fn remove_hole(
    view: &View<'_>,
    hole: &record::Route,
    lost: &[IpAddr],
) -> Option<Proposal> {
    // One that the kernel made comes back by itself.
    if hole.protocol == "kernel" {
        return None;
    }
    let net = hole.destination;
    let mut draft = Draft::new();
    let (dst, word) = match (net.is_default(), net.address.is_ipv4()) {
        (true, true) => ("default".to_owned(), "default".to_owned()),
        (true, false) => ("default6".to_owned(), "default6".to_owned()),
        (false, _) => {
            let net = draft.prefix(net);
            (net.clone(), format!("\"{net}\""))
        }
    };
    let metric = hole.metric.filter(|metric| *metric != 0);
    draft
        .operations
        .push(Operation::Route(RouteOperation::Delete(Route {
            dst: Value(dst),
            via: None,
            dev: None,
            table: None,
            metric,
        })));
    for target in lost.iter().filter(|target| has_answered(view, **target)) {
        draft.must_answer(*target);
    }
    if let Some(target) = answering(view) {
        draft.must_answer(target);
    }
    let metric = metric.map_or_else(String::new, |metric| format!(" metric {metric}"));
    let script = format!(
        "#!/bin/sh\n\
         # Removes a route that swallows packets.\n\
         set -eu\n\
         change route delete {word}{metric}\n"
    );
    let intent = format!("Remove the {} route to {net}", hole.kind);
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
