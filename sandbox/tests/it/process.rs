//! Processes: a run has an end, and nothing outlives it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aizen_sandbox::{End, ReadBind, SandboxError};

use crate::bed::{Bystander, profile, run, runs, said, sh, soon, succeeds};

/// A length of sleep that no other test asks for.
fn marker(number: u32) -> String {
    format!("31{number}.{}", std::process::id())
}

#[test]
fn exit_status_and_signal_are_told_apart() {
    for status in [0, 1, 7, 255] {
        assert_eq!(
            run(profile(&format!("exit {status}"))).end,
            End::Exited(status)
        );
    }
    assert_eq!(run(profile("kill -9 $$")).end, End::Signalled(9));
    assert_eq!(run(profile("kill -TERM $$")).end, End::Signalled(15));
}

#[test]
fn a_script_that_does_not_end_is_ended_by_the_deadline() {
    let mut script = profile(&format!("echo began; sleep {}", marker(1)));
    script.timeout = Duration::from_secs(2);
    let finished = run(script);
    assert_eq!(finished.end, End::TimedOut);
    assert_eq!(said(&finished), "began");
    assert!(finished.took >= Duration::from_secs(2));
    assert!(
        finished.took < Duration::from_secs(20),
        "{:?}",
        finished.took
    );
    assert!(!runs(&marker(1)));
}

#[test]
fn at_the_deadline_a_script_may_say_goodbye() {
    let mut script = profile("trap 'echo goodbye; exit 3' TERM; while :; do sleep 0.05; done");
    script.timeout = Duration::from_secs(2);
    script.grace = Duration::from_secs(10);
    let finished = run(script);
    assert_eq!(finished.end, End::TimedOut);
    assert_eq!(said(&finished).lines().last(), Some("goodbye"));
}

#[test]
fn detached_processes_that_ignore_signals_end_by_the_deadline_and_nothing_is_left() {
    let sleep = marker(2);
    let mut script = profile(&format!(
        "trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM; sleep {sleep}; sleep {sleep}' &) ; sleep {sleep}; sleep {sleep}"
    ));
    script.timeout = Duration::from_secs(2);
    script.grace = Duration::from_millis(300);
    let finished = run(script);
    assert_eq!(finished.end, End::TimedOut);
    assert!(
        finished.took < Duration::from_secs(20),
        "{:?}",
        finished.took
    );
    assert!(
        finished.leftover_processes >= 2,
        "{}",
        finished.leftover_processes
    );
    assert!(!runs(&sleep));
}

#[test]
fn a_child_that_outlives_the_script_is_killed_and_counted() {
    let sleep = marker(3);
    let started = Instant::now();
    let finished = run(profile(&format!(
        "setsid sleep {sleep} & sleep {sleep} & exit 0"
    )));
    assert_eq!(finished.end, End::Exited(0));
    assert_eq!(finished.leftover_processes, 2);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(!runs(&sleep));
}

#[test]
fn children_that_ended_in_time_are_not_left_over() {
    let finished = run(profile("(sleep 0.05 &) ; true | true; sleep 0.3"));
    assert_eq!(finished.leftover_processes, 0);
}

#[test]
fn a_run_can_be_cancelled() {
    let cancel = AtomicBool::new(false);
    let sleep = marker(4);
    let finished = std::thread::scope(|scope| {
        let run = scope.spawn(|| aizen_sandbox::run(profile(&format!("sleep {sleep}")), &cancel));
        assert!(soon(|| runs(&sleep)));
        cancel.store(true, Ordering::Relaxed);
        run.join().unwrap().unwrap()
    });
    assert_eq!(finished.end, End::Cancelled);
    assert!(finished.took < Duration::from_secs(10));
    assert!(!runs(&sleep));
}

#[test]
fn a_run_that_is_cancelled_before_it_starts_does_not_start() {
    let refused = aizen_sandbox::run(profile("echo ran"), &AtomicBool::new(true));
    assert!(matches!(refused, Err(SandboxError::CancelledBeforeStart)));
}

