//! What somebody else did meanwhile to the objects of a change.

use aizen_protocol::id::Digest;
use aizen_protocol::private::Text;

use crate::broker::World;
use crate::rollback::checkpoint::Checkpoint;
use crate::rollback::file::FileState;
use crate::rollback::inverse::{Inverse, uci};
use crate::rollback::neighbour::NeighbourState;
use crate::rollback::nft::{self, TableState};
use crate::rollback::route::RouteState;
use crate::rollback::rule::RuleState;
use crate::rollback::sysctl;
use crate::rollback::touched::Touched;
use crate::rollback::wireguard::PeerState;

/// Objects of the change that are neither as before nor as any of its operations left them.
pub(super) async fn foreign(
    world: &World,
    checkpoint: &Checkpoint,
    inverses: &[Inverse],
    touched: &Touched,
) -> Vec<Text> {
    // Listing tables takes long, and only a change of one needs them here.
    let tables = inverses.iter().any(|i| matches!(i, Inverse::Nft { .. }));
    let Ok(now) = checkpoint.again_with(world, tables).await else {
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
        Inverse::Address { .. }
        | Inverse::Service { .. }
        | Inverse::UciReload { .. }
        | Inverse::Unbrokered { .. } => true,
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
            let value = sysctl::read(key).ok().flatten();
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
    after: Option<&Digest>,
) -> bool {
    let state = now.tables.iter().find_map(|tables| tables.get(table));
    let plain = |state: &TableState| state.plain.clone();
    let (state, before) = (state.map(plain), before.map(plain));
    // What the operation leaves is not always known; then nobody is accused.
    state == before || after.is_none_or(|after| nft::digest(state.as_deref()) == *after)
}

fn knows_file(now: &Checkpoint, path: &str, before: &FileState, after: Option<&Digest>) -> bool {
    now.files.get(path).is_none_or(|state| {
        let digest = match state {
            FileState::Absent => None,
            FileState::Regular(file) => Some(Digest::of(&file.content)),
        };
        state.canonical() == before.canonical() || digest.as_ref() == after
    })
}
