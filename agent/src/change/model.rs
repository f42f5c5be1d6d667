//! The life of a change against a reference: random events, crashes, clock jumps and reboots.

use std::time::Duration;

use aizen_protocol::effect::{ScriptEnd, ScriptRun};
use aizen_protocol::id::{BootId, Digest};
use aizen_protocol::outcome::{End, Stage};
use aizen_protocol::package::DeliveryMode;
use aizen_protocol::package::manifest::{Class, Confirm, Risk};
use aizen_protocol::statement::Nonce;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::confirm::deadline::Deadline;

pub(crate) fn admission(class: Class) -> Admission {
    Admission {
        change: "chg-1".parse().unwrap(),
        package: "pkg-1".parse().unwrap(),
        digest: Digest::of(b"package"),
        correlation_id: "cor-1".parse().unwrap(),
        intent: "mend".into(),
        class,
        risk: Risk::High,
        delivery: DeliveryMode::Uplink,
        confirm: Confirm::default(),
        approved_effect: None,
        approved_changes: None,
        issued_at: Timestamp::UNIX_EPOCH,
        expires: Timestamp::MAX,
        asked_by: None,
    }
}

pub(crate) fn run() -> ScriptRun {
    ScriptRun {
        end: ScriptEnd::Exited(0),
        took_ms: 5,
        output: "".into(),
        output_bytes: 0,
        leftover_processes: 0,
    }
}

fn boot() -> BootId {
    "boot-a".parse().unwrap()
}

/// One event of each kind.
fn events() -> Vec<Event> {
    let digest = Digest::of(b"state");
    vec![
        Event::Snapshotted { before: digest },
        Event::Armed {
            deadline: Deadline::after(
                boot(),
                BootTime(Duration::from_secs(10)),
                Duration::from_secs(20),
            ),
        },
        Event::Started,
        Event::Acting {
            inverse: serde_json::json!({"undo": 1}),
        },
        Event::Applied { run: run() },
        Event::Probing {
            nonce: Nonce(digest),
        },
        Event::Confirmed {
            by: ConfirmedBy::Uplink,
            after: Some(digest),
        },
        Event::RollbackBegan {
            cause: Cause::Asked { uid: 0 },
        },
        Event::RolledBack { after: digest },
        Event::RollbackIncomplete {
            after: None,
            not_restored: vec!["default".into()],
        },
        Event::Diagnosed { run: run() },
        Event::Interrupted {
            cause: Cause::Crash {
                stage: Stage::Admitted,
            },
        },
        Event::Reported { outcome: digest },
        Event::Cleared { uid: 0 },
        Event::Noted {
            told: vec!["seen".into()],
        },
        Event::Compared {
            after: None,
            told: vec!["differs".into()],
        },
        Event::RescueBegan { boot: boot() },
        Event::Rescued {
            told: vec!["put back".into()],
        },
    ]
}

/// A change of the boot `boot-a` whose undoing began.
pub(crate) fn undone() -> Vec<Event> {
    let all = events();
    let mut undone = all[..3].to_vec();
    undone.push(all[7].clone());
    undone
}

/// The reference: a state's name and an event's name to the next state's name, written down line by line.
const TABLE: &[(&str, &str, &str)] = &[
    ("admitted/repair", "snapshotted", "snapshotted"),
    ("admitted/repair", "interrupted", "interrupted"),
    ("snapshotted", "armed", "armed"),
    ("snapshotted", "interrupted", "interrupted"),
    ("armed", "started", "running"),
    ("armed", "rollback_began", "rolling_back"),
    ("running", "acting", "running"),
    ("running", "applied", "applied"),
    ("running", "rollback_began", "rolling_back"),
    ("applied", "probing", "probing"),
    ("applied", "rollback_began", "rolling_back"),
    ("probing", "confirmed", "confirmed"),
    ("probing", "rollback_began", "rolling_back"),
    ("rolling_back", "rollback_began", "rolling_back"),
    ("rolling_back", "rolled_back", "rolled_back"),
    ("rolling_back", "rollback_incomplete", "incomplete"),
    ("confirmed", "reported", "reported"),
    ("rolled_back", "reported", "reported"),
    ("incomplete", "reported", "reported_incomplete"),
    ("interrupted", "reported", "reported"),
    ("reported_incomplete", "cleared", "reported"),
    ("admitted/diagnose", "started", "diagnosing"),
    ("admitted/diagnose", "interrupted", "interrupted"),
    ("diagnosing", "diagnosed", "diagnosed"),
    ("diagnosing", "interrupted", "interrupted"),
    ("diagnosed", "reported", "reported"),
];

