//! TCP connects: tell "ICMP is blocked" from "the host is down", and a dead IPv6 from a dead site.

use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::private::Name;
use aizen_protocol::record::{Connect, ConnectOutcome, DnsProbe, DnsPurpose, Resolvers};

use super::{CollectError, Seen, aside};
use crate::probe::connect::{self, Plan};
use crate::probe::echo::Target;

/// One connect to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    address: IpAddr,
    port: u16,
    name: Option<Name>,
}

/// The anchors' web ports, the resolvers, and both families of each name that has both.
pub(crate) fn targets(
    anchors: &[IpAddr],
    resolvers: Option<&Resolvers>,
    names: &[String],
    dns: Option<&Vec<DnsProbe>>,
) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut add = |address: IpAddr, port, name: Option<&String>| {
        let one = Wanted {
            address,
            port,
            name: name.map(|name| Name(name.clone())),
        };
        let useful = !address.is_loopback() && !address.is_unspecified() && !address.is_multicast();
        // A link-local address is nothing without its interface.
        let scoped = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        if useful && !scoped && wanted.len() < MAX_TARGETS && !wanted.contains(&one) {
            wanted.push(one);
        }
    };
    for anchor in anchors {
        add(*anchor, 443, None);
        add(*anchor, 80, None);
    }
    for resolver in resolvers
        .iter()
        .flat_map(|r| r.configured.iter().chain(&r.alternates))
    {
        add(*resolver, 53, None);
    }
    let dns = dns.map(Vec::as_slice).unwrap_or_default();
    for name in names.iter().take(MAX_NAMES) {
        if let (Some(v4), Some(v6)) = (answer(dns, name, true), answer(dns, name, false)) {
            add(v4, 443, Some(name));
            add(v6, 443, Some(name));
        }
    }
    wanted
}

/// The first address of a name in one family, as a configured resolver gave it.
fn answer(dns: &[DnsProbe], name: &str, ipv4: bool) -> Option<IpAddr> {
    dns.iter()
        .filter(|probe| probe.configured && probe.name.0 == name)
        .filter(|probe| matches!(probe.purpose, DnsPurpose::Lookup | DnsPurpose::Ipv6))
        .flat_map(|probe| &probe.addresses)
        .copied()
        .find(|address| address.is_ipv4() == ipv4)
}

/// Connects to all of them, side by side.
pub(crate) async fn collect(
    wanted: Vec<Wanted>,
    deadline: Duration,
) -> Result<Seen<Vec<Connect>>, CollectError> {
    let plan = Plan {
        to: wanted
            .iter()
            .map(|w| {
                let target = Target {
                    address: w.address,
                    link: None,
                };
                (target, w.port)
            })
            .collect(),
        wait: WAIT.min(deadline * 8 / 10),
        at_once: MAX_TARGETS,
        // Ends by itself a little earlier, so that what is known by then is told.
        deadline: Some(deadline * 9 / 10),
    };
    let mut done = aside::run("aizen-connects", move || connect::run(&plan, None)).await??;
    done.sort_by_key(|d| d.place);
    let mut gaps = Vec::new();
    if done.len() < wanted.len() {
        gaps.push(format!(
            "{} connects were not finished in time",
            wanted.len() - done.len()
        ));
    }
    let value = done
        .into_iter()
        .filter_map(|done| {
            let wanted = wanted.get(done.place)?;
            Some(Connect {
                target: wanted.address,
                port: wanted.port,
                name: wanted.name.clone(),
                outcome: done.outcome,
                rtt_us: done
                    .rtt
                    .filter(|_| done.outcome == ConnectOutcome::Connected)
                    .map(super::micros),
            })
        })
        .collect();
    Ok(Seen { value, gaps })
}

const MAX_TARGETS: usize = 48;
const MAX_NAMES: usize = 8;
/// A first SYN that got lost is repeated after 1 s (RFC 6298).
const WAIT: Duration = Duration::from_millis(2500);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn probe(name: &str, purpose: DnsPurpose, addresses: &[&str]) -> DnsProbe {
        DnsProbe {
            resolver: ip("192.0.2.53"),
            configured: true,
            transport: aizen_protocol::record::DnsTransport::Udp,
            purpose,
            name: Name(name.to_owned()),
            addresses: addresses.iter().map(|a| ip(a)).collect(),
            authentic: false,
            answers: Vec::new(),
            rtt_us: Vec::new(),
        }
    }

    fn wanted(targets: &[Wanted]) -> Vec<(String, u16)> {
        targets
            .iter()
            .map(|w| (w.address.to_string(), w.port))
            .collect()
    }

    #[test]
    fn anchors_are_asked_on_their_web_ports_and_resolvers_on_theirs() {
        let resolvers = Resolvers {
            configured: vec![ip("127.0.0.53"), ip("192.0.2.53"), ip("fe80::1")],
            ..Resolvers::default()
        };
        let targets = targets(&[ip("198.51.100.1")], Some(&resolvers), &[], None);
        assert_eq!(
            wanted(&targets),
            [
                ("198.51.100.1".to_owned(), 443),
                ("198.51.100.1".to_owned(), 80),
                ("192.0.2.53".to_owned(), 53)
            ]
        );
    }

    #[test]
    fn a_name_is_tried_over_both_families_or_not_at_all() {
        let names = ["both.example".to_owned(), "old.example".to_owned()];
        let dns = vec![
            probe("both.example", DnsPurpose::Lookup, &["198.51.100.7"]),
            probe("both.example", DnsPurpose::Ipv6, &["2001:db8::7"]),
            probe("old.example", DnsPurpose::Lookup, &["198.51.100.8"]),
        ];
        let targets = targets(&[], None, &names, Some(&dns));
        assert_eq!(
            wanted(&targets),
            [
                ("198.51.100.7".to_owned(), 443),
                ("2001:db8::7".to_owned(), 443)
            ]
        );
        assert!(
            targets
                .iter()
                .all(|w| w.name.as_ref().is_some_and(|n| n.0 == "both.example"))
        );
    }

    #[tokio::test]
    async fn nothing_to_connect_to_is_an_empty_record() {
        let seen = collect(Vec::new(), Duration::from_secs(5)).await.unwrap();
        assert!(seen.value.is_empty() && seen.gaps.is_empty());
    }
}
