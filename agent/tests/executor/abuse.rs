//! What a signed script may try against the device, one attempt a test, by the real executor.
//!
//! Each script prints `ESCAPED` and what did, if a wall did not hold. Whatever it does, afterwards the host is as
//! before, the executor lives and runs the next script, nothing of the attempt is left, and both are reported.
//! A wall that this kernel lacks, and that the reported isolation vector says is missing, is named and not tried.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest};
use aizen_protocol::effect::ScriptEnd;
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::outcome::{End, Outcome};
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::{Capability, Class};

use crate::device::{Device, MEND, ended, runs, with_device};

/// `(name, test)` of a script that tries something and goes on.
macro_rules! tried {
    ($name:ident, $script:expr) => {
        (stringify!($name), || held($script, |_| {}))
    };
    ($name:ident, $script:expr, $change:expr) => {
        (stringify!($name), || held($script, $change))
    };
}

pub(crate) const ALL: &[(&str, fn())] = &[
    tried!(
        secrets_of_the_host_and_of_the_agent_are_not_visible,
        "for f in /etc/shadow /etc/gshadow /root /home @STATE@ @STATE@/result.key @STATE@/trust.json \
         @KEY@ @POLICY@ /etc/aizen /var/lib/aizen; do no ls -d $f; no cat $f; done"
    ),
    tried!(
        what_the_agent_owns_can_not_be_written,
        "for f in @STATE@/journal @STATE@/replay @STATE@/trust.json @STATE@/epoch @POLICY@ @KEY@ @SOCKET@ \
         /etc/aizen/policy.toml /usr/bin/aizen /run/aizen/bin/change; do \
         no write $f; no rm -f /run/aizen/bin/change; no ln -sf /tmp $f; done"
    ),
    tried!(
        no_place_that_is_started_later_can_be_written_or_asked_for,
        "for p in /etc/cron.d/x /etc/crontab /var/spool/cron/crontabs/root /etc/init.d/x /etc/rc.local \
         /etc/rc.d/S99x /etc/systemd/system/x.service /usr/lib/systemd/system/x.service /run/systemd/system/x.service \
         /etc/udev/rules.d/x.rules /etc/hotplug.d/iface/x /etc/ld.so.preload /etc/ld.so.conf.d/x.conf \
         /etc/profile.d/x.sh /etc/bash.bashrc /root/.profile /root/.ssh/authorized_keys \
         /etc/NetworkManager/dispatcher.d/x /etc/networkd-dispatcher/routable.d/x /etc/network/if-up.d/x \
         /etc/uci-defaults/x /etc/ppp/ip-up.d/x /etc/dhcp/dhclient-exit-hooks.d/x /etc/modules-load.d/x.conf \
         /etc/sudoers.d/x /etc/pam.d/x /usr/local/bin/x /usr/local/sbin/x; do \
         mkdir -p ${p%/*} 2>/dev/null; no write $p; echo x | no change file write $p; done"
    ),
    tried!(
        no_way_through_proc_leads_out,
        "for w in /proc/self/root /proc/1/root /proc/self/cwd/.. /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/3 \
         /proc/self/fd/4 /proc/$PPID/root /proc/1/cwd; do no cat $w/etc/shadow; no ls $w/@STATE@; \
         no write $w/etc/x; done; no cat /proc/1/environ; no cat /proc/1/mem; no ls /proc/1/fd"
    ),
    tried!(
        dots_and_links_in_the_scratch_stay_inside,
        "ln -s /etc /tmp/l; ln -s ../../.. /tmp/up; ln -s /proc/1/root /tmp/r; \
         no write /tmp/l/x; no write /tmp/../etc/x; no cat /tmp/up/etc/shadow; no ls /tmp/r/; no cat /tmp/l/shadow; \
         no ln /etc/ld.so.cache /tmp/hard; echo x | no change file write /tmp/../etc/cron.d/x; \
         echo x | no change file write /etc/../etc/resolv.conf; echo x | no change file write //etc/resolv.conf"
    ),
    tried!(
        a_file_that_may_be_read_can_not_be_changed_in_any_way,
        "f=/etc/hosts; cat $f >/dev/null || echo ESCAPED: it is not even readable; \
         no write $f; no truncate -s0 $f; no mv $f /tmp/; no rm -f $f; no chmod 777 $f; no chown 0 $f; no touch $f; \
         no ln -f /tmp/x $f; denied $SYS_setxattr '\"/etc/hosts\", \"user.x\", \"y\", 1, 0'",
        |package| package.manifest.read = vec!["/etc/hosts".into()]
    ),
    tried!(
        set_uid_and_capable_programs_gain_nothing,
        "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id 2>/dev/null; no /tmp/id; no su -c true; no mount -t tmpfs x /tmp; \
         no setpriv --reuid 0 true; grep -q 'NoNewPrivs:\t1' /proc/self/status || echo ESCAPED: new privileges"
    ),
    tried!(
        devices_can_be_neither_made_nor_opened,
        "no mknod /tmp/d b 8 0; no mknod /tmp/c c 1 1; denied $SYS_mknodat '-100, \"/tmp/e\", 8192 | 438, 257'; \
         for d in mem kmem port kmsg vda sda nvme0n1 mtd0 mtdblock0 watchdog net/tun kvm fuse loop-control disk; do \
         no head -c1 /dev/$d; no write /dev/$d; done"
    ),
    tried!(
        nothing_can_be_mounted_or_unmounted,
        "denied $SYS_mount '\"none\", \"/tmp\", \"tmpfs\", 0, 0'; denied $SYS_umount2 '\"/proc\", 2'; \
         denied $SYS_pivot_root '\"/tmp\", \"/tmp\"'; denied $SYS_chroot '\"/tmp\"'; denied $SYS_open_tree '-100, \"/\", 1'; \
         denied $SYS_move_mount '-100, \"/\", -100, \"/tmp\", 0'; denied $SYS_fsopen '\"tmpfs\", 0'; denied $SYS_fspick '-100, \"/\", 0'; \
         denied $SYS_mount_setattr '-100, \"/\", 0, $s, 32'; no umount /proc; no mount --bind /tmp /mnt"
    ),
    tried!(
        the_agents_executable_and_the_scripts_own_bytes_can_not_be_changed,
        "no write /proc/self/exe; no write /proc/$PPID/exe; no write /proc/1/exe; no write /proc/self/fd/4; \
         no sh -c 'cat /dev/null > /run/aizen/bin/change'; no write /bin/sh; no write /usr/bin/env"
    ),
    tried!(
        only_the_declared_descriptors_exist_and_none_leads_out,
        "for f in /proc/$$/fd/*; do case ${f##*/} in 0|1|2|3|4|10) ;; *) [ -e $f ] && echo ESCAPED: $f $(readlink $f);; esac; \
         (cd $f 2>/dev/null && echo ESCAPED: a directory at $f); done"
    ),
    tried!(
        modules_can_not_be_loaded_not_even_by_using_something_unusual,
        "denied $SYS_init_module '$s, 64, \"\"'; denied $SYS_finit_module '0, \"\", 0'; denied $SYS_delete_module '\"x\", 0'; \
         no modprobe dummy; f=2; while [ $f -le 45 ]; do denied $SYS_socket \"$f, 1, 0\"; denied $SYS_socket \"$f, 3, 0\"; \
         f=$((f+1)); done"
    ),
    tried!(
        the_machine_can_not_be_stopped_or_restarted,
        // The commands themselves would do no harm: help, and what Ctrl-Alt-Del does.
        "denied $SYS_reboot '0xfee1dead, 672274793, 0, 0'; denied $SYS_kexec_load '0, 0, 0, 0'; no write /proc/sysrq-trigger; \
         denied $SYS_swapoff '\"/nowhere\"'; denied $SYS_acct '\"/nowhere\"'; no shutdown -k now"
    ),
    tried!(
        kernel_parameters_can_not_be_written,
        "for k in kernel/core_pattern kernel/modprobe kernel/panic kernel/sysrq kernel/unprivileged_bpf_disabled \
         kernel/hotplug vm/overcommit_memory fs/suid_dumpable net/ipv4/ip_forward; do no write /proc/sys/$k; \
         no sysctl -qw $k=1; done; no change sysctl kernel.core_pattern=x; no change sysctl net.ipv4.tcp_syncookies=0"
    ),
    tried!(
        control_groups_are_out_of_reach,
        "no ls /sys/fs/cgroup/cgroup.procs; no write /sys/fs/cgroup/release_agent; \
         for c in memory pids unified .; do no write /sys/fs/cgroup/$c/cgroup.procs; no write /sys/fs/cgroup/$c/notify_on_release; \
         no write /sys/fs/cgroup/$c/memory.max; no mkdir /sys/fs/cgroup/$c/sibling; done; \
         denied $SYS_mount '\"cgroup\", \"/tmp\", \"cgroup\", 0, \"memory\"'"
    ),
    tried!(
        namespaces_can_be_neither_made_nor_joined,
        "for n in 0x10000000 0x20000 0x40000000 0x20000000 0x8000000 0x4000000 0x2000000; do \
         denied $SYS_unshare $n; denied $SYS_clone \"$n | 17, 0, 0, 0, 0\"; done; denied $SYS_clone3 '$s, 64'; denied $SYS_unshare 0x80; \
         no unshare -Ur true; no nsenter -t 1 -m true; denied $SYS_setns '0, 0'"
    ),
    tried!(
        other_processes_can_not_be_looked_into,
        "denied $SYS_ptrace '16, 1, 0, 0'; denied $SYS_process_vm_readv '1, $s, 1, $s, 1, 0'; \
         denied $SYS_process_vm_writev '1, $s, 1, $s, 1, 0'; denied $SYS_pidfd_getfd '0, 0, 0'; denied $SYS_kcmp '1, 1, 0, 0, 0'; \
         no ls /proc/@EXECUTOR@/fd; no cat /proc/@EXECUTOR@/environ"
    ),
    tried!(
        the_wide_doors_of_the_kernel_are_closed,
        "denied $SYS_bpf '0, $s, 64'; denied $SYS_perf_event_open '$s, 0, -1, -1, 0'; denied $SYS_userfaultfd 0; \
         denied $SYS_io_uring_setup '8, $s'; denied $SYS_io_uring_enter '0, 0, 0, 0, 0, 0'; denied $SYS_io_uring_register '0, 0, 0, 0'; \
         denied $SYS_keyctl '18, 0, 0, 0, 0'; denied $SYS_add_key '\"user\", \"x\", \"y\", 1, 0'; denied $SYS_request_key '\"user\", \"x\", 0, 0'; \
         denied $SYS_open_by_handle_at '-100, $s, 0'; denied $SYS_name_to_handle_at '-100, \"/\", $s, $s, 0'; \
         denied $SYS_quotactl '0, 0, 0, 0'; denied $SYS_fanotify_init '0, 0'; denied $SYS_vmsplice '1, $s, 1, 0'; \
         denied $SYS_personality 0x40000; denied $SYS_personality 0x400000; denied $SYS_iopl 3; denied $SYS_ioperm '0, 1, 1'"
    ),
    tried!(
        no_capability_can_be_gained,
        "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | grep -qv '0000000000000000' && echo ESCAPED: a capability; \
         for u in setuid setgid; do eval n=\\$SYS_$u; unmapped $n 0; done; unmapped $SYS_setresuid '0, 0, 0'; denied $SYS_setgroups '1, $s'; \
         denied $SYS_prctl '47, 2, 12, 0, 0'; denied $SYS_prctl '28, 0, 0, 0, 0'; \
         denied $SYS_capset 'pack(\"Li\", 0x20080522, 0), pack(\"L6\", (0xffffffff) x 6)'"
    ),
    tried!(
        the_clock_can_not_be_set,
        // The times are none, so that nothing is set even where it is allowed.
        "denied $SYS_settimeofday '$s, 0'; denied $SYS_clock_settime '0, $s'; denied $SYS_clock_adjtime '0, $s'; \
         denied $SYS_adjtimex '$s'; no hwclock -w; no hwclock -r"
    ),
    tried!(
        the_kernels_log_and_addresses_can_not_be_read,
        "denied $SYS_syslog '3, $s, 64'; no dmesg; no head -c1 /dev/kmsg; no head -c1 /proc/kcore; no head -c1 /proc/kallsyms; \
         no ls /sys/kernel; no ls /boot"
    ),
    tried!(
        nobody_outside_can_be_signalled,
        "no kill -9 @EXECUTOR@; no kill -STOP @EXECUTOR@; no kill -TERM @EXECUTOR@; \
         denied_or_gone $SYS_pidfd_open '@EXECUTOR@, 0'; denied_or_gone $SYS_tgkill '@EXECUTOR@, @EXECUTOR@, 9'"
    ),
    tried!(
        a_terminal_can_not_be_typed_into,
        "for f in 0 1 2 3; do denied $SYS_ioctl \"$f, 0x5412, \\$s\"; denied $SYS_ioctl \"$f, 0x100005412, \\$s\"; \
         denied $SYS_ioctl \"$f, 0x541c, \\$s\"; done; no write /dev/tty; no write /dev/ptmx; no write /dev/console"
    ),
    tried!(
        sockets_of_the_host_can_not_be_reached,
        "for s in @SOCKET@ /run/dbus/system_bus_socket /run/systemd/private /run/systemd/notify /var/run/docker.sock \
         /run/containerd/containerd.sock /var/run/ubus/ubus.sock /run/aizen/daemon.sock /run/aizen/executor.sock \
         /run/systemd/journal/socket /dev/log; do no to_socket $s; done"
    ),
    (
        "abstract_sockets_of_the_host_can_not_be_reached_even_beside_the_hosts_network",
        abstract_sockets,
    ),
    tried!(
        the_environment_holds_nothing_of_the_agents,
        "env | cut -d= -f1 | while read v; do case $v in PATH|HOME|TMPDIR|LANG|PWD|OLDPWD|_|SHLVL) ;; *) echo ESCAPED: $v;; esac; done; \
         [ \"$HOME\" = /tmp ] || echo ESCAPED: HOME=$HOME"
    ),
    tried!(
        the_network_can_not_be_changed_past_the_broker,
        "no ip address add 192.0.2.9/24 dev lo; no ip route add 192.0.2.0/24 dev lo; no ip rule add pref 5 lookup 7; \
         no ip link set lo down; no nft add table inet x; no tc qdisc add dev lo root pfifo; no iptables -A INPUT -j DROP; \
         no sysctl -qw net.ipv4.ip_forward=1; no change route add 192.0.2.0/24 dev lo; no change link set lo down; \
         no change address add 192.0.2.9/24 dev lo"
    ),
    tried!(
        no_packet_leaves_and_nothing_listens,
        "denied $SYS_socket '2, 1, 0'; denied $SYS_socket '2, 2, 0'; denied $SYS_socket '2, 3, 1'; denied $SYS_socket '10, 1, 0'; \
         denied $SYS_socket '17, 3, 768'; denied $SYS_socket '16, 3, 0'; denied $SYS_socket '16, 3, 9'; denied $SYS_socket '38, 5, 0'; \
         denied $SYS_socket '40, 1, 0'; no bash -c 'exec 5<>/dev/tcp/127.0.0.1/22'; no ping -c1 -W1 127.0.0.1; \
         no perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0) or exit 1'"
    ),
    tried!(
        the_broker_takes_no_nonsense_and_no_flood,
        "head -c 100000 /dev/urandom >&3 2>/dev/null; printf 'x' >&3 2>/dev/null; \
         no change; no change nothing; no change route; no change file write; no change sysctl =; no change sysctl net.ipv4.ip_forward=2; \
         i=0; while [ $i -lt 50 ]; do no change sysctl kernel.panic=$i; i=$((i+1)); done"
    ),
    (
        "a_script_that_kills_everything_kills_itself_alone",
        kills_everything,
    ),
    (
        "a_process_that_ignores_signals_and_keeps_the_output_open_ends_at_the_deadline",
        stays,
    ),
    (
        "a_process_that_outlives_the_script_is_killed_and_reported",
        outlives,
    ),
    ("a_fork_bomb_is_stopped_at_its_bound", fork_bomb),
    (
        "memory_and_scratch_have_an_end_that_is_the_scripts_alone",
        memory_hog,
    ),
    (
        "a_script_that_takes_all_processors_leaves_the_executor_time_to_answer",
        spins,
    ),
    ("a_flood_of_output_is_cut_counted_and_made_harmless", floods),
    ("a_crash_leaves_no_core", dumps),
    (
        "the_end_of_a_change_follows_more_than_its_exit_code",
        ends_badly,
    ),
];

