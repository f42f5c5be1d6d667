//! Putting the device back: inverses newest first, then whatever the change moved besides, until the state is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aizen_protocol::private::Text;

use super::address::{self, AddressState};
use super::checkpoint::{Checkpoint, Scope};
use super::difference::Difference;
use super::inverse::{Inverse, ObjectId, UndoError, put_file, put_table, uci, write_sysctl};
use super::kernel::{Kernel, KernelError};
use super::link::{self, Names};
use super::neighbour::{self, NeighbourState};
use super::nft::{self, TableState};
use super::route::{self, RouteKey, RouteState};
use super::rule::{self, RuleState};
use super::service::{self, Deed};
use super::touched::Touched;
use super::wireguard::{self, PeerState};
use crate::broker::World;

/// Waits between looks. IPv6 comes back by itself some time after its link (linkwatch), and one repair may be what the
/// next one waits for.
const WAITS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];

/// How a restore ended.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the change touched and could not be put back. Empty: the change left nothing behind.
    pub not_restored: Vec<Text>,
    /// What somebody else changed meanwhile. Objects that the change did not touch are left alone; one that it did is
    /// put back.
    pub drift: Vec<Text>,
    /// The state as read back; none if it could not be read.
    pub after: Option<Checkpoint>,
}

/// Undoes `inverses` (oldest first, as journalled) and repairs what they moved besides, so that `checkpoint` holds
/// again. May be called again after any interruption, with the same arguments; after a reboot, with
/// [`Checkpoint::persistent`]: inverses of objects that the checkpoint does not hold are passed over.
pub async fn restore(world: &World, checkpoint: &Checkpoint, inverses: &[Inverse]) -> Restored {
    let held = |inverse: &&Inverse| match inverse {
        Inverse::File { .. } | Inverse::Uci { .. } | Inverse::UciReload { .. } => true,
        Inverse::Peer { dev, .. } => checkpoint.peers.contains_key(dev),
        Inverse::Service { name, .. } => checkpoint.services.contains_key(name),
        Inverse::Nft { .. } => checkpoint.tables.is_some(),
        Inverse::Route { .. }
        | Inverse::Address { .. }
        | Inverse::Link { .. }
        | Inverse::Rule { .. }
        | Inverse::Neighbour { .. }
        | Inverse::Sysctl { .. } => checkpoint.network.is_some(),
    };
    let inverses: Vec<Inverse> = inverses.iter().filter(held).cloned().collect();
    let inverses = inverses.as_slice();
    let touched = Touched::by(inverses);
    let mut failures = BTreeMap::new();
    let drift = foreign(world, checkpoint, inverses, &touched).await;
    stop_what_it_started(world, inverses, &mut failures).await;
    undo(world, &checkpoint.scope, inverses, &mut failures).await;
    services(world, inverses, &mut failures).await;
    let mut now = Err(String::from("not read yet"));
    for wait in WAITS {
        tokio::time::sleep(wait).await;
        now = checkpoint.again(world).await.map_err(|e| e.to_string());
        let Ok(state) = &now else { continue };
        let wrong = explained(checkpoint, state, &touched);
        if wrong.is_empty() {
            break;
        }
        failures = repair(world, checkpoint, state, &wrong, &touched).await;
    }
    // The last repair is read back too.
    if now
        .as_ref()
        .is_ok_and(|state| !explained(checkpoint, state, &touched).is_empty())
    {
        now = checkpoint.again(world).await.map_err(|e| e.to_string());
    }
    conclude(checkpoint, &touched, now, &failures, drift)
}

/// Undoes `inverses` by themselves, where the checkpoint is lost: nothing is compared, and what they moved besides stays.
/// Gives what failed.
pub async fn undo_alone(world: &World, inverses: &[Inverse]) -> Vec<Text> {
    let scope = Scope::of_files(inverses.iter().filter_map(|inverse| match inverse {
        Inverse::File { path, .. } | Inverse::Uci { path, .. } => Some(path.clone()),
        _ => None,
    }));
    let mut failures = BTreeMap::new();
    stop_what_it_started(world, inverses, &mut failures).await;
    for wait in WAITS {
        tokio::time::sleep(wait).await;
        failures.clear();
        undo(world, &scope, inverses, &mut failures).await;
        if failures.is_empty() {
            break;
        }
    }
    services(world, inverses, &mut failures).await;
    let told = failures.into_iter();
    told.map(|(what, error)| Text(format!("{what}: {error}")))
        .collect()
}

