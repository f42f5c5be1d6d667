//! Each fault that the lab can make is named by the expert, on the device, without a server; a healthy lab is healthy.

use std::time::Duration;

use harness::device::{Device, USER};
use harness::disk::{SmallDisk, own_mounts};
use harness::fault::Fault;
use harness::lab::{CLOUD, DNS1, Lab};
use harness::{stand_in, wait};
use serde_json::Value;

fn diagnose(device: &Device) -> (Value, i32) {
    let output = device
        .try_aizen(&["diagnose", "--offline", "--json"])
        .unwrap();
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!(
            "{e}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    (verdict, output.status.code().unwrap())
}

fn causes(verdict: &Value) -> Vec<&str> {
    verdict["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["cause"].as_str().unwrap())
        .collect()
}

/// Diagnoses until this cause alone is named: some faults take seconds to show.
fn alone(device: &Device, cause: &str) -> (Value, i32) {
    let found = wait::until(
        &format!("{cause} to be named"),
        Duration::from_secs(40),
        || {
            let (verdict, code) = diagnose(device);
            (causes(&verdict) == [cause]).then_some((verdict, code))
        },
    );
    found.unwrap_or_else(|e| panic!("{e:#}: {:#}", diagnose(device).0))
}

fn named(fault: Fault) {
    let mut lab = Lab::lay_out().unwrap();
    lab.wait_connected().unwrap();
    let device = Device::new(&lab).unwrap();
    fault.inject(&mut lab).unwrap();
    let (verdict, code) = alone(&device, fault.cause());
    assert!(
        !verdict["findings"][0]["evidence"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(code == 1 || code == 2, "exit {code}");
}

#[test]
fn a_slow_resolver_is_named() {
    let mut lab = Lab::lay_out().unwrap();
    lab.wait_connected().unwrap();
    let device = Device::new(&lab).unwrap();
    lab.stop_resolver(0);
    let _slow = stand_in::slow_resolver(&lab.dns[0], DNS1, lab.folder()).unwrap();
    alone(&device, "resolver_slow");
}

#[test]
fn a_clock_that_is_behind_the_time_server_is_named() {
    let lab = Lab::lay_out().unwrap();
    lab.wait_connected().unwrap();
    let device = Device::new(&lab).unwrap();
    let file = device.etc().join("aizen/aizen.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        config.replace("[probe]\n", &format!("[probe]\nntp = [\"{CLOUD}\"]\n")),
    )
    .unwrap();
    let _ahead = stand_in::time_server(&lab.cloud, CLOUD, 3600, lab.folder()).unwrap();
    let (verdict, _) = alone(&device, "ntp_offset");
    let evidence = verdict["findings"][0]["evidence"].to_string();
    assert!(evidence.contains(CLOUD), "{evidence}");
}

#[test]
fn a_full_disk_is_named() {
    own_mounts().unwrap();
    let lab = Lab::lay_out().unwrap();
    lab.wait_connected().unwrap();
    let device = Device::new(&lab).unwrap();
    let disk = SmallDisk::over(&lab.folder().join("var"), 2, USER).unwrap();
    disk.fill().unwrap();
    alone(&device, "disk_full");
}

#[test]
fn a_healthy_lab_is_healthy() {
    let lab = Lab::lay_out().unwrap();
    lab.wait_connected().unwrap();
    let device = Device::new(&lab).unwrap();
    let (verdict, code) = diagnose(&device);
    assert_eq!(code, 0, "{verdict:#}");
    assert_eq!(verdict["health"], "healthy");
}

macro_rules! faults {
    ($($name:ident: $fault:ident;)*) => {$(
        #[test]
        fn $name() {
            named(Fault::$fault);
        }
    )*};
}

faults! {
    a_resolver_that_died_is_named: ResolverDead;
    a_resolver_that_is_silent_is_named: ResolverSilent;
    a_lost_default_route_is_named: NoDefaultRoute;
    a_dead_gateway_is_named: GatewayDead;
    a_link_that_is_down_is_named: LinkDown;
    an_mtu_black_hole_is_named: MtuBlackHole;
    a_duplicate_address_is_named: DuplicateAddress;
    forwarding_that_is_off_is_named: ForwardingOff;
}
