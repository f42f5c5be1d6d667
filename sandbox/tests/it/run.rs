//! A run as a whole: what it reports, when it is refused, what it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use aizen_sandbox::{End, SandboxError, check_with};

use crate::bed::{HELPER, profile, run, said, sh, succeeds, try_run};

#[test]
fn the_check_and_a_run_report_the_same_walls() {
    let checked = check_with(Path::new(HELPER));
    let finished = run(profile("true"));
    assert!(checked.level >= 2, "{:?}", checked.missing(2));
    assert_eq!(checked.level, finished.isolation.level);
    let names = |layers: &[aizen_sandbox::Layer]| -> Vec<(String, bool)> {
        let of = |layer: &aizen_sandbox::Layer| (layer.name.clone(), layer.enforced);
        layers.iter().map(of).collect()
    };
    assert_eq!(names(&checked.layers), names(&finished.isolation.layers));
}

#[test]
fn below_the_wanted_level_nothing_runs_and_what_is_missing_is_named() {
    let level = check_with(Path::new(HELPER)).level;
    let witness = tempfile::NamedTempFile::new().unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut script = profile("echo ran >&3");
    script.broker = Some(theirs.into());
    script.min_level = level + 1;
    match try_run(script) {
        Err(SandboxError::BelowMinimum {
            wanted,
            missing,
            isolation,
        }) => {
            assert_eq!(wanted, level + 1);
            assert_eq!(isolation.level, level);
            assert!(level == 4 || !missing.is_empty());
        }
        other => panic!("{other:?}"),
    }
    let mut heard = String::new();
    std::io::Read::read_to_string(&mut &ours, &mut heard).unwrap();
    assert_eq!(heard, "");
    drop(witness);
}

#[test]
fn what_can_not_be_run_is_told_by_its_step() {
    let mut missing = profile("true");
    missing.interpreter = PathBuf::from("/usr/bin/no-such-interpreter");
    match try_run(missing) {
        Err(SandboxError::Step { step, source, .. }) => {
            assert_eq!(step, "execute");
            assert_eq!(source.raw_os_error(), Some(libc::ENOENT));
        }
        other => panic!("{other:?}"),
    }
    let mut elsewhere = profile("true");
    elsewhere.interpreter = PathBuf::from("/opt/no-such-interpreter");
    assert!(matches!(try_run(elsewhere), Err(SandboxError::Step { .. })));
}

#[test]
fn a_helper_that_is_none_is_an_error_and_not_a_run() {
    let mut mute = profile("true");
    mute.helper = PathBuf::from("/bin/true");
    assert!(matches!(
        try_run(mute),
        Err(SandboxError::HelperEnded { .. })
    ));
    let mut talking = profile("true");
    talking.helper = PathBuf::from("/bin/ls");
    match try_run(talking) {
        Err(SandboxError::HelperEnded { said }) => assert!(said.contains("usr"), "{said}"),
        other => panic!("{other:?}"),
    }
    let mut absent = profile("true");
    absent.helper = PathBuf::from("/no/such/helper");
    assert!(matches!(try_run(absent), Err(SandboxError::Prepare { .. })));
    assert_eq!(check_with(Path::new("/bin/true")).level, 0);
}

#[test]
fn an_empty_script_is_a_script() {
    let finished = run(profile(""));
    assert_eq!(finished.end, End::Exited(0));
    assert_eq!(finished.output_bytes, 0);
}

#[test]
fn output_is_given_as_bytes_in_the_order_of_writing() {
    let finished = run(profile(
        "printf 'a\\377\\000'; printf b >&2; printf '\\033[31mc'",
    ));
    assert_eq!(finished.output, b"a\xff\0b\x1b[31mc");
}

