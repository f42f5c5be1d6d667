//! Declared capabilities: they do what they are for, in the caller's network namespace, and nothing else.

use aizen_sandbox::{Network, Powers, Profile};
use libc::EPERM;
use nix::sched::{CloneFlags, unshare};

use crate::bed::{profile, run, succeeds};

const ADMIN: Powers = Powers {
    net_admin: true,
    net_raw: false,
    generic_netlink: false,
};
const RAW: Powers = Powers {
    net_admin: false,
    net_raw: true,
    generic_netlink: false,
};

/// A script with powers over a network namespace that the calling thread gets for it.
fn with(powers: Powers, script: &str) -> Profile {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    let mut profile = profile(script);
    profile.network = Network::Host;
    profile.powers = powers;
    profile
}

/// The errno of a socket call, 0 if it succeeds.
fn socket(powers: Powers, arguments: &str) -> i32 {
    let number = libc::SYS_socket;
    let script = format!(
        "exec perl -e 'my $r = syscall({number}, {arguments}); print $r == -1 ? $! + 0 : 0'"
    );
    let said = succeeds(with(powers, &script));
    said.parse()
        .unwrap_or_else(|_| panic!("{arguments}: {said}"))
}

#[test]
fn links_addresses_routes_rules_and_tables_are_set_by_the_tools_that_people_know() {
    let script = with(
        ADMIN,
        "set -e
         ip link add d0 type veth peer name d1
         ip link set d1 up
         ip link set d0 up mtu 1400
         ip address add 192.0.2.1/24 dev d0
         ip route add 198.51.100.0/24 via 192.0.2.2
         ip rule add from 192.0.2.1 table 100
         nft add table inet guard
         ip -o link show d0 | cut -d' ' -f4,5
         ip route get 198.51.100.7 | head -1 | cut -d' ' -f1-5
         nft list tables",
    );
    let said = succeeds(script);
    assert!(said.contains("mtu 1400"), "{said}");
    assert!(said.contains("198.51.100.7 via 192.0.2.2 dev d0"), "{said}");
    assert!(said.contains("table inet guard"), "{said}");
}

#[test]
fn exactly_the_declared_capabilities_are_held_and_nobody_else_can_be() {
    for (powers, mask) in [(ADMIN, "0000000000001000"), (RAW, "0000000000002000")] {
        let said = succeeds(with(
            powers,
            "grep -E '^(Cap|Uid|NoNewPrivs)' /proc/self/status",
        ));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(said.contains(&format!("{set}:\t{mask}")), "{said}");
        }
        assert!(said.contains("Uid:\t65534\t65534\t65534\t65534"), "{said}");
        assert!(said.contains("NoNewPrivs:\t1"), "{said}");
    }
}

#[test]
fn the_vector_says_what_is_held_and_that_the_network_is_within_reach() {
    let finished = run(with(ADMIN, "true"));
    let layer = |name: &str| {
        let mut layers = finished.isolation.layers.iter();
        layers.find(|layer| layer.name == name).unwrap().clone()
    };
    assert!(finished.isolation.level <= 3);
    assert!(layer("capabilities").enforced);
    assert_eq!(
        layer("capabilities").detail,
        "all five sets exactly net_admin, securebits locked"
    );
    assert_eq!(layer("network").detail, "the host's, with net_admin");
    assert!(!layer("network").enforced);
    assert!(!layer("user_namespace").enforced);
    assert!(layer("seccomp").detail.ends_with("unix, netlink"));
}

#[test]
fn the_walls_around_files_processes_and_the_kernel_stand_as_without_powers() {
    for forbidden in [
        "cat /etc/shadow",
        "mount -t tmpfs none /tmp",
        "unshare -n true",
        "unshare -Ur true",
        "ip netns add x",
        "mknod /tmp/disk b 8 0",
        "chown 0 /tmp",
        "echo x > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "kill -9 1",
    ] {
        let script = format!("({forbidden}) 2>/dev/null && echo done; true");
        assert_eq!(succeeds(with(ADMIN, &script)), "", "{forbidden}");
    }
}

#[test]
fn net_admin_makes_no_internet_socket_and_net_raw_no_port_and_no_netlink() {
    assert_eq!(socket(ADMIN, "2, 1, 0"), EPERM);
    assert_eq!(socket(ADMIN, "2, 2, 0"), EPERM);
    assert_eq!(socket(ADMIN, "16, 3, 16"), EPERM);
    assert_eq!(socket(ADMIN, "16, 3, 0"), 0);
    assert_eq!(socket(RAW, "2, 1, 0"), EPERM);
    assert_eq!(socket(RAW, "2, 3, 1"), 0);
    assert_eq!(socket(RAW, "17, 3, 0"), 0);
    assert_eq!(socket(RAW, "16, 3, 0"), EPERM);
}
