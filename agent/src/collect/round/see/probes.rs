//! What is tried over the network, and the neighbours that the trying makes the kernel ask for.

use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::record::{
    Body, Certificate, Connect, DnsProbe, Link, PathMtu, Portal, Reach, Resolvers, Route, Time,
    Trace,
};

use tokio::time::Instant;

use super::tables::Tables;
use super::{Part, Told, within};
use crate::collect::schedule::Due;
use crate::collect::{
    CollectError, Seen, Settings, certificate, connect, neighbour, path_mtu, portal, reach,
    resolve, sntp, trace,
};

/// Every probe that is due, side by side.
pub(in crate::collect::round) async fn see(
    settings: &Settings,
    due: &Due,
    tables: &Tables,
) -> Vec<Part> {
    let (links, resolvers) = (tables.links.value(), tables.resolvers.value());
    let ends = Instant::now() + settings.budgets.probe;
    let ((dns, connects), (reach, neighbours, traces), path_mtu, time, certificates, portal) = tokio::join!(
        async {
            let dns = see_dns(settings, resolvers).await;
            let connects = see_connects(settings, due, resolvers, dns.value(), ends).await;
            (dns, connects)
        },
        async {
            let reach = see_reach(settings, tables.routes.value(), resolvers).await;
            // After the probes: they make the kernel ask for those neighbours.
            let (neighbours, traces) = tokio::join!(
                within(settings.budgets.neighbours, neighbour::collect()),
                see_traces(settings, due, resolvers, reach.value(), ends),
            );
            (reach, neighbours, traces)
        },
        see_path_mtu(settings, due, links, resolvers),
        see_time(settings, due),
        see_certificates(settings, due, resolvers),
        see_portal(settings, due, resolvers),
    );
    let mut parts = vec![
        Part::new("neighbours", neighbours, Body::Neighbours),
        Part::new("dns", dns, Body::Dns),
        Part::new("reach", reach, Body::Reach),
    ];
    parts.extend(connects.map(|told| Part::new("connects", told, Body::Connects)));
    parts.extend(traces.map(|told| Part::new("traces", told, Body::Traces)));
    parts.extend(path_mtu.map(|told| Part::new("path_mtu", told, Body::PathMtu)));
    parts.extend(time.map(|told| Part::new("time", told, Body::Time)));
    parts.extend(certificates.map(|told| Part::new("certificates", told, Body::Certificates)));
    parts.extend(portal.map(|told| Part::new("portal", told, Body::Portal)));
    parts
}

/// True for a part that holds a trace.
pub(in crate::collect::round) fn traced(part: &Part) -> bool {
    matches!(part.told.value(), Some(Body::Traces(traces)) if !traces.is_empty())
}

async fn see_connects(
    settings: &Settings,
    due: &Due,
    resolvers: Option<&Resolvers>,
    dns: Option<&Vec<DnsProbe>>,
    ends: Instant,
) -> Option<Told<Vec<Connect>>> {
    if !due.runs("connects") {
        return None;
    }
    let left = ends.saturating_duration_since(Instant::now());
    let targets = connect::targets(&settings.anchors, resolvers, &settings.names, dns);
    Some(within(left, connect::collect(targets, left)).await)
}

async fn see_traces(
    settings: &Settings,
    due: &Due,
    resolvers: Option<&Resolvers>,
    reach: Option<&Vec<Reach>>,
    ends: Instant,
) -> Option<Told<Vec<Trace>>> {
    if !due.runs("traces") {
        return None;
    }
    let left = ends.saturating_duration_since(Instant::now());
    let target = trace::target(&settings.anchors, resolvers, reach, due.asked());
    Some(within(left, trace::collect(target, left)).await)
}

async fn see_dns(settings: &Settings, resolvers: Option<&Resolvers>) -> Told<Vec<DnsProbe>> {
    let work = async {
        let resolvers = resolvers.ok_or(CollectError::Blind("resolvers"))?;
        let wanted = resolve::Wanted {
            names: &settings.names,
            encrypted: &settings.dot,
            root: &settings.root,
            asking: settings.asking,
        };
        Ok(resolve::collect(resolvers, wanted).await)
    };
    within(settings.budgets.probe, work).await
}

async fn see_certificates(
    settings: &Settings,
    due: &Due,
    resolvers: Option<&Resolvers>,
) -> Option<Told<Vec<Certificate>>> {
    let wanted = !settings.certificates.is_empty() || settings.state.is_some();
    if !wanted || !due.runs("certificates") {
        return None;
    }
    let wanted = certificate::Wanted {
        hosts: settings.certificates.clone(),
        state: settings.state.clone(),
        root: settings.root.clone(),
        // Ends by itself a little earlier, so that what is known by then is told.
        deadline: settings.budgets.probe * 9 / 10,
    };
    let none = Resolvers::default();
    let work = async { Ok(certificate::collect(resolvers.unwrap_or(&none), wanted).await) };
    Some(within(settings.budgets.probe, work).await)
}

async fn see_portal(
    settings: &Settings,
    due: &Due,
    resolvers: Option<&Resolvers>,
) -> Option<Told<Portal>> {
    let known = settings.portal.as_ref().filter(|_| due.runs("portal"))?;
    let none = Resolvers::default();
    let work = async {
        let deadline = settings.budgets.probe * 9 / 10;
        let value = portal::collect(known, resolvers.unwrap_or(&none), deadline).await;
        let gaps = Vec::new();
        Ok(Seen { value, gaps })
    };
    Some(within(settings.budgets.probe, work).await)
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
    due: &Due,
    links: Option<&Vec<Link>>,
    resolvers: Option<&Resolvers>,
) -> Option<Told<Vec<PathMtu>>> {
    let targets = path_targets(settings, resolvers);
    if !due.runs("path_mtu") || targets.is_empty() {
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

async fn see_time(settings: &Settings, due: &Due) -> Option<Told<Time>> {
    if !due.runs("time") {
        return None;
    }
    let work = async { Ok(sntp::collect(&settings.ntp, settings.kernel_clock, SNTP_WAITS).await) };
    Some(within(settings.budgets.probe, work).await)
}

const SNTP_WAITS: Duration = Duration::from_millis(2000);
