//! What a signed script may try against the device, one attempt a test, by the real executor.
//!
//! Each script prints `ESCAPED` and what did, if a wall did not hold. Whatever it does, afterwards the host is as
//! before, the executor lives and runs the next script, nothing of the attempt is left, and both are reported.
//! A wall that this kernel lacks, and that the reported isolation vector says is missing, is named and not tried.

use std::cell::Cell;

use self::attempt::held;
use self::judged::{
    abstract_sockets, dumps, ends_badly, floods, fork_bomb, kills_everything, memory_hog, outlives,
    spins, stays,
};

mod attempt;
mod judged;

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
