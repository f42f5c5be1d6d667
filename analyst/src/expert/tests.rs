//! Laws that hold for every fault and for health.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use aizen_protocol::finding::{Health, Severity, Verdict};
use aizen_protocol::private::{Mac, Name, Prefix, Private as _, PrivateVisitor, Text};
use aizen_protocol::record::{
    Body, Dhcp, Ethernet, Hop, LinkCounters, LogLine, LogOrigin, NeighbourState, Record, Trace,
};
use proptest::prelude::*;

use super::analyze;
use crate::case::Case;
use crate::fixture::{Evidence, at, faults, healthy, lower, only, verdict};

/// Every fault of the fixtures: its name, its rounds, and the round that follows its end.
fn all_faults() -> Vec<(&'static str, Vec<Evidence>, Evidence)> {
    faults()
        .into_iter()
        .map(|(cause, rounds)| (cause, rounds, healthy(4)))
        .chain(lower::faults())
        .collect()
}

#[test]
fn a_healthy_router_is_healthy_and_says_what_was_looked_at() {
    let verdict = verdict(&[healthy(1), healthy(2), healthy(3)]);
    assert_eq!(verdict.findings, []);
    assert_eq!(verdict.health, Health::Healthy);
    // What the fixture leaves out.
    let gap = |collector: &str| verdict.unseen.iter().any(|gap| gap.collector == collector);
    assert!(gap("filter") && !gap("links") && !gap("dns"));
    assert_eq!(verdict.at, at(3));
    let said: Vec<&str> = verdict
        .ruled_out
        .iter()
        .map(|text| text.0.as_str())
        .collect();
    assert!(said.len() >= 9, "{said:#?}");
}

#[test]
fn every_fault_has_one_finding_with_its_name_its_evidence_and_its_first_round() {
    for (cause, rounds, _) in all_faults() {
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, cause);
        assert_eq!(finding.since, at(2), "{cause}");
        assert!(!finding.evidence.is_empty(), "{cause}");
        assert!(!finding.missing.is_empty(), "{cause}");
        assert!(!finding.next_step.0.is_empty(), "{cause}");
        let health = match finding.severity {
            Severity::Critical => Health::Critical,
            Severity::Warning => Health::Warning,
        };
        assert_eq!(verdict.health, health);
    }
}

#[test]
fn a_fault_that_stopped_is_no_finding() {
    for (cause, mut rounds, after) in all_faults() {
        rounds.push(after);
        assert_eq!(verdict(&rounds).findings, [], "{cause}");
    }
}

#[test]
fn a_fault_that_came_back_is_as_old_as_its_return() {
    for (cause, mut rounds) in faults() {
        let mut last = rounds[2].clone();
        last.round = 5;
        rounds.extend([healthy(4), last]);
        assert_eq!(only(&verdict(&rounds)).since, at(5), "{cause}");
    }
}

/// Phones that make up a new hardware address each time.
fn made_up_addresses(e: &mut Evidence) {
    for host in 50..90_u8 {
        let made_up = Mac([2, host, u8::try_from(e.round).unwrap(), 4, 5, host]);
        let mut phone = crate::fixture::neighbour(
            crate::fixture::LAN,
            &format!("192.168.40.{host}"),
            "",
            NeighbourState::Stale,
        );
        phone.mac = Some(made_up);
        e.neighbours.push(phone);
    }
}

/// A hop that limits its replies, on a path that goes on.
fn limited_hop(e: &mut Evidence) {
    let hop = |ttl, address: &str, received| Hop {
        ttl,
        addresses: address.parse().into_iter().collect(),
        sent: 3,
        received,
        rtt_us: vec![],
        mtu: None,
    };
    e.extra.push(Body::Traces(vec![Trace {
        target: crate::fixture::ip(crate::fixture::ANCHOR),
        hops: vec![
            hop(1, crate::fixture::GATEWAY, 3),
            hop(2, "", 0),
            hop(3, "198.18.9.1", 1),
            hop(4, crate::fixture::ANCHOR, 3),
        ],
        reached: true,
    }]));
}

/// Anybody can write a line of log.
fn forged_log(e: &mut Evidence) {
    let texts = [
        "neighbour: arp_cache: neighbor table overflow!",
        "wan: Link is Down, downshift",
        "PAP authentication failed",
        "DHCPDISCOVER(lan) no address available",
        "lan: received packet on lan with own address as source address",
    ];
    let lines = texts.map(|text| LogLine {
        at: at(e.round),
        origin: LogOrigin::Journal,
        program: "pppd".into(),
        severity: 2,
        text: text.into(),
    });
    e.extra.push(Body::Log(lines.to_vec()));
}

