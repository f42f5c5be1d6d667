//! The resolvers of this device: dead, or answering too slowly.
//!
//! Programs ask the resolvers of `resolv.conf` in order and wait seconds for the first: a dead one that stands before a
//! living one costs every lookup, one that stands after it costs nothing. Alternates that the operator named serve as
//! controls; that they don't answer is no fault.

mod local;
mod slow;

use std::net::IpAddr;

use aizen_protocol::finding::Severity;

use super::draft::{Draft, Examined, Layer};
use super::names;
use super::question::{self, Tally};
use super::reach;
use super::unit::{list, median};
use crate::case::{View, Way};
use crate::repair;

/// Unanswered questions in a row that make a resolver dead.
const DEAD_AFTER: u32 = 3;
/// The same where the host said so itself, or where another resolver answered everything in the same round, so that
/// loss on the way is no explanation.
const DEAD_AFTER_WITH_CONTROL: u32 = 2;
/// From here on an answer is slow, microseconds.
const SLOW_US: u32 = 300_000;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let tallies = question::tallies(view.now());
    let configured = configured(view, &tallies);
    let mut proposed = false;
    let mut served_before = false;
    for (place, tally) in configured.iter().enumerate() {
        if is_dead(view, tally, &tallies) {
            let draft = dead(view, tally, &tallies, served_before, proposed);
            proposed |= draft.has_proposal();
            examined.drafts.push(draft);
        } else if place == 0
            && let Some(draft) = slow::examine(view, tally, &tallies)
        {
            examined.drafts.push(draft);
        } else if tally.served > 0 {
            examined.well.push(format!("The resolver {}", tally.fact()));
        }
        served_before |= tally.served > 0;
    }
    examined
}

/// The resolvers of `resolv.conf` that were asked, in its order.
fn configured<'a>(view: &View<'_>, tallies: &'a [Tally]) -> Vec<&'a Tally> {
    match &view.now().resolvers {
        Some(seen) => {
            let mut all: Vec<&Tally> = Vec::new();
            for resolver in &seen.value.configured {
                let asked = tallies.iter().find(|tally| tally.resolver == *resolver);
                if let Some(tally) = asked.filter(|_| all.iter().all(|t| t.resolver != *resolver)) {
                    all.push(tally);
                }
            }
            all
        }
        None => tallies.iter().filter(|tally| tally.configured).collect(),
    }
}

fn is_dead(view: &View<'_>, tally: &Tally, tallies: &[Tally]) -> bool {
    // Errors for names that it knows unchecked are a failed validation.
    if !tally.is_useless() || tally.errors > 0 && names::is_refusal(view, tally.resolver) {
        return false;
    }
    // Of a family that this device has no way for: programs skip it at once, as long as another one serves.
    let unrouted = tally.unreachable == tally.asked && view.way_to(tally.resolver).link.is_none();
    if unrouted && tallies.iter().any(|other| other.served > 0) {
        return false;
    }
    let control = controls(tally, tallies).next().is_some();
    let unanswered = question::unanswered(view, tally.resolver);
    if tally.errors > 0 {
        // It lives and says that it can't: only a resolver that resolves the same name shows whose fault that is. With
        // none to compare, two names of which neither resolves, while the outside answers.
        let same_name = tallies
            .iter()
            .any(|other| other.resolved.iter().any(|name| tally.names.contains(name)));
        return unanswered >= DEAD_AFTER_WITH_CONTROL
            && (same_name || tally.names.len() >= 2 && outside_answers(view, tally.resolver));
    }
    if tally.refused > 0 || control {
        unanswered >= DEAD_AFTER_WITH_CONTROL
    } else {
        unanswered >= DEAD_AFTER
    }
}

/// Resolvers that served every question of this round.
fn controls<'a>(tally: &Tally, tallies: &'a [Tally]) -> impl Iterator<Item = &'a Tally> {
    let resolver = tally.resolver;
    tallies.iter().filter(move |other| {
        other.resolver != resolver && other.asked > 0 && other.served == other.asked
    })
}

