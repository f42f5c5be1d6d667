//! Ports that are open, closed, filtered, and refused by a filter.

use std::net::TcpListener;

use crate::chain::{aizen, filter, json};
use crate::netns::device_and_gateway;

#[test]
fn open_closed_and_filtered_ports_are_told_apart() {
    let (device, gateway) = device_and_gateway();
    let open = gateway
        .enter(|| TcpListener::bind("192.0.2.1:8000").unwrap())
        .join()
        .unwrap();
    filter(
        &gateway,
        "input",
        "tcp dport 8002 drop; tcp dport 8003 reject with icmpx type admin-prohibited",
    );
    let output = aizen(&device, "ports --json -W 1.5 -p 8000-8003 192.0.2.1", false);
    drop(open);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    let states: Vec<&str> = report["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["open", "closed", "filtered", "unreachable"]);
    assert!(report["ports"][0]["ms"].is_number() && report["ports"][2]["ms"].is_null());
}

#[test]
fn too_many_ports_are_wrong_usage() {
    let (device, _gateway) = device_and_gateway();
    let output = aizen(&device, "ports -p 1-10001 192.0.2.1", false);
    assert_eq!(output.status.code(), Some(2));
}
