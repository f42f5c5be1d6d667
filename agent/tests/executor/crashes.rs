//! The executor dies; its next start leaves the device as before, or confirmed, and tells so once.

use std::fs;
use std::path::Path;

use aizen_agent::change::Recovery;
use aizen_agent::recover;
use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest};
use aizen_protocol::outcome::{End, Stage};
use aizen_protocol::reason::Reason;

use crate::device::{
    AFTER, BEFORE, Device, FORWARD, MEND, NONE, ended, refused, runs, until, wait_until,
    wants_on_site, with_device,
};
use nix::mount::{MsFlags, mount};

pub(crate) const ALL: &[(&str, fn())] = &[
    (
        "killed_while_running_everything_is_as_before_and_nothing_of_it_runs_on",
        killed_while_running,
    ),
    (
        "killed_while_probing_everything_is_as_before_and_it_never_runs_again",
        killed_while_probing,
    ),
    (
        "from_every_prefix_of_the_journal_a_start_does_what_the_table_says",
        every_prefix,
    ),
    (
        "from_every_end_of_the_journal_a_start_keeps_what_was_decided",
        decided,
    ),
    (
        "after_a_reboot_files_are_put_back_and_the_kernel_is_left_alone",
        rebooted,
    ),
    (
        "an_incomplete_rollback_is_told_and_blocks_until_a_person_clears_it",
        incomplete,
    ),
    (
        "a_damaged_journal_is_an_alarm_and_nothing_runs",
        damaged_journal,
    ),
    (
        "a_lost_replay_memory_is_an_alarm_and_nothing_runs",
        lost_replay,
    ),
];

fn killed_while_running() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let package = device.package(&format!("{MEND}exec sleep 4242\n"));
        let mut life = device.execute(device.sign(&package), None).await;
        until(&mut life, |answer| match answer {
            ExecutorAnswer::Reached {
                stage: Stage::Running,
                ..
            } => Some(()),
            _ => None,
        })
        .await;
        wait_until("the script's sleep", || runs("4242")).await;
        assert!(device.picture().starts_with(AFTER));
        device.kill();
        device.start().await;
        assert_eq!(device.picture(), before);
        wait_until("the script's end", || !runs("4242")).await;
        let told = device.outcomes().await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].end, End::RolledBack, "{:?}", told[0]);
        assert!(told[0].detail.0.contains("Running"), "{}", told[0].detail);
        assert_eq!(told[0].state_before, told[0].state_after);
    });
}

fn killed_while_probing() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let envelope = device.sign(&device.package(MEND));
        let mut life = device.execute(envelope.clone(), None).await;
        wants_on_site(&mut life).await;
        device.kill();
        assert!(device.picture().starts_with(AFTER));
        for _ in 0..2 {
            device.start().await;
            assert_eq!(device.picture(), before);
            let told = device.outcomes().await;
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].end, End::RolledBack);
            device.kill();
        }
        device.start().await;
        let mut again = device.execute(envelope, None).await;
        let reason = refused(&mut again).await;
        assert_eq!(reason, Reason::Replayed);
    });
}