fn conclude(
    checkpoint: &Checkpoint,
    touched: &Touched,
    now: Result<Checkpoint, String>,
    failures: &BTreeMap<String, String>,
    mut drift: Vec<Text>,
) -> Restored {
    let state = match now {
        Ok(state) => state,
        Err(error) => {
            let unread = Text(format!("the state can't be read back: {error}"));
            return Restored {
                not_restored: vec![unread],
                drift,
                after: None,
            };
        }
    };
    let mut not_restored = Vec::new();
    for difference in checkpoint.difference(&state) {
        let mut sentence = difference.to_string();
        if touched.explains(&difference, checkpoint.network.as_ref()) {
            if let Some(error) = failures.get(&subject(&difference)) {
                sentence += &format!(" ({error})");
            }
            not_restored.push(Text(sentence));
        } else {
            drift.push(Text(sentence + "; not touched by this change, left alone"));
        }
    }
    Restored {
        not_restored,
        drift,
        after: Some(state),
    }
}

fn explained(checkpoint: &Checkpoint, now: &Checkpoint, touched: &Touched) -> Vec<Difference> {
    let mut wrong = checkpoint.difference(now);
    wrong.retain(|d| touched.explains(d, checkpoint.network.as_ref()));
    wrong
}

/// Objects of the change that are neither as before nor as any of its operations left them.
async fn foreign(
    world: &World,
    checkpoint: &Checkpoint,
    inverses: &[Inverse],
    touched: &Touched,
) -> Vec<Text> {
    let Ok(now) = checkpoint.again(world).await else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for object in &touched.objects {
        let mut own = inverses.iter().filter(|i| i.object() == *object);
        if !own.any(|inverse| knows(inverse, &now, touched))
            && let Some(inverse) = inverses.iter().find(|i| i.object() == *object)
        {
            found.push(Text(format!(
                "somebody else changed what this change touched; it is put back: {inverse}"
            )));
        }
    }
    found
}

/// True if the object is as the operation found it or left it.
fn knows(inverse: &Inverse, now: &Checkpoint, touched: &Touched) -> bool {
    let Some(network) = now.network.as_ref() else {
        return match inverse {
            Inverse::File {
                path,
                before,
                after,
            } => knows_file(now, path, before, after.as_ref()),
            Inverse::Nft {
                table,
                before,
                after,
            } => knows_table(now, table, before.as_ref(), after.as_ref()),
            Inverse::Uci { .. } => knows_keys(inverse, now),
            Inverse::Peer { .. } => knows_peer(inverse, now),
            _ => true,
        };
    };
    match inverse {
        Inverse::Route { key, before, after } => {
            let routes: Vec<_> = network.routes.iter().filter(|r| r.key == *key).collect();
            let is = |state: &[RouteState]| {
                state.len() == routes.len() && state.iter().zip(&routes).all(|(a, b)| a.same_way(b))
            };
            // A link of it went down in the same change, which takes it away.
            let taken =
                routes.is_empty() && before.iter().chain(after).any(|r| touched.disturbs(r));
            taken || is(before) || is(after)
        }
        Inverse::Address { .. } | Inverse::Service { .. } | Inverse::UciReload { .. } => true,
        Inverse::Uci { .. } => knows_keys(inverse, now),
        Inverse::Peer { .. } => knows_peer(inverse, now),
        Inverse::Link { before, after } => {
            let link = network.links.iter().find(|l| l.name == before.name);
            link.is_some_and(|l| {
                [before, after]
                    .iter()
                    .any(|state| (state.up, state.mtu) == (l.up, l.mtu))
            })
        }
        Inverse::Sysctl { key, before, after } => {
            let value = super::sysctl::read(key).ok().flatten();
            value.is_some_and(|v| v == *before || v == *after)
        }
        Inverse::File {
            path,
            before,
            after,
        } => knows_file(now, path, before, after.as_ref()),
        Inverse::Nft {
            table,
            before,
            after,
        } => knows_table(now, table, before.as_ref(), after.as_ref()),
        Inverse::Rule { key, before, after } => {
            let has = |rules: &[RuleState]| rules.iter().any(|r| r.key().as_ref() == Some(key));
            let present = has(&network.rules);
            present == has(before) || present == *after
        }
        Inverse::Neighbour {
            dev,
            address,
            before,
            after,
        } => {
            let is = |n: &&NeighbourState| n.is_entry(dev, *address);
            let entry = network.neighbours.iter().find(is);
            // A link that goes down loses them.
            let lost = entry.is_none() && touched.down.contains(dev);
            lost || entry == before.as_ref() || entry == after.as_ref()
        }
    }
}

