//! Echo, traces and connects against real kernels: each test lays out its own network namespaces.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't lay out its network must fail"
)]

mod chain;
#[expect(dead_code, reason = "the rounds' tests need more of it")]
#[path = "../collect/netns.rs"]
mod netns;
mod paths;
mod ports;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aizen_agent::probe::echo::{self, Event, Kind, Outcome, Plan, Target};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvfrom, sendto, socket,
};

use chain::{aizen, filter, json};
use netns::{Netns, device_and_gateway};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// As fast as it goes.
fn plan(targets: impl IntoIterator<Item = IpAddr>, times: u32) -> Plan {
    Plan {
        targets: targets
            .into_iter()
            .map(|address| Target {
                address,
                link: None,
            })
            .collect(),
        times: Some(times),
        between: Duration::ZERO,
        each: Duration::ZERO,
        wait: Duration::from_secs(5),
        size: 56,
        device: None,
        deadline: None,
    }
}

fn run(netns: &Netns, plan: Plan) -> (Outcome, Vec<Event>) {
    let inside = netns.enter(move || {
        let mut events = Vec::new();
        let outcome = echo::run(&plan, None, &mut |event| {
            events.push(event);
            ControlFlow::Continue(())
        });
        (outcome.unwrap(), events)
    });
    inside.join().unwrap()
}

fn loopbacks(count: u32) -> impl Iterator<Item = IpAddr> {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    (0..count).map(move |n| Ipv4Addr::from(first + n).into())
}

