//! What is planted on the device as private never leaves it: not on the wire before TLS, not in the cloud's store.

use std::net::SocketAddr;
use std::time::Duration;

use harness::cloud::PORT;
use harness::lab::{CLOUD_NAME, DNS1, DNS2, GATEWAY, LAN_HOST, WAN};
use harness::package::{alice, hosts_manifest, package, sign, stick};
use harness::tap::{Identity, Tap};
use harness::wait;
use harness::world::World;

const SECRETS: [&str; 4] = [
    "hunter2-Zebra-99",
    "AKIAIOSFODNN7EXAMPLE",
    "annas-iphone",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
];

fn holds(bytes: &[u8], value: &str) -> bool {
    bytes
        .windows(value.len())
        .any(|w| w.eq_ignore_ascii_case(value.as_bytes()))
}

#[test]
fn planted_secrets_and_every_private_address_stay_on_the_device() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    let tap = tapped(&mut world);
    plant(&world);

    // A script that shows secrets, and an outcome that carries its output.
    let script = "echo password=hunter2-Zebra-99; echo key AKIAIOSFODNN7EXAMPLE; echo token ghp_16C7e42F292c6912E7710c838347Ae178B4a; \
                  cat /etc/hosts; echo 192.168.77.10 > /dev/stderr; change file write /etc/hosts < /etc/hosts; false\n";
    let shown = package(&world, script, hosts_manifest(5).unwrap()).unwrap();
    let file = stick(
        &world,
        "shows",
        &sign(&shown, &[&alice(&world).unwrap()]).unwrap(),
    )
    .unwrap();
    let applied = world
        .device
        .try_aizen(&["apply", "--yes", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(
        applied.status.code(),
        Some(5),
        "{applied:?}\n{}",
        world.said()
    );
    assert!(
        holds(&applied.stdout, "hunter2-Zebra-99"),
        "people at the device see real values: {applied:?}"
    );

    settle(&world);
    let wire = tap.said();
    assert!(
        holds(&wire, "\"frame\":\"signed\""),
        "the outcome was sent: {}",
        world.said()
    );
    let macs: Vec<String> = ["wan", "lan0"].iter().map(|dev| mac(&world, dev)).collect();
    let private: Vec<&str> = SECRETS
        .into_iter()
        .chain([DNS1, DNS2, GATEWAY, WAN, LAN_HOST])
        .chain(macs.iter().map(String::as_str))
        .collect();
    for value in &private {
        assert!(!holds(&wire, value), "{value} was on the wire");
    }
    for entry in std::fs::read_dir(world.cloud.data()).unwrap() {
        let entry = entry.unwrap();
        let stored = std::fs::read(entry.path()).unwrap_or_default();
        for value in &private {
            assert!(
                !holds(&stored, value),
                "{value} is in the cloud's {}",
                entry.path().display()
            );
        }
    }
    assert!(
        wire.len() > 10_000,
        "the tap saw the uplink: {} bytes",
        wire.len()
    );
}

fn tapped(world: &mut World) -> Tap {
    world.cloud.stop().unwrap();
    world.cloud.serve_at(&world.lab.cloud, PORT + 1).unwrap();
    let (data, daemon) = (world.cloud.data(), world.device.state().join("daemon"));
    let ends = [
        Identity::issued(&data.join("ca.crt"), &data.join("ca.key"), CLOUD_NAME).unwrap(),
        Identity::read(&daemon.join("device.crt"), &daemon.join("uplink.key")).unwrap(),
    ];
    let at = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
    let server = SocketAddr::from(([127, 0, 0, 1], PORT + 1));
    let tap = Tap::start(
        world.lab.cloud.name(),
        at(PORT),
        server,
        CLOUD_NAME,
        ends,
        &data.join("ca.crt"),
    )
    .unwrap();
    world
        .device
        .wait_connected(Duration::from_secs(30))
        .unwrap();
    tap
}

fn plant(world: &World) {
    let etc = world.device.etc();
    let resolv = std::fs::read_to_string(etc.join("resolv.conf")).unwrap();
    std::fs::write(
        etc.join("resolv.conf"),
        format!("{resolv}search annas-iphone.home.example\n"),
    )
    .unwrap();
    std::fs::write(
        etc.join("hosts"),
        "127.0.0.1 localhost\n192.168.77.10 annas-iphone\n",
    )
    .unwrap();
}

/// Waits until what was made so far, the outcome among it, is acknowledged.
/// Two rounds more, and everything that the device has by then is with the orchestrator.
fn settle(world: &World) {
    let number = |key: &str| {
        let status = world.device.ask(&["status"]).ok()?;
        status["daemon"][key].as_u64()
    };
    world.device.wait_rounds().unwrap();
    let newest = wait::until("a status", Duration::from_secs(10), || number("newest")).unwrap();
    wait::until("the uplink to catch up", Duration::from_secs(30), || {
        number("acknowledged").filter(|acked| *acked >= newest)
    })
    .unwrap();
}

fn mac(world: &World, dev: &str) -> String {
    let line = world.lab.device.ip(&format!("-o link show {dev}")).unwrap();
    line.split("link/ether ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}
