//! One pass over what is not as before: each difference is taken back, in the order in which they hang together.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::World;
use crate::rollback::address::{self, AddressState};
use crate::rollback::checkpoint::{Checkpoint, Scope};
use crate::rollback::difference::Difference;
use crate::rollback::inverse::{ObjectId, UndoError, put_file, put_table, write_sysctl};
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::link::{self, LinkState, Names};
use crate::rollback::route::{self, RouteKey, RouteState};
use crate::rollback::rule::RuleState;
use crate::rollback::touched::Touched;
use crate::rollback::{beyond, neighbour, rule, service, wireguard};

pub(super) async fn repair(
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
        links: checkpoint
            .network
            .as_ref()
            .map_or(&[][..], |network| &network.links),
        rules: checkpoint
            .network
            .as_ref()
            .map_or(&[][..], |network| &network.rules),
        door: None,
        routes: None,
    };
    let mut wrong = wrong.to_vec();
    for (now, name) in renamed(&wrong) {
        let back = async {
            let (kernel, _) = pass.door().await?;
            link::rename(kernel, now.seen.index, name).await
        };
        if let Err(error) = back.await {
            failures.insert(format!("link {name}"), error.to_string());
        }
    }
    // What else was changed of those shows under the old name at the next look.
    let back: BTreeSet<u32> = renamed(&wrong).map(|(now, _)| now.seen.index).collect();
    wrong.retain(|d| !matches!(d, Difference::Link { before, now } if before.iter().chain(now).any(|l| back.contains(&l.seen.index))));
    for difference in &wrong {
        let outcome = match ipv4_device(difference) {
            Some(dev) if devices.insert(dev.clone()) => {
                order_addresses(checkpoint, now, &wrong, &dev)
                    .await
                    .map_err(UndoError::from)
            }
            Some(_) => continue,
            None => pass.repair(difference).await,
        };
        if let Err(error) = outcome {
            failures.insert(difference.subject().to_string(), error.to_string());
        }
    }
    failures
}

/// Links that go by another name now, each with the name that it had.
fn renamed(wrong: &[Difference]) -> impl Iterator<Item = (&LinkState, &str)> {
    wrong.iter().filter_map(|difference| {
        let Difference::Link {
            before: None,
            now: Some(now),
        } = difference
        else {
            return None;
        };
        let name = wrong.iter().find_map(|other| match other {
            Difference::Link {
                before: Some(gone),
                now: None,
            } if gone.seen.index == now.seen.index => Some(gone.name.as_str()),
            _ => None,
        });
        name.map(|name| (now, name))
    })
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
    /// Those of the state before.
    links: &'a [LinkState],
    rules: &'a [RuleState],
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
            Difference::Link { before, now } => {
                self.repair_link(before.as_ref(), now.as_ref()).await
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
            Difference::Beyond { key, before, now } => {
                let bridge = |index| {
                    let mut links = self.links.iter();
                    links.any(|l| l.seen.index == index && l.kind.as_deref() == Some("bridge"))
                };
                Ok(beyond::restore(key.kind, before.as_ref(), now.as_ref(), &bridge).await?)
            }
            Difference::Rule { rule, before } => {
                let rules = self.rules;
                let (kernel, _) = self.door().await?;
                match (before, rule.key()) {
                    // Among rules of one priority the order decides.
                    (true, Some(key)) => {
                        let place = rule::beside(rules, &key);
                        Ok(rule::restore(kernel, &key, &place).await?)
                    }
                    (true, None) => Ok(rule::add(kernel, rule).await?),
                    (false, _) => Ok(rule::remove(kernel, rule).await?),
                }
            }
            // A parameter goes and comes with its interface.
            Difference::AddressOrder { .. }
            | Difference::Neighbour {
                before: None,
                now: None,
            }
            | Difference::Sysctl { before: None, .. } => Ok(()),
        }
    }

    async fn repair_link(
        &mut self,
        before: Option<&LinkState>,
        now: Option<&LinkState>,
    ) -> Result<(), UndoError> {
        match (before, now) {
            (Some(before), Some(now)) => {
                let (kernel, names) = self.door().await?;
                Ok(link::restore(kernel, names, before, now).await?)
            }
            (None, Some(now)) => {
                let (kernel, names) = self.door().await?;
                Ok(link::remove(kernel, names.require(&now.name)?).await?)
            }
            (Some(gone), None) => Err(UndoError::LinkGone {
                name: gone.name.clone(),
            }),
            (None, None) => Ok(()),
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
