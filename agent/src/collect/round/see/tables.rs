//! The kernel's tables and the device's own settings: read, not tried.

use aizen_protocol::record::{
    Address, Body, Ethernet, Fdb, Forwarding, Link, NeighbourTable, Queue, Radio, Resolvers, Route,
    Rule,
};
use tokio::time::Instant;

use super::{Part, Told, within};
use crate::collect::schedule::Due;
use crate::collect::{
    CollectError, Seen, Settings, address, aside, ethernet, fdb, forwarding, link, neighbour_table,
    netlink, queue, resolvers, route, rule, wireless,
};

/// What one round keeps for the next.
#[derive(Debug, Default)]
pub(in crate::collect::round) struct Memory {
    fdb: fdb::Memory,
    wireless: wireless::Memory,
}

/// What later stages build on.
#[derive(Debug)]
pub(in crate::collect::round) struct Tables {
    pub(in crate::collect::round) links: Told<Vec<Link>>,
    ethernet: Option<Told<Vec<Ethernet>>>,
    fdb: Told<Fdb>,
    queues: Told<Vec<Queue>>,
    wireless: Told<Radio>,
    pub(in crate::collect::round) addresses: Told<Vec<Address>>,
    pub(in crate::collect::round) routes: Told<Vec<Route>>,
    rules: Told<Vec<Rule>>,
    neighbour_tables: Told<Vec<NeighbourTable>>,
    forwarding: Told<Forwarding>,
    pub(in crate::collect::round) resolvers: Told<Resolvers>,
}

impl Tables {
    pub(in crate::collect::round) fn into_parts(self) -> Vec<Part> {
        let ethernet = self
            .ethernet
            .map(|told| Part::new("ethernet", told, Body::Ethernet));
        let mut parts = vec![
            Part::new("links", self.links, Body::Links),
            Part::new("fdb", self.fdb, Body::Fdb),
            Part::new("queues", self.queues, Body::Queues),
            Part::new("wireless", self.wireless, Body::Wireless),
            Part::new("addresses", self.addresses, Body::Addresses),
            Part::new("routes", self.routes, Body::Routes),
            Part::new("rules", self.rules, Body::Rules),
            Part::new(
                "neighbour_tables",
                self.neighbour_tables,
                Body::NeighbourTables,
            ),
            Part::new("forwarding", self.forwarding, Body::Forwarding),
            Part::new("resolvers", self.resolvers, Body::Resolvers),
        ];
        parts.extend(ethernet);
        parts
    }
}

pub(in crate::collect::round) async fn see(
    settings: &Settings,
    due: &Due,
    memory: &mut Memory,
) -> Tables {
    let (budget, root) = (settings.budgets.local, settings.root.as_path());
    let Memory { fdb, wireless } = memory;
    let (
        (links, ethernet, fdb),
        queues,
        wireless,
        addresses,
        routes,
        rules,
        neighbour_tables,
        forwarding,
        resolvers,
    ) = netlink::sharing(async {
        tokio::join!(
            see_links(settings, due, fdb),
            within(budget, queue::collect()),
            within(budget, wireless::collect(root, wireless)),
            within(budget, address::collect()),
            within(budget, route::collect()),
            within(budget, rule::collect()),
            within(budget, neighbour_table::collect()),
            // What the kernel makes up while it is read can't hang.
            within(budget, async { Ok(forwarding::collect(root)) }),
            within(budget, see_resolvers(settings)),
        )
    })
    .await;
    Tables {
        links,
        ethernet,
        fdb,
        queues,
        wireless,
        addresses,
        routes,
        rules,
        neighbour_tables,
        forwarding,
        resolvers,
    }
}

/// The links, and with what is left of their time what is asked of some of them.
async fn see_links(
    settings: &Settings,
    due: &Due,
    memory: &mut fdb::Memory,
) -> (Told<Vec<Link>>, Option<Told<Vec<Ethernet>>>, Told<Fdb>) {
    let began = Instant::now();
    let links = within(settings.budgets.local, link::collect()).await;
    let left = settings.budgets.local.saturating_sub(began.elapsed());
    let known = || links.value().ok_or(CollectError::Blind("links"));
    let fdb = within(left, async { fdb::collect(known()?, memory).await });
    let ethernet = async {
        let told = within(left, async {
            ethernet::collect(&settings.root, known()?).await
        });
        if due.runs("ethernet") {
            Some(told.await)
        } else {
            None
        }
    };
    let (fdb, ethernet) = tokio::join!(fdb, ethernet);
    (links, ethernet, fdb)
}

async fn see_resolvers(settings: &Settings) -> Result<Seen<Resolvers>, CollectError> {
    // A hand-over to another thread costs more than the file does.
    if let Some(seen) = resolvers::at_hand(&settings.root, &settings.alternates) {
        return Ok(seen);
    }
    let (root, alternates) = (settings.root.clone(), settings.alternates.clone());
    Ok(aside::run("aizen-resolvers", move || {
        resolvers::collect(&root, &alternates)
    })
    .await?)
}
