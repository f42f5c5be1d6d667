//! Files: what isn't granted isn't there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use aizen_sandbox::{ReadBind, SandboxError};

use crate::bed::{profile, run, said, sh, succeeds, try_run};

fn bind(source: impl AsRef<Path>, target: &str) -> ReadBind {
    ReadBind {
        source: source.as_ref().to_path_buf(),
        target: target.into(),
    }
}

#[test]
fn the_root_holds_what_a_script_needs_and_nothing_else() {
    let listed = sh("ls -A / | tr '\\n' ' '; ls -A /etc /run /tmp | tr '\\n' ' '");
    for word in listed.split_whitespace() {
        let known = [
            "bin",
            "sbin",
            "lib",
            "lib32",
            "lib64",
            "usr",
            "dev",
            "proc",
            "etc",
            "run",
            "tmp",
            "/etc:",
            "/run:",
            "/tmp:",
            "alternatives",
            "ld.so.cache",
        ];
        assert!(known.contains(&word), "{word}");
    }
}

#[test]
fn the_shadow_file_and_the_homes_are_not_visible() {
    let output = sh("cat /etc/shadow; ls /root; ls /home; ls /var; ls /sys; cat /etc/passwd");
    assert_eq!(output.matches("No such file").count(), 6, "{output}");
}

#[test]
fn only_the_scratch_can_be_written() {
    let output = sh(
        "for d in / /etc /usr /usr/bin /usr/lib /run /run/aizen /dev /proc /bin /etc/alternatives; do
           touch $d/x 2>/dev/null && echo written in $d
         done
         echo >/usr/bin/env && echo overwrote
         echo mine >/tmp/x && cat /tmp/x",
    );
    assert_eq!(output.lines().last(), Some("mine"));
    assert!(
        !output.contains("written") && !output.contains("overwrote"),
        "{output}"
    );
}

