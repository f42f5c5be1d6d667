//! The way back of one operation: what its object was before, written down before the operation is done.

use std::fmt;
use std::io;

use aizen_protocol::id::Digest;
use serde::{Deserialize, Serialize};

use super::address::{self, AddressState};
use super::checkpoint::{Network, Scope};
use super::file::{FileError, FileState, Times};
use super::kernel::{Kernel, KernelError};
use super::link::{self, LinkState};
use super::route::{self, RouteKey, RouteState};
use super::sysctl::{self, SysctlKey};
use crate::broker::World;

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
                let network = Network::read(kernel).await?;
                let Some(key) = before.as_ref().or(after.as_ref()).map(AddressState::key) else {
                    return Ok(());
                };
                let now = network.addresses.iter().find(|a| a.key() == key);
                if now.map(AddressState::canonical) == before.as_ref().map(AddressState::canonical)
                {
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
            (Self::Route { .. } | Self::Address { .. } | Self::Link { .. }, None) => {
                Box::pin(self.undo(world, scope, Some(&Kernel::open()?))).await
            }
        }
    }
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
        }
    }
}
