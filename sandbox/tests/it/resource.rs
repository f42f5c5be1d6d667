//! Resources: a script may exhaust its own.

use std::process::Command;
use std::time::Duration;

use aizen_sandbox::End;

use crate::bed::{profile, run, said, sh};

#[test]
fn a_fork_bomb_stops_at_its_limit_and_the_host_can_still_fork() {
    let mut script = profile("f() { f | f & }; f; sleep 30");
    script.limits.processes = 24;
    script.timeout = Duration::from_secs(1);
    script.grace = Duration::from_millis(200);
    let finished = run(script);
    assert!(Command::new("true").status().unwrap().success());
    assert!(
        finished.took < Duration::from_secs(30),
        "{:?}",
        finished.took
    );
    assert!(
        finished.leftover_processes <= 25,
        "{}",
        finished.leftover_processes
    );
    assert!(said(&finished).contains("fork"), "{}", said(&finished));
}

#[test]
fn processes_are_counted_exactly() {
    let mut script = profile(
        "n=0; while [ $n -lt 40 ]; do (sleep 30) & n=$((n + 1)); echo $n >/tmp/n; done; echo all",
    );
    script.limits.processes = 10;
    let finished = run(script);
    assert_eq!(finished.leftover_processes, 9, "{}", said(&finished));
    assert!(!said(&finished).contains("all"));
}

#[test]
fn a_memory_hog_is_stopped_and_the_caller_lives() {
    let mut script = profile(
        "perl -e 'my @x; push @x, \"a\" x (1 << 20) for 1 .. 400; print \"had it\"'; exit $?",
    );
    script.limits.memory_bytes = 32 << 20;
    let finished = run(script);
    assert_ne!(finished.end, End::Exited(0));
    assert!(!said(&finished).contains("had it"));
}

#[test]
fn memory_of_many_processes_is_bounded_together() {
    let mut script = profile(
        "for i in 1 2 3 4 5 6 7 8; do perl -e 'my @x; push @x, \"a\" x (1 << 20) for 1 .. 12; print \"had it\\n\"; sleep 2' & done; wait",
    );
    script.limits.memory_bytes = 48 << 20;
    let finished = run(script);
    assert!(
        said(&finished).matches("had it").count() < 6,
        "{}",
        said(&finished)
    );
}

#[test]
fn the_scratch_has_an_end_for_bytes_and_for_names() {
    let output = sh(
        "head -c 20000000 /dev/zero >/tmp/big 2>/dev/null && echo full of bytes
         rm -f /tmp/big; n=0; while [ $n -lt 9000 ]; do echo >/tmp/f$n || break; n=$((n + 1)); done 2>/dev/null
         [ $n -ge 9000 ] && echo full of names; truncate -s 1G /tmp/sparse 2>/dev/null && echo sparse; echo done",
    );
    assert_eq!(output.lines().last(), Some("done"));
    assert!(
        !output.contains("full") && !output.contains("sparse"),
        "{output}"
    );
}

#[test]
fn a_flood_of_output_is_drained_and_kept_at_both_ends() {
    const FLOOD: u64 = 100_000_000;
    let mut script = profile(&format!(
        "echo first; yes | head -c {FLOOD}; echo last; head -c 1000 /dev/zero >&2; echo end"
    ));
    script.limits.output_bytes = 4096;
    let finished = run(script);
    assert_eq!(finished.end, End::Exited(0));
    assert_eq!(finished.output_bytes, FLOOD + 6 + 5 + 1000 + 4);
    assert!(finished.output.len() < 4096 + 64);
    let text = said(&finished);
    assert!(
        text.starts_with("first\n") && text.ends_with("end"),
        "{text}"
    );
    assert!(text.contains("bytes left out"));
}

#[test]
fn a_spinning_process_runs_out_of_its_time() {
    let mut script = profile("while :; do :; done");
    script.limits.cpu_seconds = 1;
    let finished = run(script);
    assert!(
        matches!(finished.end, End::Signalled(libc::SIGXCPU | libc::SIGKILL)),
        "{:?}",
        finished.end
    );
    assert!(finished.took < Duration::from_secs(30));
}

#[test]
fn a_pipe_that_is_kept_open_does_not_keep_the_run_open() {
    let mut script = profile("exec sh -c '(setsid sleep 40 &) ; echo over'");
    script.timeout = Duration::from_secs(30);
    let finished = run(script);
    assert_eq!(finished.end, End::Exited(0));
    assert!(finished.took < Duration::from_secs(20));
    assert_eq!(said(&finished), "over");
}