#[test]
fn places_from_which_something_would_be_started_later_can_not_be_written() {
    let output = sh(
        "for p in /etc/cron.d/x /etc/init.d/x /etc/rc.local /etc/systemd/system/x.service /lib/systemd/system/x.service \
           /etc/udev/rules.d/x /lib/udev/rules.d/x /etc/hotplug.d/x /etc/ld.so.preload /etc/profile.d/x /root/.profile \
           /root/.ssh/authorized_keys /etc/NetworkManager/dispatcher.d/x /etc/uci-defaults/x /etc/ppp/ip-up.d/x \
           /etc/dhcp/dhclient-exit-hooks.d/x /var/spool/cron/root /etc/ld.so.cache; do
           mkdir -p ${p%/*} 2>/dev/null; (echo x >$p) 2>/dev/null && echo wrote $p
         done; echo done",
    );
    assert_eq!(output, "done");
}

#[test]
fn no_way_through_proc_leads_out() {
    let output = sh(
        "for p in /proc/1/root /proc/1/cwd /proc/1/fd /proc/1/exe /proc/1/environ /proc/1/mem /proc/1/ns/mnt \
           /proc/self/root/etc/shadow /proc/self/cwd/../etc/shadow /proc/$PPID/root /proc/sys /proc/kcore /proc/kallsyms \
           /proc/sysrq-trigger /proc/self/fd/3 /proc/self/fd/5 /proc/self/fd/16; do
           (ls $p || cat $p) >/dev/null 2>&1 && echo reached $p
         done; echo done",
    );
    assert_eq!(output, "done");
}

#[test]
fn links_in_the_scratch_lead_nowhere_outside() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "before").unwrap();
    let path = victim.display();
    let output = sh(&format!(
        "ln -s {path} /tmp/a; (echo x >/tmp/a) 2>/dev/null && echo wrote
         ln -s / /tmp/b; (echo x >/tmp/b{path}) 2>/dev/null && echo wrote
         (echo x >/tmp/../../..{path}) 2>/dev/null && echo wrote; echo done"
    ));
    assert_eq!(output, "done");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "before");
}

#[test]
fn what_is_granted_can_be_read_under_its_name_and_links_are_followed_once() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(outside.path().join("real"), "nameserver 192.0.2.1").unwrap();
    symlink("real", outside.path().join("link")).unwrap();
    let mut granted = profile("cat /etc/resolv.conf; cat /opt/here/real; ls -l /etc/resolv.conf");
    granted.reads = vec![
        bind(outside.path().join("link"), "/etc/resolv.conf"),
        bind(outside.path(), "/opt/here"),
    ];
    let output = succeeds(granted);
    assert_eq!(
        output.matches("nameserver 192.0.2.1").count(),
        2,
        "{output}"
    );
    assert!(!output.contains("->"), "{output}");
}

#[test]
fn a_readable_file_can_not_be_changed_even_by_its_owner() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o777)).unwrap();
    let file = outside.path().join("file");
    fs::write(&file, "before").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    chown(&file, Some(65534), Some(65534)).unwrap();
    let mut granted = profile(
        "cd /opt/d; (echo x >file) && echo wrote; truncate -s 0 file && echo truncated; rm -f file && echo removed
         mv file other && echo renamed; chmod 777 file && echo chmod; chown 65534 file && echo chown
         touch file && echo touched; touch new && echo created; ln file hard && echo linked
         perl -e 'my ($f, $n, $v) = (\"file\", \"user.x\", \"y\"); exit(syscall(188, $f, $n, $v, 1, 0) == 0 ? 0 : 1)' && echo xattr; echo done",
    );
    granted.reads = vec![bind(outside.path(), "/opt/d")];
    let output = said(&run(granted));
    for word in [
        "wrote",
        "truncated",
        "removed",
        "renamed",
        "chmod\n",
        "chown\n",
        "touched",
        "created",
        "linked",
        "xattr",
    ] {
        assert!(!output.lines().any(|line| line == word.trim()), "{output}");
    }
    assert_eq!(output.lines().last(), Some("done"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o666
    );
}

#[test]
fn a_file_that_others_may_not_read_stays_unreadable() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755)).unwrap();
    let file = outside.path().join("key");
    fs::write(&file, "secret").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let mut granted = profile("cat /opt/key; echo done");
    granted.reads = vec![bind(&file, "/opt/key")];
    let output = said(&run(granted));
    assert!(!output.contains("secret"), "{output}");
    assert!(output.contains("done"));
}

#[test]
fn what_is_mounted_below_a_grant_is_not_granted() {
    let mut granted =
        profile("ls /opt/dev | wc -l; ls /opt/dev/pts /opt/dev/shm 2>/dev/null | wc -l");
    granted.reads = vec![bind("/dev", "/opt/dev")];
    let output = said(&run(granted));
    let last: u32 = output.lines().last().unwrap().parse().unwrap();
    assert!(last <= 3, "{output}");
}

#[test]
fn devices_in_a_granted_directory_can_not_be_opened() {
    let mut granted = profile("head -c 1 /opt/dev/zero && echo opened; echo done");
    granted.reads = vec![bind("/dev", "/opt/dev")];
    let output = said(&run(granted));
    assert!(!output.contains("opened"), "{output}");
}

#[test]
fn a_socket_or_device_or_nothing_can_not_be_granted() {
    let outside = tempfile::tempdir().unwrap();
    let socket = outside.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for (source, errno) in [
        (socket.as_path(), libc::EMEDIUMTYPE),
        (Path::new("/dev/zero"), libc::EMEDIUMTYPE),
        (Path::new("/no/such/file"), libc::ENOENT),
    ] {
        let mut granted = profile("echo ran");
        granted.reads = vec![bind(source, "/opt/x")];
        match try_run(granted) {
            Err(SandboxError::Step {
                subject,
                source: error,
                ..
            }) => {
                assert_eq!(subject, source.display().to_string());
                assert_eq!(error.raw_os_error(), Some(errno), "{error}");
            }
            other => panic!("{source:?}: {other:?}"),
        }
    }
}

#[test]
fn a_magic_link_is_no_way_to_name_a_grant() {
    let mut granted = profile("ls /opt/x");
    granted.reads = vec![bind("/proc/1/root/etc", "/opt/x")];
    assert!(matches!(try_run(granted), Err(SandboxError::Step { .. })));
}

#[test]
fn setuid_programs_gain_nothing() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755)).unwrap();
    let program = outside.path().join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o6755)).unwrap();
    let mut granted = profile("/opt/d/id -u; /opt/d/id -ru; /opt/d/id -g");
    granted.reads = vec![bind(outside.path(), "/opt/d")];
    assert_eq!(succeeds(granted), "65534\n65534\n65534");
    let refused = sh(
        "su -c true </dev/null && echo became; mount -t tmpfs x /tmp && echo mounted; echo done",
    );
    assert!(
        !refused.contains("became") && !refused.contains("mounted"),
        "{refused}"
    );
}

#[test]
fn programs_with_file_capabilities_gain_nothing() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), Permissions::from_mode(0o755)).unwrap();
    let program = outside.path().join("grep");
    fs::copy("/usr/bin/grep", &program).unwrap();
    // struct vfs_cap_data, revision 2: all of the first 32 capabilities permitted and effective.
    let all: [u32; 5] = [0x0200_0001, u32::MAX, 0, 0, 0];
    let bytes: Vec<u8> = all.iter().flat_map(|word| word.to_le_bytes()).collect();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&program, "security.capability", &bytes, flags).unwrap();
    let mut granted = profile("/opt/d/grep -E 'Cap(Prm|Eff)' /proc/self/status");
    granted.reads = vec![bind(outside.path(), "/opt/d")];
    let output = succeeds(granted);
    assert_eq!(output.matches("0000000000000000").count(), 2, "{output}");
}

#[test]
fn nothing_in_the_scratch_can_be_executed_but_scripts_can_be_read() {
    let output =
        sh("cp /usr/bin/true /tmp/t; /tmp/t && echo executed; echo 'echo read' >/tmp/s; sh /tmp/s");
    assert!(!output.contains("executed"), "{output}");
    assert!(output.contains("read"), "{output}");
}

#[test]
fn device_nodes_can_not_be_made_but_pipes_can() {
    let output = sh(
        "for n in 'c 1 1' 'c 1 2' 'b 254 0'; do mknod /tmp/n $n 2>/dev/null && echo made; done
         mkfifo /tmp/p && echo pipe; ls /dev | sort | tr '\\n' ' '",
    );
    assert_eq!(
        output,
        "pipe\nfd full null random stderr stdin stdout urandom zero"
    );
}

#[test]
fn mounts_of_a_run_never_show_on_the_host() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut granted = profile("cat /proc/self/mountinfo");
    granted.reads = vec![bind("/etc/hostname", "/etc/hostname")];
    let inside = succeeds(granted);
    assert!(inside.contains("/etc/hostname"));
    for line in inside.lines().filter(|line| !line.contains(" /dev/")) {
        assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
        assert!(
            line.contains(" ro,") || line.contains(" /tmp ") || line.contains(" /proc "),
            "{line}"
        );
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}