/// The same attempts by scripts that hold `CAP_NET_ADMIN`.
pub(crate) const WITH_CAPABILITIES: &[(&str, fn())] = &[
    (
        "what_a_script_can_not_do_to_files_and_the_kernel_it_can_not_do_with_capabilities",
        || with_capabilities(0),
    ),
    (
        "what_a_script_can_not_do_to_others_and_to_resources_it_can_not_do_with_capabilities",
        || with_capabilities(1),
    ),
];

/// Those for which a capability makes the difference that it is for; `direct` and the sandbox's own tests have them.
const OWN: &[&str] = &[
    "the_network_can_not_be_changed_past_the_broker",
    "no_packet_leaves_and_nothing_listens",
    "no_capability_can_be_gained",
    "modules_can_not_be_loaded_not_even_by_using_something_unusual",
    "abstract_sockets_of_the_host_can_not_be_reached_even_beside_the_hosts_network",
];

thread_local! {
    static CAPABLE: Cell<bool> = const { Cell::new(false) };
}

fn with_capabilities(half: usize) {
    CAPABLE.set(true);
    let (first, second) = ALL.split_at(ALL.len() / 2);
    let tried = [first, second][half]
        .iter()
        .filter(|(name, _)| !OWN.contains(name));
    for (name, attempt) in tried {
        eprintln!("{name}");
        attempt();
    }
}

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
fn mark() -> String {
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
fn attempted(script: &str, change: impl FnOnce(&mut Package), judge: impl FnOnce(&Outcome, &str)) {
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

async fn next_one_runs(device: &Device) {
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
fn held(script: &str, change: impl FnOnce(&mut Package)) {
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

fn abstract_sockets() {
    let name = format!("aizen-abuse-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let script = format!(
        "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) or exit 1; connect(S, pack_sockaddr_un(\"\\0{name}\")) or exit 1' && echo reached\nexit 7\n"
    );
    with_device(async |mut device: Device| {
        device.policy(
            "allow_changes = true\nmin_isolation = 1\nrehearsed_only = false\nread = [\"/proc/net/\"]\n",
        );
        // In the network namespace that the script sees.
        let _listening = UnixListener::bind_addr(&address).unwrap();
        device.start().await;
        let mut package = device.package(&script);
        package.manifest.read = vec!["/proc/net/dev".into()];
        let mut life = device.execute(device.sign(&package), None).await;
        let (local, _) = ended(&mut life).await;
        let scoped = local
            .isolation
            .layers
            .iter()
            .any(|layer| layer.name == "landlock_scopes" && layer.enforced);
        let run = local.script.unwrap();
        assert_eq!(run.end, ScriptEnd::Exited(7), "{run:?}");
        if scoped {
            assert!(!run.output.0.contains("reached"), "{run:?}");
        } else {
            eprintln!(
                "not tried: this kernel has no Landlock scopes (Linux 6.12), and the report says so"
            );
        }
        next_one_runs(&device).await;
    });
}

fn kills_everything() {
    let mark = mark();
    attempted(
        &format!("sleep {mark} & kill -9 -1; kill -9 1; kill -9 $$; exit 0\n"),
        |_| {},
        |local, _| {
            let end = local.script.as_ref().map(|run| run.end);
            assert_eq!(end, Some(ScriptEnd::Signalled(9)), "{local:?}");
        },
    );
}

fn stays() {
    let mark = mark();
    let script = format!(
        "trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM HUP; sleep {mark}; sleep {mark}' &); sleep {mark}; sleep {mark}\n"
    );
    let short = |package: &mut Package| package.manifest.timeout_s = 2;
    attempted(&script, short, |local, _| {
        let run = local.script.as_ref().unwrap();
        assert_eq!(run.end, ScriptEnd::TimedOut, "{run:?}");
        assert!(run.leftover_processes >= 2, "{run:?}");
    });
}

fn outlives() {
    let mark = mark();
    attempted(
        &format!("setsid sleep {mark} & sleep {mark} & exit 7\n"),
        |_| {},
        |local, _| {
            let run = local.script.as_ref().unwrap();
            assert_eq!(
                (run.end, run.leftover_processes),
                (ScriptEnd::Exited(7), 2),
                "{run:?}"
            );
        },
    );
}

fn fork_bomb() {
    let bound = |package: &mut Package| {
        package.manifest.limits.processes = 24;
        package.manifest.timeout_s = 2;
    };
    let mark = mark();
    attempted(
        &format!("f() {{ f | f & }}; f; sleep {mark}\n"),
        bound,
        |local, output| {
            let run = local.script.as_ref().unwrap();
            assert!(run.leftover_processes <= 25, "{run:?}");
            assert!(
                output.contains("ork"),
                "the shell says that it can't fork: {output}"
            );
            assert!(Command::new("true").status().unwrap().success());
        },
    );
}

fn memory_hog() {
    let bound = |package: &mut Package| {
        package.manifest.limits.memory_mib = 32;
        package.manifest.limits.scratch_mib = 2;
    };
    // The scratch counts as memory as well, so it comes first.
    let script = "head -c 100000000 /dev/zero > /tmp/full 2>/dev/null && echo ESCAPED: bytes; \
                  i=0; while [ $i -lt 5000 ] && true > /tmp/n$i; do i=$((i+1)); done 2>/dev/null; [ $i -lt 5000 ] || echo ESCAPED: names; \
                  rm -f /tmp/full; truncate -s 1T /tmp/sparse && head -c 10000000 /dev/zero >> /tmp/sparse && echo ESCAPED: sparse; \
                  echo bounded; perl -e 'my $x = \"x\" x 400_000_000; print \"ESCAPED: memory\\n\"'; exit 7\n";
    attempted(script, bound, |local, output| {
        assert!(
            output.contains("bounded") && !output.contains("ESCAPED"),
            "{output}"
        );
        let end = local.script.as_ref().unwrap().end;
        assert!(
            matches!(end, ScriptEnd::Exited(7) | ScriptEnd::Signalled(9)),
            "{end:?}"
        );
    });
}

fn spins() {
    with_device(async |mut device: Device| {
        device.start().await;
        let mut package = device.package(
            "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; while :; do :; done\n",
        );
        package.manifest.timeout_s = 3;
        let mut life = device.execute(device.sign(&package), None).await;
        // As long as it runs, everybody is answered.
        let mut answered = 0;
        let over = ended(&mut life);
        let mut over = std::pin::pin!(over);
        let (local, _) = loop {
            tokio::select! {
                end = &mut over => break end,
                answer = device.ask(ExecutorRequest::Status) => {
                    assert!(matches!(answer, ExecutorAnswer::Status(_)), "{answer:?}");
                    answered += 1;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert!(answered >= 3, "{answered} answers");
        assert_eq!(local.end, End::RolledBack, "{local:?}");
        next_one_runs(&device).await;
    });
}

fn floods() {
    let script = "printf '\\033]0;owned\\007\\033[2J\\r\\0first'; head -c 200000000 /dev/zero | tr '\\0' 'y'; \
                  head -c 20000000 /dev/zero >&2; printf '\\377\\376last'; exit 7\n";
    let long = |package: &mut Package| {
        package.manifest.limits.cpu_s = 60;
        package.manifest.timeout_s = 60;
    };
    attempted(script, long, |local, output| {
        let run = local.script.as_ref().unwrap();
        assert_eq!(run.end, ScriptEnd::Exited(7), "{:?}", run.end);
        assert!(run.output_bytes > 220_000_000, "{}", run.output_bytes);
        assert!(output.contains("first") && output.contains("last"));
        let hostile = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!output.contains(hostile), "a terminal would obey it");
        // Each zero byte is five characters when it is made visible.
        assert!(
            output.len() < (64 << 10) * 6,
            "{} bytes are kept",
            output.len()
        );
    });
}

fn dumps() {
    attempted(
        "ulimit -c unlimited; cd /tmp; sh -c 'kill -SEGV $$'; ls /tmp | grep core && echo ESCAPED; kill -ABRT $$\n",
        |_| {},
        |local, output| {
            assert!(!output.contains("ESCAPED"), "{output}");
            assert_eq!(local.script.as_ref().unwrap().end, ScriptEnd::Signalled(6));
        },
    );
}

/// The change itself is good each time.
fn ends_badly() {
    let ends = [
        ("exit 1", ScriptEnd::Exited(1)),
        ("exit 255", ScriptEnd::Exited(255)),
        ("kill -TERM $$", ScriptEnd::Signalled(15)),
        ("kill -KILL $$", ScriptEnd::Signalled(9)),
        ("exec /nowhere", ScriptEnd::Exited(127)),
    ];
    for (words, wanted) in ends {
        attempted(
            &format!("{MEND}{words}\n"),
            |_| {},
            |local, _| {
                assert_eq!(local.script.as_ref().unwrap().end, wanted, "{words}");
                assert_eq!(local.state_before, local.state_after, "{words}");
            },
        );
    }
}
