//! Which differences between the profile and the network are taken back, and which are left alone, each with its reason.

use std::collections::BTreeSet;

use crate::rollback::Checkpoint;
use crate::rollback::checkpoint::Network;
use crate::rollback::difference::Difference;
use crate::rollback::link::LinkState;
use crate::rollback::nft;
use crate::rollback::route::RouteState;

/// `RTPROT_*` of linux/rtnetlink.h: nobody, at boot, by an administrator; the rest belongs to programs.
const BY_HAND: [u8; 3] = [0, 3, 4];
/// `RTPROT_KERNEL`.
const KERNEL: u8 = 2;
/// `RTPROT_RA`, `RTPROT_DHCP`.
const LEASED: [u8; 2] = [9, 16];

const NO_LINK: &str = "its link is not there";
const NEW_LINK: &str = "the link came since";
const NO_MORE: &str = "the link is not there any more";
const OTHER_LINK: &str = "another link has its name";
const BY_ITSELF: &str = "the kernel, DHCP, an advertisement or a routing program made it";
const GIVEN_ANEW: &str = "its time is over: DHCP or a router gives it anew";
const OF_A_PROGRAM: &str = "a routing program makes it";
const OWNED: &str = "a program or iptables keeps that table";
const NOT_HELD: &str = "the profile does not hold this";

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Taken back, in this order.
    pub(crate) put: Vec<Difference>,
    /// Left alone, and why.
    pub(crate) left: Vec<(Difference, &'static str)>,
}

/// Decides about each difference. `same_boot`: the profile is of this boot, so leases in it may still run and an index
/// still means the same link.
pub(crate) fn choose(profile: &Checkpoint, now: &Checkpoint, same_boot: bool) -> Plan {
    let mut plan = Plan::default();
    let (Some(then), Some(network)) = (&profile.network, &now.network) else {
        return plan;
    };
    let differences = profile.difference(now);
    let judge = Judge {
        there: there(then, network, same_boot),
        renamed: if same_boot {
            renamed(&differences)
        } else {
            BTreeSet::new()
        },
        same_boot,
    };
    // A parameter comes and goes with its link, which is named itself.
    let partly = |d: &Difference| matches!(d, Difference::Sysctl { before, now, .. } if before.is_none() || now.is_none());
    for difference in differences.into_iter().filter(|d| !partly(d)) {
        match judge.leave(&difference) {
            None => plan.put.push(difference),
            Some(why) => plan.left.push((difference, why)),
        }
    }
    plan
}

/// Links that are there, by the names that they have or will have again.
fn there(then: &Network, now: &Network, same_boot: bool) -> BTreeSet<String> {
    let is = |link: &&LinkState| {
        now.links
            .iter()
            .any(|l| l.name == link.name || (same_boot && l.seen.index == link.seen.index))
    };
    let known = then.links.iter().filter(is);
    known.map(|link| link.name.clone()).collect()
}

/// Indices of links that go by another name now.
fn renamed(differences: &[Difference]) -> BTreeSet<u32> {
    let index = |gone: bool| {
        differences.iter().filter_map(move |d| match d {
            Difference::Link {
                before: Some(link),
                now: None,
            } if gone => Some(link.seen.index),
            Difference::Link {
                before: None,
                now: Some(link),
            } if !gone => Some(link.seen.index),
            _ => None,
        })
    };
    let came: BTreeSet<u32> = index(false).collect();
    index(true).filter(|index| came.contains(index)).collect()
}

struct Judge {
    there: BTreeSet<String>,
    renamed: BTreeSet<u32>,
    same_boot: bool,
}

