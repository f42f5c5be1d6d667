//! The way back of one operation: what its object was before, written down before the operation is done.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;

use aizen_protocol::id::Digest;
use serde::{Deserialize, Serialize};

use super::address::{self, AddressState};
use super::checkpoint::{Network, Scope};
use super::difference::Subject;
use super::file::{FileError, FileState, Times};
use super::kernel::{Kernel, KernelError};
use super::link::{self, LinkState};
use super::neighbour::{self, NeighbourState};
use super::nft::{self, NftError, TableState};
use super::route::{self, RouteKey, RouteState};
use super::rule::{self, RuleKey, RuleState};
use super::service::{self, Deed, ServiceError};
use super::sysctl::{self, SysctlKey};
use super::uci::UciError;
use super::wireguard::{self, PeerState, PublicKey, WireguardError};
use crate::broker::World;
use crate::collect::netlink::NetlinkError;

pub(crate) mod uci;

pub(crate) use uci::KeyChange;

/// What one operation does to its object, and so how to undo it. Undoing what was never done, or twice, changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inverse {
    /// The routes of one key.
    Route {
        /// Which.
        key: RouteKey,
        /// What was there, in the kernel's order.
        before: Vec<RouteState>,
        /// What the operation leaves there.
        after: Vec<RouteState>,
    },
    /// One address of one interface.
    Address {
        /// What was there.
        before: Option<AddressState>,
        /// What the operation leaves there.
        after: Option<AddressState>,
    },
    /// Settings of an interface.
    Link {
        /// What it was.
        before: LinkState,
        /// What the operation makes of it.
        after: LinkState,
    },
    /// A kernel parameter.
    Sysctl {
        /// Which.
        key: SysctlKey,
        /// Its value.
        before: String,
        /// The value that the operation gives it.
        after: String,
    },
    /// A file.
    File {
        /// Which.
        path: String,
        /// What it was.
        before: FileState,
        /// SHA-256 of the content that the operation gives it; none if it removes it.
        after: Option<Digest>,
    },
    /// A policy rule.
    Rule {
        /// Which.
        key: RuleKey,
        /// All of its family and priority, in order.
        before: Vec<RuleState>,
        /// True if the operation leaves it there.
        after: bool,
    },
    /// A table of nftables.
    Nft {
        /// `FAMILY NAME`.
        table: String,
        /// What was there.
        before: Option<TableState>,
        /// Digest of what the operation leaves there, as listed; none if that can't be known before.
        after: Option<Digest>,
    },
    /// A service.
    Service {
        /// Which.
        name: String,
        /// What the operation does to it.
        deed: Deed,
        /// True if it ran.
        before: bool,
    },
    /// A peer of WireGuard.
    Peer {
        /// Interface.
        dev: String,
        /// Which.
        key: PublicKey,
        /// What it was.
        before: Option<PeerState>,
        /// What the operation makes of it.
        after: Option<PeerState>,
    },
    /// Keys of one file of OpenWrt's configuration.
    Uci {
        /// The file.
        path: String,
        /// What it was.
        before: FileState,
        /// SHA-256 of the contents that the operations give it.
        after: Vec<Digest>,
        /// The keys, in the order of the operations.
        keys: Vec<KeyChange>,
    },
    /// Services were told to read a package's configuration again: they are told once more when it is back.
    UciReload {
        /// Which.
        package: String,
    },
    /// A permanent entry of the neighbour table.
    Neighbour {
        /// Interface.
        dev: String,
        /// Whose.
        address: IpAddr,
        /// What was there.
        before: Option<NeighbourState>,
        /// What the operation leaves there.
        after: Option<NeighbourState>,
    },
    /// What a script with capabilities changed with its own hands: it comes back by comparison with the state before.
    Unbrokered {
        /// What differed once it had ended; none while that is not known: anything may.
        subjects: Option<BTreeSet<Subject>>,
    },
}

