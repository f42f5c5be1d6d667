//! What tells two states of the same objects apart, object by object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::AddressState;
use super::beyond::{BeyondKey, BeyondState};
use super::checkpoint::{Checkpoint, Network};
use super::file::FileState;
use super::link::LinkState;
use super::neighbour::NeighbourState;
use super::nft::TableState;
use super::route::{RouteKey, RouteState};
use super::rule::RuleState;
use super::sysctl::SysctlKey;
use super::wireguard::{PeerState, PublicKey};

/// One object before and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    File {
        path: String,
        before: FileState,
        now: FileState,
    },
    Link {
        before: Option<LinkState>,
        now: Option<LinkState>,
    },
    Address {
        before: Option<AddressState>,
        now: Option<AddressState>,
    },
    /// The IPv4 addresses of one device are the same, in another order.
    AddressOrder {
        dev: String,
        before: Vec<AddressState>,
        now: Vec<AddressState>,
    },
    Route {
        key: RouteKey,
        before: Vec<RouteState>,
        now: Vec<RouteState>,
    },
    Rule {
        rule: RuleState,
        before: bool,
    },
    Neighbour {
        before: Option<NeighbourState>,
        now: Option<NeighbourState>,
    },
    Sysctl {
        key: SysctlKey,
        before: Option<String>,
        now: Option<String>,
    },
    Peer {
        dev: String,
        key: PublicKey,
        before: Option<PeerState>,
        now: Option<PeerState>,
    },
    Service {
        name: String,
        before: bool,
        now: bool,
    },
    Nft {
        table: String,
        before: Option<TableState>,
        now: Option<TableState>,
    },
    Beyond {
        key: BeyondKey,
        before: Option<BeyondState>,
        now: Option<BeyondState>,
    },
}

/// What a difference is about, as its sentence names it: `route default`, `link wan`. The same in every comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(String);

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Difference {
    pub(crate) fn subject(&self) -> Subject {
        let text = self.to_string();
        Subject(text.split(": was ").next().unwrap_or_default().to_owned())
    }

    /// True for what netlink reaches; files and services are out of reach of a script's own hands.
    pub(crate) fn is_of_the_kernel(&self) -> bool {
        match self {
            Self::Link { .. }
            | Self::Address { .. }
            | Self::AddressOrder { .. }
            | Self::Route { .. }
            | Self::Rule { .. }
            | Self::Neighbour { .. }
            | Self::Sysctl { .. }
            | Self::Peer { .. }
            | Self::Beyond { .. }
            | Self::Nft { .. } => true,
            Self::File { .. } | Self::Service { .. } => false,
        }
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "absent".to_owned();
    }
    let shown: Vec<String> = items.iter().map(|item| format!("'{item}'")).collect();
    shown.join(" and ")
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn pair<T: fmt::Display>(
            f: &mut fmt::Formatter<'_>,
            what: &str,
            before: &[T],
            now: &[T],
        ) -> fmt::Result {
            write!(f, "{what}: was {}, is {}", list(before), list(now))
        }
        match self {
            Self::File { path, before, now } => write!(f, "file {path}: was {before}, is {now}"),
            Self::Link { before, now } => {
                let name = before
                    .as_ref()
                    .or(now.as_ref())
                    .map_or("", |l| l.name.as_str());
                pair(
                    f,
                    &format!("link {name}"),
                    before.as_slice(),
                    now.as_slice(),
                )
            }
            Self::Address { before, now } => {
                let any = before.as_ref().or(now.as_ref());
                let name = any
                    .map(|a| format!("address {} dev {}", a.address, a.dev))
                    .unwrap_or_default();
                pair(f, &name, before.as_slice(), now.as_slice())
            }
            Self::AddressOrder { dev, before, now } => {
                pair(f, &format!("order of the addresses of {dev}"), before, now)
            }
            Self::Route { key, before, now } => pair(f, &format!("route {key}"), before, now),
            Self::Rule { rule, before: true } => write!(f, "{rule}: was there, is absent"),
            Self::Rule {
                rule,
                before: false,
            } => write!(f, "{rule}: was absent, is there"),
            Self::Neighbour { before, now } => {
                let any = before.as_ref().or(now.as_ref());
                let name = any
                    .map(|n| format!("neighbour {} dev {}", n.address, n.dev))
                    .unwrap_or_default();
                pair(f, &name, before.as_slice(), now.as_slice())
            }
            Self::Peer {
                dev,
                key,
                before,
                now,
            } => pair(
                f,
                &format!("wireguard {dev} peer {key}"),
                before.as_slice(),
                now.as_slice(),
            ),
            Self::Service { name, before, now } => {
                let word = |runs: &bool| if *runs { "running" } else { "stopped" };
                write!(f, "service {name}: was {}, is {}", word(before), word(now))
            }
            Self::Nft { table, before, now } => pair(
                f,
                &format!("nft table {table}"),
                before.as_slice(),
                now.as_slice(),
            ),
            Self::Beyond { key, before, now } => {
                pair(f, &key.to_string(), before.as_slice(), now.as_slice())
            }
            Self::Sysctl { key, before, now } => {
                pair(f, &key.to_string(), before.as_slice(), now.as_slice())
            }
        }
    }
}