fn knows_keys(inverse: &Inverse, now: &Checkpoint) -> bool {
    match inverse {
        Inverse::Uci {
            path,
            before,
            after,
            keys,
        } => now
            .files
            .get(path)
            .is_none_or(|file| uci::knows(keys, before, after, file)),
        _ => true,
    }
}

fn knows_peer(inverse: &Inverse, now: &Checkpoint) -> bool {
    let Inverse::Peer {
        dev,
        key,
        before,
        after,
    } = inverse
    else {
        return true;
    };
    let plain = |peer: Option<&PeerState>| peer.map(PeerState::canonical);
    let peers = now.peers.get(dev);
    let is = plain(peers.and_then(|peers| peers.iter().find(|p| p.key == *key)));
    is == plain(before.as_ref()) || is == plain(after.as_ref())
}

fn knows_table(
    now: &Checkpoint,
    table: &str,
    before: Option<&TableState>,
    after: Option<&aizen_protocol::id::Digest>,
) -> bool {
    let state = now.tables.iter().find_map(|tables| tables.get(table));
    let plain = |state: &TableState| state.plain.clone();
    let (state, before) = (state.map(plain), before.map(plain));
    // What the operation leaves is not always known; then nobody is accused.
    state == before || after.is_none_or(|after| nft::digest(state.as_deref()) == *after)
}

fn knows_file(
    now: &Checkpoint,
    path: &str,
    before: &super::file::FileState,
    after: Option<&aizen_protocol::id::Digest>,
) -> bool {
    now.files.get(path).is_none_or(|state| {
        let digest = match state {
            super::file::FileState::Absent => None,
            super::file::FileState::Regular(file) => {
                Some(aizen_protocol::id::Digest::of(&file.content))
            }
        };
        state.canonical() == before.canonical() || digest.as_ref() == after
    })
}

/// Newest first; several operations on one object are one step back to the first of them, so that nothing is moved to
/// and fro when this runs again.
async fn undo(
    world: &World,
    scope: &Scope,
    inverses: &[Inverse],
    failures: &mut BTreeMap<String, String>,
) {
    let mut done = BTreeSet::new();
    for last in inverses.iter().rev() {
        let object = last.object();
        if !done.insert(object.clone()) {
            continue;
        }
        if matches!(last, Inverse::Service { .. } | Inverse::UciReload { .. }) {
            continue;
        }
        let same = inverses.iter().filter(|i| i.object() == object).cloned();
        let joined = same.reduce(|earlier, later| earlier.joined(&later));
        if let Err(error) = joined
            .as_ref()
            .unwrap_or(last)
            .undo(world, scope, None)
            .await
        {
            tracing::debug!(%error, "an inverse waits for another");
            failures.insert(format!("{object:?}"), error.to_string());
        }
    }
}

/// Services that did not run end first: what they would do meanwhile is not undone by anybody.
async fn stop_what_it_started(
    world: &World,
    inverses: &[Inverse],
    failures: &mut BTreeMap<String, String>,
) {
    for (name, (before, _)) in ran(inverses) {
        if !before && let Err(error) = service::settle(world, name, false, None).await {
            failures.insert(format!("service {name}"), error.to_string());
        }
    }
}