/// Why something could not be undone.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// rtnetlink.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// WireGuard.
    #[error(transparent)]
    Wireguard(#[from] WireguardError),
    /// Configuration of OpenWrt.
    #[error(transparent)]
    Uci(#[from] UciError),
    /// nftables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// rtnetlink, with the kernel's own bytes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A link that was removed can't be made again: its driver and its hardware are not ours.
    #[error("the link {name} is gone and can't be made again from here")]
    LinkGone {
        /// Which.
        name: String,
    },
    /// A kernel parameter.
    #[error("{key}: {source}")]
    Sysctl {
        /// Which.
        key: SysctlKey,
        /// Why not.
        source: io::Error,
    },
}

/// What tells the object of an inverse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ObjectId {
    Route(RouteKey),
    Address(String, String),
    Link(String),
    Sysctl(SysctlKey),
    File(String),
    Rule(RuleKey),
    Neighbour(String, IpAddr),
    Nft(String),
    Service(String),
    Uci(String),
    UciReload(String),
    Peer(String, PublicKey),
    Unbrokered,
}

impl Inverse {
    pub(crate) fn object(&self) -> ObjectId {
        match self {
            Self::Route { key, .. } => ObjectId::Route(key.clone()),
            Self::Address { before, after } => {
                let state = before.as_ref().or(after.as_ref());
                let name =
                    |a: &AddressState| ObjectId::Address(a.dev.clone(), a.address.to_string());
                state.map_or_else(|| ObjectId::Address(String::new(), String::new()), name)
            }
            Self::Link { before, .. } => ObjectId::Link(before.name.clone()),
            Self::Sysctl { key, .. } => ObjectId::Sysctl(key.clone()),
            Self::File { path, .. } => ObjectId::File(path.clone()),
            Self::Rule { key, .. } => ObjectId::Rule(key.clone()),
            Self::Nft { table, .. } => ObjectId::Nft(table.clone()),
            Self::Service { name, .. } => ObjectId::Service(name.clone()),
            Self::Uci { path, .. } => ObjectId::Uci(path.clone()),
            Self::Peer { dev, key, .. } => ObjectId::Peer(dev.clone(), *key),
            Self::UciReload { package } => ObjectId::UciReload(package.clone()),
            Self::Neighbour { dev, address, .. } => ObjectId::Neighbour(dev.clone(), *address),
            Self::Unbrokered { .. } => ObjectId::Unbrokered,
        }
    }

    /// One inverse for two operations on one object, the earlier one first.
    pub(crate) fn joined(&self, later: &Self) -> Self {
        let mut joined = later.clone();
        match (&mut joined, self) {
            (Self::Route { before, .. }, Self::Route { before: first, .. }) => {
                before.clone_from(first)
            }
            (Self::Address { before, .. }, Self::Address { before: first, .. }) => {
                before.clone_from(first)
            }
            (Self::Link { before, .. }, Self::Link { before: first, .. }) => {
                before.clone_from(first)
            }
            (Self::Sysctl { before, .. }, Self::Sysctl { before: first, .. }) => {
                before.clone_from(first)
            }
            (Self::File { before, .. }, Self::File { before: first, .. }) => {
                before.clone_from(first)
            }
            (Self::Peer { before, .. }, Self::Peer { before: first, .. }) => {
                before.clone_from(first)
            }
            (Self::Service { before, .. }, Self::Service { before: first, .. }) => *before = *first,
            (
                Self::Uci {
                    before,
                    after,
                    keys,
                    ..
                },
                Self::Uci {
                    before: first,
                    after: earlier,
                    keys: before_them,
                    ..
                },
            ) => {
                before.clone_from(first);
                after.splice(..0, earlier.iter().copied());
                keys.splice(..0, before_them.iter().cloned());
            }
            (Self::Nft { before, .. }, Self::Nft { before: first, .. }) => before.clone_from(first),
            (Self::Rule { before, .. }, Self::Rule { before: first, .. }) => {
                before.clone_from(first)
            }
            (Self::Neighbour { before, .. }, Self::Neighbour { before: first, .. }) => {
                before.clone_from(first)
            }
            // Two operations are joined only if their objects are the same, so their kinds are.
            _ => {}
        }
        joined
    }