#[test]
fn a_script_waits_within_its_walls_until_it_is_permitted() {
    let seen = tempfile::tempdir().unwrap();
    let mut waiting = profile("cat /seen/permitted");
    waiting.reads.push(ReadBind {
        source: seen.path().to_path_buf(),
        target: "/seen".into(),
    });
    std::fs::set_permissions(seen.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let permitted = || std::fs::write(seen.path().join("permitted"), "yes").is_ok();
    let finished = aizen_sandbox::run_when(waiting, &AtomicBool::new(false), permitted).unwrap();
    assert_eq!(said(&finished), "yes");
}

#[test]
fn without_the_permission_nothing_runs() {
    let sleep = marker(5);
    let never = profile(&format!("sleep {sleep}"));
    let refused = aizen_sandbox::run_when(never, &AtomicBool::new(false), || false);
    assert!(matches!(refused, Err(SandboxError::CancelledBeforeStart)));
    assert!(!runs(&sleep));
}

#[test]
fn processes_of_the_host_can_be_neither_seen_nor_signalled() {
    let mut sleeper = Bystander::start().unwrap();
    let output = sh(&format!(
        "for p in {} {}; do kill -0 $p 2>/dev/null && echo reached; ls -d /proc/$p 2>/dev/null && echo seen; done
         ls -d /proc/1 2>/dev/null && echo saw init; echo done",
        sleeper.id(),
        std::process::id() + 100_000
    ));
    assert!(sleeper.lives());
    assert_eq!(output, "done");
}

#[test]
fn a_kill_of_everything_hits_the_script_alone() {
    let mut sleeper = Bystander::start().unwrap();
    let finished = run(profile(
        "kill -9 1; kill -STOP 1; sleep 30 & kill -9 -1; echo survived",
    ));
    assert!(
        matches!(finished.end, End::Signalled(9) | End::Exited(0)),
        "{:?}",
        finished.end
    );
    assert!(finished.took < Duration::from_secs(20));
    assert!(sleeper.lives());
}

#[test]
fn a_stopped_script_is_ended_too() {
    let mut script = profile("kill -STOP $$; echo went on");
    script.timeout = Duration::from_millis(200);
    script.grace = Duration::from_millis(200);
    let finished = run(script);
    assert_eq!(finished.end, End::TimedOut);
    assert!(finished.took < Duration::from_secs(20));
}

#[test]
fn only_the_declared_descriptors_exist() {
    // The shell reads the script through a descriptor of its own, 10.
    let list = "ls -v /proc/$$/fd; for n in 0 1 2 4 10; do readlink /proc/$$/fd/$n; done";
    let output = sh(list);
    let (numbers, targets) = output.split_at(output.find("/dev/null").unwrap());
    assert_eq!(numbers, "0\n1\n2\n4\n10\n");
    let kinds: Vec<_> = targets
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(kinds, ["/dev/null", "pipe", "pipe", "/memfd", "/memfd"]);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut script = profile("ls -v /proc/$$/fd; readlink /proc/$$/fd/3");
    script.broker = Some(theirs.into());
    assert!(succeeds(script).starts_with("0\n1\n2\n3\n4\n10\nsocket:"));
}

#[test]
fn an_open_descriptor_of_the_caller_is_not_inherited() {
    let file = std::fs::File::open("/etc/shadow").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let output = sh("for f in /proc/$$/fd/*; do readlink $f; done");
    assert!(!output.contains("shadow"), "{output}");
}

#[test]
fn nothing_of_the_callers_environment_is_passed() {
    assert!(std::env::vars().count() > 3);
    let mut script = profile("env | sort");
    script
        .environment
        .insert("IP_10_83_7_1".into(), "192.0.2.7".into());
    assert_eq!(
        succeeds(script),
        "HOME=/tmp\nIP_10_83_7_1=192.0.2.7\nLANG=C.UTF-8\n\
         PATH=/run/aizen/bin:/usr/bin:/bin:/usr/sbin:/sbin\nPWD=/tmp\nTMPDIR=/tmp"
    );
}

#[test]
fn values_are_data_whatever_they_hold() {
    let value = "a'b\"c $(touch /tmp/x) `touch /tmp/x` ; touch /tmp/x\n-n \\ é";
    let mut script = profile("printf %s \"$V\"; test -e /tmp/x && echo evaluated");
    script.environment.insert("V".into(), value.into());
    assert_eq!(said(&run(script)), value);
}

#[test]
fn the_bytes_that_run_are_the_bytes_that_were_given_and_stay_so() {
    let mut text = String::from(
        "(echo 'echo swapped' >/proc/self/fd/4) 2>/dev/null && echo wrote\n(echo x >>$0) 2>/dev/null && echo wrote\n\
         truncate -s 0 $0 2>/dev/null && echo cut\ncat $0\nexit 0\n",
    );
    for number in 0..20_000 {
        text.push_str(&format!("# {number} é \u{1}\n"));
    }
    let mut script = profile(&text);
    script.limits.output_bytes = 1 << 20;
    let finished = run(script);
    assert_eq!(finished.end, End::Exited(0));
    assert!(
        finished.output == text.as_bytes(),
        "{} bytes",
        finished.output.len()
    );
}

#[test]
fn the_change_tool_is_found_first_and_can_not_be_replaced() {
    let outside = tempfile::tempdir().unwrap();
    let tool = outside.path().join("tool");
    std::fs::write(&tool, "#!/bin/sh\necho \"$(basename $0) $*\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&tool, mode).unwrap();
    let mut script = profile(
        "change route replace default; (echo x >$(command -v change)) 2>/dev/null && echo replaced
         rm -f $(command -v change) 2>/dev/null && echo removed; command -v change",
    );
    script.change_tool = Some(tool);
    assert_eq!(
        succeeds(script),
        "change route replace default\n/run/aizen/bin/change"
    );
}

#[test]
fn a_script_of_another_interpreter_runs() {
    let mut script = profile("print 'six times seven is ', 6 * 7");
    script.interpreter = "/usr/bin/perl".into();
    assert_eq!(succeeds(script), "six times seven is 42");
}

#[test]
fn it_dies_with_the_process_that_started_it() {
    let sleep = "4711.0815";
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "process::sleeps_until_its_process_is_killed",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(soon(|| runs(sleep)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(soon(|| !runs(sleep)));
}

#[test]
#[ignore = "started by it_dies_with_the_process_that_started_it"]
fn sleeps_until_its_process_is_killed() {
    run(profile("setsid sleep 4711.0815 & sleep 4711.0815"));
}
