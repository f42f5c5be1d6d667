//! Kernels and containers that lack a layer: the run goes on with the others, says so, and is worth less.
//!
//! Each runs in a user namespace of its own, where root can forbid one kind of namespace without touching the host.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use aizen_sandbox::{End, Isolation, SandboxError};

use crate::bed::{profile, run, runs, said, soon, try_run};

const LACKING: &str = "AIZEN_TEST_LACKING";

/// Runs the test `inner` as root of a container, which can't make namespaces of `kind`.
fn contained(kind: &str, inner: &str) -> io::Result<()> {
    let forbid = "echo 0 >/proc/sys/user/max_${AIZEN_TEST_LACKING}_namespaces; exec \"$0\" \"$@\"";
    let mut container = Command::new("unshare")
        .args([
            "--user",
            "sh",
            "-c",
            "read go; exec \"$0\" \"$@\"",
            "unshare",
            "--mount",
            "--pid",
        ])
        .args(["--fork", "--mount-proc", "sh", "-c", forbid])
        .arg(std::env::current_exe()?)
        .args(["--ignored", "--exact", inner])
        .env(LACKING, kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let process = format!("/proc/{}", container.id());
    let ours = std::fs::read_link("/proc/self/ns/user")?;
    assert!(soon(
        || std::fs::read_link(format!("{process}/ns/user")).is_ok_and(|its| its != ours)
    ));
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("{process}/{map}"), "0 0 65536")?;
    }
    if let Some(mut door) = container.stdin.take() {
        door.write_all(b"go\n")?;
    }
    let output = container.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    Ok(())
}

fn lacks(isolation: &Isolation, name: &str) -> bool {
    isolation
        .layers
        .iter()
        .any(|layer| layer.name == name && !layer.enforced)
}

#[test]
fn without_a_pid_namespace_it_is_level_one_and_still_nothing_is_left() {
    contained("pid", "lacking::ends_all_it_started").unwrap();
}

#[test]
#[ignore = "started by without_a_pid_namespace_it_is_level_one_and_still_nothing_is_left"]
fn ends_all_it_started() {
    let sleep = format!("77.{}", std::process::id());
    let detached = format!(
        "(setsid sh -c 'trap \"\" TERM; sleep {sleep}; sleep {sleep}' &); sleep 0.2; echo over"
    );
    let mut script = profile(&detached);
    script.min_level = 1;
    let finished = run(script);
    assert_eq!(finished.end, End::Exited(0));
    assert_eq!(said(&finished), "over");
    assert_eq!(finished.isolation.level, 1);
    assert!(lacks(&finished.isolation, "pid_namespace"));
    assert_eq!(finished.leftover_processes, 2);
    assert!(!runs(&sleep));
    let mut endless = profile(&format!(
        "{detached}; trap '' TERM; while :; do sleep {sleep}; done"
    ));
    endless.min_level = 1;
    endless.timeout = Duration::from_millis(500);
    endless.grace = Duration::from_millis(200);
    assert_eq!(run(endless).end, End::TimedOut);
    assert!(!runs(&sleep));
}

#[test]
fn without_a_mount_namespace_it_is_level_one_and_the_host_is_still_not_writable() {
    contained("mnt", "lacking::writes_nothing").unwrap();
}

#[test]
#[ignore = "started by without_a_mount_namespace_it_is_level_one_and_the_host_is_still_not_writable"]
fn writes_nothing() {
    let mut script =
        profile("(echo x >/etc/aizen-test) 2>/dev/null && echo wrote; cat /etc/shadow; echo over");
    script.min_level = 1;
    let finished = run(script);
    assert_eq!(finished.isolation.level, 1);
    assert!(lacks(&finished.isolation, "mount_namespace") && lacks(&finished.isolation, "tree"));
    let output = said(&finished);
    assert!(
        output.ends_with("over") && !output.contains("root:") && !output.contains("wrote"),
        "{output}"
    );
}

#[test]
fn without_user_network_uts_or_cgroup_namespaces_it_runs_and_names_them() {
    for kind in ["user", "net", "uts", "cgroup"] {
        contained(kind, "lacking::runs_and_names_what_it_lacks").unwrap();
    }
}

#[test]
#[ignore = "started by without_user_network_uts_or_cgroup_namespaces_it_runs_and_names_them"]
fn runs_and_names_what_it_lacks() {
    let kind = std::env::var(LACKING).unwrap();
    let name = match kind.as_str() {
        "net" => "network_namespace".to_owned(),
        kind => format!("{kind}_namespace"),
    };
    let finished = run(profile(
        "id -u; (ip link set lo up 2>/dev/null && echo changed); cat /proc/sys/kernel/ostype",
    ));
    assert!(
        lacks(&finished.isolation, &name),
        "{:?}",
        finished.isolation
    );
    assert!(
        said(&finished).starts_with("65534\n"),
        "{}",
        said(&finished)
    );
    assert!(!said(&finished).contains("changed") && !said(&finished).contains("Linux\n"));
    let network = finished
        .isolation
        .layers
        .iter()
        .find(|layer| layer.name == "network")
        .unwrap();
    assert!(network.enforced, "{network:?}");
}

#[test]
fn a_profile_that_wants_level_two_is_refused_where_a_namespace_is_missing() {
    contained("ipc", "lacking::is_refused").unwrap();
}

#[test]
#[ignore = "started by a_profile_that_wants_level_two_is_refused_where_a_namespace_is_missing"]
fn is_refused() {
    match try_run(profile("echo ran")) {
        Err(SandboxError::BelowMinimum {
            missing, isolation, ..
        }) => {
            assert_eq!(isolation.level, 1);
            assert_eq!(
                missing,
                ["ipc_namespace: the limit in /proc/sys/user forbids it"]
            );
        }
        other => panic!("{other:?}"),
    }
}

/// A kernel without Landlock, as this thread and all that it starts see it.
fn forget_landlock() -> Result<(), Box<dyn std::error::Error>> {
    let calls = r#"{"kernel": {"mismatch_action": "allow", "match_action": {"errno": 38}, "filter": [
        {"syscall": "landlock_create_ruleset"}, {"syscall": "landlock_add_rule"}, {"syscall": "landlock_restrict_self"}]}}"#;
    let arch = std::env::consts::ARCH.try_into()?;
    let compiled = seccompiler::compile_from_json(calls.as_bytes(), arch)?;
    Ok(seccompiler::apply_filter(&compiled["kernel"])?)
}

#[test]
fn without_landlock_it_is_level_two_and_says_so_and_what_needs_more_is_refused() {
    forget_landlock().unwrap();
    let finished = run(profile(
        "echo over; (echo x >/etc/aizen-test) 2>/dev/null && echo wrote",
    ));
    assert_eq!(finished.isolation.level, 2);
    assert!(
        lacks(&finished.isolation, "landlock"),
        "{:?}",
        finished.isolation
    );
    assert_eq!(said(&finished), "over");
    let mut demanding = profile("echo over");
    demanding.min_level = 3;
    let refused = try_run(demanding).unwrap_err();
    let SandboxError::BelowMinimum { missing, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert!(
        missing.iter().any(|layer| layer.contains("landlock")),
        "{missing:?}"
    );
}
