//! DHCP servers: a pool without room, a second server that nobody asked for.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{DhcpOffer, DhcpProbe, Pool};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::duplicate::is_virtual_router;
use super::unit::list;
use crate::case::View;

/// How far back a server's line of log counts.
const LOGGED: SignedDuration = SignedDuration::from_mins(10);
/// What servers write when a pool is empty: dnsmasq, isc-dhcp-server, kea, odhcpd.
const NO_ADDRESS: [&str; 4] = [
    "no address available",
    "no free leases",
    "no addresses available",
    "no available address",
];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    if let Some(seen) = &view.now().dhcp {
        for pool in &seen.value.pools {
            if pool.size > 0 && pool.leased >= pool.size {
                examined.drafts.push(empty(view, seen.at, pool));
            } else {
                examined.well.push(format!(
                    "The DHCP pool {} to {} has room: {} of {} are leased",
                    pool.first, pool.last, pool.leased, pool.size
                ));
            }
        }
    }
    if let Some(seen) = &view.now().dhcp_probes {
        for probe in &seen.value {
            examined.drafts.extend(rogue(view, seen.at, probe));
        }
    }
    examined
}

fn empty(view: &View<'_>, at: Timestamp, pool: &Pool) -> Draft {
    let mut draft = Draft::new(
        "dhcp_pool_empty",
        Layer::Address,
        format!("{} pool {} to {}", pool.server, pool.first, pool.last),
        Severity::Warning,
        format!(
            "The DHCP pool {} to {} is used up: new hosts get no address",
            pool.first, pool.last
        ),
    );
    let fact = format!(
        "{} of {} addresses of {} are leased",
        pool.leased, pool.size, pool.server
    );
    draft.shown("dhcp", "pool", at, fact);
    let lines = view.now().log.iter().flat_map(|seen| &seen.value);
    let recent = lines.filter(|line| {
        let text = line.text.0.to_ascii_lowercase();
        at.duration_since(line.at) <= LOGGED && NO_ADDRESS.iter().any(|no| text.contains(no))
    });
    let refused: Vec<Timestamp> = recent.map(|line| line.at).collect();
    if let Some(last) = refused.iter().max() {
        let fact = format!(
            "{} logged {} times within 10 minutes that no address is left",
            pool.server,
            refused.len()
        );
        draft.backed("log", "no_address", *last, fact);
    }
    draft.misses(
        "how many of the leases belong to hosts that left: phones with changing MAC addresses take a new one each time (the \
         server's lease file)",
    );
    draft.next(format!(
        "Widen the pool {} to {} or shorten its lease time",
        pool.first, pool.last
    ));
    draft
}

