//! What a script with capabilities changed with its own hands: judged against its manifest, told like an operation.
//!
//! An operation of the broker is refused before it happens. Here the kernel obeyed already, so every difference from the
//! state before must be one that the manifest declares, or follow from one that it does.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;

use aizen_protocol::effect::ObjectChange;
use aizen_protocol::package::manifest::Operation;
use aizen_protocol::private::{Prefix, Text};

use super::describe::Described;
use super::grant::{Exact, GrantError, Verb};
use super::{Tables, World};
use crate::rollback::address::AddressState;
use crate::rollback::checkpoint::{Checkpoint, Network};
use crate::rollback::difference::{Difference, Subject};
use crate::rollback::inverse::{Inverse, ObjectId};
use crate::rollback::link::LinkState;
use crate::rollback::neighbour::NeighbourState;
use crate::rollback::route::{Hop, LOCAL, RouteState};
use crate::rollback::touched::Touched;
use crate::rollback::wireguard::PeerState;

/// Subjects that are kept; a script that changed more changed anything.
const SUBJECTS: usize = 4096;
/// Longest list of modules that is read, bytes.
const MODULES: u64 = 1 << 20;
/// Changes that are told one by one.
const TOLD: usize = 256;

/// A script's own changes.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// What is declared, and what follows from it.
    pub(crate) changes: Vec<ObjectChange>,
    /// What is not, one sentence an object.
    pub(crate) undeclared: Vec<Text>,
    /// All of it, for the way back.
    pub(crate) reach: Option<BTreeSet<Subject>>,
}

impl Judged {
    /// What the way back needs to know.
    pub(crate) fn inverse(&self) -> Inverse {
        Inverse::Unbrokered {
            subjects: self.reach.clone(),
        }
    }
}

