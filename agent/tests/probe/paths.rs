//! Paths over three routers, whole and broken in one way each.

use std::ops::ControlFlow;
use std::time::Duration;

use aizen_agent::probe::echo::Target;
use aizen_agent::probe::trace::{self, Method, Note, Path, Plan};

use crate::chain::{Chain, TARGET, aizen, filter, json};
use crate::netns::Netns;
use crate::{allow_ping_sockets, ip};

const WAY: [&str; 4] = ["10.0.1.2", "10.0.2.2", "10.0.3.2", TARGET];

fn trace(device: &Netns, method: Method, max_hops: u8) -> Path {
    let plan = Plan {
        target: Target {
            address: ip(TARGET),
            link: None,
        },
        method,
        rounds: Some(2),
        max_hops,
        gap: Duration::from_millis(5),
        every: Duration::ZERO,
        wait: Duration::from_millis(900),
        device: None,
        deadline: None,
    };
    let inside =
        device.enter(move || trace::run(&plan, None, &mut |_| ControlFlow::Continue(())).unwrap());
    inside.join().unwrap()
}

fn way(path: &Path) -> Vec<String> {
    let first = |hop: &trace::Hop| {
        hop.addresses
            .first()
            .map_or("?".to_owned(), |a| a.to_string())
    };
    path.hops.iter().map(first).collect()
}

#[test]
fn every_method_finds_every_hop() {
    let chain = Chain::lay_out();
    for method in [Method::Udp, Method::Icmp, Method::Tcp(80)] {
        let path = trace(&chain.device, method, 30);
        assert_eq!(way(&path), WAY, "{method:?}");
        assert_eq!(path.reached(), Some(4), "{method:?}");
    }
    allow_ping_sockets(&chain.device);
    assert_eq!(way(&trace(&chain.device, Method::Icmp, 30)), WAY);
}

#[test]
fn a_trace_needs_no_privilege() {
    let chain = Chain::lay_out();
    let output = aizen(
        &chain.device,
        &format!("trace --json --no-mtu -c 1 {TARGET}"),
        true,
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["hops"][2]["addresses"][0], WAY[2]);
}

#[test]
fn a_router_that_answers_nobody_is_silent_and_no_fault() {
    let chain = Chain::lay_out();
    filter(&chain.routers[1], "output", "icmp type time-exceeded drop");
    let path = trace(&chain.device, Method::Udp, 30);
    assert_eq!(way(&path), [WAY[0], "?", WAY[2], WAY[3]]);
    assert_eq!(path.notes(), [Note::Silent { ttl: 2 }]);
}

#[test]
fn routers_that_point_at_each_other_are_a_loop() {
    let chain = Chain::lay_out();
    chain.routers[1].ip("route replace 10.0.4.0/24 via 10.0.2.1");
    let path = trace(&chain.device, Method::Udp, 8);
    assert_eq!(path.reached(), None);
    assert!(
        matches!(
            path.notes()[..],
            [
                ..,
                Note::Loop {
                    from: 1,
                    again: 3,
                    ..
                }
            ]
        ),
        "{:?} {:?}",
        way(&path),
        path.notes()
    );
}

#[test]
fn a_router_without_a_way_says_so_and_ends_the_path() {
    let chain = Chain::lay_out();
    chain.routers[1].ip("route del 10.0.4.0/24");
    let path = trace(&chain.device, Method::Icmp, 30);
    assert_eq!(way(&path), WAY[..2]);
    assert!(
        matches!(path.notes()[..], [.., Note::Refused { ttl: 2, .. }]),
        "{:?}",
        path.notes()
    );
}

#[test]
fn a_narrow_link_is_measured_and_its_router_named() {
    let chain = Chain::lay_out();
    chain.routers[1].ip("link set right mtu 1400");
    chain.routers[2].ip("link set left mtu 1400");
    let report = json(&chain.aizen(&format!("trace --json -c 1 {TARGET}")));
    assert_eq!(report["path_mtu"]["answered"], 1400);
    assert_eq!(report["path_mtu"]["reported"], 1400);
    assert_eq!(report["path_mtu"]["black_hole"], false);
    assert_eq!(report["hops"][1]["mtu"], 1400);
}

#[test]
fn a_narrow_link_that_nobody_tells_of_is_a_black_hole() {
    let chain = Chain::lay_out();
    chain.routers[1].ip("link set right mtu 1400");
    chain.routers[2].ip("link set left mtu 1400");
    filter(
        &chain.routers[1],
        "output",
        "icmp type destination-unreachable drop",
    );
    let report = json(&chain.aizen(&format!("trace --json -c 1 --icmp {TARGET}")));
    assert_eq!(report["path_mtu"]["answered"], 1400);
    assert_eq!(report["path_mtu"]["black_hole"], true);
    let notes = report["notes"].to_string();
    assert!(notes.contains("black hole"), "{notes}");
}
