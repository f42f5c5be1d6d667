//! What a pass has from rounds before.

use aizen_protocol::id::RoundId;
use aizen_protocol::record::{Again, Body, Forwarding, Record};
use jiff::Timestamp;

use super::*;
use crate::expert::analyze;
use crate::fixture::{at, healthy};

/// A healthy round, and one that names what it told; the second sees the same at its own time.
fn named(apart: u64) -> Vec<Record> {
    let mut records = healthy(1).records();
    for mut record in healthy(1 + apart).records() {
        if let Body::Round(round) = &mut record.body {
            let told = records.iter().map(|told| told.body.collector());
            let again = Again {
                round: RoundId(1),
                at: Some(record.at),
            };
            round.again = told
                .filter(|collector| *collector != "round")
                .map(|collector| (collector.to_owned(), again))
                .collect();
            records.push(record);
        }
    }
    records
}

fn lost(records: Vec<Record>) -> Vec<String> {
    let gaps = analyze(&Case::new(records)).unseen;
    let lost = gaps.into_iter().filter(|gap| gap.reason.0 == LOST);
    lost.map(|gap| gap.collector).collect()
}

#[test]
fn a_round_that_only_names_is_as_good_as_one_that_tells() {
    let mut told = healthy(1).records();
    told.extend(told.clone().into_iter().map(|mut record| {
        (record.round, record.at) = (RoundId(2), at(2));
        record
    }));
    assert_eq!(analyze(&Case::new(named(1))), analyze(&Case::new(told)));
}

#[test]
fn what_was_not_looked_at_again_keeps_its_time_and_what_was_told_counts_more() {
    let mut records = named(1);
    let seen = Body::Forwarding(Forwarding {
        ipv4: Some(false),
        ipv6: None,
    });
    let mut own = healthy(2).records().swap_remove(0);
    own.body = seen;
    for record in &mut records {
        if let Body::Round(round) = &mut record.body {
            for again in round.again.values_mut() {
                again.at = None;
            }
        }
    }
    records.push(own);
    let case = Case::new(records);
    let view = case.view(1).unwrap();
    assert_eq!(view.now().routes.as_ref().map(|seen| seen.at), Some(at(1)));
    let forwarding = view.now().forwarding.as_ref();
    assert_eq!(
        forwarding.map(|seen| (seen.at, seen.value.ipv4)),
        Some((at(2), Some(false)))
    );
}

#[test]
fn what_did_not_arrive_is_a_gap_and_never_something_older() {
    let mut records = healthy(0).records();
    records.extend(named(1));
    records.retain(|record| record.round != RoundId(1) || record.body.collector() != "dns");
    assert_eq!(lost(records), ["dns"]);
    // The end of the round that told it is not needed.
    let mut records = named(1);
    records.retain(|record| record.round != RoundId(1) || record.body.collector() != "round");
    assert_eq!(lost(records), Vec::<String>::new());
}

#[test]
fn what_was_told_too_long_ago_or_in_another_boot_is_a_gap() {
    let longest = u64::try_from(Again::LONGEST.as_millis()).unwrap();
    assert_eq!(lost(renumbered(longest)), Vec::<String>::new());
    assert!(lost(renumbered(longest + 1)).contains(&"routes".to_owned()));
    let mut rebooted = named(1);
    for record in rebooted
        .iter_mut()
        .filter(|record| record.round == RoundId(1))
    {
        record.boot = "boot-0".parse().unwrap();
        record.at = Timestamp::UNIX_EPOCH;
    }
    assert!(lost(rebooted).contains(&"routes".to_owned()));
}

/// The second round began so many milliseconds after the first.
fn renumbered(apart: u64) -> Vec<Record> {
    let mut records = named(1);
    for record in records
        .iter_mut()
        .filter(|record| record.round != RoundId(1))
    {
        record.round = RoundId(1 + apart);
    }
    records
}
