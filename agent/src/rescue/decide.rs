//! What makes a network known good, what is lost of it, and what is done about that.

use aizen_protocol::id::BootId;
use aizen_protocol::outcome::End;

use crate::change::Change;
use crate::change::state::State;
use crate::confirm::probe::Own;
use crate::rollback::checkpoint::Network;
use crate::rollback::route::MAIN;

/// True if something beyond this device answers, and nothing that should does not. A family without a gateway to ask is
/// no fault.
pub(crate) fn is_good(probes: &[Own]) -> bool {
    let reaches = probes.iter().any(|probe| probe.reaches && probe.holds);
    reaches && probes.iter().all(|probe| probe.holds || probe.nothing)
}

/// What held, by name.
pub(crate) fn holding(probes: &[Own]) -> Vec<String> {
    let held = probes.iter().filter(|probe| probe.holds);
    held.map(|probe| probe.name.clone()).collect()
}

/// What held then and does not now. What can't be tried any more, because its link is gone, is lost, too.
pub(crate) fn lost(held: &[String], now: &[Own]) -> Vec<String> {
    let holds = |name: &&String| now.iter().any(|probe| probe.name == **name && probe.holds);
    held.iter().filter(|name| !holds(name)).cloned().collect()
}

/// What is done about a change that ended, before its end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rescue {
    /// Nothing: it needs none, or policy wants none.
    No,
    /// It was begun in this boot and did not end. It is not begun twice.
    CutShort,
    /// The probes decide.
    IfLost,
}

/// Decides it. `allowed` is the policy's word.
pub(crate) fn next(change: &Change, boot: &BootId, allowed: bool) -> Rescue {
    let State::Ended(ended) = change.state() else {
        return Rescue::No;
    };
    let restarted = ended.later.armed_in.as_ref().is_some_and(|b| b != boot);
    let left = match ended.end {
        End::RollbackIncomplete => true,
        // Its files are as before; whether the network came up again is another question.
        End::RolledBack => restarted,
        End::Confirmed | End::Refused | End::Diagnosed | End::Interrupted => false,
    };
    if ended.later.rescues.contains(boot) {
        return if ended.later.rescued {
            Rescue::No
        } else {
            Rescue::CutShort
        };
    }
    if left && allowed {
        Rescue::IfLost
    } else {
        Rescue::No
    }
}

