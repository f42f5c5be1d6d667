//! One attempt: the script runs by the real executor, and afterwards everything is as before.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use aizen_protocol::effect::ScriptEnd;
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::outcome::{End, Outcome};
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::{Capability, Class};

use super::CAPABLE;
use crate::device::{Device, ended, runs, with_device};
/// What scripts try with.
const TOOLS: &str = r#"
no() { if "$@" >/dev/null 2>&1; then echo "ESCAPED: $*"; fi; }
write() { [ -e "$1" ] || [ -d "${1%/*}" ] || return 1; (echo aizen-abuse >> "$1") 2>/dev/null; }
# A refusal is EPERM, EACCES, ENOSYS, EAFNOSUPPORT; not that an argument made no sense.
errno() { perl -e "my \$s = 'x' x 256; my @a = ($2); my \$r = syscall($1, @a); print \$r == -1 ? \$! + 0 : 0"; }
denied() { e=$(errno "$1" "$2"); case $e in 1|13|38|97) ;; *) echo "ESCAPED: call $1 ($2): errno $e";; esac; }
unmapped() { e=$(errno "$1" "$2"); case $e in 1|22) ;; *) echo "ESCAPED: call $1 ($2): errno $e";; esac; }
denied_or_gone() { e=$(errno "$1" "$2"); case $e in 1|3|13|38) ;; *) echo "ESCAPED: call $1 ($2): errno $e";; esac; }
to_socket() { perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 1; connect(S, pack_sockaddr_un($ARGV[0])) or exit 1' "$1"; }
"#;

/// How long this test's processes sleep, which marks them on the host.
pub(super) fn mark() -> String {
    format!("7741.{}", std::process::id())
}

/// What an attempt must not change, as text.
fn host(device: &Device) -> String {
    let mut text = device.picture();
    text += &fs::read_to_string(device.path("root/etc/hosts")).unwrap();
    for place in [
        "root/etc/hosts",
        "state/trust.json",
        "state/epoch",
        "state/result.key",
        "policy.toml",
        "sanitizer.key",
    ] {
        let found = fs::metadata(device.path(place)).unwrap();
        writeln!(
            text,
            "{place} {} {} {}",
            found.ino(),
            found.len(),
            found.ctime_nsec()
        )
        .unwrap();
    }
    let own = fs::metadata("/proc/self/exe").unwrap();
    writeln!(text, "{} {} {}", own.ino(), own.len(), own.mtime()).unwrap();
    for file in [
        "/proc/thread-self/mountinfo",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/panic",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/net/ipv4/tcp_syncookies",
    ] {
        let found = fs::read_to_string(file).unwrap_or_default();
        // Namespaces that others make by name, and remove, go from here, too.
        let lines = found.lines().filter(|line| !line.contains(" nsfs "));
        writeln!(text, "{file} {:?}", lines.collect::<Vec<_>>()).unwrap();
    }
    for words in [
        &["-o", "address"][..],
        &["route", "show", "table", "all"],
        &["rule"],
    ] {
        let output = Command::new("ip").args(words).output().unwrap();
        text += &String::from_utf8_lossy(&output.stdout);
    }
    text
}

/// Control groups of runs of this executor.
fn groups(executor: u32) -> usize {
    let ours =
        |name: &str| name.starts_with("aizen-run-") && name.contains(&format!("-{executor}-"));
    let count = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| ours(&entry.file_name().to_string_lossy()))
            .count()
    };
    let controllers = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    count(Path::new("/sys/fs/cgroup"))
        + controllers.map(|entry| count(&entry.path())).sum::<usize>()
}