/// An offer that would lead its taker elsewhere than the network's own server does.
fn rogue(view: &View<'_>, at: Timestamp, probe: &DhcpProbe) -> Option<Draft> {
    let offers: Vec<&DhcpOffer> = probe
        .offers
        .iter()
        .filter(|offer| offer.address.is_some())
        .collect();
    let trusted = offers
        .iter()
        .find(|offer| is_trusted(view, probe.link, offer));
    // A server does not hear the question of its own device: where this one serves, any other is the second.
    let pool = served(view, probe.link);
    let other = |offer: &&&DhcpOffer| match trusted.or(offers.first()) {
        _ if is_trusted(view, probe.link, offer) => false,
        // Two servers that give the same gateway stand in for each other.
        Some(first) if offer.server != first.server => offer.routers != first.routers,
        _ => pool.is_some() && leads_elsewhere(view, offer),
    };
    let stranger = *offers.iter().find(other)?;
    let name = view.link_name(probe.link);
    let mut draft = Draft::new(
        "dhcp_rogue_server",
        Layer::Address,
        format!("{} on {name}", stranger.server),
        Severity::Critical,
        format!(
            "A second DHCP server, {}, gives hosts on {name} another gateway",
            stranger.server
        ),
    );
    let fact = format!("{} offers {}", stranger.server, gateways(stranger));
    draft.shown("dhcp_probes", &stranger.server.to_string(), at, fact);
    let known = trusted.or(offers.first());
    if let Some(known) = known.filter(|known| known.server != stranger.server) {
        let fact = format!("{} offers {}", known.server, gateways(known));
        draft.shown("dhcp_probes", &known.server.to_string(), at, fact);
    }
    if let Some((at, pool)) = pool {
        let fact = format!(
            "{} here serves {} to {} on {name}",
            pool.server, pool.first, pool.last
        );
        draft.backed("dhcp", "pool", at, fact);
    } else if trusted.is_none() {
        draft.misses("which of the servers is meant to serve here (`aizen status` shows what the operator expects)");
    }
    draft.misses("which hosts took its lease already (the gateway that they use)");
    let port = stranger.server_mac.and_then(|mac| {
        let fdb = view.now().fdb.as_ref()?;
        let entry = fdb.value.entries.iter().find(|e| e.mac == mac && !e.own)?;
        Some((fdb.at, mac, view.link_name(entry.link)))
    });
    let place = match &port {
        Some((at, mac, port)) => {
            let fact = format!("{mac} is behind port {port}");
            draft.backed("fdb", "port", *at, fact);
            format!("behind port {port}")
        }
        None => {
            draft.misses("the switch port behind the server (the switch's forwarding table)");
            stranger
                .server_mac
                .map_or_else(|| format!("on {name}"), |mac| format!("with {mac}"))
        }
    };
    draft.explains(format!(
        "Hosts on {name} that took its lease reach nothing or are listened to"
    ));
    draft.next(format!(
        "Unplug the DHCP server {} {place}, which is often a home router that was plugged in by its LAN port",
        stranger.server
    ));
    Some(draft)
}

/// The pool out of which this device serves the link.
fn served<'a>(view: &View<'a>, link: u32) -> Option<(Timestamp, &'a Pool)> {
    let seen = view.now().dhcp.as_ref()?;
    let pool = seen
        .value
        .pools
        .iter()
        .find(|pool| view.connected(pool.first) == Some(link))?;
    Some((seen.at, pool))
}

/// A gateway that is neither this device nor an address that several routers share (VRRP).
fn leads_elsewhere(view: &View<'_>, offer: &DhcpOffer) -> bool {
    let is_ours = |router| {
        view.global_addresses()
            .any(|own| own.address.address == router)
    };
    let is_shared = |router| {
        let mut entries = view.now().neighbours.iter().flat_map(|seen| &seen.value);
        entries.any(|entry| entry.address == router && entry.mac.is_some_and(is_virtual_router))
    };
    let mut routers = offer.routers.iter().copied();
    !offer.routers.is_empty() && !routers.any(|router| is_ours(router) || is_shared(router))
}

fn gateways(offer: &DhcpOffer) -> String {
    if offer.routers.is_empty() {
        "a lease without a gateway".into()
    } else {
        format!("leases with the gateway {}", list(&offer.routers))
    }
}

