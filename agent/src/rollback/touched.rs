//! What a change touched, and what may have moved with it: everything else is somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::address::AddressState;
use super::checkpoint::Network;
use super::difference::{Difference, Subject};
use super::inverse::{Inverse, ObjectId, uci};
use super::link::LinkState;
use super::neighbour::NeighbourState;
use super::route::RouteState;
use super::sysctl::SysctlKey;

/// Objects that operations touched, and what those may have moved besides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    pub(crate) objects: BTreeSet<ObjectId>,
    /// Interfaces that may have been down.
    pub(crate) down: BTreeSet<String>,
    /// Interfaces whose MTU was moved.
    pub(crate) mtu: BTreeSet<String>,
    /// Interfaces that may have lost an IPv4 address.
    pub(crate) unaddressed: BTreeSet<String>,
    /// Parameters that were written.
    pub(crate) keys: BTreeSet<SysctlKey>,
    /// Files of which keys were changed, with all of these.
    pub(crate) uci: BTreeMap<String, Inverse>,
    /// What a script changed with its own hands.
    pub(crate) unbrokered: Unbrokered,
}

/// How far a script with capabilities reached.
#[derive(Clone, Debug, Default)]
pub(crate) enum Unbrokered {
    /// It has none, or did nothing.
    #[default]
    Nothing,
    /// These differed at its end.
    These(BTreeSet<Subject>),
    /// It did not end: whatever differs may be its doing.
    Anything,
}

impl Unbrokered {
    fn explains(&self, difference: &Difference) -> bool {
        match self {
            Self::Nothing => false,
            Self::These(subjects) => {
                difference.is_of_the_kernel() && subjects.contains(&difference.subject())
            }
            Self::Anything => difference.is_of_the_kernel(),
        }
    }
}

impl Touched {
    pub(crate) fn by(inverses: &[Inverse]) -> Self {
        let mut touched = Self::default();
        for inverse in inverses {
            touched.objects.insert(inverse.object());
            match inverse {
                Inverse::Link { before, after } => {
                    if before.up != after.up {
                        touched.down.insert(before.name.clone());
                    }
                    if before.mtu != after.mtu {
                        touched.mtu.insert(before.name.clone());
                        // The kernel takes IPv6 off a link below 1280 (RFC 8200) and IPv4 below 68 (RFC 791).
                        if before.mtu.min(after.mtu) < 1280 {
                            touched.down.insert(before.name.clone());
                        }
                    }
                }
                Inverse::Address { before, after } => {
                    let v4 = before
                        .iter()
                        .chain(after)
                        .find(|a| a.address.address.is_ipv4());
                    touched.unaddressed.extend(v4.map(|a| a.dev.clone()));
                }
                Inverse::Uci { path, .. } => {
                    let all = match touched.uci.get(path) {
                        Some(earlier) => earlier.joined(inverse),
                        None => inverse.clone(),
                    };
                    touched.uci.insert(path.clone(), all);
                }
                Inverse::Sysctl { key, .. } => {
                    touched.keys.insert(key.clone());
                }
                // The last word counts: "anything" before the script, what differed after it.
                Inverse::Unbrokered { subjects } => {
                    touched.unbrokered = match subjects {
                        None => Unbrokered::Anything,
                        Some(subjects) => Unbrokered::These(subjects.clone()),
                    };
                }
                Inverse::Route { .. }
                | Inverse::File { .. }
                | Inverse::Rule { .. }
                | Inverse::Nft { .. }
                | Inverse::Service { .. }
                | Inverse::Peer { .. }
                | Inverse::UciReload { .. }
                | Inverse::Neighbour { .. } => {}
            }
        }
        touched
    }

    /// True if a link or address that was touched may have taken this route away.
    pub(crate) fn disturbs(&self, route: &RouteState) -> bool {
        self.down
            .iter()
            .chain(&self.unaddressed)
            .any(|dev| route.uses(dev))
    }

    /// True if the change may have caused the difference; `before` tells what hung together.
    pub(crate) fn explains(&self, difference: &Difference, before: Option<&Network>) -> bool {
        self.unbrokered.explains(difference) || self.explains_by_operations(difference, before)
    }