fn recovery_of(state: &str) -> Recovery {
    match state {
        "admitted/repair" | "admitted/diagnose" | "snapshotted" | "diagnosing" => {
            Recovery::Interrupt
        }
        "armed" | "running" | "applied" | "probing" | "rolling_back" => Recovery::RollBack,
        "confirmed" => Recovery::Report(End::Confirmed),
        "rolled_back" => Recovery::Report(End::RolledBack),
        "incomplete" => Recovery::Report(End::RollbackIncomplete),
        "interrupted" => Recovery::Report(End::Interrupted),
        "diagnosed" => Recovery::Report(End::Diagnosed),
        "reported" | "reported_incomplete" => Recovery::Nothing,
        other => panic!("no such state: {other}"),
    }
}

fn replay(class: Class, journal: &[Event]) -> Change {
    let mut change = Change::admitted(admission(class), Timestamp::UNIX_EPOCH);
    for event in journal {
        change.apply(event, Timestamp::UNIX_EPOCH).unwrap();
    }
    change
}

/// Where the reference is: a state, and what followed an end there.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    state: &'static str,
    compared: bool,
    began: bool,
    rescued: bool,
}

fn at(state: &'static str) -> Place {
    Place {
        state,
        compared: false,
        began: false,
        rescued: false,
    }
}

fn step(place: Place, event: &Event) -> Option<Place> {
    let undone = matches!(place.state, "rolled_back" | "incomplete");
    match event.name() {
        "noted" => undone.then_some(place),
        "compared" => (undone && !place.compared).then_some(Place {
            compared: true,
            ..place
        }),
        "rescue_began" => (undone && !place.began).then_some(Place {
            began: true,
            ..place
        }),
        "rescued" => (undone && place.began && !place.rescued).then_some(Place {
            rescued: true,
            ..place
        }),
        name => TABLE
            .iter()
            .find(|(from, of, _)| *from == place.state && *of == name)
            .map(|(_, _, to)| Place { state: to, ..place }),
    }
}