/// The best to ask instead: one that serves everything and resolves a name; configured ones first, then the fastest.
fn best_control<'a>(view: &View<'_>, tally: &Tally, tallies: &'a [Tally]) -> Option<&'a Tally> {
    let order = configured(view, tallies);
    let is_configured = |resolver: IpAddr| order.iter().any(|tally| tally.resolver == resolver);
    controls(tally, tallies)
        .filter(|other| !other.resolved.is_empty())
        .min_by_key(|other| {
            let rtt = median(&other.rtt_us).unwrap_or(u32::MAX);
            // A configured one that is slow itself is no help if an alternate is fast.
            (rtt > SLOW_US, !is_configured(other.resolver), rtt)
        })
}

/// An echo reply from something else beyond the gateway, in this round.
fn outside_answers(view: &View<'_>, resolver: IpAddr) -> bool {
    let now = view.now();
    now.reach.iter().flat_map(|seen| &seen.value).any(|reach| {
        reach.target != resolver && reach.received > 0 && view.way_to(reach.target).beyond.is_some()
    })
}

/// A resolver on the device itself depends on whatever lies beyond the gateway, unless its port is closed.
fn way(view: &View<'_>, tally: &Tally) -> Way {
    let mut way = view.way_to(tally.resolver);
    if tally.resolver.is_loopback() && tally.refused == 0 {
        way.beyond = Some(crate::case::Family::V4);
    }
    way
}

fn dead(
    view: &View<'_>,
    tally: &Tally,
    tallies: &[Tally],
    served_before: bool,
    proposed: bool,
) -> Draft {
    let resolver = tally.resolver;
    let severity = if served_before {
        Severity::Warning
    } else {
        Severity::Critical
    };
    let how = if tally.errors > 0 {
        "answers with errors only"
    } else if tally.refused > 0 {
        // Hosts limit how many refusals they send (RFC 1812 section 4.3.2.8): the others look like timeouts.
        "has nothing listening on its DNS port"
    } else {
        "does not answer"
    };
    let traffic = local::traffic(view, tally);
    let cause = match &traffic {
        Some(_) => "resolver_loop",
        None if resolver.is_loopback() && tally.refused > 0 => "resolver_localhost_dead",
        None => "resolver_dead",
    };
    let mut draft = Draft::new(
        cause,
        Layer::Names,
        resolver.to_string(),
        severity,
        format!("The resolver {resolver} {how}"),
    );
    draft.rests_on = Some(way(view, tally));
    draft.shown("dns", &resolver.to_string(), tally.at, tally.fact());
    if let Some((at, fact)) = traffic {
        draft.shown("links", "loopback", at, fact);
        draft.misses("the upstream servers of the forwarder: none may lead back to this device");
    }
    let unanswered = question::unanswered(view, resolver);
    if unanswered > tally.asked {
        let fact = format!("{resolver} served none of the last {unanswered} questions");
        draft.noted("dns", tally.at, fact);
    }
    let mut compared = false;
    for other in controls(tally, tallies).take(3) {
        compared = true;
        draft.backed("dns", &other.resolver.to_string(), tally.at, other.fact());
    }
    echo(&mut draft, view, tally);
    draft.misses(format!(
        "whether {resolver} answers over TCP or for other names (`aizen dns NAME`)"
    ));
    if !compared {
        others_silent(&mut draft, tally, tallies);
    }
    if served_before {
        draft.explains("Lookups that the resolvers before it do not answer have one fallback less");
    } else {
        draft.explains(format!(
            "Every lookup of a name waits for {resolver} first, or fails if no other resolver is configured"
        ));
    }
    let best = best_control(view, tally, tallies);
    if !served_before && !proposed {
        draft.propose(best.and_then(|best| {
            let name = best.resolved.first()?;
            repair::resolver::prefer_for_dead(view, resolver, best.resolver, name)
        }));
    }
    draft.next(next_step(
        view,
        &draft,
        tally,
        best,
        proposed && !served_before,
    ));
    draft
}

