//! Answers that are made up: names that don't exist resolve, or many names lead to one address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{DnsAnswer, DnsProbe, DnsPurpose, DnsTransport};
use jiff::Timestamp;

use crate::case::View;
use crate::expert::draft::{Draft, Examined, Layer};
use crate::expert::portal;
use crate::expert::unit::list;

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;
/// Different names with one address: two may well live on the same server.
const NAMES: usize = 3;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().dns else {
        return examined;
    };
    // A walled garden answers everything with itself until somebody logs in: that is a fault of its own.
    if portal::is_walled(view) {
        return examined;
    }
    let probes: &[DnsProbe] = &seen.value;
    let resolvers: BTreeSet<IpAddr> = probes
        .iter()
        .filter(|probe| probe.configured)
        .map(|probe| probe.resolver)
        .collect();
    for resolver in resolvers {
        let draft =
            hijacked(probes, seen.at, resolver).or_else(|| rewritten(probes, seen.at, resolver));
        match draft {
            Some(mut draft) => {
                draft.rests_on = Some(view.way_to(resolver));
                examined.drafts.push(draft);
            }
            None if made_up(probes, resolver).next().is_none() && denied(probes, resolver) => {
                examined
                    .well
                    .push(format!("{resolver} says truly that a name does not exist"));
            }
            None => {}
        }
    }
    examined
}

fn is_plain(probe: &DnsProbe) -> bool {
    matches!(probe.transport, DnsTransport::Udp | DnsTransport::Tcp)
}

/// Answers with addresses for names that can't exist.
fn made_up(probes: &[DnsProbe], resolver: IpAddr) -> impl Iterator<Item = &DnsProbe> {
    probes.iter().filter(move |probe| {
        probe.resolver == resolver
            && is_plain(probe)
            && probe.purpose == DnsPurpose::Nonexistent
            && probe.answers.contains(&DnsAnswer::Rcode(NOERROR))
            && !probe.addresses.is_empty()
    })
}

fn denied(probes: &[DnsProbe], resolver: IpAddr) -> bool {
    probes.iter().any(|probe| {
        probe.resolver == resolver
            && probe.purpose == DnsPurpose::Nonexistent
            && probe.answers.contains(&DnsAnswer::Rcode(NXDOMAIN))
    })
}

/// Somebody else's word on names that can't exist; over an encrypted transport nobody on the way can change it.
fn others_deny(draft: &mut Draft, probes: &[DnsProbe], at: Timestamp, resolver: IpAddr) {
    let mut compared = false;
    let others = probes
        .iter()
        .filter(|probe| probe.purpose == DnsPurpose::Nonexistent)
        .filter(|probe| probe.resolver != resolver || !is_plain(probe));
    for probe in others {
        let how = if is_plain(probe) {
            "plainly"
        } else {
            "encrypted"
        };
        if probe.answers.contains(&DnsAnswer::Rcode(NXDOMAIN)) {
            compared = true;
            let witness = format!("{} {how}", probe.resolver);
            let fact = format!(
                "{} asked {how} says that the name does not exist",
                probe.resolver
            );
            draft.backed("dns", &witness, at, fact);
        } else if !is_plain(probe) && !probe.addresses.is_empty() {
            compared = true;
            let fact = format!(
                "{} asked {how} has an address as well: the zone may answer for every name",
                probe.resolver
            );
            draft.contradicted("dns", at, fact);
        }
    }
    if !compared {
        draft.misses("the answer over an encrypted transport (`aizen dns` over TLS)");
    }
}