/// Where each record of a journal ends.
pub(crate) fn ends(journal: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    while at < journal.len() {
        let length = u32::from_le_bytes(journal[at + 4..at + 8].try_into().unwrap());
        at += 52 + length as usize + 4;
        ends.push(at);
    }
    assert_eq!(at, journal.len());
    ends
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

fn every_prefix() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        device.kill();
        let (state, saved) = (device.path("state"), device.path("saved"));
        copy(&state, &saved);
        let journal = fs::read(saved.join("journal")).unwrap();
        let ends = ends(&journal);
        // Admitted, snapshotted, armed, started, two inverses, applied, probing.
        assert_eq!(ends.len() - 1, 8);
        let changed = device.picture();
        assert_ne!(changed, before);

        let mut cuts: Vec<usize> = ends
            .iter()
            .flat_map(|e| [e.saturating_sub(1), *e, e + 1, e + 30])
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        for cut in cuts.into_iter().filter(|cut| *cut <= journal.len()) {
            let records = ends.iter().filter(|e| **e <= cut).count() - 1;
            fs::remove_dir_all(&state).unwrap();
            copy(&saved, &state);
            fs::write(state.join("journal"), &journal[..cut]).unwrap();
            // What a device that stopped there looks like: nothing is done before its inverse is on the disk.
            if records >= 5 {
                let content = fs::read_to_string(device.resolv_conf()).unwrap();
                fs::write(
                    device.resolv_conf(),
                    content.replace(BEFORE.trim(), AFTER.trim()),
                )
                .unwrap();
            }
            if records >= 6 {
                fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            }
            if records < 5 && device.picture() != before {
                // The first pass still has what the live run changed; from then on every pass leaves it as before.
                recover_whole(&device, &saved).await;
                fs::remove_dir_all(&state).unwrap();
                copy(&saved, &state);
                fs::write(state.join("journal"), &journal[..cut]).unwrap();
            }
            let recovered = recover::run(device.settings()).await.unwrap();
            let done = recovered.change.map(|(_, recovery)| recovery);
            let expected = match records {
                0 => None,
                1 | 2 => Some(Recovery::Interrupt),
                _ => Some(Recovery::RollBack),
            };
            assert_eq!(done, expected, "cut at {cut}, {records} records");
            assert_eq!(device.picture(), before, "cut at {cut}, {records} records");

            let again = recover::run(device.settings()).await.unwrap();
            assert_eq!(again.change, None, "a second recovery has nothing to do");
            let told: Vec<_> = fs::read_dir(state.join("outcomes"))
                .unwrap()
                .flatten()
                .collect();
            assert_eq!(told.len(), usize::from(records > 0), "cut at {cut}");
            for outcome in told {
                let envelope = serde_json::from_slice(&fs::read(outcome.path()).unwrap()).unwrap();
                let end = device.believe(&envelope).end;
                let expected = if records < 3 {
                    End::Interrupted
                } else {
                    End::RolledBack
                };
                assert_eq!(end, expected, "cut at {cut}, {records} records");
            }
        }
    });
}

async fn recover_whole(device: &Device, saved: &Path) {
    let state = device.path("state");
    fs::remove_dir_all(&state).unwrap();
    copy(saved, &state);
    recover::run(device.settings()).await.unwrap();
}

fn damaged_journal() {
    with_device(async |mut device: Device| {
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        device.kill();
        let path = device.path("state/journal");
        let mut journal = fs::read(&path).unwrap();
        journal[100] ^= 1;
        fs::write(&path, &journal).unwrap();
        let error = recover::run(device.settings())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("damaged at byte"), "{error}");
    });
}

fn lost_replay() {
    with_device(async |mut device: Device| {
        device.start().await;
        let pause = device.ask(ExecutorRequest::Pause).await;
        assert_eq!(pause, ExecutorAnswer::Done);
        device.kill();
        fs::remove_file(device.path("state/replay")).unwrap();
        let error = recover::run(device.settings())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("memory of admitted packages"), "{error}");
    });
}