fn next_step(
    view: &View<'_>,
    draft: &Draft,
    tally: &Tally,
    best: Option<&Tally>,
    proposed: bool,
) -> String {
    let resolver = tally.resolver;
    let own_file = view
        .now()
        .resolvers
        .as_ref()
        .is_none_or(|seen| seen.value.regular_file);
    let restart = if resolver.is_loopback() {
        format!("Restart the DNS forwarder of this device that should listen on {resolver}")
    } else {
        format!("Restart the DNS service on {resolver} or ask whoever runs it")
    };
    match best {
        Some(_) if draft.has_proposal() => {
            format!("{restart}; until then let another resolver be asked first, as proposed")
        }
        Some(_) if proposed => {
            format!("{restart}; the repair proposed for the resolver before it covers this one too")
        }
        Some(best) if !own_file => format!(
            "{restart}; until then set {} as resolver in the service that owns /etc/resolv.conf, which is no regular \
             file",
            best.resolver
        ),
        Some(_) | None => restart,
    }
}

/// What echo requests say: the host is away, or only its DNS service; and whether the way outside is well.
fn echo(draft: &mut Draft, view: &View<'_>, tally: &Tally) {
    let resolver = tally.resolver;
    match reach::ping(view.now(), resolver) {
        Some(ping) if ping.received > 0 => {
            let fact = format!(
                "{}: the host lives, its DNS service does not",
                ping.fact(resolver)
            );
            draft.backed("reach", &resolver.to_string(), ping.at, fact);
        }
        Some(ping) if reach::is_silent(view, resolver) => {
            draft.shown("reach", &resolver.to_string(), ping.at, ping.fact(resolver));
        }
        Some(_) | None => {}
    }
    let now = view.now();
    let another = now.reach.iter().flat_map(|seen| &seen.value).find(|reach| {
        reach.target != resolver && reach.received > 0 && view.way_to(reach.target).beyond.is_some()
    });
    if let Some((target, ping)) =
        another.and_then(|reach| Some((reach.target, reach::ping(now, reach.target)?)))
    {
        let fact = format!("the way outside is well: {}", ping.fact(target));
        draft.backed("reach", "outside", ping.at, fact);
    } else {
        draft.misses("an answer from outside without DNS (`aizen ping` to an address)");
    }
}