fn rewritten(probes: &[DnsProbe], at: Timestamp, resolver: IpAddr) -> Option<Draft> {
    let invented: Vec<&DnsProbe> = made_up(probes, resolver).collect();
    let addresses: BTreeSet<IpAddr> = invented
        .iter()
        .flat_map(|probe| probe.addresses.iter().copied())
        .collect();
    invented.first()?;
    let mut draft = Draft::new(
        "nxdomain_rewriting",
        Layer::Names,
        resolver.to_string(),
        Severity::Warning,
        format!("The resolver {resolver} invents addresses for names that do not exist"),
    );
    let fact = format!(
        "{resolver} answered a random name that can not exist with {}",
        list(&addresses)
    );
    draft.shown("dns", &resolver.to_string(), at, fact);
    others_deny(&mut draft, probes, at, resolver);
    draft.explains(
        "Typing errors lead to foreign pages, and searches through a list of domains stop at the \
         first",
    );
    next(&mut draft, resolver);
    Some(draft)
}

/// Many names with one address, or an ordinary name with the address that names that can't exist get.
fn hijacked(probes: &[DnsProbe], at: Timestamp, resolver: IpAddr) -> Option<Draft> {
    let mut names: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    let lookups = || {
        probes
            .iter()
            .filter(|probe| probe.purpose == DnsPurpose::Lookup)
    };
    for probe in lookups().filter(|probe| probe.resolver == resolver && is_plain(probe)) {
        for address in &probe.addresses {
            names.entry(*address).or_default().insert(&probe.name.0);
        }
    }
    let invented: BTreeSet<IpAddr> = made_up(probes, resolver)
        .flat_map(|probe| probe.addresses.iter().copied())
        .collect();
    let encrypted = |name: &str| -> BTreeSet<IpAddr> {
        lookups()
            .filter(|probe| !is_plain(probe) && probe.name.0 == name)
            .flat_map(|probe| probe.addresses.iter().copied())
            .collect()
    };
    let differs = |address: &IpAddr, name: &str| {
        let truth = encrypted(name);
        !truth.is_empty() && !truth.contains(address)
    };
    let (address, names) = names.iter().find(|(address, names)| {
        let denied = names.iter().filter(|name| differs(address, name)).count();
        let agreed = names.iter().any(|name| encrypted(name).contains(*address));
        !agreed && (names.len() >= NAMES && denied > 0 || invented.contains(*address))
    })?;
    let mut draft = Draft::new(
        "dns_hijack",
        Layer::Names,
        resolver.to_string(),
        Severity::Critical,
        format!("Answers of the resolver {resolver} are forged: they lead to {address}"),
    );
    draft.shown(
        "dns",
        &resolver.to_string(),
        at,
        format!("{resolver} gave {address} for {}", list(names)),
    );
    if invented.contains(address) {
        draft.shown(
            "dns",
            "nonexistent",
            at,
            format!("{resolver} gave {address} for a name that can not exist as well"),
        );
    }
    for name in names.iter().filter(|name| differs(address, name)) {
        let fact = format!(
            "asked over an encrypted transport, {name} has {}",
            list(encrypted(name))
        );
        draft.backed("dns", "encrypted", at, fact);
    }
    if names.iter().all(|name| encrypted(name).is_empty()) {
        draft.misses("the answer over an encrypted transport (`aizen dns` over TLS)");
    }
    draft.explains("Whoever forges the answers sees and changes the traffic to these names");
    next(&mut draft, resolver);
    Some(draft)
}