fn allow_ping_sockets(netns: &Netns) {
    netns.exec(&["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]);
}

/// Everything is answered or, where this machine could not keep up, named as not measured.
fn assert_nothing_invented(outcome: &Outcome, times: u64) {
    assert_eq!(outcome.unasked, Vec::<String>::new());
    for tally in &outcome.tallies {
        assert_eq!(
            (tally.sent, tally.lost, tally.duplicates, tally.refused),
            (times, 0, 0, 0)
        );
        assert_eq!(tally.received + tally.not_measured, times);
        assert!(tally.not_measured == 0 || outcome.dropped > 0);
    }
}

#[test]
fn a_thousand_targets_at_once_lose_nothing_over_a_raw_socket() {
    let netns = Netns::new();
    let (outcome, _) = run(&netns, plan(loopbacks(1000), 10));
    assert_nothing_invented(&outcome, 10);
}

#[test]
fn a_thousand_targets_at_once_lose_nothing_over_a_ping_socket() {
    let netns = Netns::new();
    allow_ping_sockets(&netns);
    let (outcome, _) = run(&netns, plan(loopbacks(1000), 10));
    assert_nothing_invented(&outcome, 10);
}

#[test]
fn ten_thousand_targets_of_both_families_keep_apart() {
    let netns = Netns::new();
    let targets = loopbacks(10_000).chain([ip("::1")]);
    let (outcome, events) = run(&netns, plan(targets, 8));
    assert_nothing_invented(&outcome, 8);
    // More requests than there are 16-bit numbers: each answer still finds its own.
    let last = events.iter().filter(|e| e.target == 9_999).count();
    assert_eq!(last, 8);
}

#[test]
fn short_payloads_and_ipv6_ping_sockets_answer_too() {
    let netns = Netns::new();
    for size in [0, 4, 1400] {
        let small = Plan {
            size,
            ..plan([ip("127.0.0.1"), ip("127.0.0.2"), ip("::1")], 4)
        };
        let (outcome, _) = run(&netns, small.clone());
        assert_nothing_invented(&outcome, 4);
        allow_ping_sockets(&netns);
        let (outcome, _) = run(&netns, small);
        assert_nothing_invented(&outcome, 4);
    }
}

/// Answers the first of 50 requests so often that the asker's socket is full, then the others; says when it is done.
fn flood(replier: &OwnedFd, done: &mpsc::SyncSender<()>) {
    let mut replies = Vec::new();
    while replies.len() < 50 {
        let mut packet = [0; 2048];
        let (length, from) = recvfrom::<SockaddrIn>(replier.as_raw_fd(), &mut packet).unwrap();
        // Behind the IP header: an echo request becomes the reply to it; the checksum grows by what the type loses.
        let mut icmp = packet[20..length].to_vec();
        if icmp[0] == 8 {
            icmp[0] = 0;
            let sum = u32::from(u16::from_be_bytes([icmp[2], icmp[3]])) + 0x0800;
            let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            replies.push((icmp, from.unwrap()));
        }
    }
    let first = std::iter::repeat_n(&replies[0], 30_000);
    for (icmp, to) in first.chain(&replies[1..]) {
        sendto(replier.as_raw_fd(), icmp, to, MsgFlags::empty()).unwrap();
    }
    done.send(()).unwrap();
}

#[test]
fn replies_that_the_socket_has_no_room_for_are_not_measured_and_not_lost() {
    let (device, gateway) = device_and_gateway();
    gateway.exec(&["sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1"]);
    let (done, flooded) = mpsc::sync_channel(1);
    let replier = gateway.enter(move || {
        let raw = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::empty(),
            SockProtocol::Icmp,
        );
        raw.unwrap()
    });
    let replier = replier.join().unwrap();
    let flooding = std::thread::spawn(move || flood(&replier, &done));
    let asked = Plan {
        size: 1400,
        wait: Duration::from_secs(3),
        ..plan([ip("192.0.2.1")], 50)
    };
    let inside = device.enter(move || {
        let outcome = echo::run(&asked, None, &mut |event| {
            if matches!(event.kind, Kind::Reply(_)) {
                // Nobody reads until all replies were sent.
                flooded.recv().ok();
            }
            ControlFlow::Continue(())
        });
        outcome.unwrap()
    });
    let outcome = inside.join().unwrap();
    flooding.join().unwrap();
    let tally = &outcome.tallies[0];
    assert!(outcome.dropped > 0 && tally.not_measured > 0, "{tally:?}");
    assert_eq!((tally.sent, tally.lost), (50, 0), "{tally:?}");
    assert_eq!(tally.received + tally.not_measured, 50);
}

#[test]
fn every_fourth_request_lost_on_the_way_is_a_quarter_lost() {
    let (device, gateway) = device_and_gateway();
    filter(
        &gateway,
        "input",
        "icmp type echo-request numgen inc mod 4 0 drop",
    );
    let lossy = Plan {
        each: Duration::from_millis(2),
        wait: Duration::from_secs(3),
        ..plan([ip("192.0.2.1")], 40)
    };
    let (outcome, _) = run(&device, lossy);
    let tally = &outcome.tallies[0];
    assert_eq!((tally.sent, tally.received, tally.lost), (40, 30, 10));
    assert!((tally.loss_percent() - 25.0).abs() < 1e-9);
}

#[test]
fn an_error_names_who_sent_it_and_ends_the_wait_of_its_probe_alone() {
    let (device, gateway) = device_and_gateway();
    gateway.exec(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    gateway.exec(&["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"]);
    let long = Plan {
        wait: Duration::from_secs(60),
        ..plan([ip("198.51.100.9"), ip("192.0.2.1")], 3)
    };
    let began = Instant::now();
    let (outcome, events) = run(&device, long);
    assert!(began.elapsed() < Duration::from_secs(50));
    assert_eq!(
        (outcome.tallies[0].errors, outcome.tallies[1].received),
        (3, 3)
    );
    let errors = events.iter().filter_map(|e| match e.kind {
        Kind::Error { from, .. } => Some((e.target, from)),
        _ => None,
    });
    assert!(errors.eq([(0, ip("192.0.2.1")); 3]));
}

#[test]
fn without_a_route_nothing_is_sent_and_nothing_lost() {
    let netns = Netns::new();
    let (outcome, events) = run(&netns, plan([ip("192.0.2.1"), ip("127.0.0.1")], 2));
    let tally = &outcome.tallies[0];
    assert_eq!((tally.sent, tally.lost, tally.refused), (0, 0, 2));
    assert_eq!(outcome.tallies[1].received, 2);
    assert!(
        events
            .iter()
            .any(|e| e.kind == Kind::Refused(Errno::ENETUNREACH as i32))
    );
}

#[test]
fn the_command_tells_each_target_and_its_exit_code_the_rest() {
    let (device, _gateway) = device_and_gateway();
    let output = aizen(
        &device,
        "ping --json -c 2 -i 0.01 192.0.2.1 127.0.0.1",
        false,
    );
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(report["targets"][0]["received"], 2);
    assert!(report["targets"][1]["rtt_ms"]["p95"].is_number());
    let silent = aizen(
        &device,
        "ping --json -c 1 -W 0.1 192.0.2.77 127.0.0.1",
        false,
    );
    assert_eq!(silent.status.code(), Some(1));
    assert_eq!(json(&silent)["targets"][0]["lost"], 1);
    let unknown = aizen(&device, "ping -c 1 no.such.name.invalid", false);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn without_privilege_a_ping_socket_is_enough_and_its_lack_is_named() {
    let netns = Netns::new();
    let refused = aizen(&netns, "ping -c 1 127.0.0.1", true);
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("net.ipv4.ping_group_range"), "{text}");
    allow_ping_sockets(&netns);
    assert_eq!(
        aizen(&netns, "ping -c 1 127.0.0.1", true).status.code(),
        Some(0)
    );
}