/// The server that this device is, that it has its lease from, or that gives the gateway which the operator expects.
fn is_trusted(view: &View<'_>, link: u32, offer: &DhcpOffer) -> bool {
    let ours = view
        .global_addresses()
        .any(|address| address.address.address == offer.server);
    let name = view.link_name(link);
    let leases = view.now().dhcp.iter().flat_map(|seen| &seen.value.leases);
    let leased = leases
        .filter(|lease| lease.link == name)
        .any(|lease| lease.server == Some(offer.server));
    let expected = view.profile().and_then(|seen| seen.value.gateway);
    ours || leased || expected.is_some_and(|gateway| offer.routers.contains(&gateway))
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, Dhcp, Fdb, FdbEntry, LogLine, LogOrigin};

    use super::*;
    use crate::fixture::lower::{offer, offered};
    use crate::fixture::{Evidence, LAN, at, healthy, ip, only};

    fn pool(leased: u32) -> Evidence {
        let mut evidence = healthy(1);
        evidence.extra.push(Body::Dhcp(Dhcp {
            pools: vec![Pool {
                server: "dnsmasq".into(),
                first: ip("192.168.40.100"),
                last: ip("192.168.40.149"),
                size: 50,
                leased,
            }],
            ..Dhcp::default()
        }));
        evidence
    }

    #[test]
    fn a_pool_whose_last_address_is_leased_is_empty_and_the_log_bears_it_out() {
        let told = pool(50).verdict();
        assert_eq!(only(&told).cause.0, "dhcp_pool_empty");
        assert_eq!(only(&told).confidence, Confidence::Suspected);
        let line = |text: &str| LogLine {
            at: at(1),
            origin: LogOrigin::File,
            program: "dnsmasq-dhcp".into(),
            severity: 4,
            text: text.into(),
        };
        let mut agreed = pool(50);
        agreed.extra.push(Body::Log(vec![line(
            "DHCPDISCOVER(lan) no address available",
        )]));
        assert_eq!(only(&agreed.verdict()).confidence, Confidence::Likely);
        // The line alone is nothing.
        let mut forged = pool(49);
        forged.extra.push(Body::Log(vec![line(
            "DHCPDISCOVER(lan) no address available",
        )]));
        assert_eq!(forged.verdict().health, Health::Healthy);
    }

    #[test]
    fn a_second_server_with_another_gateway_is_named_with_its_port() {
        let mut evidence = healthy(1);
        evidence.extra.push(offered(
            LAN,
            vec![
                offer("192.168.40.66", "192.168.40.66"),
                offer("192.168.40.1", "192.168.40.1"),
            ],
        ));
        evidence.extra.push(Body::Fdb(Fdb {
            entries: vec![FdbEntry {
                link: crate::fixture::SPARE,
                mac: "02:00:5e:10:66:66".parse().unwrap(),
                vlan: None,
                bridge: None,
                own: false,
            }],
            total: 1,
            moves: vec![],
        }));
        let told = evidence.verdict();
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("dhcp_rogue_server", "192.168.40.66 on lan")
        );
        assert_eq!(finding.confidence, Confidence::Certain);
        assert!(finding.next_step.0.contains("behind port lan4"));
    }

    #[test]
    fn a_server_beside_this_device_s_own_is_named_and_one_that_stands_in_for_it_is_not() {
        let serving = |router: &str| {
            let mut evidence = pool(3);
            let offers = vec![offer("192.168.40.66", router)];
            evidence.extra.push(offered(LAN, offers));
            evidence
        };
        let told = serving("192.168.40.66").verdict();
        assert_eq!(only(&told).cause.0, "dhcp_rogue_server");
        assert_eq!(only(&told).confidence, Confidence::Likely);
        let stand_in = serving("192.168.40.1");
        let mut shared = serving("192.168.40.254");
        shared.neighbours.push(crate::fixture::neighbour(
            LAN,
            "192.168.40.254",
            "00:00:5e:00:01:07",
            aizen_protocol::record::NeighbourState::Reachable,
        ));
        // Another network's server is the only one there.
        let mut elsewhere = pool(3);
        let offers = vec![offer("100.64.7.66", "100.64.7.66")];
        elsewhere.extra.push(offered(crate::fixture::WAN, offers));
        for evidence in [stand_in, shared, elsewhere] {
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }

    #[test]
    fn one_server_two_that_stand_in_for_each_other_and_a_refusal_do_not_alarm() {
        let mut refusal = offer("192.168.40.9", "192.168.40.9");
        refusal.address = None;
        let ours = || offer("192.168.40.1", "192.168.40.1");
        for offers in [
            vec![],
            vec![ours()],
            vec![ours(), offer("192.168.40.2", "192.168.40.1")],
            vec![ours(), refusal],
        ] {
            let mut evidence = healthy(1);
            evidence.extra.push(offered(LAN, offers));
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }
}
