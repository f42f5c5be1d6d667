//! What dies again and again is given up, what hangs is ended: the device goes on either way.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest, ExecutorStatus, Question};
use aizen_protocol::outcome::End;
use aizen_protocol::reason::Reason;
use nix::mount::{MsFlags, mount};
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::crashes::ends;
use crate::device::{AFTER, Device, MEND, NONE, ended, refused, wants_on_site, with_device};
use crate::faults;

pub(crate) const ALL: &[(&str, fn())] = &[
    (
        "a_recovery_that_dies_three_times_in_a_boot_is_given_up_until_a_person_decides",
        || given_up(false),
    ),
    (
        "a_recovery_that_dies_in_three_boots_is_given_up_in_the_fourth",
        || given_up(true),
    ),
    (
        "an_end_that_can_not_be_told_is_held_back_and_told_once_it_can_be",
        held,
    ),
    (
        "an_executor_that_hangs_tells_its_watchdog_nothing_and_its_next_start_undoes",
        hangs,
    ),
];

/// The first file that a recovery replaces: it comes after the attempt is counted.
const CALLS: &str = "/^(rename|linkat)";

/// One recovery that is killed.
async fn dies(device: &mut Device) {
    let fault = format!("inject={CALLS}:signal=KILL:when=1");
    let answered = faults::start_under(device, CALLS, &fault).await;
    assert!(!answered, "it was to be killed");
    faults::end_under(device).await;
}

async fn status(device: &Device) -> ExecutorStatus {
    match device.ask(ExecutorRequest::Status).await {
        ExecutorAnswer::Status(status) => status,
        other => panic!("{other:?}"),
    }
}

fn given_up(reboots: bool) {
    with_device(async move |mut device: Device| {
        let boot = device.path("boot_id");
        let boots = |n: u32| {
            let id = format!("0a0a0a0a-0000-4000-8000-{n:012}\n");
            fs::write(&boot, id).unwrap();
        };
        boots(0);
        let boot_id = "/proc/sys/kernel/random/boot_id";
        mount(Some(&boot), boot_id, NONE, MsFlags::MS_BIND, NONE).unwrap();
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        let change = wants_on_site(&mut life).await;
        device.kill();
        for n in 1..=3 {
            if reboots {
                boots(n);
            }
            dies(&mut device).await;
        }
        if reboots {
            boots(4);
        }
        device.start().await;
        device.told().await;
        let told = device.outcomes().await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].end, End::RollbackIncomplete);
        let what = &told[0].not_restored[0].0;
        assert!(
            what.contains("tried 3 times") && what.contains("aizen changes clear"),
            "{what}"
        );
        assert!(
            device.picture().starts_with(AFTER),
            "nobody touches it any more"
        );

        // It serves, and starts anew without trying again.
        let seen = device.ask(ExecutorRequest::See(Question::Filter)).await;
        assert!(matches!(seen, ExecutorAnswer::Seen { .. }), "{seen:?}");
        device.kill();
        device.start().await;
        assert_eq!(device.outcomes().await, told);
        let next = device.sign(&device.package(MEND));
        let mut life = device.execute(next.clone(), None).await;
        assert_eq!(refused(&mut life).await, Reason::RollbackIncomplete);
        let clear = ExecutorRequest::Clear { change };
        assert_eq!(device.ask_as(0, &clear), ExecutorAnswer::Done);
        let mut life = device.execute(next, None).await;
        wants_on_site(&mut life).await;
    });
}

fn held() {
    with_device(async |mut device: Device| {
        device.start().await;
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        let change = wants_on_site(&mut life).await;
        let confirm = ExecutorRequest::ConfirmOnSite { change };
        assert_eq!(device.ask_as(0, &confirm), ExecutorAnswer::Done);
        ended(&mut life).await;
        device.kill();
        // It died between its decision and the report.
        let journal = fs::read(device.path("state/journal")).unwrap();
        let ends = ends(&journal);
        let cut = ends[ends.len() - 2];
        fs::write(device.path("state/journal"), &journal[..cut]).unwrap();
        fs::remove_dir_all(device.path("state/outcomes")).unwrap();
        for _ in 0..3 {
            dies(&mut device).await;
        }
        device.start().await;
        assert!(status(&device).await.pending.is_some());
        let next = device.sign(&device.package(MEND));
        let mut life = device.execute(next.clone(), None).await;
        assert_eq!(refused(&mut life).await, Reason::Busy);
        let told = device.outcomes().await;
        let confirmed: Vec<_> = told.iter().filter(|o| o.end != End::Refused).collect();
        assert_eq!(confirmed.len(), 1, "{told:?}");
        assert_eq!(confirmed[0].end, End::Confirmed);
        assert!(device.picture().starts_with(AFTER));
        assert!(status(&device).await.pending.is_none());
        let mut life = device.execute(next, None).await;
        wants_on_site(&mut life).await;
    });
}

/// A stand-in for the service manager: it waits for a word of the watchdog.
fn says_that_it_lives(manager: &UnixDatagram) -> bool {
    let mut notice = [0; 512];
    while let Ok(length) = manager.recv(&mut notice) {
        if notice[..length].starts_with(b"WATCHDOG=1") {
            return true;
        }
    }
    false
}

/// As a unit with `WatchdogSec=1` starts it.
fn start_watched(device: &mut Device, socket: &Path) {
    let child = Command::new("/proc/self/exe")
        .args(["role", "executor"])
        .arg(device.path(""))
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", "1000000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    device.adopt(child);
}

/// The executor's own thread stands still from here on; its others go on.
fn hang(device: &Device) {
    let thread = Pid::from_raw(device.executor_id().try_into().unwrap());
    ptrace::attach(thread).unwrap();
    let stopped = waitpid(thread, None).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
}

fn hangs() {
    with_device(async |mut device: Device| {
        let before = device.picture();
        let socket = device.path("notify.sock");
        let manager = UnixDatagram::bind(&socket).unwrap();
        // Ten times what the unit would wait.
        manager
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        start_watched(&mut device, &socket);
        for _ in 0..3 {
            assert!(says_that_it_lives(&manager), "an idle one says so");
        }
        let mut life = device
            .execute(device.sign(&device.package(MEND)), None)
            .await;
        wants_on_site(&mut life).await;
        assert!(says_that_it_lives(&manager), "one with a change says so");
        hang(&device);
        let mut said = 0;
        while says_that_it_lives(&manager) {
            said += 1;
            assert!(said < 600, "it was to hang");
        }
        // The service manager ends it, as nothing else would.
        assert!(device.picture().starts_with(AFTER), "it hangs half way");
        device.kill();
        device.start().await;
        assert_eq!(device.picture(), before);
        let told = device.outcomes().await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].end, End::RolledBack);
    });
}