/// With no resolver to compare, the port may be blocked or the whole provider's DNS may be away.
fn others_silent(draft: &mut Draft, tally: &Tally, tallies: &[Tally]) {
    let others: Vec<IpAddr> = tallies
        .iter()
        .filter(|other| other.resolver != tally.resolver && other.is_useless())
        .map(|other| other.resolver)
        .collect();
    if others.is_empty() {
        draft.misses(
            "the answer of another resolver (`aizen dns NAME` with a second resolver named)",
        );
    } else {
        let fact = format!(
            "{} did not serve either: port 53 may be blocked on the way",
            list(&others)
        );
        draft.contradicted("dns", tally.at, fact);
        draft.misses("whether UDP port 53 passes at all (`aizen dns NAME` over TCP and with a resolver elsewhere)");
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::package::manifest::{Probe, Value};
    use aizen_protocol::private::Name;
    use aizen_protocol::record::DnsAnswer;

    use super::*;
    use crate::fixture::{
        ALTERNATE, ANCHOR, Evidence, NAME, RESOLVER, SECOND, dns, healthy, ip, kill_resolver, only,
        verdict,
    };

    #[test]
    fn a_dead_first_resolver_is_certain_where_another_answers_and_the_way_is_well() {
        let mut broken = healthy(1);
        kill_resolver(&mut broken);
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("resolver_dead", RESOLVER)
        );
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Critical, Confidence::Certain)
        );
        let proposal = finding.proposal.as_ref().unwrap();
        let bound: Vec<&str> = proposal
            .bindings
            .iter()
            .map(|binding| binding.pseudonym.as_str())
            .collect();
        assert_eq!(bound, [RESOLVER, SECOND, NAME]);
        let probes = &proposal.manifest.confirm.probes;
        assert_eq!(probes[0], Probe::Uplink(true));
        assert_eq!(
            probes[1],
            Probe::Dns(Value(format!("${}", proposal.bindings[2].variable())))
        );
    }

    #[test]
    fn a_name_that_is_no_pseudonym_is_probed_as_it_stands_without_its_final_dot() {
        for (name, probed) in [
            ("example.org", "example.org"),
            ("example.org.", "example.org"),
            (".", "."),
        ] {
            let mut broken = healthy(1);
            kill_resolver(&mut broken);
            broken
                .dns
                .iter_mut()
                .for_each(|probe| probe.name = Name(name.into()));
            let verdict = broken.verdict();
            let proposal = only(&verdict).proposal.clone().unwrap();
            assert_eq!(
                proposal.manifest.confirm.probes[1],
                Probe::Dns(probed.into())
            );
            assert_eq!(proposal.bindings.len(), 2);
        }
    }

    #[test]
    fn questions_that_are_lost_slow_or_answered_with_a_denial_do_not_alarm() {
        use DnsAnswer::{Rcode, Timeout};
        let look_alikes: [fn(&mut Evidence); 9] = [
            |e| {
                *e.dns_of(RESOLVER) = dns(
                    RESOLVER,
                    true,
                    &[Timeout, Rcode(0), Timeout, Timeout, Timeout],
                    3_000,
                )
            },
            |e| *e.dns_of(RESOLVER) = dns(RESOLVER, true, &[Timeout], 0),
            |e| *e.dns_of(RESOLVER) = dns(RESOLVER, true, &[Rcode(0)], 2_900_000),
            |e| e.answers(RESOLVER, Rcode(3)),
            // One name that nobody resolves is that name's fault.
            |e| {
                e.answers(RESOLVER, Rcode(2));
                e.answers(SECOND, Rcode(2));
            },
            |e| e.dns.retain(|probe| probe.configured),
            |e| e.silence(RESOLVER),
            // A configured one that wasn't asked.
            |e| e.dns.clear(),
            // An IPv6 resolver on a device without IPv6.
            |e| {
                e.resolvers.configured.insert(0, ip("2001:db8::53"));
                e.dns.insert(
                    0,
                    dns("2001:db8::53", true, &[DnsAnswer::Unreachable; 5], 0),
                );
            },
        ];
        for (number, change) in look_alikes.into_iter().enumerate() {
            let mut evidence = healthy(1);
            change(&mut evidence);
            assert_eq!(evidence.verdict().health, Health::Healthy, "{number}");
        }
    }

    #[test]
    fn a_few_lost_questions_are_pooled_over_rounds_until_an_answer_comes() {
        let lossy = |round| {
            let mut evidence = healthy(round);
            *evidence.dns_of(RESOLVER) = dns(RESOLVER, true, &[DnsAnswer::Timeout; 2], 0);
            evidence.dns_of(SECOND).answers[0] = DnsAnswer::Timeout;
            evidence
        };
        assert_eq!(lossy(1).verdict().findings, []);
        assert_eq!(verdict(&[lossy(1), healthy(2), lossy(3)]).findings, []);
        assert_eq!(only(&verdict(&[lossy(1), lossy(2)])).component.0, RESOLVER);
    }

    #[test]
    fn refusals_that_the_host_limits_are_still_refusals() {
        use DnsAnswer::{PortUnreachable, Timeout};
        let mut broken = healthy(1);
        let answers = [Timeout, PortUnreachable, Timeout, Timeout, PortUnreachable];
        *broken.dns_of(RESOLVER) = dns(RESOLVER, true, &answers, 0);
        let verdict = broken.verdict();
        assert!(
            only(&verdict)
                .summary
                .0
                .ends_with("has nothing listening on its DNS port")
        );
    }

    #[test]
    fn a_dead_spare_warns_and_needs_no_repair() {
        let mut broken = healthy(1);
        broken.answers(SECOND, DnsAnswer::Timeout);
        let verdict = broken.verdict();
        assert_eq!(
            (only(&verdict).severity, verdict.health),
            (Severity::Warning, Health::Warning)
        );
        assert_eq!(only(&verdict).proposal, None);
    }

    #[test]
    fn two_dead_ones_are_covered_by_one_repair_over_the_alternate() {
        let mut broken = healthy(1);
        for resolver in [RESOLVER, SECOND] {
            broken.answers(resolver, DnsAnswer::Timeout);
        }
        *broken.dns_of(ALTERNATE) = dns(ALTERNATE, false, &[DnsAnswer::Rcode(0); 5], 20_000);
        let verdict = broken.verdict();
        let proposals: Vec<bool> = verdict
            .findings
            .iter()
            .map(|finding| finding.proposal.is_some())
            .collect();
        assert_eq!(proposals, [true, false]);
        let proposal = verdict.findings[0].proposal.as_ref().unwrap();
        assert_eq!(proposal.bindings[1].pseudonym, ALTERNATE);
    }

    #[test]
    fn all_silent_while_the_way_is_well_is_a_finding_with_a_contradiction_and_no_repair() {
        let mut broken = healthy(1);
        // Hosts of which only one answers echo requests: whether the port is blocked can't be told.
        broken.silence(SECOND);
        for resolver in [RESOLVER, SECOND] {
            broken.answers(resolver, DnsAnswer::Timeout);
        }
        let verdict = broken.verdict();
        assert_eq!(verdict.health, Health::Critical);
        for finding in &verdict.findings {
            assert_eq!(finding.contradictions.len(), 1);
            assert_eq!(finding.proposal, None);
        }
    }

    #[test]
    fn errors_for_a_name_that_another_resolver_knows_are_this_resolvers_fault() {
        let mut broken = healthy(1);
        broken.answers(RESOLVER, DnsAnswer::Rcode(2));
        assert_eq!(
            only(&broken.verdict()).summary.0,
            format!("The resolver {RESOLVER} answers with errors only")
        );
    }

    #[test]
    fn a_file_that_a_service_owns_is_left_to_a_person() {
        let mut broken = healthy(1);
        kill_resolver(&mut broken);
        broken.resolvers.regular_file = false;
        let verdict = broken.verdict();
        assert_eq!(only(&verdict).proposal, None);
        assert!(only(&verdict).next_step.0.contains("no regular file"));
    }

    #[test]
    fn a_forwarder_on_the_device_whose_port_is_closed_is_dead_by_itself() {
        let mut broken = healthy(1);
        broken.resolvers.configured = vec![ip("127.0.0.1")];
        broken.resolvers.alternates = vec![ip(SECOND)];
        broken.dns = vec![
            dns("127.0.0.1", true, &[DnsAnswer::PortUnreachable; 5], 0),
            dns(SECOND, false, &[DnsAnswer::Rcode(0); 5], 9_000),
        ];
        let verdict = broken.verdict();
        assert_eq!(only(&verdict).cause.0, "resolver_localhost_dead");
        assert!(
            only(&verdict)
                .next_step
                .0
                .starts_with("Restart the DNS forwarder")
        );
        assert!(only(&verdict).proposal.is_some());
        // Its silence while the provider is away follows from that.
        broken.dns = healthy(1).dns;
        broken.silence_outside();
        broken.dns = vec![dns("127.0.0.1", true, &[DnsAnswer::Timeout; 5], 0)];
        broken
            .reach
            .retain(|reach| reach.target != ip(ANCHOR) || reach.received == 0);
        assert_eq!(only(&broken.verdict()).cause.0, "upstream_dead");
    }
}