/// What of the network before is not up yet, in words; empty once it has settled. Told by what a restart brings back by
/// itself: links that were up, an address where there was one, a default route of each family that had one.
pub(crate) fn unsettled(before: &Network, now: &Network) -> Vec<String> {
    let mut missing = Vec::new();
    for link in before.links.iter().filter(|l| l.up && !l.seen.loopback) {
        let is = now.links.iter().find(|l| l.name == link.name);
        if !is.is_some_and(|l| l.up && (l.seen.carrier || !link.seen.carrier)) {
            missing.push(format!("link {}", link.name));
            continue;
        }
        for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let has = |network: &Network| {
                let mut all = network.addresses.iter();
                all.any(|a| a.dev == link.name && a.address.address.is_ipv4() == ipv4)
            };
            if has(before) && !has(now) {
                missing.push(format!("{family} address of {}", link.name));
            }
        }
    }
    for (ipv4, family) in [(true, "IPv4"), (false, "IPv6")] {
        let has = |network: &Network| {
            network.routes.iter().any(|route| {
                let to = route.key.destination;
                to.is_default() && to.address.is_ipv4() == ipv4 && route.key.table == MAIN
            })
        };
        if has(before) && !has(now) {
            missing.push(format!("{family} default route"));
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use aizen_protocol::id::Digest;
    use aizen_protocol::package::manifest::Class;
    use jiff::Timestamp;

    use super::*;
    use crate::change::model::{admission, undone};
    use crate::change::{Change, Event};
    use crate::rescue::plan::fixture::{address, link, network, route};

    fn probe(name: &str, reaches: bool, holds: bool, nothing: bool) -> Own {
        Own {
            name: name.into(),
            reaches,
            holds,
            nothing,
        }
    }

    fn boot(name: &str) -> BootId {
        name.parse().unwrap()
    }

    #[test]
    fn a_network_is_good_if_something_answers_and_nothing_that_should_is_silent() {
        let carrier = probe("carrier of wan", false, true, false);
        let four = probe("default gateway (IPv4)", true, true, false);
        let no_six = probe("default gateway (IPv6)", true, false, true);
        let dead_six = probe("default gateway (IPv6)", true, false, false);
        let name = probe("dns example.org", true, false, false);
        assert!(is_good(&[carrier.clone(), four.clone(), no_six.clone()]));
        assert!(!is_good(&[carrier.clone(), four.clone(), dead_six]));
        assert!(!is_good(&[carrier.clone(), four, no_six.clone(), name]));
        assert!(!is_good(&[carrier, no_six]), "a cable is no way out");
        assert!(!is_good(&[]));
    }

    #[test]
    fn what_can_not_be_tried_any_more_is_lost() {
        let held = ["carrier of wan".to_owned(), "dns example.org".to_owned()];
        let now = [probe("dns example.org", true, true, false)];
        assert_eq!(lost(&held, &now), ["carrier of wan"]);
        assert_eq!(lost(&held[1..], &now), [""; 0]);
    }

    fn change(end: Event) -> Change {
        let mut change = Change::admitted(admission(Class::Repair), Timestamp::UNIX_EPOCH);
        for event in undone().into_iter().chain([end]) {
            change.apply(&event, Timestamp::UNIX_EPOCH).unwrap();
        }
        change
    }

    fn incomplete() -> Change {
        change(Event::RollbackIncomplete {
            after: None,
            not_restored: vec!["route default".into()],
        })
    }

    fn rolled_back() -> Change {
        change(Event::RolledBack {
            after: Digest::of(b"state"),
        })
    }

    #[test]
    fn only_what_could_not_be_undone_is_rescued_in_the_boot_of_the_change() {
        let here = boot("boot-a");
        assert_eq!(next(&incomplete(), &here, true), Rescue::IfLost);
        assert_eq!(next(&incomplete(), &here, false), Rescue::No);
        assert_eq!(next(&rolled_back(), &here, true), Rescue::No);
        assert_eq!(next(&rolled_back(), &boot("boot-b"), true), Rescue::IfLost);
    }

    #[test]
    fn it_is_begun_once_in_a_boot_whatever_became_of_it() {
        let here = boot("boot-a");
        let mut change = incomplete();
        let began = Event::RescueBegan { boot: here.clone() };
        change.apply(&began, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(next(&change, &here, true), Rescue::CutShort);
        assert!(change.apply(&began, Timestamp::UNIX_EPOCH).is_err());
        assert_eq!(next(&change, &boot("boot-b"), true), Rescue::IfLost);
        let ended = Event::Rescued { told: Vec::new() };
        change.apply(&ended, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(next(&change, &here, true), Rescue::No);
        assert_eq!(change.ended().unwrap().end, End::RollbackIncomplete);
    }

    #[test]
    fn a_network_has_settled_once_links_addresses_and_default_routes_are_there() {
        let before = network(
            &[link("wan"), link("lan")],
            &[address("wan", "192.0.2.2/24")],
            &[route("default", "192.0.2.1", "wan")],
        );
        assert_eq!(unsettled(&before, &before), [""; 0]);
        let bare = network(&[link("wan")], &[], &[]);
        assert_eq!(
            unsettled(&before, &bare),
            ["IPv4 address of wan", "link lan", "IPv4 default route"]
        );
        // Another gateway by another lease is a network that has settled.
        let other = network(
            &[link("wan"), link("lan")],
            &[address("wan", "198.51.100.9/24")],
            &[route("default", "198.51.100.1", "wan")],
        );
        assert_eq!(unsettled(&before, &other), [""; 0]);
    }
}
