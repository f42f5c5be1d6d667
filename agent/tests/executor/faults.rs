//! The executor meets a kernel that kills it, or refuses, at one call after the other: strace(1) injects the fault at
//! the N-th call of the executor's own thread, for every N there is.
//!
//! After each: started again without faults, the device is as before, or as the change that was confirmed; the package
//! never runs twice, has one report at most, and the next package works.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aizen_agent::control::Connection;
use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest};
use aizen_protocol::envelope::Envelope;
use aizen_protocol::outcome::End;
use aizen_protocol::reason::Reason;

use crate::device::{AFTER, BEFORE, Device, MEND, ended, wait_until, wants_on_site, with_device};

pub(crate) const ALL: &[(&str, fn())] = &[
    (
        "no_instruction_of_a_script_happens_before_it_is_durable_that_it_runs",
        nothing_before_its_record,
    ),
    (
        "killed_at_each_sync_of_a_change_it_is_as_before_or_confirmed",
        || each(&["fsync", "fdatasync"], &["signal=KILL"], changing),
    ),
    (
        "killed_at_each_sync_of_a_recovery_the_next_one_finishes_it",
        || each(&["fsync", "fdatasync"], &["signal=KILL"], recovering),
    ),
    (
        "a_disk_that_fails_at_any_sync_of_the_journal_leaves_it_as_before_or_confirmed",
        || each(&["fdatasync"], &["error=EIO"], changing),
    ),
];

/// Minutes long: `cargo xtask soak faults`.
pub(crate) const LONG: &[(&str, fn())] = &[
    (
        "killed_at_each_write_rename_and_open_of_a_change_it_is_as_before_or_confirmed",
        || each(CALLS, &["signal=KILL"], changing),
    ),
    (
        "killed_at_each_write_rename_and_open_of_a_recovery_the_next_one_finishes_it",
        || each(CALLS, &["signal=KILL"], recovering),
    ),
    (
        "refused_at_each_write_rename_and_open_of_a_change_it_is_as_before_or_confirmed",
        || each(CALLS, &["error=EIO", "error=ENOSPC"], changing),
    ),
    (
        "refused_at_each_write_rename_and_open_of_a_recovery_the_next_one_finishes_it",
        || each(CALLS, &["error=EIO", "error=ENOSPC"], recovering),
    ),
];

/// What a journal, a snapshot and a restore are made of.
const CALLS: &[&str] = &[
    "fsync",
    "fdatasync",
    "write",
    "pwrite64",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "openat",
    "openat2",
    "fchmod",
    "fchown",
    "utimensat",
    "fsetxattr",
];

/// No life of a change has more of one call than this.
const MOST: u32 = 400;

/// Runs a life under each fault at each call until the calls are used up.
fn each(calls: &[&str], faults: &[&str], life: fn(&str, &str)) {
    let mut met = BTreeMap::new();
    for call in calls {
        for fault in faults {
            for number in 1..=MOST {
                let injected = format!("inject={call}:{fault}:when={number}");
                CALLED.with(|called| called.set(0));
                life(call, &injected);
                if CALLED.with(Cell::get) < number {
                    break;
                }
                *met.entry(format!("{call} {fault}")).or_insert(0) += 1;
                assert!(number < MOST, "{call} has no end");
            }
        }
    }
    eprintln!("faults met: {met:?}");
    assert!(met.values().sum::<u32>() > 0, "no fault was met");
}

thread_local! {
    /// How often the life under the fault made the call.
    static CALLED: Cell<u32> = const { Cell::new(0) };
}

/// A change that mends and is confirmed, under a fault.
fn changing(call: &str, fault: &str) {
    with_device(async |mut device: Device| {
        let before = device.picture();
        let envelope = device.sign(&device.package(MEND));
        if start_under(&mut device, call, fault).await {
            live(&device, &envelope).await;
        }
        end_under(&mut device).await;
        look(&mut device, &envelope, &before, fault).await;
    });
}

/// A change that was cut short, and a recovery under a fault.
fn recovering(call: &str, fault: &str) {
    with_device(async |mut device: Device| {
        device.start().await;
        let before = device.picture();
        let envelope = device.sign(&device.package(MEND));
        let mut life = device.execute(envelope.clone(), None).await;
        wants_on_site(&mut life).await;
        device.kill();
        start_under(&mut device, call, fault).await;
        end_under(&mut device).await;
        look(&mut device, &envelope, &before, fault).await;
        assert!(device.picture().starts_with(BEFORE), "{fault}");
    });
}

/// Starts the executor under strace; false if it ended before it answered.
pub(crate) async fn start_under(device: &mut Device, call: &str, fault: &str) -> bool {
    start_traced(device, &["-e", &format!("trace={call}")], fault).await
}