/// All differences, in the order in which they are repaired: files, links, addresses, rules, routes, neighbours,
/// parameters, filters, services.
pub(crate) fn between(before: &Checkpoint, now: &Checkpoint) -> Vec<Difference> {
    let mut found = Vec::new();
    let none = FileState::Absent;
    for path in keys(&before.files, &now.files) {
        let states = (
            before.files.get(path).unwrap_or(&none),
            now.files.get(path).unwrap_or(&none),
        );
        if states.0.canonical() != states.1.canonical() {
            found.push(Difference::File {
                path: path.clone(),
                before: states.0.clone(),
                now: states.1.clone(),
            });
        }
    }
    if let (Some(before), Some(now)) = (before.network.as_ref(), now.network.as_ref()) {
        found.extend(networks(before, now));
    }
    let mut parameters: Vec<_> = keys(&before.sysctls, &now.sysctls).into_iter().collect();
    parameters.sort_by_key(|key| key.rank());
    for key in parameters {
        let states = (before.sysctls.get(key), now.sysctls.get(key));
        if states.0 != states.1 {
            found.push(Difference::Sysctl {
                key: key.clone(),
                before: states.0.cloned(),
                now: states.1.cloned(),
            });
        }
    }
    found.extend(filters_and_services(before, now));
    if let (Some(before), Some(now)) = (&before.beyond, &now.beyond) {
        for key in keys(before, now) {
            let states = (before.get(key), now.get(key));
            let plain = |state: Option<&BeyondState>| state.map(BeyondState::canonical);
            if plain(states.0) != plain(states.1) {
                found.push(Difference::Beyond {
                    key: key.clone(),
                    before: states.0.cloned(),
                    now: states.1.cloned(),
                });
            }
        }
    }
    found
}

fn filters_and_services(before: &Checkpoint, now: &Checkpoint) -> Vec<Difference> {
    let mut found = Vec::new();
    if let (Some(old), Some(new)) = (&before.tables, &now.tables) {
        for table in keys(old, new) {
            let states = (old.get(table), new.get(table));
            if states.0.map(|s| &s.plain) != states.1.map(|s| &s.plain) {
                found.push(Difference::Nft {
                    table: table.clone(),
                    before: states.0.cloned(),
                    now: states.1.cloned(),
                });
            }
        }
    }
    for (dev, old) in &before.peers {
        let new = now.peers.get(dev).map(Vec::as_slice).unwrap_or_default();
        for (before, now) in pairs(old, new, |p| p.key) {
            let plain = |peer: Option<&PeerState>| peer.map(PeerState::canonical);
            if let Some(any) = before.or(now)
                && plain(before) != plain(now)
            {
                found.push(Difference::Peer {
                    dev: dev.clone(),
                    key: any.key,
                    before: before.cloned(),
                    now: now.cloned(),
                });
            }
        }
    }
    for (name, was) in &before.services {
        let is = now.services.get(name).copied().unwrap_or(false);
        if is != *was {
            found.push(Difference::Service {
                name: name.clone(),
                before: *was,
                now: is,
            });
        }
    }
    found
}

