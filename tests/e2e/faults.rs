//! Each fault that the lab can make is named by the expert, on the device, without a server; a healthy lab is healthy.

use std::time::Duration;

use harness::device::Device;
use harness::fault::Fault;
use harness::lab::Lab;
use harness::wait;
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

fn named(fault: Fault) {
    let mut lab = Lab::lay_out().unwrap();
    lab.wait_connected().unwrap();
    let device = Device::new(&lab).unwrap();
    fault.inject(&mut lab).unwrap();
    // A neighbour entry takes some seconds to fail.
    let found = wait::until("the cause to be named", Duration::from_secs(40), || {
        let (verdict, code) = diagnose(&device);
        (causes(&verdict) == [fault.cause()]).then_some((verdict.clone(), code))
    });
    let (verdict, code) = found.unwrap_or_else(|e| panic!("{e:#}: {:#}", diagnose(&device).0));
    assert!(
        !verdict["findings"][0]["evidence"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(code == 1 || code == 2, "exit {code}");
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
