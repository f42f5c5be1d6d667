//! The kernel: what a script may ask it for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use aizen_sandbox::{End, ReadBind};
use libc::{ENOSYS, EPERM};

use crate::bed::{errno, profile, run, said, sh};

#[test]
fn mounting_is_refused_by_every_call_that_could() {
    for number in [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_fsopen,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_mount_setattr,
    ] {
        assert_eq!(errno(number, "0, 0, 0, 0, 0"), EPERM, "{number}");
    }
}

#[test]
fn namespaces_can_be_neither_made_nor_joined() {
    const EACH: [i32; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    for flag in EACH {
        assert_eq!(errno(libc::SYS_unshare, &flag.to_string()), EPERM);
        let flags = format!("{}, 0, 0, 0, 0", flag | libc::SIGCHLD);
        assert_eq!(errno(libc::SYS_clone, &flags), EPERM);
    }
    assert_eq!(errno(libc::SYS_clone3, "0, 0"), ENOSYS);
    let output = sh("for n in user net mnt pid; do perl -e '
        open(my $f, \"<\", \"/proc/self/ns/'$n'\") or die; exit(syscall(308, fileno($f), 0) == 0 ? 0 : 1)' && echo joined
        unshare --$n true 2>/dev/null && echo unshared; done; echo done");
    assert_eq!(output, "done");
}

#[test]
fn other_processes_can_not_be_reached_into() {
    for number in [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
    ] {
        assert_eq!(errno(number, "16, 1, 0, 0"), EPERM, "{number}");
    }
}

#[test]
fn the_wide_parts_of_the_kernel_are_closed() {
    for number in [
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_fanotify_init,
        libc::SYS_memfd_create,
        libc::SYS_open_by_handle_at,
        libc::SYS_name_to_handle_at,
        libc::SYS_personality,
        libc::SYS_vmsplice,
    ] {
        assert_eq!(errno(number, "0, 0, 0, 0, 0"), EPERM, "{number}");
    }
}

#[test]
fn the_machines_own_state_can_not_be_changed() {
    for number in [
        libc::SYS_reboot,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_swapon,
        libc::SYS_acct,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_adjtimex,
        libc::SYS_syslog,
        libc::SYS_sethostname,
        libc::SYS_quotactl,
    ] {
        assert_eq!(errno(number, "0, 0, 0, 0, 0"), EPERM, "{number}");
    }
    let output = sh(
        "for p in /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/power/state; do
           (echo 1 >$p) 2>/dev/null && echo wrote $p; done; dmesg 2>/dev/null && echo read; echo done",
    );
    assert_eq!(output, "done");
}

#[test]
fn a_call_that_does_not_exist_yet_does_not_exist() {
    for number in [470, 500, 4000] {
        assert_eq!(errno(number, "0"), ENOSYS, "{number}");
    }
    // The x32 form of getpid.
    assert_eq!(errno(0x4000_0000 + libc::SYS_getpid, "0"), ENOSYS);
}

#[test]
fn a_call_by_the_32_bit_door_kills() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let source = outside.path().join("door.c");
    let program = outside.path().join("door");
    fs::write(
        &source,
        "int main(void) { int r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(20)); return r <= 0; }",
    )
    .unwrap();
    // Without a compiler there is nothing to try; the unit test of the policy covers the rule itself.
    let Ok(built) = Command::new("cc")
        .arg("-o")
        .args([&program, &source])
        .status()
    else {
        return;
    };
    assert!(built.success());
    let mut granted = profile("exec /opt/d/door");
    granted.reads = vec![ReadBind {
        source: outside.path().to_path_buf(),
        target: "/opt/d".into(),
    }];
    assert_eq!(run(granted).end, End::Signalled(libc::SIGSYS));
}

#[test]
fn there_is_no_capability_and_no_way_to_one() {
    let output = sh("grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/self/status");
    assert_eq!(output.matches("0000000000000000").count(), 5, "{output}");
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
    ] {
        assert!(output.contains(line), "{output}");
    }
    let groups = output
        .lines()
        .find(|line| line.starts_with("Groups"))
        .unwrap();
    assert_eq!(groups.trim(), "Groups:");
    assert_ne!(errno(libc::SYS_setuid, "0"), 0);
    assert_ne!(errno(libc::SYS_setgid, "0"), 0);
    assert_ne!(errno(libc::SYS_setgroups, "1, $s"), 0);
    // PR_SET_SECUREBITS, PR_CAP_AMBIENT raise CAP_NET_ADMIN, PR_CAPBSET_DROP.
    assert_ne!(errno(libc::SYS_prctl, "28, 0, 0, 0, 0"), 0);
    assert_ne!(errno(libc::SYS_prctl, "47, 2, 12, 0, 0"), 0);
    // _LINUX_CAPABILITY_VERSION_3, every bit of every set.
    assert_eq!(errno(libc::SYS_capset, "$t, $u"), EPERM);
}

#[test]
fn a_terminal_can_not_be_typed_into() {
    let output = sh("tty; (echo x >/dev/tty) 2>/dev/null && echo typed; echo done");
    assert_eq!(output, "not a tty\ndone");
    assert_eq!(errno(libc::SYS_ioctl, "0, 0x5412, $s"), EPERM);
    assert_eq!(errno(libc::SYS_ioctl, "0, 0x5412 + (1 << 32), $s"), EPERM);
    assert_eq!(errno(libc::SYS_ioctl, "0, 0x541C, $s"), EPERM);
}

#[test]
fn a_further_filter_may_narrow_the_script_but_not_free_it() {
    // SECCOMP_SET_MODE_FILTER with one instruction, "allow all", and then a call that is denied.
    let script = r#"exec perl -e '
        my $all = pack("SCCL", 6, 0, 0, 0x7fff0000);
        my $prog = pack("Sx6P", 1, $all);
        my $r = syscall(317, 1, 0, $prog); print "filter $r ";
        $r = syscall(272, 0x10000000); print $r == -1 ? $! + 0 : 0'"#;
    assert_eq!(sh(script), format!("filter 0 {EPERM}"));
}

#[test]
fn groups_of_control_are_out_of_sight() {
    let output = sh("cat /proc/self/cgroup; ls /sys/fs/cgroup 2>/dev/null && echo seen; echo done");
    for line in output.lines().filter(|line| line.contains(':')) {
        assert!(!line.contains("aizen-run"), "{output}");
    }
    assert!(!output.contains("seen"), "{output}");
}

#[test]
fn the_host_name_is_not_the_hosts() {
    assert_eq!(sh("uname -n"), "sandbox");
}

#[test]
fn a_core_is_not_dumped() {
    let finished = run(profile("ulimit -c; kill -SEGV $$"));
    assert_eq!(finished.end, End::Signalled(libc::SIGSEGV));
    assert_eq!(said(&finished), "0");
}