fn keys<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

/// Those of the network alone.
pub(crate) fn networks(before: &Network, now: &Network) -> Vec<Difference> {
    let mut found = Vec::new();
    for (before, now) in pairs(&before.links, &now.links, |l| l.name.clone()) {
        if before.map(LinkState::canonical) != now.map(LinkState::canonical) {
            found.push(Difference::Link {
                before: before.cloned(),
                now: now.cloned(),
            });
        }
    }
    for (before, now) in pairs(&before.addresses, &now.addresses, AddressState::key) {
        if before.map(AddressState::canonical) != now.map(AddressState::canonical) {
            found.push(Difference::Address {
                before: before.cloned(),
                now: now.cloned(),
            });
        }
    }
    found.extend(orders(before, now));
    for rule in before.rules.iter().filter(|rule| !now.rules.contains(rule)) {
        found.push(Difference::Rule {
            rule: rule.clone(),
            before: true,
        });
    }
    for rule in now.rules.iter().filter(|rule| !before.rules.contains(rule)) {
        found.push(Difference::Rule {
            rule: rule.clone(),
            before: false,
        });
    }
    let (old, new) = (by_key(&before.routes), by_key(&now.routes));
    for key in keys(&old, &new) {
        let of =
            |map: &BTreeMap<RouteKey, Vec<RouteState>>| map.get(key).cloned().unwrap_or_default();
        let plain =
            |routes: &[RouteState]| routes.iter().map(RouteState::canonical).collect::<Vec<_>>();
        let (before, now) = (of(&old), of(&new));
        if plain(&before) != plain(&now) {
            found.push(Difference::Route {
                key: key.clone(),
                before,
                now,
            });
        }
    }
    // What the link's own address family needs first comes first: a gateway is reached over a route to its network.
    let routes = found
        .iter()
        .position(|d| matches!(d, Difference::Route { .. }))
        .unwrap_or(found.len());
    found[routes..].sort_by_key(|d| matches!(d, Difference::Route { before, .. } if before.iter().any(|r| r.hops.iter().any(|h| h.via.is_some()))));
    for (before, now) in pairs(&before.neighbours, &now.neighbours, |n| {
        (n.dev.clone(), n.address, n.flags)
    }) {
        if before != now {
            found.push(Difference::Neighbour {
                before: before.cloned(),
                now: now.cloned(),
            });
        }
    }
    found
}

fn by_key(routes: &[RouteState]) -> BTreeMap<RouteKey, Vec<RouteState>> {
    let mut map: BTreeMap<RouteKey, Vec<RouteState>> = BTreeMap::new();
    for route in routes {
        map.entry(route.key.clone())
            .or_default()
            .push(route.clone());
    }
    map
}

fn pairs<'a, T, K: Ord>(
    before: &'a [T],
    now: &'a [T],
    key: impl Fn(&T) -> K,
) -> Vec<(Option<&'a T>, Option<&'a T>)> {
    let mut map: BTreeMap<K, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for item in before {
        map.entry(key(item)).or_default().0 = Some(item);
    }
    for item in now {
        map.entry(key(item)).or_default().1 = Some(item);
    }
    map.into_values().collect()
}

fn orders(before: &Network, now: &Network) -> Vec<Difference> {
    let list = |network: &Network, dev: &str| {
        let mut list: Vec<AddressState> = network
            .addresses
            .iter()
            .filter(|a| a.dev == dev && a.address.address.is_ipv4())
            .cloned()
            .collect();
        list.sort_by_key(AddressState::is_secondary);
        list
    };
    let plain = |list: &[AddressState]| list.iter().map(AddressState::key).collect::<Vec<_>>();
    let mut found = Vec::new();
    for link in &before.links {
        let lists = (list(before, &link.name), list(now, &link.name));
        let (old, new) = (plain(&lists.0), plain(&lists.1));
        let same_set = old.iter().collect::<BTreeSet<_>>() == new.iter().collect::<BTreeSet<_>>();
        if old != new && same_set {
            found.push(Difference::AddressOrder {
                dev: link.name.clone(),
                before: lists.0,
                now: lists.1,
            });
        }
    }
    found
}