/// Everything that scripts name by a word of their own.
fn filled(device: &Device, script: &str) -> String {
    let text = |path: &str| device.path(path).display().to_string();
    let numbers = [
        ("SYS_setxattr", libc::SYS_setxattr),
        ("SYS_mknodat", libc::SYS_mknodat),
        ("SYS_mount", libc::SYS_mount),
        ("SYS_umount2", libc::SYS_umount2),
        ("SYS_pivot_root", libc::SYS_pivot_root),
        ("SYS_chroot", libc::SYS_chroot),
        ("SYS_open_tree", libc::SYS_open_tree),
        ("SYS_move_mount", libc::SYS_move_mount),
        ("SYS_fsopen", libc::SYS_fsopen),
        ("SYS_fspick", libc::SYS_fspick),
        ("SYS_mount_setattr", libc::SYS_mount_setattr),
        ("SYS_init_module", libc::SYS_init_module),
        ("SYS_finit_module", libc::SYS_finit_module),
        ("SYS_delete_module", libc::SYS_delete_module),
        ("SYS_socket", libc::SYS_socket),
        ("SYS_reboot", libc::SYS_reboot),
        ("SYS_kexec_load", libc::SYS_kexec_load),
        ("SYS_swapoff", libc::SYS_swapoff),
        ("SYS_acct", libc::SYS_acct),
        ("SYS_unshare", libc::SYS_unshare),
        ("SYS_clone", libc::SYS_clone),
        ("SYS_clone3", libc::SYS_clone3),
        ("SYS_setns", libc::SYS_setns),
        ("SYS_ptrace", libc::SYS_ptrace),
        ("SYS_process_vm_readv", libc::SYS_process_vm_readv),
        ("SYS_process_vm_writev", libc::SYS_process_vm_writev),
        ("SYS_pidfd_getfd", libc::SYS_pidfd_getfd),
        ("SYS_pidfd_open", libc::SYS_pidfd_open),
        ("SYS_kcmp", libc::SYS_kcmp),
        ("SYS_tgkill", libc::SYS_tgkill),
        ("SYS_bpf", libc::SYS_bpf),
        ("SYS_perf_event_open", libc::SYS_perf_event_open),
        ("SYS_userfaultfd", libc::SYS_userfaultfd),
        ("SYS_io_uring_setup", libc::SYS_io_uring_setup),
        ("SYS_io_uring_enter", libc::SYS_io_uring_enter),
        ("SYS_io_uring_register", libc::SYS_io_uring_register),
        ("SYS_keyctl", libc::SYS_keyctl),
        ("SYS_add_key", libc::SYS_add_key),
        ("SYS_request_key", libc::SYS_request_key),
        ("SYS_open_by_handle_at", libc::SYS_open_by_handle_at),
        ("SYS_name_to_handle_at", libc::SYS_name_to_handle_at),
        ("SYS_quotactl", libc::SYS_quotactl),
        ("SYS_fanotify_init", libc::SYS_fanotify_init),
        ("SYS_vmsplice", libc::SYS_vmsplice),
        ("SYS_personality", libc::SYS_personality),
        ("SYS_setuid", libc::SYS_setuid),
        ("SYS_setgid", libc::SYS_setgid),
        ("SYS_setresuid", libc::SYS_setresuid),
        ("SYS_setgroups", libc::SYS_setgroups),
        ("SYS_prctl", libc::SYS_prctl),
        ("SYS_capset", libc::SYS_capset),
        ("SYS_settimeofday", libc::SYS_settimeofday),
        ("SYS_clock_settime", libc::SYS_clock_settime),
        ("SYS_clock_adjtime", libc::SYS_clock_adjtime),
        ("SYS_adjtimex", libc::SYS_adjtimex),
        ("SYS_syslog", libc::SYS_syslog),
        ("SYS_ioctl", libc::SYS_ioctl),
        #[cfg(target_arch = "x86_64")]
        ("SYS_iopl", libc::SYS_iopl),
        #[cfg(target_arch = "x86_64")]
        ("SYS_ioperm", libc::SYS_ioperm),
    ];
    let mut whole = String::new();
    for (name, number) in numbers {
        writeln!(whole, "{name}={number}").unwrap();
    }
    whole
        + TOOLS
        + &script
            .replace("@STATE@", &text("state"))
            .replace("@KEY@", &text("sanitizer.key"))
            .replace("@POLICY@", &text("policy.toml"))
            .replace("@SOCKET@", &text("executor.sock"))
            .replace("@EXECUTOR@", &device.executor_id().to_string())
}

/// Runs the script as a repair and hands its report to `judge`; then looks at everything that must be as before.
pub(super) fn attempted(
    script: &str,
    change: impl FnOnce(&mut Package),
    judge: impl FnOnce(&Outcome, &str),
) {
    with_device(async |mut device: Device| {
        // Anybody could write it, but for the walls.
        fs::write(device.path("root/etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::set_permissions(
            device.path("root/etc/hosts"),
            fs::Permissions::from_mode(0o666),
        )
        .unwrap();
        if CAPABLE.get() {
            device.policy("allow_changes = true\nmin_isolation = 1\nrehearsed_only = false\ncapabilities = [\"net_admin\"]\n");
        }
        device.start().await;
        let executor = device.executor_id();
        let before = host(&device);
        let mut package = device.package(&filled(&device, script));
        package.manifest.limits.output_kib = 64;
        if CAPABLE.get() {
            package.manifest.class = Class::Direct;
            package.manifest.capabilities = vec![Capability::NetAdmin];
        }
        change(&mut package);
        let mut life = device.execute(device.sign(&package), None).await;
        let (local, signed) = ended(&mut life).await;
        let output = local
            .script
            .as_ref()
            .map_or("", |run| run.output.0.as_str());
        judge(&local, output);
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        assert_eq!(device.believe(&signed).end, End::RolledBack);
        assert_eq!(host(&device), before, "{output}");
        assert!(!runs(&format!("sleep {}", mark())), "a process is left");
        assert_eq!(groups(executor), 0, "a control group is left");
        assert_eq!(device.executor_id(), executor);
        next_one_runs(&device).await;
        assert_eq!(device.outcomes().await.len(), 2, "both are reported");
    });
}

pub(super) async fn next_one_runs(device: &Device) {
    let mut package = device.package("echo next\n");
    package.manifest.class = Class::Diagnose;
    package.manifest.operations.clear();
    let payload = package.to_payload().unwrap();
    let envelope = Envelope::sign(PayloadType::Package, &payload, &[&device.orchestrator]);
    let mut life = device.execute(envelope, None).await;
    let (local, _) = ended(&mut life).await;
    assert_eq!(local.end, End::Diagnosed, "{local:?}");
}

/// A script that goes on whatever is refused, and fails in the end: its change is undone.
pub(super) fn held(script: &str, change: impl FnOnce(&mut Package)) {
    attempted(
        &format!("{script}\necho to the end\nexit 7\n"),
        change,
        |local, output| {
            assert!(!output.contains("ESCAPED"), "{output}");
            assert!(output.contains("to the end"), "{output}");
            let end = local.script.as_ref().map(|run| run.end);
            assert_eq!(end, Some(ScriptEnd::Exited(7)), "{output}");
        },
    );
}
