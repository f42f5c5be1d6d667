//! What the uplink leaves out is not missed: rounds that name what an earlier one told give the verdict of rounds that
//! tell everything.

use std::collections::BTreeMap;
use std::time::Duration;

use aizen_agent::clock::BootTime;
use aizen_agent::stream::retell::{Retelling, Way};
use aizen_analyst::case::Case;
use aizen_analyst::expert;
use aizen_protocol::id::{RoundId, Sequence};
use aizen_protocol::record::{Body, Record};
use harness::lab::recorded::Recorded;
use libtest_mimic::Failed;

/// Ways in which collectors may have rested.
const DRAWS: u64 = 8;

pub(super) fn misses_nothing(recorded: &Recorded) -> Result<(), Failed> {
    let told = |fault| recorded.records(fault).map_err(|e| format!("{e:#}"));
    let mut passes = rounds(told(true)?);
    // What was well before the fault is what a thin round names most.
    let before = rounds(told(false)?);
    if recorded.passes.len() == 1 {
        passes = earlier(before).into_iter().chain(passes).collect();
    }
    for draw in 0..DRAWS {
        let whole = rested(passes.clone(), draw);
        let thin = thinned(&whole);
        let (full, sent) = (whole.iter().flatten().count(), thin.len());
        if sent >= full {
            return Err(format!("{sent} of {full} records travel").into());
        }
        let whole = whole.into_iter().flatten().collect();
        let (expected, got) = (
            expert::analyze(&Case::new(whole)),
            expert::analyze(&Case::new(thin)),
        );
        if expected != got {
            return Err(format!("draw {draw}: {expected:#?}\nbecame {got:#?}").into());
        }
    }
    Ok(())
}

/// The records of each round, the oldest first.
fn rounds(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut rounds: BTreeMap<RoundId, Vec<Record>> = BTreeMap::new();
    for record in records {
        rounds.entry(record.round).or_default().push(record);
    }
    rounds.into_values().collect()
}

/// The same, ten seconds before.
fn earlier(mut rounds: Vec<Vec<Record>>) -> Vec<Vec<Record>> {
    for record in rounds.iter_mut().flatten() {
        record.round.0 = record.round.0.saturating_sub(10_000);
        record.at -= Duration::from_secs(10);
    }
    rounds
}

/// Some collectors rest in some rounds: what they saw in the round before is told with its time.
fn rested(mut rounds: Vec<Vec<Record>>, draw: u64) -> Vec<Vec<Record>> {
    let mut state = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for place in 1..rounds.len() {
        let (before, now) = rounds.split_at_mut(place);
        let (Some(before), Some(now)) = (before.last(), now.first_mut()) else {
            continue;
        };
        for record in now.iter_mut() {
            // Knuth's linear congruential generator; the first draw lets nobody rest.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(draw);
            let rests = state >> 62 == 1 && !matches!(record.body, Body::Round(_));
            let name = record.body.collector();
            let older = before.iter().find(|older| older.body.collector() == name);
            if let Some(older) = older.filter(|_| rests) {
                (record.at, record.body) = (older.at, older.body.clone());
            }
        }
    }
    rounds
}

/// What travels of them.
fn thinned(rounds: &[Vec<Record>]) -> Vec<Record> {
    let mut retelling = Retelling::default();
    let stored = Way {
        acknowledged: Sequence(u64::MAX),
        ..Way::default()
    };
    let mut sent = Vec::new();
    for (number, round) in (1..).zip(rounds) {
        // So far apart that the device's memory is told as often as it changes.
        retelling.begin(BootTime(Duration::from_secs(number * 600)), stored);
        let mut again = BTreeMap::new();
        let (ends, bodies): (Vec<&Record>, Vec<&Record>) = round
            .iter()
            .partition(|record| matches!(record.body, Body::Round(_)));
        for record in bodies {
            match retelling.again(record) {
                Some(told) => {
                    again.insert(record.body.collector().to_owned(), told);
                }
                None => {
                    retelling.told(record, Sequence(number));
                    sent.push(record.clone());
                }
            }
        }
        sent.extend(ends.into_iter().cloned().map(|mut end| {
            if let Body::Round(round) = &mut end.body {
                round.again = std::mem::take(&mut again);
            }
            end
        }));
    }
    sent
}
