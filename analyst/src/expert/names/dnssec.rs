//! Answers that fail validation: a resolver says SERVFAIL and knows the name as soon as it need not check.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{DnsAnswer, DnsProbe, DnsPurpose, DnsTransport};

use crate::case::{Pass, View};
use crate::expert::draft::{Draft, Layer};
use crate::expert::unit::list;

const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;

pub(super) fn examine(view: &View<'_>) -> Vec<Draft> {
    let Some(seen) = &view.now().dns else {
        return Vec::new();
    };
    let resolvers: BTreeSet<IpAddr> = seen
        .value
        .iter()
        .filter(|probe| probe.configured)
        .map(|probe| probe.resolver)
        .collect();
    resolvers
        .into_iter()
        .filter_map(|resolver| {
            let names = refused(view.now(), resolver);
            (!names.is_empty()).then(|| failing(view, resolver, &names))
        })
        .collect()
}

/// True if the errors of this resolver in this pass are refusals to believe what it got.
pub(in crate::expert) fn is_refusal(view: &View<'_>, resolver: IpAddr) -> bool {
    !refused(view.now(), resolver).is_empty()
}

/// Names that a resolver gives only unchecked.
fn refused(pass: &Pass, resolver: IpAddr) -> BTreeSet<&str> {
    let probes = || {
        pass.dns
            .iter()
            .flat_map(|seen| &seen.value)
            .filter(|probe| probe.resolver == resolver)
    };
    let servfails = |probe: &&DnsProbe| {
        probe.purpose == DnsPurpose::Lookup
            && probe.transport == DnsTransport::Udp
            && probe.answers.contains(&DnsAnswer::Rcode(SERVFAIL))
            && !probe.answers.contains(&DnsAnswer::Rcode(NOERROR))
    };
    let known_unchecked = |probe: &DnsProbe| {
        probes().any(|other| {
            other.purpose == DnsPurpose::Unvalidated
                && other.name == probe.name
                && other.answers.contains(&DnsAnswer::Rcode(NOERROR))
        })
    };
    probes()
        .filter(servfails)
        .filter(|probe| known_unchecked(probe))
        .map(|probe| probe.name.0.as_str())
        .collect()
}

fn failing(view: &View<'_>, resolver: IpAddr, names: &BTreeSet<&str>) -> Draft {
    let severity = if names.len() > 1 {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut draft = Draft::new(
        "dnssec_failure",
        Layer::Names,
        resolver.to_string(),
        severity,
        format!("The resolver {resolver} refuses answers that fail DNSSEC validation"),
    );
    draft.rests_on = Some(view.way_to(resolver));
    let at = view
        .now()
        .dns
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    for name in names {
        draft.shown(
            "dns",
            "validated",
            at,
            format!("{resolver} answered SERVFAIL for {name} and knows it with checking disabled"),
        );
    }
    compare(&mut draft, view, resolver, names);
    draft.explains("Names of signed zones are not resolved");
    draft.misses(
        "whether other signed names fail as well (`aizen dns` with several names: one zone's \
         fault, or the resolver's clock or trust anchor)",
    );
    draft.next(if names.len() > 1 {
        format!(
            "Check the clock of {resolver} and its root trust anchor; do not switch validation off"
        )
    } else {
        format!(
            "Tell the owner of the zone of {} that its signatures fail; check the clock of \
             {resolver}",
            list(names)
        )
    });
    draft
}

/// The same names earlier, and with another resolver that validates.
fn compare(draft: &mut Draft, view: &View<'_>, resolver: IpAddr, names: &BTreeSet<&str>) {
    let at = view
        .now()
        .dns
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    let before = view.this_boot().find_map(|pass| {
        let seen = pass.dns.as_ref()?;
        seen.value
            .iter()
            .any(|probe| {
                probe.resolver == resolver
                    && probe.purpose == DnsPurpose::Lookup
                    && names.contains(probe.name.0.as_str())
                    && probe.answers.contains(&DnsAnswer::Rcode(NOERROR))
            })
            .then_some(seen.at)
    });
    if let Some(at) = before {
        draft.backed(
            "dns",
            "earlier",
            at,
            format!("{resolver} resolved the same name earlier in this boot"),
        );
    }
    let another = view
        .now()
        .dns
        .iter()
        .flat_map(|seen| &seen.value)
        .find(|probe| {
            probe.resolver != resolver
                && probe.authentic
                && names.contains(probe.name.0.as_str())
                && probe.answers.contains(&DnsAnswer::Rcode(NOERROR))
        });
    if let Some(other) = another {
        draft.backed(
            "dns",
            "validates",
            at,
            format!(
                "{} validates the same name: its zone is well",
                other.resolver
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{DnsAnswer, DnsPurpose, DnsTransport};

    use crate::fixture::machine::question;
    use crate::fixture::{Evidence, NAME, RESOLVER, SECOND, healthy, only, shift_clock, verdict};

    fn refuse(evidence: &mut Evidence, unchecked: u8) {
        evidence.answers(RESOLVER, DnsAnswer::Rcode(2));
        let (udp, purpose) = (DnsTransport::Udp, DnsPurpose::Unvalidated);
        let answer = DnsAnswer::Rcode(unchecked);
        evidence.dns.push(question(
            RESOLVER,
            udp,
            purpose,
            NAME,
            answer,
            &["198.51.100.9"],
        ));
    }

    #[test]
    fn a_name_that_is_known_only_unchecked_fails_validation_and_the_resolver_is_not_dead() {
        let mut broken = healthy(2);
        refuse(&mut broken, 0);
        let verdict = verdict(&[healthy(1), broken]);
        assert_eq!(only(&verdict).cause.0, "dnssec_failure");
        assert_eq!(only(&verdict).proposal, None);
    }

    #[test]
    fn a_clock_that_is_far_off_explains_it() {
        let mut broken = healthy(1);
        refuse(&mut broken, 0);
        shift_clock(&mut broken);
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "ntp_offset");
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.contains("DNSSEC validation"))
        );
        // A small offset breaks no signature.
        let mut small = healthy(1);
        refuse(&mut small, 0);
        shift_clock(&mut small);
        for server in &mut small.time.servers {
            server.offset_ms = Some(2_000);
        }
        assert_eq!(small.verdict().findings.len(), 2);
    }

    #[test]
    fn a_server_that_fails_either_way_and_a_name_that_nobody_knows_are_no_dnssec_failures() {
        let mut dead = healthy(1);
        refuse(&mut dead, 2);
        assert_eq!(only(&dead.verdict()).cause.0, "resolver_dead");
        let mut unknown = healthy(1);
        for resolver in [RESOLVER, SECOND] {
            unknown.answers(resolver, DnsAnswer::Rcode(3));
        }
        assert_eq!(unknown.verdict().findings, []);
    }
}
