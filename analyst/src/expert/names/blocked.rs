//! No resolver answers over UDP port 53 although their hosts live: something on the way swallows DNS.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{DnsAnswer, DnsProbe, DnsPurpose, DnsTransport};

use crate::case::View;
use crate::expert::draft::{Draft, Layer};
use crate::expert::question::{self, Tally};
use crate::expert::reach;
use crate::expert::unit::list;

/// Silent resolvers that are more than one dead service.
const RESOLVERS: usize = 2;
/// Unanswered questions in a row to each.
const QUESTIONS: u32 = 3;

pub(super) fn examine(view: &View<'_>) -> Option<Draft> {
    let tallies = question::tallies(view.now());
    let remote: Vec<&Tally> = tallies
        .iter()
        .filter(|tally| view.way_to(tally.resolver).beyond.is_some())
        .collect();
    let is_silent = |tally: &&&Tally| {
        tally.timeouts == tally.asked && question::unanswered(view, tally.resolver) >= QUESTIONS
    };
    if remote.len() < RESOLVERS || !remote.iter().all(|tally| is_silent(&tally)) {
        return None;
    }
    // Hosts that answer echo requests live: their silence on one port is the port's.
    let living: Vec<(&Tally, reach::Ping)> = remote
        .iter()
        .filter_map(|tally| {
            let ping = reach::ping(view.now(), tally.resolver).filter(|ping| ping.received > 0)?;
            Some((*tally, ping))
        })
        .collect();
    // A closed port over TCP is a service that is away, not a filter.
    if living.len() < RESOLVERS
        || other_ways(view).any(|(_, probe)| met(probe, DnsAnswer::PortUnreachable))
    {
        return None;
    }
    let mut draft = Draft::new(
        "dns_blocked",
        Layer::Names,
        "UDP port 53",
        Severity::Critical,
        "No resolver answers over UDP port 53, although their hosts live".into(),
    );
    draft.rests_on = Some(view.way_to(remote[0].resolver));
    for tally in &remote {
        draft.covers("resolver_dead", Some(tally.resolver.to_string()));
    }
    let at = remote[0].at;
    for (place, tally) in remote.iter().enumerate() {
        if place == 0 {
            draft.shown("dns", "udp", at, tally.fact());
        } else {
            draft.noted("dns", at, tally.fact());
        }
    }
    for (place, (tally, ping)) in living.iter().enumerate() {
        let fact = ping.fact(tally.resolver);
        if place == 0 {
            draft.backed("reach", "resolvers", ping.at, fact);
        } else {
            draft.noted("reach", ping.at, fact);
        }
    }
    let open = other_transports(&mut draft, view);
    draft.explains("No name is resolved; what is reached by address still works");
    draft.misses(
        "where the questions vanish (`aizen trace` with UDP port 53), and the packet filters on \
         the way",
    );
    let resolvers = list(remote.iter().map(|tally| tally.resolver));
    draft.next(match open {
        Some(way) => format!(
            "Find the packet filter that drops UDP port 53 towards {resolvers} (this device's \
             first: `nft list ruleset`); until then let the forwarder ask over {way}"
        ),
        None => format!(
            "Find the packet filter that drops UDP port 53 towards {resolvers}, this device's \
             first (`nft list ruleset`), then ask the provider"
        ),
    });
    Some(draft)
}

fn met(probe: &DnsProbe, answer: DnsAnswer) -> bool {
    probe.answers.contains(&answer)
}

/// Questions over anything but plain UDP.
fn other_ways<'a>(view: &View<'a>) -> impl Iterator<Item = (jiff::Timestamp, &'a DnsProbe)> {
    view.now().dns.iter().flat_map(|seen| {
        seen.value
            .iter()
            .filter(|probe| {
                probe.transport != DnsTransport::Udp && probe.purpose == DnsPurpose::Lookup
            })
            .map(|probe| (seen.at, probe))
    })
}

/// A question that is answered another way shows that the resolver itself is well.
fn other_transports(draft: &mut Draft, view: &View<'_>) -> Option<&'static str> {
    let mut open = None;
    let mut tried = false;
    for (at, probe) in other_ways(view) {
        tried = true;
        let way = match probe.transport {
            DnsTransport::Udp | DnsTransport::Tcp => "TCP",
            DnsTransport::Tls => "TLS",
            DnsTransport::Https => "HTTPS",
        };
        if probe
            .answers
            .iter()
            .any(|answer| matches!(answer, DnsAnswer::Rcode(_)))
        {
            open.get_or_insert(way);
            draft.backed(
                "dns",
                way,
                at,
                format!("{} answers over {way}", probe.resolver),
            );
        } else {
            draft.noted(
                "dns",
                at,
                format!("{} doesn't answer over {way} either", probe.resolver),
            );
        }
    }
    if !tried {
        draft.misses("whether the resolvers answer over TCP or TLS (`aizen dns NAME` over TCP)");
    }
    open
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Confidence;
    use aizen_protocol::record::{DnsAnswer, DnsPurpose, DnsTransport};

    use crate::fixture::machine::question;
    use crate::fixture::{Evidence, NAME, RESOLVER, SECOND, healthy, only};

    fn blocked() -> Evidence {
        let mut evidence = healthy(1);
        for resolver in [RESOLVER, SECOND] {
            evidence.answers(resolver, DnsAnswer::Timeout);
        }
        evidence
    }

    fn over_tcp(evidence: &mut Evidence, answer: DnsAnswer) {
        let (tcp, lookup) = (DnsTransport::Tcp, DnsPurpose::Lookup);
        evidence
            .dns
            .push(question(RESOLVER, tcp, lookup, NAME, answer, &[]));
    }

    #[test]
    fn resolvers_that_answer_echo_and_tcp_but_not_udp_are_blocked_on_the_way() {
        let mut evidence = blocked();
        over_tcp(&mut evidence, DnsAnswer::Rcode(0));
        let verdict = evidence.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.confidence),
            ("dns_blocked", Confidence::Certain)
        );
        assert_eq!(finding.consequences.len(), 3, "{:?}", finding.consequences);
    }

    #[test]
    fn one_that_answers_hosts_that_are_away_and_closed_ports_are_other_faults() {
        let mut one = blocked();
        *one.dns_of(SECOND) = healthy(1).dns_of(SECOND).clone();
        assert_eq!(only(&one.verdict()).cause.0, "resolver_dead");
        let mut away = blocked();
        away.silence(SECOND);
        away.silence(RESOLVER);
        let mut closed = blocked();
        over_tcp(&mut closed, DnsAnswer::PortUnreachable);
        for evidence in [away, closed] {
            let verdict = evidence.verdict();
            assert!(
                verdict
                    .findings
                    .iter()
                    .all(|finding| finding.cause.0 == "resolver_dead")
            );
            assert_eq!(verdict.findings.len(), 2);
        }
    }
}
