//! Addresses of ours that somebody else answers for.

use std::time::{Duration, Instant};

use aizen_agent::collect::{Door, Settings, arp};
use aizen_protocol::record::DuplicateBy;

use crate::netns::{device_and_gateway, root};
use crate::{ip, see, settings};

#[test]
fn a_second_owner_of_our_address_is_found_by_an_arp_probe_and_nobody_else_is() {
    let (device, gateway) = device_and_gateway();
    let probe = || {
        device
            .block_on(|| {
                arp::probe(
                    "wan",
                    "192.0.2.2".parse().unwrap(),
                    Duration::from_millis(700),
                )
            })
            .unwrap()
    };
    assert_eq!(probe(), []);
    gateway.ip("link set isp address 02:00:00:00:00:99");
    gateway.ip("address add 192.0.2.2/32 dev isp");
    assert_eq!(
        probe().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["02:00:00:00:00:99"]
    );
    let root = root("");
    let asked = Settings {
        door: Door::Direct,
        ..settings(root.path())
    };
    let pass = see(&device, asked);
    let [duplicate] = &pass.duplicates[..] else {
        panic!("{:?}", pass.duplicates)
    };
    assert_eq!(
        (duplicate.address, duplicate.by, duplicate.others.len()),
        (ip("192.0.2.2"), DuplicateBy::Arp, 1)
    );
}

#[test]
fn a_second_interface_of_ours_on_the_same_network_is_no_duplicate() {
    let (device, gateway) = device_and_gateway();
    gateway.ip("link add br0 type bridge");
    gateway.ip("link set br0 up");
    device.join("wan2", &gateway, "isp2");
    gateway.ip("link set isp master br0");
    gateway.ip("link set isp2 master br0");
    let found = device.block_on(|| {
        arp::probe(
            "wan",
            "192.0.2.2".parse().unwrap(),
            Duration::from_millis(700),
        )
    });
    assert_eq!(found.unwrap(), []);
}

#[test]
fn a_failed_ipv6_detection_is_a_duplicate() {
    let (device, gateway) = device_and_gateway();
    gateway.ip("-6 address add 2001:db8::2/64 dev isp nodad");
    device.ip("-6 address add 2001:db8::2/64 dev wan");
    let root = root("");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let pass = see(&device, settings(root.path()));
        if let Some(duplicate) = pass.duplicates.iter().find(|d| d.by == DuplicateBy::Dad) {
            assert_eq!(duplicate.address, ip("2001:db8::2"));
            return;
        }
        assert!(Instant::now() < until, "{:?}", pass.duplicates);
    }
}
