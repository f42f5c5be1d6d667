//! Routes: `add`, `replace`, `delete`, with the meaning that `ip route` gives them.

use std::net::IpAddr;

use super::grant::Verb;
use super::{BrokerError, Plan};
use crate::rollback::checkpoint::Network;
use crate::rollback::inverse::Inverse;
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::link::Names;
use crate::rollback::route::{self, Put, RouteKey, RouteState};

/// What is about to be done.
pub(super) struct Act {
    route: RouteState,
    how: Option<Put>,
    names: Names,
}

impl Act {
    pub(super) async fn run(&self, kernel: &Kernel) -> Result<(), KernelError> {
        match self.how {
            Some(how) => route::put(kernel, &self.names, &self.route, how).await,
            None => route::remove(kernel, &self.names, &self.route).await,
        }
    }
}

pub(super) async fn plan(
    network: &Network,
    kernel: Option<&Kernel>,
    verb: Verb,
    key: RouteKey,
    via: Option<IpAddr>,
    dev: Option<String>,
) -> Result<Option<Plan>, BrokerError> {
    let names = network.names();
    if let Some(dev) = dev.as_ref().filter(|dev| names.index(dev).is_none()) {
        return Err(BrokerError::NoDevice(dev.clone()));
    }
    let before: Vec<RouteState> = network
        .routes
        .iter()
        .filter(|r| r.key == key)
        .cloned()
        .collect();
    if verb == Verb::Delete {
        return delete(network, names, key, &before, via, dev).map(Some);
    }
    let dev = match (dev, via, kernel) {
        (None, Some(via), Some(kernel)) => Some(straight_to(kernel, &names, &key, via).await?),
        (dev, ..) => dev,
    };
    let route = RouteState::asked(key.clone(), via, dev);
    let (how, after) = match (verb, before.first()) {
        (Verb::Add, Some(existing)) => {
            return Err(BrokerError::RouteExists {
                key,
                existing: existing.to_string(),
            });
        }
        (_, Some(first)) if first.same_way(&route) => return Ok(None),
        (Verb::Add, None) => (Put::Add, vec![route.clone()]),
        (Verb::Replace | Verb::Delete, _) => {
            let mut after = before.clone();
            after.splice(..after.len().min(1), [route.clone()]);
            (Put::Replace, after)
        }
    };
    let inverse = Inverse::Route { key, before, after };
    Ok(Some(Plan {
        inverse,
        act: super::Act::Route(Act {
            route,
            how: Some(how),
            names,
        }),
    }))
}

fn delete(
    network: &Network,
    names: Names,
    key: RouteKey,
    before: &[RouteState],
    via: Option<IpAddr>,
    dev: Option<String>,
) -> Result<Plan, BrokerError> {
    let matches = |route: &&RouteState| match route.hops.as_slice() {
        [hop] => {
            via.is_none_or(|v| hop.via == Some(v))
                && dev.as_ref().is_none_or(|d| hop.dev.as_ref() == Some(d))
        }
        _ => via.is_none() && dev.is_none(),
    };
    let found: Vec<&RouteState> = before.iter().filter(matches).collect();
    let [route] = found.as_slice() else {
        let to = key.destination;
        let mut same: Vec<&RouteState> = network
            .routes
            .iter()
            .filter(|r| r.key.destination == to)
            .collect();
        same.sort_by_key(|r| r.key.table != key.table);
        let same = same.into_iter();
        let near: Vec<String> = same.take(4).map(|r| format!("'{r}'")).collect();
        let near = if near.is_empty() {
            String::new()
        } else {
            format!("; there is {}", near.join(" and "))
        };
        return Err(BrokerError::NoRoute { key, near });
    };
    let route = (*route).clone();
    let after = before.iter().filter(|r| **r != route).cloned().collect();
    let inverse = Inverse::Route {
        key,
        before: before.to_vec(),
        after,
    };
    Ok(Plan {
        inverse,
        act: super::Act::Route(Act {
            route,
            how: None,
            names,
        }),
    })
}

/// The interface whose network holds the next hop.
async fn straight_to(
    kernel: &Kernel,
    names: &Names,
    key: &RouteKey,
    via: IpAddr,
) -> Result<String, BrokerError> {
    let unread = |source| BrokerError::Unread {
        asked: format!("route {key} via {via}"),
        source,
    };
    let hop = route::way_to(kernel, names, via).await.map_err(unread)?;
    hop.filter(|hop| hop.via.is_none())
        .and_then(|hop| hop.dev)
        .ok_or_else(|| BrokerError::Unreachable {
            key: key.clone(),
            via,
        })
}