#[test]
fn what_is_odd_but_well_does_not_alarm() {
    let oddities: [fn(&mut Evidence); 7] = [
        // A packet capture runs.
        |e| e.link(crate::fixture::WAN).promiscuous = true,
        made_up_addresses,
        limited_hop,
        forged_log,
        // Guests come and go.
        |e| {
            for guest in 20..20 + u32::try_from(e.round).unwrap() {
                let mut veth = crate::fixture::link(guest, &format!("veth{guest}"), true);
                veth.driver_kind = Some("veth".into());
                veth.parent = Some(crate::fixture::SPARE);
                e.links.push(veth);
            }
        },
        // Nothing was found where nothing is expected.
        |e| {
            e.extra.extend([
                Body::DhcpProbes(vec![]),
                Body::RouterProbes(vec![]),
                Body::PppoeProbes(vec![]),
                Body::Lldp(vec![]),
                Body::Modules(vec![]),
                Body::Dhcp(Dhcp::default()),
            ]);
        },
        // Many hosts in a table that has room for them, and totals of a long life.
        |e| {
            let counters = e.link(crate::fixture::WAN).counters.as_mut().unwrap();
            (counters.rx_crc_errors, counters.rx_errors) = (90_000, 120_000);
            counters.rx_length_errors = 70_000;
            e.link(crate::fixture::WAN).carrier_changes = Some(4_000);
        },
    ];
    for (number, odd) in oddities.into_iter().enumerate() {
        let rounds = [1, 2, 3].map(|round| {
            let mut evidence = healthy(round);
            odd(&mut evidence);
            evidence
        });
        let verdict = verdict(&rounds);
        assert_eq!(verdict.findings, [], "{number}");
        assert_eq!(verdict.health, Health::Healthy, "{number}");
    }
}

#[test]
fn a_full_case_is_judged_at_once_and_keeps_the_newest_passes() {
    let newest = 1000;
    let rounds: Vec<_> = (1..=newest)
        .map(|round| {
            let mut evidence = healthy(round);
            crate::fixture::kill_gateway(&mut evidence);
            evidence
        })
        .collect();
    let verdict = verdict(&rounds);
    assert_eq!(verdict.at, at(newest));
    let kept = u64::try_from(crate::case::PASSES).unwrap();
    assert_eq!(only(&verdict).since, at(newest + 1 - kept));
}

#[test]
fn no_fact_is_told_twice() {
    for (cause, rounds, _) in all_faults() {
        let verdict = verdict(&rounds);
        let facts: Vec<_> = only(&verdict)
            .evidence
            .iter()
            .map(|fact| &fact.fact)
            .collect();
        let distinct: BTreeSet<_> = facts.iter().map(|fact| &fact.0).collect();
        assert_eq!(facts.len(), distinct.len(), "{cause}: {facts:#?}");
    }
}

#[test]
fn no_evidence_and_half_a_round_are_unknown() {
    assert_eq!(analyze(&Case::default()).health, Health::Unknown);
    let mut records = healthy(1).records();
    records.retain(|record| !matches!(record.body, Body::Round(_)));
    let verdict = analyze(&Case::new(records));
    assert_eq!(verdict.health, Health::Unknown);
    assert_eq!(verdict.unseen.len(), 1);
}

#[test]
fn what_the_device_could_not_see_and_what_is_missing_are_told() {
    let mut evidence = healthy(1);
    evidence.gaps.push(aizen_protocol::record::Gap {
        collector: "duplicates".into(),
        reason: "needs a packet socket".into(),
    });
    let mut records = evidence.records();
    records.retain(|record| !["duplicates", "dns"].contains(&record.body.collector()));
    let verdict = analyze(&Case::new(records));
    let unseen: Vec<&str> = verdict
        .unseen
        .iter()
        .map(|gap| gap.collector.as_str())
        .collect();
    assert_eq!(unseen[0], "duplicates");
    assert_eq!(unseen.iter().filter(|gap| **gap == "duplicates").count(), 1);
    assert!(unseen.contains(&"dns"));
    assert_eq!(verdict.health, Health::Healthy);
}

#[test]
fn a_round_that_follows_a_reboot_is_the_present_though_its_number_is_lower() {
    let mut before = healthy(70);
    crate::fixture::kill_gateway(&mut before);
    let mut after = healthy(71).records();
    for record in &mut after {
        record.boot = "boot-2".parse().unwrap();
        record.round.0 = 1;
    }
    let records = before.records().into_iter().chain(after).collect();
    assert_eq!(analyze(&Case::new(records)).health, Health::Healthy);
}

