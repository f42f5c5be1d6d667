//! Next hops of static routes that nobody answers for.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{NeighbourState, Route};

use super::state_in;
use crate::case::{Family, Pass, View, Way, default_route};
use crate::expert::draft::{Draft, Layer};
use crate::expert::gateway::state_name;
use crate::expert::{link, reach};

/// The next hop of a route that leads to a network of its own: the default gateway has rules of its own.
pub(super) fn next_hop(route: &Route) -> Option<IpAddr> {
    let leads = route.kind == "unicast" && !route.destination.is_default();
    route.gateway.filter(|_| leads)
}

/// The next hop of a static route that did not answer a round ago either.
pub(super) fn failed(view: &View<'_>, route: &Route, hop: IpAddr) -> Option<Draft> {
    let index = route.link?;
    let link = view.link(index)?;
    let seen = view.now().neighbours.as_ref()?;
    let dead = |pass: &Pass| {
        state_in(pass, index, hop)
            .is_some_and(|(s, _)| matches!(s, NeighbourState::Failed | NeighbourState::Incomplete))
    };
    let before = view.read_anew(|pass| pass.neighbours.as_ref()).nth(1)?;
    let is_default = [Family::V4, Family::V6].iter().any(|&family| {
        default_route(view.routes(), family).is_some_and(|route| route.gateway == Some(hop))
    });
    let answers = reach::ping(view.now(), hop).is_some_and(|ping| ping.received > 0);
    if !dead(view.now()) || !dead(before) || is_default || answers {
        return None;
    }
    let (state, _) = state_in(view.now(), index, hop)?;
    let name = &link.name;
    let mut draft = Draft::new(
        "neighbour_failed",
        Layer::Neighbour,
        hop.to_string(),
        Severity::Warning,
        format!(
            "The next hop {hop} on {name} does not answer: {} is not reached",
            route.destination
        ),
    );
    let fact = format!(
        "the neighbour entry of {hop} is {}, as in the round before",
        state_name(state)
    );
    draft.shown("neighbours", "next_hop", seen.at, fact);
    if let Some(older) = &before.neighbours {
        draft.held_since(older.at);
    }
    if let Some(ping) = reach::ping(view.now(), hop).filter(|ping| ping.sent > 0) {
        draft.shown("reach", "next_hop", ping.at, ping.fact(hop));
    }
    if let Some(links) = view
        .now()
        .links
        .as_ref()
        .filter(|_| !link::is_without_carrier(link))
    {
        let fact = format!("{name} has a carrier, so the cable is not the cause");
        draft.noted("links", links.at, fact);
    }
    draft.rests_on = Some(Way {
        link: Some(index),
        beyond: None,
    });
    draft.misses(format!(
        "whether {hop} answers other hosts of that network (`aizen ping {hop}`, `aizen neighbours`)"
    ));
    draft.next(format!(
        "Check that the router with {hop} is powered and still has this address; flush the entry \
         (`ip neigh flush to {hop} dev {name}`) once it does"
    ));
    Some(draft)
}