impl Judge {
    /// Why it is left alone; none if it is taken back.
    fn leave(&self, difference: &Difference) -> Option<&'static str> {
        match difference {
            Difference::Link { before, now } => self.leave_link(before.as_ref(), now.as_ref()),
            Difference::Address { before, now } => match (before, now) {
                (Some(before), _) if !self.there.contains(&before.dev) => Some(NO_LINK),
                (Some(before), _) if before.lifetime.is_some_and(|(valid, _)| valid == 0) => {
                    Some(GIVEN_ANEW)
                }
                (None, Some(now)) if now.is_dynamic() || now.is_kernel_made() => Some(BY_ITSELF),
                (None, Some(now)) if !self.there.contains(&now.dev) => Some(NEW_LINK),
                (_, _) => None,
            },
            Difference::Route { before, now, .. } => self.leave_route(before, now),
            Difference::Neighbour { before, now } => {
                let entry = before.as_ref().or(now.as_ref())?;
                (!self.there.contains(&entry.dev)).then_some(NO_LINK)
            }
            Difference::Nft { before, now, .. } => {
                let mut states = before.iter().chain(now);
                states
                    .any(|state| !nft::is_whole(&state.text))
                    .then_some(OWNED)
            }
            Difference::AddressOrder { dev, .. } => (!self.there.contains(dev)).then_some(NO_LINK),
            Difference::Rule { .. } | Difference::Sysctl { .. } => None,
            Difference::File { .. }
            | Difference::Service { .. }
            | Difference::Peer { .. }
            | Difference::Beyond { .. } => Some(NOT_HELD),
        }
    }

    fn leave_link(
        &self,
        before: Option<&LinkState>,
        now: Option<&LinkState>,
    ) -> Option<&'static str> {
        match (before, now) {
            (Some(before), Some(now)) => (before.kind != now.kind).then_some(OTHER_LINK),
            (Some(link), None) => (!self.renamed.contains(&link.seen.index)).then_some(NO_MORE),
            (None, Some(link)) => (!self.renamed.contains(&link.seen.index)).then_some(NEW_LINK),
            (None, None) => Some(NOT_HELD),
        }
    }

    fn leave_route(&self, before: &[RouteState], now: &[RouteState]) -> Option<&'static str> {
        if before.is_empty() {
            let by_hand = now.iter().any(|r| BY_HAND.contains(&r.protocol));
            return (!by_hand).then_some(BY_ITSELF);
        }
        let mut ways = before
            .iter()
            .flat_map(|r| &r.hops)
            .filter_map(|h| h.dev.as_ref());
        if ways.any(|dev| !self.there.contains(dev)) {
            return Some(NO_LINK);
        }
        let over = |r: &RouteState| {
            r.expires_s == Some(0) || (LEASED.contains(&r.protocol) && !self.same_boot)
        };
        if before.iter().any(over) {
            return Some(GIVEN_ANEW);
        }
        let known = |r: &RouteState| {
            BY_HAND.contains(&r.protocol) || LEASED.contains(&r.protocol) || r.protocol == KERNEL
        };
        (!before.iter().all(known)).then_some(OF_A_PROGRAM)
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    use aizen_protocol::private::Prefix;

    use crate::rollback::address::AddressState;
    use crate::rollback::checkpoint::Network;
    use crate::rollback::link::{LinkSeen, LinkState};
    use crate::rollback::route::{MAIN, RouteKey, RouteState};

    pub(crate) fn link(name: &str) -> LinkState {
        LinkState {
            name: name.into(),
            kind: None,
            mac: None,
            mtu: 1500,
            up: true,
            master: None,
            seen: LinkSeen {
                index: u32::from(name.as_bytes()[0]),
                carrier: true,
                ..LinkSeen::default()
            },
        }
    }

    pub(crate) fn prefix(text: &str) -> Prefix {
        let text = if text == "default" { "0.0.0.0/0" } else { text };
        let (address, length) = text.split_once('/').unwrap();
        Prefix {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    pub(crate) fn address(dev: &str, text: &str) -> AddressState {
        AddressState::asked(dev, prefix(text))
    }

    pub(crate) fn route(to: &str, via: &str, dev: &str) -> RouteState {
        let key = RouteKey {
            destination: prefix(to),
            table: MAIN,
            metric: 0,
            tos: 0,
        };
        RouteState::asked(key, Some(via.parse().unwrap()), Some(dev.into()))
    }

    pub(crate) fn network(
        links: &[LinkState],
        addresses: &[AddressState],
        routes: &[RouteState],
    ) -> Network {
        Network {
            links: links.to_vec(),
            addresses: addresses.to_vec(),
            routes: routes.to_vec(),
            ..Network::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{address, link, network, route};
    use super::*;
    use crate::rollback::checkpoint::Scope;
    use crate::rollback::nft::TableState;

    fn state(network: Network) -> Checkpoint {
        Checkpoint {
            scope: Scope::of_network(true, std::iter::empty()),
            network: Some(network),
            tables: Some(std::collections::BTreeMap::new()),
            services: std::collections::BTreeMap::new(),
            peers: std::collections::BTreeMap::new(),
            sysctls: std::collections::BTreeMap::new(),
            beyond: None,
            files: std::collections::BTreeMap::new(),
        }
    }

    fn wan(routes: &[RouteState]) -> Checkpoint {
        state(network(&[link("wan")], &[], routes))
    }

    fn why(plan: &Plan) -> Vec<&'static str> {
        plan.left.iter().map(|(_, why)| *why).collect()
    }

    fn made_by(protocol: u8) -> RouteState {
        RouteState {
            protocol,
            ..route("default", "192.0.2.1", "wan")
        }
    }

    #[test]
    fn what_went_is_put_back_and_what_came_by_hand_is_taken_away() {
        let good = wan(&[route("default", "192.0.2.1", "wan")]);
        let broken = wan(&[route("10.0.0.0/8", "192.0.2.7", "wan")]);
        let plan = choose(&good, &broken, true);
        assert_eq!((plan.put.len(), why(&plan)), (2, vec![]));
        assert!(choose(&good, &good, true).put.is_empty());
    }

    #[test]
    fn what_the_kernel_a_lease_or_a_routing_program_made_since_is_left() {
        for protocol in [2, 9, 12, 16, 186] {
            let plan = choose(&wan(&[]), &wan(&[made_by(protocol)]), true);
            assert_eq!(why(&plan), [BY_ITSELF], "{protocol}");
        }
        let lease = crate::rollback::address::AddressState {
            flags: 0,
            ..address("wan", "192.0.2.2/24")
        };
        let now = state(network(&[link("wan")], &[lease], &[]));
        assert_eq!(why(&choose(&wan(&[]), &now, true)), [BY_ITSELF]);
    }

    #[test]
    fn a_lease_is_put_back_while_it_runs_and_a_program_s_route_never() {
        for (protocol, same_boot, expected) in [
            (16, true, vec![]),
            (16, false, vec![GIVEN_ANEW]),
            (9, false, vec![GIVEN_ANEW]),
            (4, false, vec![]),
            (12, true, vec![OF_A_PROGRAM]),
        ] {
            let plan = choose(&wan(&[made_by(protocol)]), &wan(&[]), same_boot);
            assert_eq!(why(&plan), expected, "{protocol} {same_boot}");
        }
        let over = RouteState {
            expires_s: Some(0),
            ..made_by(9)
        };
        assert_eq!(why(&choose(&wan(&[over]), &wan(&[]), true)), [GIVEN_ANEW]);
    }

    #[test]
    fn what_stood_on_a_link_that_is_gone_is_named_and_left() {
        let good = state(network(
            &[link("wan"), link("usb0")],
            &[address("usb0", "198.51.100.2/24")],
            &[route("10.0.0.0/8", "198.51.100.1", "usb0")],
        ));
        let plan = choose(&good, &wan(&[]), true);
        assert!(plan.put.is_empty());
        assert_eq!(why(&plan), [NO_MORE, NO_LINK, NO_LINK]);
    }

    #[test]
    fn a_link_of_the_same_boot_gets_its_name_back_and_a_new_one_stays() {
        let renamed = LinkState {
            name: "x".into(),
            ..link("wan")
        };
        let now = state(network(&[renamed], &[], &[]));
        let good = wan(&[route("default", "192.0.2.1", "wan")]);
        assert_eq!(why(&choose(&good, &now, true)), [""; 0]);
        let plan = choose(&good, &now, false);
        assert_eq!(why(&plan), [NO_MORE, NEW_LINK, NO_LINK]);
        let more = state(network(&[link("wan"), link("docker0")], &[], &[]));
        assert_eq!(why(&choose(&wan(&[]), &more, true)), [NEW_LINK]);
    }

    #[test]
    fn a_table_that_a_program_keeps_is_left_and_any_other_is_put_back() {
        let table = |text: &str| TableState {
            text: text.into(),
            plain: text.into(),
        };
        let with = |text: &str| {
            let mut state = wan(&[]);
            let tables = state.tables.iter_mut();
            tables.for_each(|t| drop(t.insert("inet x".into(), table(text))));
            state
        };
        let plan = choose(&with("table inet x {\n}\n"), &wan(&[]), true);
        assert_eq!(plan.put.len(), 1);
        let owned = with("table inet x {\n\tflags owner\n}\n");
        assert_eq!(why(&choose(&owned, &wan(&[]), true)), [OWNED]);
        assert_eq!(why(&choose(&wan(&[]), &owned, true)), [OWNED]);
    }
}