proptest! {
    #[test]
    fn random_subsets_of_healthy_evidence_never_alarm(
        kept in proptest::collection::vec(any::<bool>(), 60),
        rounds in 1..4_u64,
    ) {
        let all = (1..=rounds).flat_map(|round| healthy(round).records());
        let records: Vec<Record> = all
            .zip(&kept)
            .filter(|(record, kept)| **kept || matches!(record.body, Body::Round(_)))
            .map(|(record, _)| record)
            .collect();
        let verdict = analyze(&Case::new(records));
        prop_assert_eq!(&verdict.findings, &[]);
        prop_assert!(matches!(verdict.health, Health::Healthy | Health::Unknown));
    }

    #[test]
    fn faulty_evidence_with_records_missing_names_no_fault_that_full_evidence_does_not_hold(
        kept in proptest::collection::vec(any::<bool>(), 45),
        which in 0..12_usize,
    ) {
        let (cause, rounds) = faults().swap_remove(which);
        let all = rounds.iter().flat_map(crate::fixture::Evidence::records);
        let records: Vec<Record> = all
            .zip(&kept)
            .filter(|(record, kept)| **kept || matches!(record.body, Body::Round(_)))
            .map(|(record, _)| record)
            .collect();
        // Where the cause is hidden, what follows from it may stand for it; nothing else may.
        let follows: &[&str] = match cause {
            "link_down" | "link_admin_down" => {
                &["link_down", "link_admin_down", "gateway_dead", "no_default_route", "upstream_dead", "resolver_dead"]
            }
            "gateway_dead" => &["gateway_dead", "upstream_dead", "resolver_dead"],
            "no_default_route" => &["no_default_route", "upstream_dead", "resolver_dead"],
            "upstream_dead" => &["upstream_dead", "resolver_dead"],
            other => &[other],
        };
        for finding in analyze(&Case::new(records)).findings {
            prop_assert!(follows.contains(&finding.cause.0.as_str()), "{} in {cause}", finding.cause.0);
        }
    }

    #[test]
    fn records_in_any_order_give_the_same_verdict(
        which in 0..all_faults().len(),
        seed in proptest::collection::vec(any::<u64>(), 60),
    ) {
        let (_, rounds, _) = all_faults().swap_remove(which);
        let records: Vec<Record> = rounds.iter().flat_map(crate::fixture::Evidence::records).collect();
        let mut shuffled: Vec<(u64, Record)> = seed.into_iter().zip(records.clone()).collect();
        shuffled.sort_by_key(|(key, _)| *key);
        let shuffled = shuffled.into_iter().map(|(_, record)| record).collect();
        prop_assert_eq!(analyze(&Case::new(records)), analyze(&Case::new(shuffled)));
    }
}

/// Pseudonyms as the sanitizer makes them: prefix relations hold, form and kind stay. Collects what became what.
#[derive(Default)]
struct Pseudonyms(BTreeMap<String, String>);

impl PrivateVisitor for Pseudonyms {
    fn address(&mut self, value: &mut IpAddr) {
        let real = value.to_string();
        if let IpAddr::V4(v4) = value
            && !v4.is_loopback()
            && !v4.is_unspecified()
        {
            // Exclusive or keeps every common prefix; the sanitizer maps each kind onto itself.
            let mask = if v4.is_link_local() {
                0x0000_1900
            } else {
                0x0004_1900
            };
            *value = Ipv4Addr::from(u32::from(*v4) ^ mask).into();
        }
        self.0.insert(real, value.to_string());
    }
    fn prefix(&mut self, value: &mut Prefix) {
        if !value.is_default() {
            self.address(&mut value.address);
        }
    }
    fn mac(&mut self, value: &mut Mac) {
        let real = value.to_string();
        value.0[5] ^= 0x3c;
        self.0.insert(real, value.to_string());
    }
    fn name(&mut self, value: &mut Name) {
        let real = value.0.clone();
        value.0 = real.replace('4', "q");
        self.0.insert(real, value.0.clone());
    }
    fn text(&mut self, _: &mut Text) {}
}

/// Reads every text of a value.
#[derive(Default)]
struct Texts(Vec<String>);

impl PrivateVisitor for Texts {
    fn address(&mut self, _: &mut IpAddr) {}
    fn prefix(&mut self, _: &mut Prefix) {}
    fn mac(&mut self, _: &mut Mac) {}
    fn name(&mut self, _: &mut Name) {}
    fn text(&mut self, value: &mut Text) {
        self.0.push(value.0.clone());
    }
}

fn texts(mut verdict: Verdict) -> Vec<String> {
    let mut texts = Texts::default();
    verdict.visit_private(&mut texts);
    texts.0
}

/// Every word that could be cut out as a value: between blanks, commas, semicolons, brackets and quotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || ",;()'`\"".contains(c))
        .filter(|word| !word.is_empty())
}