/// Names of the modules that the kernel has loaded (`/proc/modules`); none where it has no modules.
pub(crate) fn modules() -> BTreeSet<String> {
    let mut text = String::new();
    let read =
        File::open("/proc/modules").and_then(|file| file.take(MODULES).read_to_string(&mut text));
    if read.is_err() {
        return BTreeSet::new();
    }
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Judges what differs between `before` and `now`, of which `brokered` is the broker's own doing.
pub(crate) fn judge(
    world: &World,
    grants: &[Operation],
    before: &Checkpoint,
    now: &Checkpoint,
    brokered: &[Inverse],
) -> Result<Judged, GrantError> {
    let exact: Vec<Exact> = grants
        .iter()
        .map(Exact::try_from)
        .collect::<Result<_, _>>()?;
    let none = Network::default();
    let (old, new) = (
        before.network.as_ref().unwrap_or(&none),
        now.network.as_ref().unwrap_or(&none),
    );
    // Of the journal's list all but the script's own.
    let operations = |inverse: &&Inverse| !matches!(inverse, Inverse::Unbrokered { .. });
    let brokered: Vec<Inverse> = brokered.iter().filter(operations).cloned().collect();
    let brokered = brokered.as_slice();
    let by_broker = Touched::by(brokered);
    let own: Vec<Difference> = before
        .difference(now)
        .into_iter()
        .filter(|d| d.is_of_the_kernel() && !comes_with_link(d))
        .filter(|d| !by_broker.explains(d, Some(old)))
        .collect();
    let declared: Vec<&Difference> = own.iter().filter(|d| declares(&exact, d)).collect();
    let follows = Consequences::of(&exact, brokered, old, new);
    let tables = Tables::default();
    let described = Described {
        world,
        tables: now.tables.as_ref().unwrap_or(&tables),
        after: new,
        names: new.names(),
    };
    let mut judged = Judged {
        reach: (own.len() <= SUBJECTS).then(|| own.iter().map(Difference::subject).collect()),
        ..Judged::default()
    };
    for difference in &own {
        if declared.contains(&difference) || follows.explain(difference) {
            judged.changes.extend(described.own(difference));
        } else {
            judged.undeclared.push(Text(difference.to_string()));
        }
    }
    judged.changes.truncate(TOLD);
    Ok(judged)
}

/// The parameters of an interface come and go with it: it is the interface that is told.
fn comes_with_link(difference: &Difference) -> bool {
    match difference {
        Difference::Sysctl { key, before, now } => {
            key.dev().is_some() && (before.is_none() || now.is_none())
        }
        Difference::Beyond { key, before, now } => {
            key.is_of_a_link() && (before.is_none() || now.is_none())
        }
        _ => false,
    }
}

fn declares(grants: &[Exact], difference: &Difference) -> bool {
    match difference {
        Difference::Link {
            before: Some(before),
            now: Some(now),
        } => declares_link(grants, before, now),
        _ => grants.iter().any(|grant| is(grant, difference)),
    }
}

/// Every setting that changed is one that some grant sets to this.
fn declares_link(grants: &[Exact], before: &LinkState, now: &LinkState) -> bool {
    let mut wanted = before.canonical();
    for grant in grants {
        if let Exact::Link { dev, up, mtu } = grant
            && *dev == before.name
        {
            wanted.up = up.filter(|up| *up == now.up).unwrap_or(wanted.up);
            wanted.mtu = mtu.filter(|mtu| *mtu == now.mtu).unwrap_or(wanted.mtu);
        }
    }
    wanted == now.canonical()
}

/// True if the difference is what this operation does, and all that it does.
fn is(grant: &Exact, difference: &Difference) -> bool {
    match (grant, difference) {
        (
            Exact::Route {
                verb,
                key,
                via,
                dev,
            },
            Difference::Route {
                key: changed,
                before,
                now,
            },
        ) => key == changed && is_route(*verb, *via, dev.as_deref(), before, now),
        (Exact::Address { verb, address, dev }, Difference::Address { before, now }) => {
            let own = |state: &AddressState| {
                state.address == *address && state.dev == *dev && state.peer.is_none()
            };
            match (verb, before, now) {
                (Verb::Add | Verb::Replace, None, Some(now)) => own(now),
                (Verb::Delete, Some(before), None) => own(before),
                _ => false,
            }
        }
        (Exact::Rule { verb, key }, Difference::Rule { rule, before }) => {
            let added = matches!(verb, Verb::Add | Verb::Replace);
            added != *before && rule.key().as_ref() == Some(key)
        }
        (Exact::Neighbour { address, dev, mac }, Difference::Neighbour { before, now }) => {
            let entry = |state: &NeighbourState| state.is_entry(dev, *address);
            match (mac, before, now) {
                (Some(mac), _, Some(now)) => entry(now) && now.mac == Some(*mac),
                (None, Some(before), None) => entry(before),
                _ => false,
            }
        }
        (
            Exact::Sysctl { key, value },
            Difference::Sysctl {
                key: changed, now, ..
            },
        ) => key == changed && now.as_ref() == Some(value),
        (
            Exact::Wireguard { dev, key, set },
            Difference::Peer {
                dev: of,
                key: changed,
                before,
                now,
            },
        ) => {
            let wanted = set.as_ref().map(|wish| wish.of(before.as_ref(), dev, *key));
            let plain = |peer: Option<&PeerState>| peer.map(PeerState::canonical);
            dev == of && key == changed && plain(wanted.as_ref()) == plain(now.as_ref())
        }
        (
            Exact::Nft { replace, table },
            Difference::Nft {
                table: changed,
                now,
                ..
            },
        ) => table == changed && *replace == now.is_some(),
        _ => false,
    }
}

fn is_route(
    verb: Verb,
    via: Option<IpAddr>,
    dev: Option<&str>,
    before: &[RouteState],
    now: &[RouteState],
) -> bool {
    let asked = |route: &RouteState| {
        // What names no interface leaves it to the kernel.
        let found = || route.hops.first()?.dev.clone();
        let dev = dev.map(str::to_owned).or_else(found);
        route.same_way(&RouteState::asked(route.key.clone(), via, dev))
    };
    match verb {
        Verb::Delete => now.iter().all(|route| before.contains(route)),
        Verb::Add | Verb::Replace => {
            !now.is_empty()
                && now
                    .iter()
                    .all(|route| before.contains(route) || asked(route))
        }
    }
}

/// What the kernel does by itself when what is declared is done.
struct Consequences<'a> {
    touched: Touched,
    /// Interfaces that something was declared of.
    devices: BTreeSet<&'a str>,
    before: &'a Network,
    now: &'a Network,
}

