//! What one round sees: the kernel's tables first, then the probes that build on them, each within its budget.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aizen_protocol::record::{
    Address, DnsProbe, Duplicate, Forwarding, Host, Link, Neighbour, PathMtu, Reach, Resolvers,
    Route, Rule, Time,
};
use futures_util::FutureExt;
use jiff::Timestamp;

use crate::clock;
use crate::collect::disk::Hung;
use crate::collect::host::Ticks;
use crate::collect::{
    CollectError, Seen, Settings, address, aside, disk, duplicate, forwarding, host, link,
    neighbour, path_mtu, reach, resolve, resolvers, route, rule, sntp,
};

/// Which rare collectors run in this round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) path_mtu: bool,
    pub(super) arp: bool,
    pub(super) time: bool,
}

/// A collector's result and when it came.
#[derive(Debug)]
pub(super) struct Told<T> {
    pub(super) at: Timestamp,
    pub(super) result: Result<Seen<T>, CollectError>,
}

impl<T> Told<T> {
    pub(super) fn value(&self) -> Option<&T> {
        self.result.as_ref().ok().map(|seen| &seen.value)
    }

    pub(super) fn map<U>(self, wrap: impl FnOnce(T) -> U) -> Told<U> {
        let result = self.result.map(|seen| Seen {
            value: wrap(seen.value),
            gaps: seen.gaps,
        });
        Told {
            at: self.at,
            result,
        }
    }
}

/// Runs one collector within its budget; a panic ends it alone.
pub(super) async fn within<T>(
    budget: Duration,
    work: impl Future<Output = Result<Seen<T>, CollectError>>,
) -> Told<T> {
    let result = match tokio::time::timeout(budget, AssertUnwindSafe(work).catch_unwind()).await {
        Err(_) => Err(CollectError::DeadlinePassed(budget)),
        Ok(Err(_)) => Err(CollectError::Panicked),
        Ok(Ok(result)) => result,
    };
    Told {
        at: clock::now(),
        result,
    }
}

/// Everything about the network: first the kernel's tables, then the probes that need them.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) links: Told<Vec<Link>>,
    pub(super) addresses: Told<Vec<Address>>,
    pub(super) routes: Told<Vec<Route>>,
    pub(super) rules: Told<Vec<Rule>>,
    pub(super) neighbours: Told<Vec<Neighbour>>,
    pub(super) forwarding: Told<Forwarding>,
    pub(super) resolvers: Told<Resolvers>,
    pub(super) dns: Told<Vec<DnsProbe>>,
    pub(super) reach: Told<Vec<Reach>>,
    pub(super) path_mtu: Option<Told<Vec<PathMtu>>>,
    pub(super) arp: Option<Told<Vec<Duplicate>>>,
}

