//! DHCP: a client without a lease, a pool without room, a second server that nobody asked for.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Dhcp, DhcpOffer, DhcpProbe, Lease, Link, Pool};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::link;
use super::unit::list;
use crate::case::{Family, Pass, Seen, View, Way, has_default};

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
        for name in wanted(view, &seen.value) {
            match view.links().iter().find(|link| link.name == *name) {
                Some(link) if is_without_lease(view, view.now(), link) => {
                    examined.drafts.extend(no_lease(view, seen, link));
                }
                Some(_) | None => {}
            }
        }
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

/// Links that a DHCP client is to configure. Where that isn't known, a link towards the provider that gave itself an
/// address shows that its client found nobody.
fn wanted<'a>(view: &View<'a>, dhcp: &'a Dhcp) -> Vec<&'a String> {
    if !dhcp.wanted.is_empty() {
        return dhcp.wanted.iter().collect();
    }
    let wan = view.profile().map_or(&[][..], |seen| &seen.value.wan);
    wan.iter()
        .filter(|name| {
            let link = view.links().iter().find(|link| link.name == **name);
            link.is_some_and(|link| self_made(view.now(), link.index).is_some())
        })
        .collect()
}

/// Addresses of IPv4 that lead anywhere.
fn has_address(pass: &Pass, link: u32) -> bool {
    let all = pass.addresses.iter().flat_map(|seen| &seen.value);
    all.filter(|address| address.link == link)
        .any(|address| match address.address.address {
            IpAddr::V4(address) => !address.is_link_local(),
            IpAddr::V6(_) => false,
        })
}

/// An address of 169.254.0.0/16, which a host gives itself where no server answers (RFC 3927).
fn self_made(pass: &Pass, link: u32) -> Option<IpAddr> {
    let all = pass.addresses.iter().flat_map(|seen| &seen.value);
    all.filter(|address| address.link == link)
        .map(|address| address.address.address)
        .find(|address| matches!(address, IpAddr::V4(address) if address.is_link_local()))
}

fn lease<'a>(dhcp: &'a Dhcp, name: &str) -> Option<&'a Lease> {
    let mut leases = dhcp.leases.iter();
    leases.find(|lease| lease.link == name && lease.address.is_ipv4())
}

/// Up, with a carrier, and without an address: a client that was given one shows it.
fn is_without_lease(view: &View<'_>, pass: &Pass, link: &Link) -> bool {
    let links = pass.links.iter().flat_map(|seen| &seen.value);
    let mut then = links.filter(|then| then.index == link.index);
    let carries = then.any(|then| then.admin_up && !link::is_without_carrier(then));
    let is_port = view
        .link(link.index)
        .is_some_and(|link| link.master.is_some());
    pass.addresses.is_some() && carries && !is_port && !has_address(pass, link.index)
}

fn offers<'a>(view: &View<'a>, link: u32) -> Option<(Timestamp, &'a [DhcpOffer])> {
    let seen = view.now().dhcp_probes.as_ref()?;
    let probe = seen.value.iter().find(|probe| probe.link == link)?;
    Some((seen.at, &probe.offers))
}

