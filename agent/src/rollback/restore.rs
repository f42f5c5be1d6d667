//! Putting the device back: inverses newest first, then whatever the change moved besides, until the state is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aizen_protocol::private::Text;

use super::checkpoint::{Checkpoint, Scope};
use super::difference::Difference;
use super::inverse::Inverse;
use super::service::{self, Deed};
use super::touched::Touched;
use crate::broker::World;

mod foreign;
mod pass;

use foreign::foreign;
use pass::repair;

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
        | Inverse::Unbrokered { .. }
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
    if inverses
        .iter()
        .any(|i| matches!(i, Inverse::Unbrokered { .. }))
    {
        failures.insert(
            "the network".to_owned(),
            "what the script changed with its own hands comes back by the state before alone"
                .to_owned(),
        );
    }
    let told = failures.into_iter();
    told.map(|(what, error)| Text(format!("{what}: {error}")))
        .collect()
}

/// Makes what `choose` picks of the differences what `checkpoint` says, whoever changed it. Gives the state as read back
/// and what failed, by the difference's subject.
pub(crate) async fn put_back(
    world: &World,
    checkpoint: &Checkpoint,
    choose: &dyn Fn(&Checkpoint) -> Vec<Difference>,
) -> (Result<Checkpoint, String>, BTreeMap<String, String>) {
    let nobodys = Touched::default();
    let mut failures = BTreeMap::new();
    let mut now = Err(String::from("not read yet"));
    for wait in WAITS {
        tokio::time::sleep(wait).await;
        now = checkpoint.again(world).await.map_err(|e| e.to_string());
        let Ok(state) = &now else { continue };
        let wrong = choose(state);
        if wrong.is_empty() {
            return (now, BTreeMap::new());
        }
        failures = repair(world, checkpoint, state, &wrong, &nobodys).await;
    }
    if now.is_ok() {
        now = checkpoint.again(world).await.map_err(|e| e.to_string());
    }
    (now, failures)
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
            if let Some(error) = failures.get(&difference.subject().to_string()) {
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