#[test]
fn pseudonyms_give_the_pseudonym_of_the_verdict() {
    for (cause, rounds, _) in all_faults() {
        let records: Vec<Record> = rounds
            .iter()
            .flat_map(crate::fixture::Evidence::records)
            .collect();
        let mut map = Pseudonyms::default();
        let mut pseudonyms = records.clone();
        pseudonyms
            .iter_mut()
            .for_each(|record| record.visit_private(&mut map));
        let real = texts(analyze(&Case::new(records)));
        let expected: Vec<String> = real
            .iter()
            .map(|text| {
                let mut out = String::new();
                let mut rest = text.as_str();
                for word in words(text) {
                    let start = rest.find(word).unwrap();
                    out.push_str(&rest[..start]);
                    let (value, length) = word.split_once('/').map_or((word, ""), |(a, b)| (a, b));
                    match map.0.get(value) {
                        Some(pseudonym) if length.is_empty() => out.push_str(pseudonym),
                        Some(pseudonym) => out.push_str(&format!("{pseudonym}/{length}")),
                        None => out.push_str(word),
                    }
                    rest = &rest[start + word.len()..];
                }
                out + rest
            })
            .collect();
        assert_eq!(texts(analyze(&Case::new(pseudonyms))), expected, "{cause}");
    }
}

#[test]
fn every_address_mac_and_name_in_a_verdict_is_text_of_a_record_and_stands_alone() {
    for (cause, rounds, _) in all_faults() {
        let mut records: Vec<Record> = rounds
            .iter()
            .flat_map(crate::fixture::Evidence::records)
            .collect();
        let mut known = Pseudonyms::default();
        let given = Case::new(records.clone());
        records
            .iter_mut()
            .for_each(|record| record.visit_private(&mut known));
        let mut found = BTreeSet::new();
        for text in texts(analyze(&given)) {
            for word in words(&text) {
                let value = word.split('/').next().unwrap_or(word);
                let is_value = value.parse::<IpAddr>().is_ok() || value.parse::<Mac>().is_ok();
                if is_value {
                    assert!(known.0.contains_key(value), "{cause}: {value} in {text}");
                    found.insert(value.to_owned());
                }
            }
            // A value glued to other characters would be missed when it is revealed by search.
            for value in known.0.keys() {
                let alone = words(&text)
                    .filter(|word| word.split('/').next() == Some(value))
                    .count();
                let glued = text.match_indices(value.as_str()).filter(|(start, _)| {
                    let bytes = text.as_bytes();
                    let longer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
                    !longer(start.checked_sub(1).and_then(|at| bytes.get(at)))
                        && !longer(bytes.get(start + value.len()))
                });
                assert_eq!(alone, glued.count(), "{cause}: {value} in {text}");
            }
        }
        let is_old = faults().iter().any(|(old, _)| *old == cause);
        assert!(
            !is_old || !found.is_empty() || ["forwarding_off", "disk_full"].contains(&cause),
            "{cause}"
        );
    }
}

/// A switch with 200 ports whose gateway is dead in each of 128 rounds: every round is judged to find the first.
#[test]
#[expect(
    clippy::print_stdout,
    reason = "shows how long it takes; a slow machine must not fail it"
)]
fn a_full_case_of_a_large_device_is_judged() {
    let large = |round: u64| {
        let mut evidence = healthy(round);
        crate::fixture::kill_gateway(&mut evidence);
        let ports = 100..300_u32;
        for index in ports.clone() {
            let mut port = crate::fixture::link(5, &format!("port{index}"), true);
            port.index = index;
            port.counters = Some(LinkCounters {
                rx_packets: 7_000 * round,
                ..LinkCounters::default()
            });
            evidence.links.push(port);
            let host = format!("2001:db8:{index:x}::1/64");
            evidence
                .addresses
                .push(crate::fixture::address(index, &host, "global"));
        }
        evidence
            .routes
            .push(crate::fixture::route("::/0", Some("fe80::1"), 100));
        let drivers = ports.map(|link| Ethernet {
            link,
            speed_mbps: Some(1000),
            statistics: (0..40).map(|n| (format!("rx_{n}"), n * round)).collect(),
            ..Ethernet::default()
        });
        evidence.extra.push(Body::Ethernet(drivers.collect()));
        evidence
    };
    let passes = u64::try_from(crate::case::PASSES).unwrap();
    let rounds = (1..=passes).map(large);
    let records: Vec<Record> = rounds.flat_map(|evidence| evidence.records()).collect();
    let start = std::time::Instant::now();
    let case = Case::new(records);
    let built = start.elapsed();
    let verdict = analyze(&case);
    println!(
        "bundled in {built:?}, judged in {:?}",
        start.elapsed() - built
    );
    assert_eq!(only(&verdict).since, at(1));
}