/// Services that ran run again; with files put back, they read them again, as they did for the change.
async fn services(world: &World, inverses: &[Inverse], failures: &mut BTreeMap<String, String>) {
    let files = inverses
        .iter()
        .any(|i| matches!(i, Inverse::File { .. } | Inverse::Uci { .. }));
    for (name, (before, deed)) in ran(inverses) {
        let again = Some(deed).filter(|_| files);
        if let Err(error) = service::settle(world, name, before, again).await {
            failures.insert(format!("service {name}"), error.to_string());
        }
    }
    let mut told = BTreeSet::new();
    for inverse in inverses {
        if let Inverse::UciReload { package } = inverse
            && told.insert(package)
            && let Err(error) = service::announce(world, package).await
        {
            tracing::warn!(%error, package, "its services could not be told that it is put back");
        }
    }
}

/// By service: whether it ran before all, and what was done to it last.
fn ran(inverses: &[Inverse]) -> BTreeMap<&String, (bool, Deed)> {
    let mut services: BTreeMap<&String, (bool, Deed)> = BTreeMap::new();
    for inverse in inverses {
        if let Inverse::Service { name, deed, before } = inverse {
            services.entry(name).or_insert((*before, *deed)).1 = *deed;
        }
    }
    services
}

/// What a difference and its failure share.
fn subject(difference: &Difference) -> String {
    let text = difference.to_string();
    text.split(": ").next().unwrap_or_default().to_owned()
}

async fn repair(
    world: &World,
    checkpoint: &Checkpoint,
    now: &Checkpoint,
    wrong: &[Difference],
    touched: &Touched,
) -> BTreeMap<String, String> {
    let mut failures = BTreeMap::new();
    let mut devices = BTreeSet::new();
    let mut pass = Pass {
        world,
        scope: &checkpoint.scope,
        touched,
        door: None,
        routes: None,
    };
    for difference in wrong {
        let outcome = match ipv4_device(difference) {
            Some(dev) if devices.insert(dev.clone()) => {
                order_addresses(checkpoint, now, wrong, &dev)
                    .await
                    .map_err(UndoError::from)
            }
            Some(_) => continue,
            None => pass.repair(difference).await,
        };
        if let Err(error) = outcome {
            failures.insert(subject(difference), error.to_string());
        }
    }
    failures
}

fn ipv4_device(difference: &Difference) -> Option<String> {
    match difference {
        Difference::Address { before, now } => {
            let state = before.as_ref().or(now.as_ref())?;
            state.address.address.is_ipv4().then(|| state.dev.clone())
        }
        Difference::AddressOrder { dev, .. } => Some(dev.clone()),
        _ => None,
    }
}

/// One pass of repairs: one connection, and one look at the routes after the addresses that they stand on.
struct Pass<'a> {
    world: &'a World,
    scope: &'a Scope,
    touched: &'a Touched,
    door: Option<(Kernel, Names)>,
    routes: Option<BTreeMap<RouteKey, Vec<RouteState>>>,
}