/// What a restart does, as events.
fn recover(change: &mut Change) -> Vec<Event> {
    let digest = Digest::of(b"state");
    let cause = Cause::Crash {
        stage: change.stage(),
    };
    let mut events = match change.recovery() {
        Recovery::Nothing => return Vec::new(),
        Recovery::Interrupt => vec![Event::Interrupted { cause }],
        Recovery::RollBack => vec![
            Event::RollbackBegan { cause },
            Event::RolledBack { after: digest },
        ],
        Recovery::Report(_) => Vec::new(),
    };
    events.push(Event::Reported { outcome: digest });
    for event in &events {
        change.apply(event, Timestamp::UNIX_EPOCH).unwrap();
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_of_events_goes_the_way_of_the_table(
        diagnose in any::<bool>(),
        picks in proptest::collection::vec((0..events().len(), any::<bool>()), 0..60),
    ) {
        let (class, mut state) = if diagnose {
            (Class::Diagnose, at("admitted/diagnose"))
        } else {
            (Class::Repair, at("admitted/repair"))
        };
        let mut change = replay(class, &[]);
        let mut journal = Vec::new();
        for (pick, sensible) in picks {
            // Half of the picks are made among what may follow, so that long lives are reached.
            let possible: Vec<Event> = events().into_iter().filter(|e| step(state, e).is_some()).collect();
            let event = if sensible && !possible.is_empty() {
                possible[pick % possible.len()].clone()
            } else {
                events()[pick].clone()
            };
            let before = change.clone();
            match (step(state, &event), change.apply(&event, Timestamp::UNIX_EPOCH)) {
                (Some(next), Ok(())) => {
                    state = next;
                    journal.push(event);
                }
                (None, Err(_)) => prop_assert_eq!(&change, &before),
                (expected, got) => {
                    return Err(TestCaseError::fail(format!("{} + {}: {expected:?}, {got:?}", state.state, event.name())));
                }
            }
            prop_assert_eq!(change.recovery(), recovery_of(state.state));
            prop_assert_eq!(change.is_open(), !state.state.starts_with("reported"));
            prop_assert_eq!(change.blocks_others(), state.state == "incomplete" || state.state == "reported_incomplete");
        }

        // The journal alone gives the same change.
        prop_assert_eq!(&replay(class, &journal), &change);

        // What must hold of any history.
        let count = |name: &str| journal.iter().filter(|e| e.name() == name).count();
        let place = |name: &str| journal.iter().position(|e| e.name() == name);
        prop_assert!(count("reported") <= 1 && count("confirmed") <= 1);
        prop_assert!(count("compared") <= 1 && count("rescue_began") <= 1 && count("rescued") <= 1);
        // Nothing that follows an end makes it another one.
        if count("rolled_back") + count("rollback_incomplete") > 0 {
            let told = if count("rolled_back") > 0 { End::RolledBack } else { End::RollbackIncomplete };
            prop_assert_eq!(change.ended().map(|e| e.end), Some(told));
        }
        if let Some(confirmed) = place("confirmed") {
            prop_assert!(place("probing").is_some_and(|p| p < confirmed));
            prop_assert!(place("rollback_began").is_none());
        }
        if let Some(acting) = place("acting") {
            prop_assert!(place("armed").is_some_and(|armed| armed < acting));
        }
        if let Some(undo) = change.undo() {
            prop_assert_eq!(undo.inverses.len(), count("acting"));
        }
    }

    #[test]
    fn a_crash_after_any_event_ends_before_or_confirmed_and_is_reported_once(
        picks in proptest::collection::vec(0..20_usize, 0..20),
        again in 0..3_usize,
    ) {
        let mut state = at("admitted/repair");
        let mut journal = Vec::new();
        for pick in picks {
            let possible: Vec<Event> = events().into_iter().filter(|e| step(state, e).is_some()).collect();
            let Some(event) = possible.get(pick % possible.len().max(1)) else { break };
            state = step(state, event).unwrap();
            journal.push(event.clone());
        }
        let confirmed = journal.iter().any(|e| e.name() == "confirmed");
        let incomplete = journal.iter().any(|e| e.name() == "rollback_incomplete");
        let armed = journal.iter().any(|e| e.name() == "armed");

        // Recovery itself is cut short `again` events in, and runs again from what was journalled.
        let mut first = replay(Class::Repair, &journal);
        let events = recover(&mut first);
        journal.extend(events.into_iter().take(again));
        let mut change = replay(Class::Repair, &journal);
        journal.extend(recover(&mut change));

        prop_assert!(!change.is_open());
        prop_assert_eq!(recover(&mut change).len(), 0);
        prop_assert_eq!(journal.iter().filter(|e| e.name() == "reported").count(), 1);
        let end = change.ended().unwrap().end;
        let expected = match (confirmed, incomplete, armed) {
            (true, _, _) => End::Confirmed,
            (_, true, _) => End::RollbackIncomplete,
            (_, _, true) => End::RolledBack,
            (_, _, false) => End::Interrupted,
        };
        prop_assert_eq!(end, expected);
    }

    #[test]
    fn the_deadline_is_the_boot_clocks_alone(seconds in 0..100_u64, wall in -1_000_000..1_000_000_i64, rebooted in any::<bool>()) {
        let change = replay(Class::Repair, &events()[..3]);
        let now = Moment {
            at: Timestamp::from_second(wall).unwrap(),
            boot: if rebooted { "boot-b".parse().unwrap() } else { boot() },
            since_boot: BootTime(Duration::from_secs(seconds)),
        };
        prop_assert_eq!(change.is_due(&now), rebooted || seconds >= 30);
    }
}

#[test]
fn a_change_that_ended_or_is_being_undone_is_never_due() {
    let late = Moment {
        at: Timestamp::MAX,
        boot: "boot-b".parse().unwrap(),
        since_boot: BootTime(Duration::MAX),
    };
    let all = events();
    let probing = &all[..6];
    assert!(replay(Class::Repair, probing).is_due(&late));
    for last in [&all[6], &all[7]] {
        let mut journal = probing.to_vec();
        journal.push(last.clone());
        assert!(!replay(Class::Repair, &journal).is_due(&late));
    }
}

#[test]
fn the_steps_name_each_stage_once_in_order() {
    let all = events();
    let mut journal = all[..6].to_vec();
    journal.extend([all[7].clone(), all[8].clone(), all[12].clone()]);
    let stages: Vec<Stage> = replay(Class::Repair, &journal)
        .steps()
        .iter()
        .map(|s| s.stage)
        .collect();
    assert_eq!(
        stages,
        [
            Stage::Admitted,
            Stage::Snapshotted,
            Stage::Armed,
            Stage::Running,
            Stage::Applied,
            Stage::Probing,
            Stage::RollingBack,
            Stage::RolledBack,
            Stage::Reported
        ]
    );
}

#[test]
fn every_event_reads_back_as_it_was_written() {
    for event in events() {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