async fn start_traced(device: &mut Device, calls: &[&str], fault: &str) -> bool {
    let child = Command::new("strace")
        .arg("-qq")
        .args(calls)
        .args(["-e", fault, "-o"])
        .arg(device.path("strace"))
        .arg(fs::read_link("/proc/self/exe").unwrap())
        .args(["role", "executor"])
        .arg(device.path(""))
        .stdin(Stdio::null())
        .spawn()
        .expect("these tests need strace");
    device.adopt(child);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(30) && device.lives() {
        if let Ok(mut connection) = Connection::connect(&device.path("executor.sock")).await {
            let asked = connection.ask::<_, ExecutorAnswer>(&ExecutorRequest::Status);
            return asked.await.is_ok();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!device.lives(), "{fault}: it neither answers nor ends");
    false
}

/// Hands the package in, confirms it if asked to, and listens until there is nothing more to hear.
async fn live(device: &Device, envelope: &Envelope) {
    let Ok(mut connection) = Connection::connect(&device.path("executor.sock")).await else {
        return;
    };
    let request = ExecutorRequest::Execute {
        package: envelope.clone(),
        delivery: None,
        bindings: Default::default(),
    };
    if connection.send(&request).await.is_err() {
        return;
    }
    let heard = async {
        while let Ok(Some(answer)) = connection.recv::<ExecutorAnswer>().await {
            match answer {
                ExecutorAnswer::ConfirmOnSiteWanted { change, .. } => {
                    device.try_ask_as(0, &ExecutorRequest::ConfirmOnSite { change });
                }
                ExecutorAnswer::Ended { .. }
                | ExecutorAnswer::Refused(_)
                | ExecutorAnswer::Failed { .. } => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(90), heard)
        .await
        .expect("an end in time");
}

/// Ends what still runs, and counts the calls.
pub(crate) async fn end_under(device: &mut Device) {
    device.kill();
    // strace was killed; the executor dies of that, a little later.
    let socket = device.path("executor.sock");
    let refuses = || UnixStream::connect(&socket).is_err();
    wait_until("the executor's end", refuses).await;
    let log = fs::read_to_string(device.path("strace")).unwrap_or_default();
    let calls = log.lines().filter(|line| line.contains('('));
    CALLED.with(|called| called.set(u32::try_from(calls.count()).unwrap()));
}

/// The walls are built while the records are stored, and each of those is held up here: the script's interpreter is
/// executed after the last of them all the same.
fn nothing_before_its_record() {
    with_device(async |mut device: Device| {
        let envelope = device.sign(&device.package(MEND));
        let held = "inject=fdatasync:delay_exit=200000";
        let calls = ["-f", "-s", "4096", "-e", "trace=write,fdatasync,execve"];
        assert!(start_traced(&mut device, &calls, held).await);
        live(&device, &envelope).await;
        end_under(&mut device).await;
        let log = fs::read_to_string(device.path("strace")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        let after = |from: usize, words: &[&str]| {
            let holds = |line: &&str| words.iter().all(|word| line.contains(word));
            let found = lines.iter().skip(from).position(holds);
            from + found.unwrap_or_else(|| panic!("no {words:?} from line {from} on: {log}"))
        };
        let executed = after(0, &["execve(", "/proc/self/fd/4"]);
        for record in ["snapshotted", "armed", "started"] {
            let written = after(0, &["write(", &format!("\\\"{record}\\\"")]);
            let synced = after(written, &["fdatasync", "= 0"]);
            assert!(synced < executed, "{record}: {log}");
        }
        device.start().await;
        assert_eq!(device.outcomes().await.len(), 1);
    });
}

/// What must hold after every fault.
async fn look(device: &mut Device, envelope: &Envelope, before: &str, fault: &str) {
    device.start().await;
    let told = device.outcomes().await;
    assert!(told.len() <= 1, "{fault}: {told:?}");
    let end = told.first().map(|outcome| outcome.end);
    let now = device.picture();
    if end == Some(End::Confirmed) {
        assert!(now.starts_with(AFTER), "{fault}: {now}");
    } else {
        assert_eq!(now, before, "{fault}: {told:?}");
        assert_ne!(end, Some(End::RollbackIncomplete), "{fault}: {told:?}");
    }
    // It runs once, or never did.
    let mut again = device.execute(envelope.clone(), None).await;
    let answer: ExecutorAnswer = again.recv().await.unwrap().expect("an answer");
    match (end, answer) {
        (_, ExecutorAnswer::Refused(refusal)) => {
            assert_eq!(refusal.reason, Reason::Replayed, "{fault}: {refusal:?}");
        }
        (None, _) => {}
        (Some(_), other) => panic!("{fault}: it ran again: {other:?}"),
    }
    drop(again);
    device.kill();
    device.start().await;
    let mut next = device
        .execute(device.sign(&device.package("exit 7\n")), None)
        .await;
    let (local, _) = ended(&mut next).await;
    assert_eq!(local.end, End::RolledBack, "{fault}: {local:?}");
}