    /// Makes the object what it was before, whatever it is.
    pub(crate) async fn undo(
        &self,
        world: &World,
        scope: &Scope,
        kernel: Option<&Kernel>,
    ) -> Result<(), UndoError> {
        match (self, kernel) {
            (Self::Sysctl { key, before, .. }, _) => write_sysctl(key, before),
            (Self::File { path, before, .. }, _) => put_file(world, scope, path, before).await,
            (Self::Route { key, before, .. }, Some(kernel)) => {
                let network = Network::read(kernel).await?;
                let now: Vec<RouteState> = network
                    .routes
                    .iter()
                    .filter(|r| r.key == *key)
                    .cloned()
                    .collect();
                Ok(route::restore(kernel, &network.names(), before, &now).await?)
            }
            (Self::Address { before, after }, Some(kernel)) => {
                Ok(put_address(kernel, before.as_ref(), after.as_ref()).await?)
            }
            (Self::Link { before, .. }, Some(kernel)) => {
                let network = Network::read(kernel).await?;
                let gone = || KernelError::Refused {
                    errno: nix::libc::ENODEV,
                    said: None,
                };
                let now = network
                    .links
                    .iter()
                    .find(|l| l.name == before.name)
                    .ok_or_else(gone)?;
                Ok(link::restore(kernel, &network.names(), before, now).await?)
            }
            (Self::Nft { table, before, .. }, _) => Ok(put_table(table, before.as_ref()).await?),
            (Self::Service { name, before, .. }, _) => {
                Ok(service::settle(world, name, *before, None).await?)
            }
            (
                Self::Peer {
                    dev,
                    key,
                    before,
                    after,
                },
                _,
            ) => put_peer(world, dev, *key, before.as_ref(), after.as_ref()).await,
            (Self::UciReload { package }, _) => Ok(service::announce(world, package).await?),
            // The comparison that follows finds what it names.
            (Self::Unbrokered { .. }, _) => Ok(()),
            (
                Self::Uci {
                    path,
                    before,
                    after,
                    keys,
                },
                _,
            ) => uci::put(world, scope, path, before, after, keys).await,
            (Self::Rule { key, before, .. }, Some(kernel)) => {
                Ok(rule::restore(kernel, key, before).await?)
            }
            (
                Self::Neighbour {
                    dev,
                    address,
                    before,
                    ..
                },
                Some(kernel),
            ) => Ok(put_neighbour(kernel, dev, *address, before.as_ref()).await?),
            (
                Self::Route { .. }
                | Self::Address { .. }
                | Self::Link { .. }
                | Self::Rule { .. }
                | Self::Neighbour { .. },
                None,
            ) => Box::pin(self.undo(world, scope, Some(&Kernel::open()?))).await,
        }
    }
}

/// Makes a peer what it was, unless it is.
async fn put_peer(
    world: &World,
    dev: &str,
    key: PublicKey,
    before: Option<&PeerState>,
    after: Option<&PeerState>,
) -> Result<(), UndoError> {
    let now = wireguard::peers(world, dev).await?;
    if now.iter().find(|p| p.key == key) != before {
        // An endpoint can be changed, not taken away: who was waited for is added anew.
        if wireguard::was_dialled(before, after) {
            wireguard::put(world, dev, key, None).await?;
        }
        wireguard::put(world, dev, key, before).await?;
    }
    Ok(())
}

/// Makes an address what it was, unless it is.
async fn put_address(
    kernel: &Kernel,
    before: Option<&AddressState>,
    after: Option<&AddressState>,
) -> Result<(), KernelError> {
    let network = Network::read(kernel).await?;
    let Some(key) = before.or(after).map(AddressState::key) else {
        return Ok(());
    };
    let now = network.addresses.iter().find(|a| a.key() == key);
    if now.map(AddressState::canonical) == before.map(AddressState::canonical) {
        return Ok(());
    }
    if let Some(now) = now {
        address::remove(kernel, &network.names(), now).await?;
    }
    if let Some(before) = before {
        address::add(kernel, &network.names(), before).await?;
    }
    Ok(())
}

/// Makes a neighbour entry what it was, unless it is.
async fn put_neighbour(
    kernel: &Kernel,
    dev: &str,
    address: IpAddr,
    before: Option<&NeighbourState>,
) -> Result<(), KernelError> {
    let network = Network::read(kernel).await?;
    let is = |n: &&NeighbourState| n.is_entry(dev, address);
    match (before, network.neighbours.iter().find(is)) {
        (Some(before), now) if now != Some(before) => {
            neighbour::put(kernel, &network.names(), before).await
        }
        (None, Some(now)) => neighbour::remove(kernel, &network.names(), now).await,
        (Some(_) | None, _) => Ok(()),
    }
}

/// Makes a table what it was, unless it is.
pub(crate) async fn put_table(table: &str, before: Option<&TableState>) -> Result<(), NftError> {
    let now = nft::read().await?;
    let plain = |state: &TableState| state.plain.clone();
    if now.get(table).map(plain) == before.map(plain) {
        return Ok(());
    }
    nft::put(table, before.map(|b| b.text.as_str())).await
}