#[test]
fn runs_beside_each_other_do_not_meet() {
    let outputs: Vec<String> = std::thread::scope(|scope| {
        let one = |number: u32| {
            let script = format!(
                "echo {number} >/tmp/mine; sleep 0.2; cat /tmp/*; ls -d /proc/[0-9]* | wc -l"
            );
            scope.spawn(move || sh(&script))
        };
        let threads: Vec<_> = (0..4).map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (number, output) in outputs.iter().enumerate() {
        assert_eq!(output.lines().next(), Some(number.to_string().as_str()));
        let processes: u32 = output.lines().last().unwrap().parse().unwrap();
        assert!(processes <= 4, "{output}");
    }
}

#[test]
fn a_run_leaves_no_group_no_mount_and_no_process() {
    let ours = format!("-{}-", std::process::id());
    let groups = || -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mounts.lines().filter(|line| line.contains(" - cgroup"));
        let places = mounted.filter_map(|line| line.split(' ').nth(4).map(PathBuf::from));
        places.flat_map(|place| found(&place, &ours, 4)).collect()
    };
    let children = || fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    run(profile("true"));
    let mut killed = profile("sleep 60 & sleep 60");
    killed.timeout = std::time::Duration::from_millis(200);
    run(killed);
    let mut refused = profile("true");
    refused.interpreter = PathBuf::from("/usr/bin/none");
    assert!(try_run(refused).is_err());
    assert_eq!(groups(), Vec::<PathBuf>::new());
    assert_eq!(children(), "");
}

fn found(place: &Path, owner: &str, depth: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    let directories = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .flat_map(|entry| {
            let mut deeper = if depth > 0 {
                found(&entry.path(), owner, depth - 1)
            } else {
                Vec::new()
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("aizen-run-") && name.contains(owner) {
                deeper.push(entry.path());
            }
            deeper
        })
        .collect()
}

#[test]
fn it_works_inside_another_network_and_mount_namespace() {
    let inner = Command::new("unshare")
        .args(["--net", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "run::runs_where_it_is"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inner.stdout).into_owned();
    assert!(inner.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "started by it_works_inside_another_network_and_mount_namespace"]
fn runs_where_it_is() {
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    let mut script = profile("readlink /proc/self/ns/net; id -u");
    script.network = aizen_sandbox::Network::Host;
    assert_eq!(succeeds(script), format!("{}\n65534", here.display()));
}

#[test]
fn without_control_groups_rlimits_bound_it_and_the_report_says_so() {
    let inner = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg("umount -l /sys/fs/cgroup && exec \"$0\" --ignored --exact run::runs_without_control_groups")
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inner.stdout).into_owned();
    assert!(
        inner.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "started by without_control_groups_rlimits_bound_it_and_the_report_says_so"]
fn runs_without_control_groups() {
    let mut script =
        profile("n=0; while [ $n -lt 40 ]; do (sleep 30) & n=$((n + 1)); done; echo all");
    script.limits.processes = 10;
    let finished = run(script);
    assert_eq!(finished.leftover_processes, 9, "{}", said(&finished));
    for name in ["process_limit", "memory_limit", "cgroup_v2"] {
        let layers = &finished.isolation.layers;
        let layer = layers.iter().find(|layer| layer.name == name).unwrap();
        assert!(!layer.enforced, "{layer:?}");
    }
    assert_eq!(finished.isolation.level, 2);
    let mut hog =
        profile("perl -e 'my @x; push @x, \"a\" x (1 << 20) for 1 .. 400; print \"had it\"'");
    hog.limits.memory_bytes = 48 << 20;
    let finished = run(hog);
    assert_ne!(finished.end, End::Exited(0));
    assert!(!said(&finished).contains("had it"));
}

#[test]
fn an_own_user_can_be_given() {
    let mut script = profile("id -u; id -g; touch /tmp/x && stat -c %u /tmp/x");
    script.uid = 61_234;
    script.gid = 61_235;
    assert_eq!(succeeds(script), "61234\n61235\n61234");
}

#[test]
fn without_root_there_is_no_sandbox_and_the_check_says_why() {
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", HELPER])
        .output()
        .unwrap();
    // The build directory may be closed to others.
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.starts_with("level 0\n") && text.contains("root"),
            "{text}"
        );
    }
}

#[test]
fn the_hidden_name_alone_builds_nothing() {
    use std::os::unix::process::CommandExt;
    let ended = Command::new(HELPER)
        .arg0("aizen-sandbox-enter")
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(125));
    let unread = aizen_sandbox::run(profile("exit 4"), &AtomicBool::new(false)).unwrap();
    assert_eq!(unread.end, End::Exited(4));
    assert_eq!(said(&unread), "");
}
