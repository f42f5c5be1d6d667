//! Peers of WireGuard: `set`, `remove`, with the meaning that `wg set` gives them.

use super::{BrokerError, Plan, World};
use crate::rollback::inverse::Inverse;
use crate::rollback::wireguard::{self, PeerState, PeerWish, PublicKey, WireguardError};

/// What is about to be done.
pub(super) struct Act {
    world: World,
    dev: String,
    key: PublicKey,
    peer: Option<PeerState>,
}

impl Act {
    pub(super) async fn run(&self) -> Result<(), WireguardError> {
        wireguard::put(&self.world, &self.dev, self.key, self.peer.as_ref()).await
    }
}

pub(super) async fn plan(
    world: &World,
    dev: String,
    key: PublicKey,
    set: Option<PeerWish>,
) -> Result<Option<Plan>, BrokerError> {
    let failed = |source| BrokerError::Wireguard {
        asked: format!("wireguard set {dev} peer {key}"),
        source,
    };
    let peers = wireguard::peers(world, &dev).await.map_err(failed)?;
    let before = peers.into_iter().find(|p| p.key == key);
    let after = match set {
        None if before.is_none() => return Err(failed(WireguardError::NoPeer)),
        None => None,
        Some(wish) => Some(wish.of(before.as_ref(), &dev, key)),
    };
    if after == before {
        return Ok(None);
    }
    Ok(Some(Plan {
        inverse: Inverse::Peer {
            dev: dev.clone(),
            key,
            before,
            after: after.clone(),
        },
        act: super::Act::Wireguard(Act {
            world: world.clone(),
            dev,
            key,
            peer: after,
        }),
    }))
}