/// Both ends of a change, with the journal cut after each record of the end.
fn decided() {
    with_device(async |mut device: Device| {
        for keep in [true, false] {
            fs::write(device.resolv_conf(), BEFORE).unwrap();
            fs::write(FORWARD, "0").unwrap();
            device.start().await;
            let before = device.picture();
            let mut life = device
                .execute(device.sign(&device.package(MEND)), None)
                .await;
            let change = wants_on_site(&mut life).await;
            let (state, saved) = (device.path("state"), device.path("saved"));
            let snapshots = device.path("snapshots");
            copy(&state.join("snapshots"), &snapshots);
            let request = if keep {
                ExecutorRequest::ConfirmOnSite { change }
            } else {
                ExecutorRequest::RollBack { change }
            };
            assert_eq!(device.ask_as(0, &request), ExecutorAnswer::Done);
            ended(&mut life).await;
            device.kill();
            copy(&state, &saved);
            let journal = fs::read(saved.join("journal")).unwrap();
            let ends = ends(&journal);
            // Confirmed, reported; or rollback began, rolled back, reported.
            let first = ends.len() - if keep { 2 } else { 3 };
            for (records, cut) in ends.iter().enumerate().skip(first) {
                for outcome_stored in [false, true] {
                    let whole = records + 1 == ends.len();
                    if whole && !outcome_stored {
                        continue;
                    }
                    fs::remove_dir_all(&state).unwrap();
                    copy(&saved, &state);
                    fs::write(state.join("journal"), &journal[..*cut]).unwrap();
                    copy(&snapshots, &state.join("snapshots"));
                    if !outcome_stored {
                        fs::remove_dir_all(state.join("outcomes")).unwrap();
                    }
                    recover::run(device.settings()).await.unwrap();
                    let what = format!("keep {keep}, {records} records, stored {outcome_stored}");
                    if keep {
                        assert!(device.picture().starts_with(AFTER), "{what}");
                    } else {
                        assert_eq!(device.picture(), before, "{what}");
                    }
                    let again = recover::run(device.settings()).await.unwrap();
                    assert_eq!(again.change, None, "{what}");
                    let told: Vec<_> = fs::read_dir(state.join("outcomes"))
                        .unwrap()
                        .flatten()
                        .collect();
                    assert_eq!(told.len(), 1, "{what}");
                    let envelope =
                        serde_json::from_slice(&fs::read(told[0].path()).unwrap()).unwrap();
                    let end = if keep {
                        End::Confirmed
                    } else {
                        End::RolledBack
                    };
                    assert_eq!(device.believe(&envelope).end, end, "{what}");
                }
            }
            for folder in [&saved, &snapshots, &state.join("outcomes")] {
                fs::remove_dir_all(folder).unwrap();
            }
        }
    });
}

fn rebooted() {
    with_device(async |mut device: Device| {
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        device.kill();
        // Another boot's name, in this test's own mount namespace.
        let other = device.path("boot_id");
        fs::write(&other, "0a0a0a0a-0000-4000-8000-000000000000\n").unwrap();
        let boot_id = "/proc/sys/kernel/random/boot_id";
        mount(Some(&other), boot_id, NONE, MsFlags::MS_BIND, NONE).unwrap();
        device.start().await;
        device.told().await;
        assert_eq!(fs::read_to_string(device.resolv_conf()).unwrap(), BEFORE);
        let forward = fs::read_to_string(FORWARD).unwrap();
        assert_eq!(forward, "1\n", "a real reboot takes it back by itself");
        let told = device.outcomes().await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].end, End::RolledBack);
        let detail = &told[0].detail.0;
        assert!(detail.contains("restarted"), "{detail}");
        assert!(
            detail.contains("differ from before: net.ipv4.ip_forward: was '0', is '1'"),
            "{detail}"
        );
        assert_ne!(told[0].state_before, told[0].state_after);
    });
}

fn incomplete() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        let change = wants_on_site(&mut life).await;
        device.kill();
        fs::remove_file(device.path("state/snapshots").join(change.as_str())).unwrap();
        device.start().await;
        let told = device.outcomes().await;
        assert_eq!(told[0].end, End::RollbackIncomplete);
        let told = &told[0].not_restored;
        assert!(told[0].0.contains("snapshot is missing"), "{told:?}");
        assert!(told[1].0.contains("2 of 2 journalled steps"), "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
        // Nobody can say so, but it is.
        assert_eq!(device.picture(), before);

        let next = device.sign(&device.package(MEND));
        for _ in 0..2 {
            let mut life = device.execute(next.clone(), None).await;
            let reason = refused(&mut life).await;
            assert_eq!(reason, Reason::RollbackIncomplete);
            device.kill();
            device.start().await;
        }
        let clear = ExecutorRequest::Clear { change };
        assert_eq!(device.ask_as(0, &clear), ExecutorAnswer::Done);
        assert!(matches!(
            device.ask_as(0, &clear),
            ExecutorAnswer::Failed { .. }
        ));
        let mut life = device.execute(next, None).await;
        wants_on_site(&mut life).await;
    });
}
