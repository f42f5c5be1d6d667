//! The second keeper of a deadline: nobody starts anything again here, except where a test does.

use std::fs;
use std::time::Duration;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest};
use aizen_protocol::outcome::{End, Outcome, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

use crate::device::{
    AFTER, Device, MEND, ended, runs, until, wait_until, wants_on_site, with_device,
};

pub(crate) const ALL: &[(&str, fn())] = &[
    (
        "an_executor_that_dies_in_the_window_is_undone_by_the_keeper_without_a_restart",
        || died(Stage::Probing),
    ),
    (
        "an_executor_that_dies_while_the_script_runs_is_undone_by_the_keeper_without_a_restart",
        || died(Stage::Running),
    ),
    (
        "an_executor_that_hangs_beyond_the_deadline_is_killed_and_undone_by_the_keeper",
        hung,
    ),
    (
        "a_restarted_executor_that_undoes_leaves_nothing_to_the_keeper",
        restarted,
    ),
    (
        "a_start_waits_for_whoever_recovers_at_the_moment",
        waits_for_the_journal,
    ),
    (
        "a_keeper_ends_with_its_change_however_that_ends",
        ends_with_the_change,
    ),
    (
        "without_its_keeper_the_executor_keeps_the_deadline_and_says_so",
        keeper_killed,
    ),
];

/// Shorter than a device's, so that a test does not wait for it.
const SOON: Duration = Duration::from_millis(300);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

async fn keepers_end(device: &Device) {
    wait_until("the keeper's end", || device.keepers().is_empty()).await;
}

/// The one report, of two starts.
async fn told_once(device: &mut Device) -> Outcome {
    device.start().await;
    let told = device.outcomes().await;
    assert_eq!(told.len(), 1, "{told:?}");
    device.kill();
    device.start().await;
    assert_eq!(device.outcomes().await, told);
    told.into_iter().next().unwrap()
}

fn died(stage: Stage) {
    with_device(async move |mut device: Device| {
        device.keeper_waits(SOON, NEVER);
        device.start().await;
        let before = device.picture();
        let mut life = if stage == Stage::Running {
            let package = device.package(&format!("{MEND}exec sleep 4343\n"));
            let mut life = device.execute(device.sign(&package), None).await;
            until(&mut life, |answer| match answer {
                ExecutorAnswer::Reached { stage: reached, .. } if *reached == stage => Some(()),
                _ => None,
            })
            .await;
            wait_until("the script's sleep", || runs("4343")).await;
            life
        } else {
            device
                .execute(device.sign(&device.package(MEND)), None)
                .await
        };
        if stage == Stage::Probing {
            wants_on_site(&mut life).await;
        }
        assert!(device.picture().starts_with(AFTER));
        assert_eq!(device.keepers().len(), 1);
        device.kill_alone();
        keepers_end(&device).await;
        assert_eq!(device.picture(), before);
        wait_until("the script's end", || !runs("4343")).await;
        let told = told_once(&mut device).await;
        assert_eq!(told.end, End::RolledBack, "{told:?}");
        assert_eq!(told.state_before, told.state_after);
        assert!(told.detail.0.contains(&format!("{stage:?}")), "{told:?}");
    });
}

fn hung() {
    with_device(async |mut device: Device| {
        device.keeper_waits(SOON, SOON);
        device.start().await;
        let before = device.picture();
        let mut package = device.package(MEND);
        package.manifest.confirm.within_s = 8;
        let mut life = device.execute(device.sign(&package), None).await;
        wants_on_site(&mut life).await;
        let executor = Pid::from_raw(device.executor_id().try_into().unwrap());
        kill(executor, Signal::SIGSTOP).unwrap();
        assert!(device.picture().starts_with(AFTER));
        wait_until("the hung executor's end", || !device.lives()).await;
        keepers_end(&device).await;
        assert_eq!(device.picture(), before);
        let told = told_once(&mut device).await;
        assert_eq!(told.end, End::RolledBack, "{told:?}");
    });
}

/// How often somebody began to recover.
fn recoveries(device: &Device) -> usize {
    let journal = fs::read(device.path("state/journal")).unwrap();
    let text = String::from_utf8_lossy(&journal);
    text.matches(r#""event":"recovering""#).count()
}

fn restarted() {
    with_device(async |mut device: Device| {
        device.keeper_waits(Duration::from_secs(3), NEVER);
        device.start().await;
        let before = device.picture();
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        device.kill_alone();
        device.start().await;
        assert_eq!(device.picture(), before);
        let journal = fs::read(device.path("state/journal")).unwrap();
        keepers_end(&device).await;
        assert_eq!(fs::read(device.path("state/journal")).unwrap(), journal);
        assert_eq!(recoveries(&device), 1);
        let told = told_once(&mut device).await;
        assert_eq!(told.end, End::RolledBack, "{told:?}");
    });
}

fn waits_for_the_journal() {
    with_device(async |mut device: Device| {
        device.start().await;
        device.kill();
        let journal = fs::File::open(device.path("state/journal")).unwrap();
        journal.try_lock().unwrap();
        device.spawn();
        // Long enough for it to meet the lock; one that gives up then never answers.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(device.lives());
        journal.unlock().unwrap();
        let asked = async {
            while device.try_ask(&ExecutorRequest::Status).await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let answered = tokio::time::timeout(Duration::from_secs(60), asked).await;
        answered.expect("an answer once the journal is free");
    });
}

/// Processes whose parent is the executor, the ended ones too.
fn children(of: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = line.rsplit_once(") ") else {
            continue;
        };
        if rest.split(' ').nth(1) == Some(&of.to_string()) {
            found.push(name.to_owned());
        }
    }
    found
}

fn ends_with_the_change() {
    with_device(async |mut device: Device| {
        device.start().await;
        for keep in [true, false] {
            fs::write(device.resolv_conf(), crate::device::BEFORE).unwrap();
            let mut life = device
                .execute(device.sign(&device.package(MEND)), None)
                .await;
            let change = wants_on_site(&mut life).await;
            let keepers = device.keepers();
            assert_eq!(keepers.len(), 1);
            // No signal of the executor's terminal, and none to its group, reaches it.
            wait_until("a session of its own", || {
                getsid(Some(keepers[0])).is_ok_and(|session| session == keepers[0])
            })
            .await;
            let request = if keep {
                ExecutorRequest::ConfirmOnSite { change }
            } else {
                ExecutorRequest::RollBack { change }
            };
            assert_eq!(device.ask_as(0, &request), ExecutorAnswer::Done);
            let (local, _) = ended(&mut life).await;
            let expected = if keep {
                End::Confirmed
            } else {
                End::RolledBack
            };
            assert_eq!(local.end, expected, "{local:?}");
            assert!(!local.detail.0.contains("keeper"), "{}", local.detail);
            let executor = device.executor_id();
            wait_until("the keeper's end", || {
                device.keepers().is_empty() && children(executor).is_empty()
            })
            .await;
        }
        // A diagnosis touches nothing, and a change that is refused never began.
        device.policy("allow_changes = false\n");
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        crate::device::refused(&mut life).await;
        assert!(device.keepers().is_empty());
    });
}

fn keeper_killed() {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let mut package = device.package(MEND);
        package.manifest.confirm.within_s = 4;
        let mut life = device.execute(device.sign(&package), None).await;
        wants_on_site(&mut life).await;
        device.kill_keepers();
        let (local, _) = ended(&mut life).await;
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert!(
            local.detail.0.contains("deadline passed"),
            "{}",
            local.detail
        );
        assert!(
            local
                .detail
                .0
                .contains("the second keeper of the deadline ended before"),
            "{}",
            local.detail
        );
        assert_eq!(device.picture(), before);
        let executor = device.executor_id();
        wait_until("no child", || children(executor).is_empty()).await;
    });
}
