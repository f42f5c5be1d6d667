//! The kernel's tables and the device's own settings: read, not tried.

use aizen_protocol::record::{Address, Body, Forwarding, Link, Resolvers, Route, Rule};

use super::{Part, Told, within};
use crate::collect::{
    CollectError, Seen, Settings, address, aside, forwarding, link, resolvers, route, rule,
};

/// What later stages build on.
#[derive(Debug)]
pub(in crate::collect::round) struct Tables {
    pub(in crate::collect::round) links: Told<Vec<Link>>,
    pub(in crate::collect::round) addresses: Told<Vec<Address>>,
    pub(in crate::collect::round) routes: Told<Vec<Route>>,
    rules: Told<Vec<Rule>>,
    forwarding: Told<Forwarding>,
    pub(in crate::collect::round) resolvers: Told<Resolvers>,
}

impl Tables {
    pub(in crate::collect::round) fn into_parts(self) -> Vec<Part> {
        vec![
            Part::new("links", self.links, Body::Links),
            Part::new("addresses", self.addresses, Body::Addresses),
            Part::new("routes", self.routes, Body::Routes),
            Part::new("rules", self.rules, Body::Rules),
            Part::new("forwarding", self.forwarding, Body::Forwarding),
            Part::new("resolvers", self.resolvers, Body::Resolvers),
        ]
    }
}

pub(in crate::collect::round) async fn see(settings: &Settings) -> Tables {
    let budget = settings.budgets.local;
    let (links, addresses, routes, rules, forwarding, resolvers) = tokio::join!(
        within(budget, link::collect()),
        within(budget, address::collect()),
        within(budget, route::collect()),
        within(budget, rule::collect()),
        within(budget, see_forwarding(settings)),
        within(budget, see_resolvers(settings)),
    );
    Tables {
        links,
        addresses,
        routes,
        rules,
        forwarding,
        resolvers,
    }
}

async fn see_forwarding(settings: &Settings) -> Result<Seen<Forwarding>, CollectError> {
    let root = settings.root.clone();
    Ok(aside::run("aizen-forwarding", move || forwarding::collect(&root)).await?)
}

async fn see_resolvers(settings: &Settings) -> Result<Seen<Resolvers>, CollectError> {
    let (root, alternates) = (settings.root.clone(), settings.alternates.clone());
    Ok(aside::run("aizen-resolvers", move || {
        resolvers::collect(&root, &alternates)
    })
    .await?)
}
