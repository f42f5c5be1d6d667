use super::*;
use crate::rollback::link::LinkSeen;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn link(up: bool, mtu: u32) -> LinkState {
    LinkState {
        name: "lan".into(),
        kind: None,
        mac: None,
        mtu,
        up,
        master: None,
        seen: LinkSeen::default(),
    }
}

fn set(up: Option<bool>, mtu: Option<u32>) -> Exact {
    Exact::Link {
        dev: "lan".into(),
        up,
        mtu,
    }
}

#[test]
fn a_network_lies_within_itself_and_within_a_wider_one() {
    assert!(within(prefix("10.1.0.0/24"), prefix("10.1.0.1/24")));
    assert!(within(prefix("10.1.0.255/32"), prefix("10.1.0.1/24")));
    assert!(!within(prefix("10.1.0.0/16"), prefix("10.1.0.1/24")));
    assert!(!within(prefix("10.2.0.0/24"), prefix("10.1.0.1/24")));
    assert!(!within(prefix("2001:db8::/64"), prefix("10.1.0.1/24")));
}

#[test]
fn every_setting_of_a_link_that_changed_must_be_set_to_this_by_a_grant() {
    let before = link(true, 1500);
    let both = [set(Some(false), None), set(None, Some(1400))];
    for now in [link(false, 1500), link(true, 1400), link(false, 1400)] {
        assert!(declares_link(&both, &before, &now));
    }
    assert!(!declares_link(&both, &before, &link(true, 1399)));
    assert!(!declares_link(&both[1..], &before, &link(false, 1400)));
    let moved = LinkState {
        master: Some("bridge0".into()),
        ..link(true, 1400)
    };
    assert!(!declares_link(&both, &before, &moved));
}

#[test]
fn a_route_is_declared_with_its_way_and_not_by_its_destination_alone() {
    let key = crate::rollback::route::RouteKey {
        destination: prefix("10.20.0.0/16"),
        table: 254,
        metric: 0,
        tos: 0,
    };
    let via = |last: u8| Some(IpAddr::from([10, 1, 0, last]));
    let route = |last| RouteState::asked(key.clone(), via(last), Some("lan".into()));
    let is = |dev, now: &[RouteState]| is_route(Verb::Replace, via(20), dev, &[], now);
    assert!(is(Some("lan"), &[route(20)]));
    assert!(is(None, &[route(20)]));
    assert!(!is(Some("lan"), &[route(21)]));
    assert!(!is(Some("wan"), &[route(20)]));
    assert!(!is(Some("lan"), &[route(20), route(21)]));
    assert!(!is(Some("lan"), &[]));
    let gone = |now: &[RouteState]| is_route(Verb::Delete, None, None, &[route(20)], now);
    assert!(gone(&[]));
    assert!(!gone(&[route(21)]));
}
