//! Laws for the machine's collectors: a busy device is healthy, and the lowest fault explains the others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use aizen_protocol::finding::Health;
use aizen_protocol::private::{Mac, Name, Prefix, Private as _, PrivateVisitor, Text};
use aizen_protocol::record::{Body, DnsAnswer, Record, ServiceState};
use proptest::prelude::*;

use super::analyze;
use crate::case::Case;
use crate::fixture::machine::{busy, faults, history, log, service, tunnel};
use crate::fixture::{Evidence, RESOLVER, at, kill_gateway, kill_resolver, only, verdict};

#[test]
fn a_busy_router_is_healthy_and_says_what_was_looked_at() {
    let rounds: Vec<Evidence> = (1..=8).map(busy).collect();
    let verdict = verdict(&rounds);
    assert_eq!(verdict.findings, []);
    assert_eq!(verdict.health, Health::Healthy);
    assert!(verdict.ruled_out.len() >= 20, "{:#?}", verdict.ruled_out);
}

#[test]
fn each_fault_beside_a_busy_machine_is_the_only_finding() {
    for (cause, rounds) in faults() {
        let verdict = verdict(&rounds);
        assert_eq!(only(&verdict).cause.0, cause);
    }
}

#[test]
fn a_fault_is_as_old_as_its_first_round_and_gone_when_it_is_over() {
    for (cause, mut rounds) in faults() {
        assert_eq!(only(&verdict(&rounds)).since, at(2), "{cause}");
        rounds.push(busy(5));
        // A killed process and a station that was sent away stay news for some minutes.
        if !["oom_kill", "wifi_authentication"].contains(&cause) {
            assert_eq!(verdict(&rounds).findings, [], "{cause}");
        }
    }
}

#[test]
fn a_full_case_of_a_busy_machine_is_judged_over_all_its_passes() {
    let passes = u64::try_from(crate::case::PASSES).unwrap();
    let rounds = history(passes, |round, evidence| {
        *evidence = busy(round);
        let lines = (0..500).map(|_| log(round, "charon", "sending keep alive to the other end"));
        evidence.see(Body::Log(lines.collect()));
        kill_resolver(evidence);
    });
    assert_eq!(only(&verdict(&rounds)).since, at(1));
}

#[test]
fn a_dead_gateway_explains_the_tunnel_through_it() {
    let rounds = history(4, |round, evidence| {
        evidence.see(Body::WireGuard(vec![tunnel(&[(
            600 + 10 * round,
            900 * round,
            70,
        )])]));
        kill_gateway(evidence);
    });
    let verdict = verdict(&rounds);
    let finding = only(&verdict);
    assert_eq!(finding.cause.0, "gateway_dead");
    assert!(
        finding
            .consequences
            .iter()
            .any(|text| text.0.contains("tunnel"))
    );
}

#[test]
fn a_service_that_fell_for_want_of_memory_and_a_resolver_that_fell_with_it_are_one_fault() {
    let rounds = history(4, |round, evidence| {
        *evidence = busy(round);
        evidence.host.oom_kills = Some(u64::from(round > 1));
        if round > 1 {
            let mut fallen = service("dnsmasq", ServiceState::Failed, Some(true));
            fallen.result = Some("oom-kill".into());
            evidence.see(Body::Services(vec![fallen]));
            let local: IpAddr = "127.0.0.1".parse().unwrap();
            evidence.resolvers.configured = vec![local];
            let probe = evidence.dns_of(RESOLVER);
            probe.resolver = local;
            evidence.answers("127.0.0.1", DnsAnswer::PortUnreachable);
        }
    });
    assert_eq!(only(&verdict(&rounds)).cause.0, "oom_kill");
}

proptest! {
    #[test]
    fn random_subsets_of_busy_evidence_never_alarm(
        kept in proptest::collection::vec(any::<bool>(), 200),
        rounds in 1..5_u64,
    ) {
        let all = (1..=rounds).flat_map(|round| busy(round).records());
        let records: Vec<Record> = all
            .zip(&kept)
            .filter(|(record, kept)| **kept || matches!(record.body, Body::Round(_)))
            .map(|(record, _)| record)
            .collect();
        let verdict = analyze(&Case::new(records));
        prop_assert_eq!(&verdict.findings, &[]);
    }

    #[test]
    fn a_fault_with_records_missing_names_no_other_fault(
        kept in proptest::collection::vec(any::<bool>(), 140),
        which in 0..10_usize,
    ) {
        let (cause, rounds) = faults().swap_remove(which);
        let records: Vec<Record> = rounds
            .iter()
            .flat_map(Evidence::records)
            .zip(&kept)
            .filter(|(record, kept)| **kept || matches!(record.body, Body::Round(_)))
            .map(|(record, _)| record)
            .collect();
        // Where the cause is hidden, what follows from it may stand for it; nothing else may.
        let follows: &[&str] = match cause {
            "dns_blocked" => &["dns_blocked", "resolver_dead", "upstream_dead"],
            "vpn_mtu" => &["vpn_mtu", "mtu_black_hole"],
            other => &[other],
        };
        for finding in analyze(&Case::new(records)).findings {
            prop_assert!(follows.contains(&finding.cause.0.as_str()), "{} in {cause}", finding.cause.0);
        }
    }
}

/// Reads every private value and every text.
#[derive(Default)]
struct Values {
    known: BTreeSet<String>,
    texts: Vec<String>,
}

impl PrivateVisitor for Values {
    fn address(&mut self, value: &mut IpAddr) {
        self.known.insert(value.to_string());
    }
    fn prefix(&mut self, value: &mut Prefix) {
        self.known.insert(value.address.to_string());
    }
    fn mac(&mut self, value: &mut Mac) {
        self.known.insert(value.to_string());
    }
    fn name(&mut self, value: &mut Name) {
        self.known.insert(value.0.clone());
    }
    fn text(&mut self, value: &mut Text) {
        self.texts.push(value.0.clone());
    }
}

#[test]
fn every_address_and_name_in_a_verdict_is_of_a_record_and_stands_alone() {
    for (cause, rounds) in faults() {
        let mut records: Vec<Record> = rounds.iter().flat_map(Evidence::records).collect();
        let mut verdict = analyze(&Case::new(records.clone()));
        let mut values = Values::default();
        records
            .iter_mut()
            .for_each(|record| record.visit_private(&mut values));
        values.texts.clear();
        verdict.visit_private(&mut values);
        for text in &values.texts {
            for word in text
                .split(|c: char| c.is_whitespace() || ",;()'`\"".contains(c))
                .filter(|word| word.contains(['.', ':']))
            {
                let is_value = word.parse::<IpAddr>().is_ok() || word.parse::<Mac>().is_ok();
                assert!(
                    !is_value || values.known.contains(word),
                    "{cause}: {word} in {text}"
                );
                let is_glued = values
                    .known
                    .iter()
                    .any(|value| word != value && word.strip_suffix([':', '.']) == Some(value));
                assert!(!is_glued, "{cause}: {word} in {text}");
            }
        }
    }
}
