//! Peers of WireGuard in the one form in which they are compared.

use std::net::SocketAddr;

use aizen_protocol::package::manifest::{
    Operation, Value, WireguardOperation, WireguardPeer, WireguardPeerName,
};

use super::{Exact, GrantError, device, literal, network, not_an_address};
use crate::rollback::wireguard::{PeerWish, PublicKey};

pub(super) fn exact(operation: &WireguardOperation) -> Result<Exact, GrantError> {
    let key = |text: &str| {
        PublicKey::parse(text).ok_or_else(|| GrantError::NotAKey(text.chars().take(80).collect()))
    };
    match operation {
        WireguardOperation::SetPeer(peer) => Ok(Exact::Wireguard {
            dev: device(&peer.dev)?,
            key: key(&peer.peer)?,
            set: Some(wish(peer)?),
        }),
        WireguardOperation::RemovePeer(name) => Ok(Exact::Wireguard {
            dev: device(&name.dev)?,
            key: key(&name.peer)?,
            set: None,
        }),
    }
}

fn wish(peer: &WireguardPeer) -> Result<PeerWish, GrantError> {
    let endpoint = match (&peer.endpoint, peer.port) {
        (None, None) => None,
        (Some(address), Some(port)) if port > 0 => {
            let text = literal(address)?;
            let address = text.parse().map_err(|_| not_an_address(text))?;
            Some(SocketAddr::new(address, port))
        }
        _ => return Err(GrantError::NoEndpoint),
    };
    let mut allowed = Vec::new();
    for prefix in &peer.allowed_ips {
        let text = literal(prefix)?;
        allowed.push(network(text.parse().map_err(|_| not_an_address(text))?));
    }
    allowed.sort();
    allowed.dedup();
    Ok(PeerWish {
        endpoint,
        keepalive: peer.keepalive,
        allowed: Some(allowed).filter(|list| !list.is_empty()),
    })
}

pub(super) fn operation(dev: &str, key: PublicKey, set: Option<&PeerWish>) -> Operation {
    let (dev, peer) = (dev.to_owned(), key.to_string());
    Operation::Wireguard(match set {
        None => WireguardOperation::RemovePeer(WireguardPeerName { dev, peer }),
        Some(wish) => WireguardOperation::SetPeer(WireguardPeer {
            dev,
            peer,
            endpoint: wish.endpoint.map(|e| Value(e.ip().to_string())),
            port: wish.endpoint.map(|e| e.port()),
            keepalive: wish.keepalive,
            allowed_ips: wish
                .allowed
                .iter()
                .flatten()
                .map(|p| Value(p.to_string()))
                .collect(),
        }),
    })
}