impl Pass<'_> {
    async fn door(&mut self) -> Result<&(Kernel, Names), KernelError> {
        let door = match self.door.take() {
            Some(door) => door,
            None => {
                let kernel = Kernel::open()?;
                let names = Names::of(&link::read(&kernel).await?);
                (kernel, names)
            }
        };
        Ok(self.door.insert(door))
    }

    async fn routes(&mut self, key: &RouteKey) -> Result<Vec<RouteState>, KernelError> {
        let routes = match self.routes.take() {
            Some(routes) => routes,
            None => {
                let (kernel, names) = self.door().await?;
                let mut routes: BTreeMap<RouteKey, Vec<RouteState>> = BTreeMap::new();
                for route in route::read(kernel, names).await? {
                    routes.entry(route.key.clone()).or_default().push(route);
                }
                routes
            }
        };
        let found = routes.get(key).cloned().unwrap_or_default();
        self.routes = Some(routes);
        Ok(found)
    }

    async fn repair(&mut self, difference: &Difference) -> Result<(), UndoError> {
        match difference {
            Difference::File { path, before, .. } => {
                let whole = self.touched.objects.contains(&ObjectId::File(path.clone()));
                if let (Some(keys), false) = (self.touched.uci.get(path), whole) {
                    return keys.undo(self.world, self.scope, None).await;
                }
                put_file(self.world, self.scope, path, before).await
            }
            Difference::Sysctl {
                key,
                before: Some(before),
                ..
            } => write_sysctl(key, before),
            Difference::Link {
                before: Some(before),
                now: Some(now),
            } => {
                let (kernel, names) = self.door().await?;
                Ok(link::restore(kernel, names, before, now).await?)
            }
            Difference::Address { before, now } => {
                let (kernel, names) = self.door().await?;
                if let Some(now) = now {
                    address::remove(kernel, names, now).await?;
                }
                match before {
                    Some(before) => Ok(address::add(kernel, names, before).await?),
                    None => Ok(()),
                }
            }
            Difference::Route { before, key, .. } => {
                let now = self.routes(key).await?;
                let (kernel, names) = self.door().await?;
                Ok(route::restore(kernel, names, before, &now).await?)
            }
            Difference::Neighbour {
                before: Some(before),
                ..
            } => {
                let (kernel, names) = self.door().await?;
                Ok(neighbour::put(kernel, names, before).await?)
            }
            Difference::Peer {
                dev, key, before, ..
            } => Ok(wireguard::put(self.world, dev, *key, before.as_ref()).await?),
            Difference::Service { name, before, .. } => {
                Ok(service::settle(self.world, name, *before, None).await?)
            }
            Difference::Nft { table, before, .. } => Ok(put_table(table, before.as_ref()).await?),
            Difference::Neighbour {
                before: None,
                now: Some(now),
            } => {
                let (kernel, names) = self.door().await?;
                Ok(neighbour::remove(kernel, names, now).await?)
            }
            Difference::Rule { rule, before } => {
                let (kernel, _) = self.door().await?;
                match before {
                    true => Ok(rule::add(kernel, rule).await?),
                    false => Ok(rule::remove(kernel, rule).await?),
                }
            }
            // Nothing here makes or removes links, and a parameter goes and comes with its interface.
            Difference::Link { .. }
            | Difference::AddressOrder { .. }
            | Difference::Neighbour {
                before: None,
                now: None,
            }
            | Difference::Sysctl { before: None, .. } => Ok(()),
        }
    }
}

/// Makes the IPv4 addresses of a device what they were, in their order; those that somebody else added stay, last.
async fn order_addresses(
    checkpoint: &Checkpoint,
    now: &Checkpoint,
    wrong: &[Difference],
    dev: &str,
) -> Result<(), KernelError> {
    let list = |state: &Checkpoint| -> Vec<AddressState> {
        let all = state.network.iter().flat_map(|n| &n.addresses);
        let mut list: Vec<_> = all
            .filter(|a| a.dev == dev && a.address.address.is_ipv4())
            .cloned()
            .collect();
        list.sort_by_key(AddressState::is_secondary);
        list
    };
    let ours = |key: &(
        String,
        aizen_protocol::private::Prefix,
        Option<std::net::IpAddr>,
    )| {
        wrong.iter().any(|d| matches!(d, Difference::Address { before, now } if before.as_ref().or(now.as_ref()).is_some_and(|a| a.key() == *key)))
    };
    let (before, present) = (list(checkpoint), list(now));
    let has = |list: &[AddressState], a: &AddressState| list.iter().any(|b| b.key() == a.key());
    let mut wanted: Vec<AddressState> = before
        .iter()
        .filter(|a| has(&present, a) || ours(&a.key()))
        .cloned()
        .collect();
    wanted.extend(
        present
            .iter()
            .filter(|a| !has(&before, a) && !ours(&a.key()))
            .cloned(),
    );
    let kernel = Kernel::open()?;
    let names = Names::of(&link::read(&kernel).await?);
    // What only has to go goes alone: the others keep their routes.
    let (stay, extra): (Vec<_>, Vec<_>) = present.into_iter().partition(|a| has(&wanted, a));
    let kept = wanted
        .iter()
        .zip(&stay)
        .take_while(|(a, b)| a.canonical() == b.canonical())
        .count();
    for gone in stay.iter().skip(kept).rev().chain(extra.iter().rev()) {
        match address::remove(&kernel, &names, gone).await {
            // A secondary one went with its primary.
            Err(error) if error.errno() != Some(nix::libc::EADDRNOTAVAIL) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    for missing in wanted.iter().skip(kept) {
        match address::add(&kernel, &names, missing).await {
            Err(error) if error.errno() != Some(nix::libc::EEXIST) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