    fn explains_by_operations(&self, difference: &Difference, before: Option<&Network>) -> bool {
        match difference {
            Difference::File { path, before, now } => {
                let keys = match self.uci.get(path) {
                    Some(Inverse::Uci { keys, .. }) => uci::differ(keys, before, now),
                    _ => false,
                };
                keys || self.has(&ObjectId::File(path.clone()))
            }
            // A prefix that one peer takes is another one's loss.
            Difference::Peer { dev, .. } => self
                .objects
                .iter()
                .any(|o| matches!(o, ObjectId::Peer(of, _) if of == dev)),
            Difference::Service { name, .. } => self.has(&ObjectId::Service(name.clone())),
            Difference::Link {
                before: Some(old),
                now: Some(now),
            } => self.explains_link(old, now, before),
            Difference::Link {
                before: Some(old),
                now: None,
            } => self.has(&ObjectId::Link(old.name.clone())),
            Difference::Address {
                before: Some(state),
                ..
            } => self.explains_address(state),
            Difference::Address {
                before: None,
                now: Some(state),
            } => self.has(&object_of(state)),
            Difference::AddressOrder { dev, .. } => {
                self.down.contains(dev) || self.unaddressed.contains(dev)
            }
            Difference::Route { key, before, .. } => {
                self.has(&ObjectId::Route(key.clone()))
                    || before.iter().any(|r| self.explains_route(r))
            }
            Difference::Nft { table, .. } => self.has(&ObjectId::Nft(table.clone())),
            Difference::Rule { rule, .. } => {
                rule.key().is_some_and(|key| self.has(&ObjectId::Rule(key)))
            }
            Difference::Neighbour {
                before: None,
                now: Some(entry),
            } => self.has_neighbour(entry),
            Difference::Neighbour {
                before: Some(entry),
                ..
            } => {
                // The last IPv4 address takes the ARP table with it (`arp_ifdown`).
                self.has_neighbour(entry)
                    || self.down.contains(&entry.dev)
                    || (entry.address.is_ipv4() && self.unaddressed.contains(&entry.dev))
                    || (entry.address.is_ipv6() && self.by_ipv6_key(&entry.dev))
            }
            Difference::Sysctl { key, .. } => {
                let moved = self
                    .keys
                    .iter()
                    .any(|k| k == key || k.moves().iter().any(|p| p.matches(key)));
                moved || key.dev().is_some_and(|dev| self.mtu.contains(dev))
            }
            Difference::Link { before: None, .. }
            | Difference::Beyond { .. }
            | Difference::Address {
                before: None,
                now: None,
            }
            | Difference::Neighbour {
                before: None,
                now: None,
            } => false,
        }
    }

    fn has_neighbour(&self, entry: &NeighbourState) -> bool {
        let name = ObjectId::Neighbour(entry.dev.clone(), entry.address);
        entry.is_entry(&entry.dev, entry.address) && self.has(&name)
    }

    fn has(&self, object: &ObjectId) -> bool {
        self.objects.contains(object)
    }

    /// An IPv6 parameter may take addresses and routes of its interface, or of all, with it.
    fn by_ipv6_key(&self, dev: &str) -> bool {
        self.keys
            .iter()
            .any(|k| k.is_ipv6() && k.dev().is_none_or(|d| d == dev))
    }

    fn explains_link(&self, old: &LinkState, now: &LinkState, before: Option<&Network>) -> bool {
        let follows = |set: &BTreeSet<String>| {
            let port =
                |l: &LinkState| l.master.as_deref() == Some(&old.name) && set.contains(&l.name);
            old.seen
                .lower
                .as_ref()
                .is_some_and(|lower| set.contains(lower))
                || before.is_some_and(|n| n.links.iter().any(port))
        };
        self.has(&ObjectId::Link(old.name.clone()))
            || (now.up == old.up && follows(&self.mtu))
            || follows(&self.down)
    }

    fn explains_address(&self, state: &AddressState) -> bool {
        let v6 = state.address.address.is_ipv6();
        self.has(&object_of(state))
            || self.down.contains(&state.dev)
            || (!v6 && self.unaddressed.contains(&state.dev))
            || (v6 && self.by_ipv6_key(&state.dev))
    }

    fn explains_route(&self, route: &RouteState) -> bool {
        let v6 = route.key.destination.address.is_ipv6();
        // A route goes with the address that it has as its source.
        let from = |source: IpAddr| {
            let source = source.to_string();
            let of = |o: &ObjectId| matches!(o, ObjectId::Address(_, a) if a.split('/').next() == Some(&source));
            self.objects.iter().any(of)
        };
        let by_key = |dev: &str| v6 && self.by_ipv6_key(dev);
        self.disturbs(route)
            || route.preferred.is_some_and(from)
            || route
                .hops
                .iter()
                .any(|hop| hop.dev.as_deref().is_some_and(by_key))
    }
}

fn object_of(state: &AddressState) -> ObjectId {
    ObjectId::Address(state.dev.clone(), state.address.to_string())
}