/// Writes a parameter unless it has the value.
pub(crate) fn write_sysctl(key: &SysctlKey, value: &str) -> Result<(), UndoError> {
    let failed = |source| UndoError::Sysctl {
        key: key.clone(),
        source,
    };
    if sysctl::read(key).map_err(failed)?.as_deref() == Some(value) {
        return Ok(());
    }
    sysctl::write(key, value).map_err(failed)
}

/// Puts a file back unless it is as it was.
pub(crate) async fn put_file(
    world: &World,
    scope: &Scope,
    path: &str,
    before: &FileState,
) -> Result<(), UndoError> {
    let Some(place) = scope.place(&world.root, path)? else {
        // Its folder is gone, and so is the file.
        return match before {
            FileState::Absent => Ok(()),
            FileState::Regular(_) => Err(FileError::System {
                path: path.to_owned(),
                doing: "find its folder",
                source: io::ErrorKind::NotFound.into(),
            }
            .into()),
        };
    };
    place.clean()?;
    if place
        .read()
        .is_ok_and(|now| now.canonical() == before.canonical())
    {
        return Ok(());
    }
    let state = before.clone();
    let put = tokio::task::spawn_blocking(move || place.make(&state, Times::Kept));
    Ok(put.await.unwrap_or_else(|_| {
        Err(FileError::System {
            path: path.to_owned(),
            doing: "put it back",
            source: io::ErrorKind::Interrupted.into(),
        })
    })?)
}

impl fmt::Display for Inverse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route { key, before, .. } => match before.as_slice() {
                [] => write!(f, "route delete {key}"),
                [one] => write!(f, "route replace {one}"),
                several => {
                    let several: Vec<String> = several.iter().map(ToString::to_string).collect();
                    write!(f, "routes of {key} again: {}", several.join("; "))
                }
            },
            Self::Address {
                before: Some(before),
                ..
            } => write!(f, "address add {before}"),
            Self::Address {
                after: Some(after), ..
            } => write!(f, "address delete {} dev {}", after.address, after.dev),
            Self::Address { .. } => f.write_str("nothing"),
            Self::Link { before, after } => {
                write!(f, "link set {}", before.name)?;
                if before.up != after.up {
                    f.write_str(if before.up { " up" } else { " down" })?;
                }
                if before.mtu != after.mtu {
                    write!(f, " mtu {}", before.mtu)?;
                }
                Ok(())
            }
            Self::Sysctl { key, before, .. } => write!(f, "sysctl {key}={before}"),
            Self::File {
                path,
                before: FileState::Absent,
                ..
            } => write!(f, "file delete {path}"),
            Self::File { path, before, .. } => write!(f, "file put back {path}: {before}"),
            Self::Service { name, deed, before } => match (before, deed) {
                (true, Deed::Restart | Deed::Reload) => {
                    write!(f, "service {} {name} with its files put back", deed.word())
                }
                (true, _) => write!(f, "service start {name}"),
                (false, _) => write!(f, "service stop {name}"),
            },
            Self::Uci { path, before, .. } => write!(f, "file put back {path}: {before}"),
            Self::Peer {
                before: Some(before),
                ..
            } => write!(f, "wireguard set {before}"),
            Self::Peer { dev, key, .. } => write!(f, "wireguard set {dev} peer {key} remove"),
            Self::UciReload { package } => write!(f, "uci reload {package} once it is put back"),
            Self::Nft {
                table,
                before: Some(before),
                ..
            } => write!(f, "nft replace-table {table} by its {before}"),
            Self::Nft { table, .. } => write!(f, "nft delete-table {table}"),
            Self::Rule { key, after, .. } => {
                write!(f, "rule {} {key}", if *after { "delete" } else { "add" })
            }
            Self::Neighbour {
                before: Some(before),
                ..
            } => write!(f, "neighbour replace {before}"),
            Self::Neighbour {
                dev,
                address,
                after: Some(_),
                ..
            } => write!(f, "neighbour delete {address} dev {dev}"),
            Self::Neighbour { .. } => f.write_str("the kernel learns it anew"),
            Self::Unbrokered { .. } => {
                f.write_str("comes back by comparison with the state before")
            }
        }
    }
}