fn no_lease(view: &View<'_>, seen: &Seen<Dhcp>, link: &Link) -> Option<Draft> {
    // A client needs a moment after the link came up: a round ago it was the same.
    let before = view.this_boot().find(|pass| pass.addresses.is_some())?;
    if !is_without_lease(view, before, link) {
        return None;
    }
    let now = view.now();
    let name = &link.name;
    let profile = view.profile().map(|seen| &seen.value);
    let is_wan = profile.is_some_and(|profile| profile.wan.contains(name));
    let is_way_out = is_wan && !has_default(view.routes(), Family::V4);
    let severity = if is_way_out {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let summary = format!("The DHCP client on {name} has no lease");
    let mut draft = Draft::new(
        "dhcp_no_lease",
        Layer::Address,
        name.as_str(),
        severity,
        summary,
    );
    let addresses = now.addresses.as_ref()?;
    match self_made(now, link.index) {
        Some(address) => draft.shown(
            "addresses",
            "none",
            addresses.at,
            format!("{name} gave itself {address} because no server answered"),
        ),
        None => draft.shown(
            "addresses",
            "none",
            addresses.at,
            format!("{name} has a carrier and no IPv4 address, as in the round before"),
        ),
    }
    if let Some(older) = &before.addresses {
        draft.held_since(older.at);
    }
    client(&mut draft, seen, name);
    let mut step = format!(
        "Check that the DHCP server behind {name} runs and that this port is in its VLAN, then renew the lease"
    );
    match offers(view, link.index) {
        None => draft.misses(format!(
            "whether a server offers a lease on {name} (`aizen diagnose`)"
        )),
        Some((at, [])) => {
            let fact = format!("nobody on {name} answered a DHCP DISCOVER of ours");
            draft.shown("dhcp_probes", "silence", at, fact);
        }
        Some((at, offers)) => {
            let servers = list(offers.iter().map(|offer| offer.server));
            let refuses = offers.iter().all(|offer| offer.address.is_none());
            if refuses {
                let fact = format!("{servers} answered with NAK");
                draft.backed("dhcp_probes", "nak", at, fact);
                step = format!(
                    "Remove the old lease of {name} and start its client again: the server refuses what it asks for"
                );
            } else {
                let fact = format!("{servers} offered a lease on {name}");
                draft.contradicted("dhcp_probes", at, fact);
                step = format!(
                    "Restart the DHCP client of {name}: a server offers leases there and the client takes none"
                );
            }
        }
    }
    draft.rests_on = Some(Way {
        link: Some(link.index),
        beyond: None,
    });
    if is_way_out {
        draft.breaks_beyond.push(Family::V4);
    }
    draft.misses(format!(
        "what the DHCP client logged (`journalctl` or `logread`), and whether its questions leave {name} (`tcpdump -n -i \
         {name} port 67`)"
    ));
    draft.next(step);
    Some(draft)
}

/// The client's own file.
fn client(draft: &mut Draft, seen: &Seen<Dhcp>, name: &str) {
    let wants = seen.value.wanted.iter().any(|wanted| wanted == name);
    match lease(&seen.value, name) {
        Some(lease) if lease.expires.is_some_and(|expires| expires < seen.at) => {
            let fact = format!("the lease of {} on {name} ran out", lease.address);
            draft.shown("dhcp", "expired", seen.at, fact);
        }
        Some(lease) => {
            let fact = format!(
                "{} keeps a lease of {} for {name}",
                lease.client, lease.address
            );
            draft.contradicted("dhcp", seen.at, fact);
        }
        None if wants => {
            let fact = format!("a DHCP client is to configure {name} and holds no lease");
            draft.shown("dhcp", "no_lease", seen.at, fact);
        }
        None => {}
    }
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
    let other = |offer: &&&DhcpOffer| {
        let first = trusted.or(offers.first());
        first.is_some_and(|first| {
            // Two servers that give the same gateway stand in for each other.
            offer.server != first.server
                && offer.routers != first.routers
                && !is_trusted(view, probe.link, offer)
        })
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
    if let Some(known) = trusted.or(offers.first()) {
        let fact = format!("{} offers {}", known.server, gateways(known));
        draft.shown("dhcp_probes", &known.server.to_string(), at, fact);
    }
    if trusted.is_none() {
        draft.misses("which of the servers is meant to serve here (`aizen status` shows what the operator expects)");
    }
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
    use aizen_protocol::record::{Body, Fdb, FdbEntry, LogLine, LogOrigin};

    use super::*;
    use crate::fixture::{
        Evidence, GATEWAY, LAN, WAN, address, at, healthy, ip, lose_default_route, only, verdict,
    };

    fn dhcp(change: fn(&mut Dhcp)) -> Body {
        let mut dhcp = Dhcp {
            leases: vec![],
            pools: vec![],
            wanted: vec!["wan".into()],
        };
        change(&mut dhcp);
        Body::Dhcp(dhcp)
    }

    /// The WAN lost its address and with it the way out.
    fn leaseless(round: u64) -> Evidence {
        let mut evidence = healthy(round);
        lose_default_route(&mut evidence);
        evidence.silence(GATEWAY);
        evidence.neighbours.remove(0);
        evidence.routes.retain(|route| route.link != Some(WAN));
        evidence
            .addresses
            .retain(|ours| ours.link != WAN || ours.address.address.is_ipv6());
        evidence.extra.push(dhcp(|_| {}));
        evidence
    }

    fn offer(server: &str, router: &str) -> DhcpOffer {
        DhcpOffer {
            server: ip(server),
            server_mac: Some("02:00:5e:10:66:66".parse().unwrap()),
            address: Some(ip("192.168.40.150")),
            routers: vec![ip(router)],
            resolvers: vec![],
        }
    }

    fn offered(link: u32, offers: Vec<DhcpOffer>) -> Body {
        Body::DhcpProbes(vec![DhcpProbe { link, offers }])
    }

    #[test]
    fn a_client_without_lease_is_told_and_the_lost_default_route_follows_from_it() {
        let mut rounds = [healthy(1), leaseless(2), leaseless(3)];
        for evidence in &mut rounds[1..] {
            evidence.extra.push(offered(WAN, vec![]));
        }
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("dhcp_no_lease", "wan")
        );
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Critical, Confidence::Certain)
        );
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.contains("no IPv4 default route"))
        );
    }

    #[test]
    fn a_server_that_offers_shows_that_the_client_is_to_blame() {
        let mut rounds = [leaseless(1), leaseless(2)];
        rounds[1]
            .extra
            .push(offered(WAN, vec![offer(GATEWAY, GATEWAY)]));
        let told = verdict(&rounds);
        assert!(
            only(&told)
                .next_step
                .0
                .starts_with("Restart the DHCP client")
        );
        let Some(Body::DhcpProbes(probes)) = rounds[1].extra.last_mut() else {
            unreachable!()
        };
        probes[0].offers[0].address = None;
        let told = verdict(&rounds);
        assert!(only(&told).next_step.0.starts_with("Remove the old lease"));
    }

    #[test]
    fn an_address_of_its_own_making_shows_a_client_that_found_nobody() {
        let rounds = [1, 2].map(|round| {
            let mut evidence = leaseless(round);
            evidence.extra = vec![dhcp(|dhcp| dhcp.wanted.clear())];
            evidence
                .addresses
                .push(address(WAN, "169.254.8.9/16", "link"));
            evidence
        });
        let told = verdict(&rounds);
        assert_eq!(only(&told).cause.0, "dhcp_no_lease");
        assert!(only(&told).evidence[0].fact.0.contains("169.254.8.9"));
    }

    #[test]
    fn a_client_that_just_began_and_links_that_nobody_configures_do_not_alarm() {
        // A round ago the address was there.
        let mut begun = [healthy(1), leaseless(2)];
        begun[1].routes = healthy(2).routes;
        begun[1].reach = healthy(2).reach;
        begun[1].dns = healthy(2).dns;
        begun[1].path_mtu.clear();
        assert_eq!(verdict(&begun).health, Health::Healthy);
        let mut fixed = healthy(1);
        fixed
            .extra
            .push(dhcp(|dhcp| dhcp.wanted = vec!["wan".into(), "lan4".into()]));
        let second = Evidence {
            round: 2,
            ..fixed.clone()
        };
        assert_eq!(verdict(&[fixed, second]).health, Health::Healthy);
    }

    #[test]
    fn a_client_on_a_dead_link_has_no_lease_because_of_the_link() {
        let mut rounds = [leaseless(1), leaseless(2)];
        rounds[1].link(WAN).carrier = Some(false);
        assert_eq!(only(&verdict(&rounds)).cause.0, "link_down");
    }

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