pub(super) async fn network(settings: &Settings, due: Due) -> Network {
    let budgets = &settings.budgets;
    let (links, addresses, routes, rules, forwarding, resolvers) = tokio::join!(
        within(budgets.local, link::collect()),
        within(budgets.local, address::collect()),
        within(budgets.local, route::collect()),
        within(budgets.local, rule::collect()),
        within(budgets.local, see_forwarding(settings)),
        within(budgets.local, see_resolvers(settings)),
    );
    let (dns, (reach, neighbours), path_mtu, arp) = tokio::join!(
        see_dns(settings, resolvers.value()),
        async {
            let reach = see_reach(settings, routes.value(), resolvers.value()).await;
            // After the probes: they make the kernel ask for those neighbours.
            (
                reach,
                within(budgets.neighbours, neighbour::collect()).await,
            )
        },
        see_path_mtu(settings, due, links.value(), resolvers.value()),
        see_arp(settings, due, links.value(), addresses.value()),
    );
    Network {
        links,
        addresses,
        routes,
        rules,
        neighbours,
        forwarding,
        resolvers,
        dns,
        reach,
        path_mtu,
        arp,
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

async fn see_dns(settings: &Settings, resolvers: Option<&Resolvers>) -> Told<Vec<DnsProbe>> {
    let work = async {
        let resolvers = resolvers.ok_or(CollectError::Blind("resolvers"))?;
        Ok(resolve::collect(resolvers, &settings.names, settings.asking).await)
    };
    within(settings.budgets.probe, work).await
}

async fn see_reach(
    settings: &Settings,
    routes: Option<&Vec<Route>>,
    resolvers: Option<&Resolvers>,
) -> Told<Vec<Reach>> {
    let work = async {
        // Without routes nobody knows the gateways, and without resolv.conf the resolvers: the rest is still asked.
        let routes = routes.map(Vec::as_slice).unwrap_or_default();
        let none = Resolvers::default();
        let targets = reach::targets(
            routes,
            resolvers.unwrap_or(&none),
            &settings.anchors,
            settings.gateway,
        );
        Ok(reach::ping(&targets, settings.pinging).await)
    };
    within(settings.budgets.probe, work).await
}

async fn see_path_mtu(
    settings: &Settings,
    due: Due,
    links: Option<&Vec<Link>>,
    resolvers: Option<&Resolvers>,
) -> Option<Told<Vec<PathMtu>>> {
    let targets = path_targets(settings, resolvers);
    if !due.path_mtu || targets.is_empty() {
        return None;
    }
    let work = async {
        let links = links.ok_or(CollectError::Blind("links"))?;
        // Ends by itself a little earlier, so that what is known by then is told.
        Ok(path_mtu::collect(&targets, links, settings.budgets.probe * 9 / 10).await)
    };
    Some(within(settings.budgets.probe, work).await)
}

/// The anchors; with none, the resolvers that packets leave the device for.
fn path_targets(settings: &Settings, resolvers: Option<&Resolvers>) -> Vec<IpAddr> {
    if !settings.anchors.is_empty() {
        return settings.anchors.clone();
    }
    let configured = resolvers
        .map(|r| r.configured.as_slice())
        .unwrap_or_default();
    configured
        .iter()
        .copied()
        .filter(|r| !r.is_loopback())
        .collect()
}

async fn see_arp(
    settings: &Settings,
    due: Due,
    links: Option<&Vec<Link>>,
    addresses: Option<&Vec<Address>>,
) -> Option<Told<Vec<Duplicate>>> {
    if !due.arp {
        return None;
    }
    let work = async {
        let links = links.ok_or(CollectError::Blind("links"))?;
        let addresses = addresses.ok_or(CollectError::Blind("addresses"))?;
        Ok(duplicate::probe(&duplicate::candidates(links, addresses), ARP_LISTENS).await)
    };
    Some(within(settings.budgets.probe, work).await)
}

pub(super) async fn time(settings: &Settings, due: Due) -> Option<Told<Time>> {
    if !due.time {
        return None;
    }
    let work = async { Ok(sntp::collect(&settings.ntp, SNTP_WAITS).await) };
    Some(within(settings.budgets.probe, work).await)
}

pub(super) async fn host(
    settings: &Settings,
    before: Option<Ticks>,
    hung: &Hung,
) -> (Told<Host>, Option<Ticks>) {
    let root = settings.root.clone();
    let mut ticks = None;
    let work = async {
        let (read, disks) = tokio::join!(
            aside::run("aizen-host", move || host::collect(&root, before)),
            disk::collect(&settings.root, hung, settings.budgets.disk),
        );
        let (mut seen, after) = read?;
        ticks = after;
        seen.value.disks = disks.value;
        seen.gaps.extend(disks.gaps);
        Ok(seen)
    };
    let told = within(settings.budgets.probe, work).await;
    (told, ticks)
}

/// RFC 5227 waits up to 2 s after the last probe; on a wired network an answer takes milliseconds.
const ARP_LISTENS: Duration = Duration::from_millis(1200);
const SNTP_WAITS: Duration = Duration::from_millis(2000);
