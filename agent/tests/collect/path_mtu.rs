//! Sizes that pass, over paths that are narrower than the link.

use std::time::{Duration, Instant};

use aizen_agent::collect::Settings;

use crate::netns::{Netns, device_and_gateway, root};
use crate::{ip, one_round, see, settings};

/// device - gateway - anchor; the last link takes 1300 bytes only.
fn narrow_path() -> (Netns, Netns, Netns) {
    let (device, gateway) = device_and_gateway();
    let anchor = Netns::new();
    gateway.join("far", &anchor, "near");
    gateway.ip("address add 198.51.100.2/24 dev far");
    anchor.ip("address add 198.51.100.1/24 dev near");
    anchor.ip("route add default via 198.51.100.2");
    gateway.exec(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    gateway.ip("link set far mtu 1300");
    (device, gateway, anchor)
}

#[test]
fn a_narrow_path_is_measured_to_the_byte_and_the_router_is_heard() {
    let (device, _gateway, _anchor) = narrow_path();
    let root = root("");
    let pass = see(
        &device,
        Settings {
            anchors: vec![ip("198.51.100.1")],
            ..settings(root.path())
        },
    );
    let path = &pass.path_mtu[0];
    assert_eq!(
        (path.link_mtu, path.largest_answered, path.smallest_lost),
        (1500, Some(1300), Some(1301))
    );
    assert_eq!(path.reported, Some(1300));
}

#[test]
fn a_black_hole_is_measured_to_the_byte_and_nobody_is_heard() {
    let (device, gateway, _anchor) = narrow_path();
    gateway.exec(&[
        "nft",
        "add table inet hole; add chain inet hole out { type filter hook output priority 0; }; \
                    add rule inet hole out icmp type destination-unreachable drop",
    ]);
    let root = root("");
    let began = Instant::now();
    let pass = see(
        &device,
        Settings {
            anchors: vec![ip("198.51.100.1")],
            ..settings(root.path())
        },
    );
    let path = &pass.path_mtu[0];
    assert_eq!(
        (path.largest_answered, path.smallest_lost, path.reported),
        (Some(1300), Some(1301), None)
    );
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn path_mtu_is_found_over_ipv6_and_through_unprivileged_ping_sockets_too() {
    let (device, gateway) = device_and_gateway();
    device.exec(&["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
    device.ip("-6 address add 2001:db8::2/64 dev wan nodad");
    gateway.ip("-6 address add 2001:db8::1/64 dev isp nodad");
    device.ip("-6 route add default via 2001:db8::1");
    let anchor = Netns::new();
    // A router asks for neighbours from its link-local address, which detection holds back for seconds.
    for router in [&gateway, &anchor] {
        router.exec(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
    }
    gateway.join("far", &anchor, "near");
    gateway.ip("-6 address add 2001:db8:1::2/64 dev far nodad");
    anchor.ip("-6 address add 2001:db8:1::1/64 dev near nodad");
    anchor.ip("-6 route add default via 2001:db8:1::2");
    gateway.exec(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
    gateway.ip("link set far mtu 1400");
    let root = root("");
    let asked = Settings {
        anchors: vec![ip("2001:db8:1::1")],
        ..settings(root.path())
    };
    let pass = device.block_on(move || {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        one_round(asked)
    });
    let path = &pass.path_mtu[0];
    assert_eq!(
        (path.largest_answered, path.smallest_lost, path.reported),
        (Some(1400), Some(1401), Some(1400))
    );
    assert!(pass.gap("reach").is_none(), "{:?}", pass.gaps());
    assert!(
        pass.reach.iter().all(|r| r.received == 3),
        "{:?}",
        pass.reach
    );
}
