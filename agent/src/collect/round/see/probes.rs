//! What is tried over the network, and the neighbours that the trying makes the kernel ask for.

use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::record::{
    Body, Certificate, DnsProbe, Link, PathMtu, Portal, Reach, Resolvers, Route, Time,
};

use super::tables::Tables;
use super::{Part, Told, within};
use crate::collect::schedule::Due;
use crate::collect::{
    CollectError, Seen, Settings, certificate, neighbour, path_mtu, portal, reach, resolve, sntp,
};

/// Every probe that is due, side by side.
pub(in crate::collect::round) async fn see(
    settings: &Settings,
    due: &Due,
    tables: &Tables,
) -> Vec<Part> {
    let (links, resolvers) = (tables.links.value(), tables.resolvers.value());
    let (dns, (reach, neighbours), path_mtu, time, certificates, portal) = tokio::join!(
        see_dns(settings, resolvers),
        async {
            let reach = see_reach(settings, tables.routes.value(), resolvers).await;
            // After the probes: they make the kernel ask for those neighbours.
            let neighbours = within(settings.budgets.neighbours, neighbour::collect()).await;
            (reach, neighbours)
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
    parts.extend(path_mtu.map(|told| Part::new("path_mtu", told, Body::PathMtu)));
    parts.extend(time.map(|told| Part::new("time", told, Body::Time)));
    parts.extend(certificates.map(|told| Part::new("certificates", told, Body::Certificates)));
    parts.extend(portal.map(|told| Part::new("portal", told, Body::Portal)));
    parts
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
    let work = async { Ok(sntp::collect(&settings.ntp, SNTP_WAITS).await) };
    Some(within(settings.budgets.probe, work).await)
}

const SNTP_WAITS: Duration = Duration::from_millis(2000);