fn next(draft: &mut Draft, resolver: IpAddr) {
    draft.misses(
        "whether the resolver or somebody on the way answers (`aizen dns` to an address that is \
         no resolver)",
    );
    draft.next(format!(
        "Ask whoever runs {resolver} to stop it, or let the forwarder use an encrypted upstream \
         (DNS over TLS)"
    ));
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Body, DnsAnswer, DnsPurpose, DnsTransport, Portal};

    use crate::fixture::machine::question;
    use crate::fixture::{ALTERNATE, Evidence, RESOLVER, healthy, only};

    const ADS: &str = "198.51.100.66";
    const UDP: DnsTransport = DnsTransport::Udp;
    const TLS: DnsTransport = DnsTransport::Tls;

    fn ask(
        evidence: &mut Evidence,
        transport: DnsTransport,
        purpose: DnsPurpose,
        name: &str,
        rcode: u8,
        addresses: &[&str],
    ) {
        let resolver = if transport == TLS {
            ALTERNATE
        } else {
            RESOLVER
        };
        let answer = DnsAnswer::Rcode(rcode);
        evidence.dns.push(question(
            resolver, transport, purpose, name, answer, addresses,
        ));
    }

    #[test]
    fn a_name_that_can_not_exist_and_resolves_is_rewritten() {
        let mut evidence = healthy(1);
        ask(
            &mut evidence,
            UDP,
            DnsPurpose::Nonexistent,
            "host-zzzz",
            0,
            &[ADS],
        );
        ask(
            &mut evidence,
            TLS,
            DnsPurpose::Nonexistent,
            "host-zzzz",
            3,
            &[],
        );
        let verdict = evidence.verdict();
        assert_eq!(only(&verdict).cause.0, "nxdomain_rewriting");
    }

    #[test]
    fn one_address_for_many_names_against_encrypted_answers_is_hijacking() {
        let mut evidence = healthy(1);
        for name in ["host-a", "host-b", "host-c"] {
            ask(&mut evidence, UDP, DnsPurpose::Lookup, name, 0, &[ADS]);
        }
        // Three names on one server are no fault by themselves.
        assert_eq!(evidence.verdict().findings, []);
        ask(
            &mut evidence,
            TLS,
            DnsPurpose::Lookup,
            "host-a",
            0,
            &["203.0.113.9"],
        );
        let verdict = evidence.verdict();
        assert_eq!(only(&verdict).cause.0, "dns_hijack");
        let mut all = healthy(1);
        ask(
            &mut all,
            UDP,
            DnsPurpose::Nonexistent,
            "host-zzzz",
            0,
            &[ADS],
        );
        ask(&mut all, UDP, DnsPurpose::Lookup, "host-a", 0, &[ADS]);
        assert_eq!(only(&all.verdict()).cause.0, "dns_hijack");
    }

    #[test]
    fn true_denials_empty_answers_near_servers_and_walled_gardens_do_not_alarm() {
        let mut truthful = healthy(1);
        ask(
            &mut truthful,
            UDP,
            DnsPurpose::Nonexistent,
            "host-zzzz",
            3,
            &[],
        );
        let mut empty = healthy(1);
        ask(
            &mut empty,
            UDP,
            DnsPurpose::Nonexistent,
            "host-zzzz",
            0,
            &[],
        );
        // A content network answers differently by place.
        let mut near = healthy(1);
        for (name, plain, encrypted) in [
            ("host-a", "203.0.113.1", "203.0.113.7"),
            ("host-b", "203.0.113.1", "203.0.113.7"),
        ] {
            ask(&mut near, UDP, DnsPurpose::Lookup, name, 0, &[plain]);
            ask(&mut near, TLS, DnsPurpose::Lookup, name, 0, &[encrypted]);
        }
        let mut walled = healthy(1);
        ask(
            &mut walled,
            UDP,
            DnsPurpose::Nonexistent,
            "host-zzzz",
            0,
            &[ADS],
        );
        walled.see(Body::Portal(Portal {
            host: aizen_protocol::private::Name("host-p".into()),
            status: Some(302),
            expected: false,
            redirect: None,
            error: None,
        }));
        // A resolver that nobody uses.
        let mut spare = healthy(1);
        spare.dns.push(question(
            ALTERNATE,
            UDP,
            DnsPurpose::Nonexistent,
            "host-zzzz",
            DnsAnswer::Rcode(0),
            &[ADS],
        ));
        for (number, evidence) in [truthful, empty, near, spare].into_iter().enumerate() {
            assert_eq!(evidence.verdict().findings, [], "{number}");
        }
        let causes = walled.verdict().findings;
        assert!(
            causes
                .iter()
                .all(|finding| finding.cause.0 != "nxdomain_rewriting")
        );
    }
}