impl<'a> Consequences<'a> {
    fn of(
        grants: &'a [Exact],
        brokered: &[Inverse],
        before: &'a Network,
        now: &'a Network,
    ) -> Self {
        let mut inverses = brokered.to_vec();
        let mut devices = BTreeSet::new();
        for grant in grants {
            match grant {
                Exact::Link { dev, up, mtu } => {
                    let mut links = before.links.iter();
                    let Some(link) = links.find(|link| link.name == *dev) else {
                        continue;
                    };
                    devices.insert(dev.as_str());
                    inverses.push(Inverse::Link {
                        before: link.clone(),
                        after: LinkState {
                            // What was set down and up again shows in what it lost alone.
                            up: up.unwrap_or(link.up),
                            mtu: mtu.unwrap_or(link.mtu),
                            ..link.clone()
                        },
                    });
                }
                Exact::Address { address, dev, .. } => {
                    let own =
                        |state: &&AddressState| state.address == *address && state.dev == *dev;
                    devices.insert(dev.as_str());
                    inverses.push(Inverse::Address {
                        before: before.addresses.iter().find(own).cloned(),
                        after: now.addresses.iter().find(own).cloned(),
                    });
                }
                _ => {}
            }
        }
        let mut touched = Touched::by(&inverses);
        // What a granted object is itself is declared or not; only an address that went takes others with it by its name.
        let own = Touched::by(brokered).objects;
        touched
            .objects
            .retain(|object| own.contains(object) || matches!(object, ObjectId::Address(..)));
        Self {
            touched,
            devices,
            before,
            now,
        }
    }

    fn explain(&self, difference: &Difference) -> bool {
        let here = |dev: &str| self.devices.contains(dev);
        let made = match difference {
            // A link that comes up gets its link-local address.
            Difference::Address {
                before: None,
                now: Some(now),
            } => here(&now.dev) && now.is_kernel_made(),
            // What went is explained by what took it.
            Difference::Route { before, now, .. } => {
                before.iter().all(|route| now.contains(route))
                    && now
                        .iter()
                        .all(|route| before.contains(route) || self.is_made(route, &here))
            }
            _ => false,
        };
        made || self.touched.explains(difference, Some(self.before))
    }

    /// A route that the kernel makes of an address, or of a link that is up: the word of the route alone is not taken for
    /// that, a script can write it, too.
    fn is_made(&self, route: &RouteState, here: &impl Fn(&str) -> bool) -> bool {
        let destination = route.key.destination;
        let on = |hop: &Hop| hop.via.is_none() && hop.dev.as_deref().is_some_and(here);
        let of_link = match destination.address {
            IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        let of_address = || {
            self.now.addresses.iter().filter(|a| here(&a.dev)).any(|a| {
                within(destination, a.address)
                    && (destination.length == a.address.length || route.key.table == LOCAL)
            })
        };
        route.is_kernel_made() && route.hops.iter().all(on) && (of_link || of_address())
    }
}

/// True if the network `inner` lies in that of `outer`.
fn within(inner: Prefix, outer: Prefix) -> bool {
    inner.length >= outer.length
        && super::grant::network(Prefix {
            address: inner.address,
            length: outer.length,
        }) == super::grant::network(outer)
}

#[cfg(test)]
mod tests;
