//! What acts on the device for a script that may not: typed operations, each granted exactly, each with its way back
//! written down before it is done.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use aizen_protocol::effect::ObjectChange;
use aizen_protocol::limit;
use aizen_protocol::package::manifest::{FileOperation, NftOperation, Operation};
use aizen_protocol::private::Prefix;

use crate::rollback::FileError;
use crate::rollback::checkpoint::{Network, Scope};
use crate::rollback::difference;
use crate::rollback::inverse::{Inverse, UndoError};
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::nft::Tables;
use crate::rollback::route::RouteKey;
use crate::rollback::service::{Recorded, ServiceError};
use crate::rollback::sysctl::SysctlKey;
use crate::rollback::wireguard::WireguardError;

mod address;
pub(crate) mod describe;
pub(crate) mod direct;
mod file;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
pub mod grant;
mod link;
mod neighbour;
mod nft;
mod owner;
mod route;
mod rule;
pub mod serve;
mod service;
mod sysctl;
mod uci;
mod wireguard;

pub(crate) use grant::network;
pub use grant::{GrantError, resolve_grants};
pub use nft::NftTextError;
pub use serve::{Answer, Served, pair, serve};
pub use uci::UciChangeError;
pub(crate) use uci::path as uci_path;

use describe::Described;
use grant::Exact;

/// Where operations act: files below `root`; netlink and `/proc/sys` in the current network namespace.
#[derive(Clone, Debug)]
pub struct World {
    /// `/`, or the folder of a shadow.
    pub root: PathBuf,
    recorded: Option<Recorded>,
}

impl World {
    /// The device whose files are below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            recorded: None,
        }
    }

    /// A shadow of it: what would be done to services is recorded there, not done.
    pub(crate) fn shadow(root: PathBuf, services: Recorded) -> Self {
        Self {
            root,
            recorded: Some(services),
        }
    }

    pub(crate) fn recorded(&self) -> Option<&Recorded> {
        self.recorded.as_ref()
    }
}

/// Most content that comes with an operation, bytes; none if none comes.
pub(crate) fn content_of(operation: &Operation) -> Option<usize> {
    match operation {
        Operation::File(FileOperation::Write(_)) => Some(limit::FILE_CONTENT),
        Operation::Nft(NftOperation::ReplaceTable(_)) => Some(limit::NFT_TABLE),
        _ => None,
    }
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Not in the manifest.
    #[error("{asked}: not granted; the manifest grants {granted}")]
    NotGranted {
        /// The operation.
        asked: String,
        /// What is.
        granted: String,
    },
    /// No operation at all.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The journal did not take the way back.
    #[error("{asked}: nothing was done, because the way back could not be written down: {source}")]
    Journal {
        /// The operation.
        asked: String,
        /// What the journal said.
        source: io::Error,
    },
    /// The route is there.
    #[error("route add {key}: it exists already: {existing}")]
    RouteExists {
        /// Which.
        key: RouteKey,
        /// As it is.
        existing: String,
    },
    /// The route is not there.
    #[error("route delete {key}: no such route{near}")]
    NoRoute {
        /// Which.
        key: RouteKey,
        /// Others to the same destination.
        near: String,
    },
    /// No interface leads straight to the next hop.
    #[error("route {key}: the next hop {via} is not on the network of any interface")]
    Unreachable {
        /// Which route.
        key: RouteKey,
        /// Next hop.
        via: IpAddr,
    },
    /// The address is there.
    #[error("address add {address} dev {dev}: it exists already")]
    AddressExists {
        /// Which.
        address: Prefix,
        /// Where.
        dev: String,
    },
    /// The address is not there.
    #[error("address delete {address} dev {dev}: no such address")]
    NoAddress {
        /// Which.
        address: Prefix,
        /// Where.
        dev: String,
    },
    /// The rule is there.
    #[error("rule add {0}: it exists already")]
    RuleExists(String),
    /// The rule is not there.
    #[error("rule delete {rule}: no such rule{near}")]
    NoRule {
        /// Which.
        rule: String,
        /// Others of the same priority.
        near: String,
    },
    /// The interface is not there.
    #[error("cannot find device \"{0}\"")]
    NoDevice(String),
    /// The parameter is not there.
    #[error("{0}: no such kernel parameter")]
    NoParameter(SysctlKey),
    /// The parameter can't be read or written.
    #[error("{key}: {doing}: {source}")]
    Parameter {
        /// Which.
        key: SysctlKey,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel took the write and kept another value.
    #[error("{key}: the kernel keeps {kept}, not {asked}")]
    ParameterKept {
        /// Which.
        key: SysctlKey,
        /// The value that was written.
        asked: String,
        /// The value that it has.
        kept: String,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file's folder is not there.
    #[error("file write {0}: its folder does not exist")]
    NoFolder(String),
    /// The file is not there.
    #[error("file delete {0}: no such file")]
    NoFile(String),
    /// A table of nftables.
    #[error("nft table {table}: {source}")]
    Nft {
        /// Which.
        table: String,
        /// Why not.
        source: NftTextError,
    },
    /// A service.
    #[error("{asked}: {source}")]
    Service {
        /// The operation.
        asked: String,
        /// Why not.
        source: ServiceError,
    },
    /// A peer of WireGuard.
    #[error("{asked}: {source}")]
    Wireguard {
        /// The operation.
        asked: String,
        /// Why not.
        source: WireguardError,
    },
    /// Configuration of OpenWrt.
    #[error("uci {key}: {source}")]
    Uci {
        /// Which key.
        key: String,
        /// Why not.
        source: UciChangeError,
    },
    /// The state could not be read.
    #[error("{asked}: the state before can't be read: {source}")]
    Unread {
        /// The operation.
        asked: String,
        /// Why not.
        source: KernelError,
    },
    /// The act failed; what it had begun is undone.
    #[error("{asked}: {source}")]
    Failed {
        /// The operation.
        asked: String,
        /// Why.
        source: UndoError,
    },
    /// More operations than one run may ask for.
    #[error("{0} operations were done in this run: no more are taken")]
    TooMany(usize),
}

/// An operation that was looked at and is about to be done.
struct Plan {
    inverse: Inverse,
    act: Act,
}

enum Act {
    Route(route::Act),
    Address(address::Act),
    Link(link::Act),
    Sysctl { key: SysctlKey, value: String },
    File(file::Act),
    Rule(rule::Act),
    Neighbour(neighbour::Act),
    Nft(nft::Act),
    Service(service::Act),
    Uci(uci::Act),
    Wireguard(wireguard::Act),
}

impl Act {
    async fn run(&self, kernel: Option<&Kernel>) -> Result<(), UndoError> {
        match (self, kernel) {
            (Self::Route(act), Some(kernel)) => Ok(act.run(kernel).await?),
            (Self::Address(act), Some(kernel)) => Ok(act.run(kernel).await?),
            (Self::Link(act), Some(kernel)) => Ok(act.run(kernel).await?),
            (Self::Rule(act), Some(kernel)) => Ok(act.run(kernel).await?),
            (Self::Neighbour(act), Some(kernel)) => Ok(act.run(kernel).await?),
            (Self::Nft(act), _) => Ok(act.run().await?),
            (Self::Service(act), _) => Ok(act.run().await?),
            (Self::Wireguard(act), _) => Ok(act.run().await?),
            (Self::Uci(act), _) => act.run().await,
            (Self::Sysctl { key, value }, _) => sysctl::write(key, value),
            (Self::File(act), _) => Ok(act.run().await?),
            (
                Self::Route(_)
                | Self::Address(_)
                | Self::Link(_)
                | Self::Rule(_)
                | Self::Neighbour(_),
                None,
            ) => Err(KernelError::Closed(io::ErrorKind::NotConnected.into()).into()),
        }
    }
}

/// Grants as they are compared.
pub(crate) struct Grants {
    exact: Vec<Exact>,
    scope: Scope,
}

impl Grants {
    pub(crate) fn of(operations: &[Operation]) -> Result<Self, GrantError> {
        let exact: Result<Vec<_>, _> = operations.iter().map(Exact::try_from).collect();
        Ok(Self {
            exact: exact?,
            scope: Scope::of(operations)?,
        })
    }

    fn check(&self, asked: &Exact) -> Result<(), BrokerError> {
        if self.exact.contains(asked) {
            return Ok(());
        }
        let granted: Vec<String> = self
            .exact
            .iter()
            .take(8)
            .map(|g| format!("'{g}'"))
            .collect();
        let more = self.exact.len().saturating_sub(granted.len());
        let granted = match (granted.is_empty(), more) {
            (true, _) => "nothing".to_owned(),
            (false, 0) => granted.join(", "),
            (false, more) => format!("{} and {more} more", granted.join(", ")),
        };
        Err(BrokerError::NotGranted {
            asked: asked.to_string(),
            granted,
        })
    }
}

/// What an operation did.
pub(crate) struct Done {
    /// One sentence for the script's output.
    pub(crate) sentence: String,
    /// Its object first, then what moved with it; empty if everything was as asked already.
    pub(crate) changes: Vec<ObjectChange>,
}

/// One operation: granted? → state before → way back journalled → done → state after.
pub(crate) async fn perform(
    world: &World,
    grants: &Grants,
    operation: &Operation,
    content: Vec<u8>,
    before_act: &mut dyn FnMut(&Inverse) -> io::Result<()>,
) -> Result<Done, BrokerError> {
    let exact = Exact::try_from(operation)?;
    grants.check(&exact)?;
    let asked = exact.to_string();
    let unread = |source| BrokerError::Unread {
        asked: asked.clone(),
        source,
    };
    let (kernel, before) = if !exact.is_of_the_network() {
        (None, Network::default())
    } else {
        let kernel = Kernel::open().map_err(unread)?;
        let network = Network::read(&kernel).await.map_err(unread)?;
        (Some(kernel), network)
    };
    let plan = plan(world, grants, exact, content, &before, kernel.as_ref()).await?;
    let Some(Plan { inverse, act }) = plan else {
        return Ok(Done {
            sentence: format!("{asked}: nothing to do, it is so already"),
            changes: Vec::new(),
        });
    };
    before_act(&inverse).map_err(|source| BrokerError::Journal {
        asked: asked.clone(),
        source,
    })?;
    if let Err(source) = act.run(kernel.as_ref()).await {
        undo(world, grants, &inverse, kernel.as_ref()).await;
        return Err(BrokerError::Failed { asked, source });
    }
    if let Inverse::Sysctl { key, after, .. } = &inverse
        && let Err(error) = sysctl::holds(key, after)
    {
        undo(world, grants, &inverse, kernel.as_ref()).await;
        return Err(error);
    }
    let after = match &kernel {
        Some(kernel) => Network::read(kernel).await.map_err(unread)?,
        None => Network::default(),
    };
    // The act is done: what can't be read back now is told by the comparison at the end.
    let tables = match &inverse {
        Inverse::Nft { .. } => crate::rollback::nft::read().await.unwrap_or_default(),
        _ => Tables::default(),
    };
    let described = Described {
        world,
        tables: &tables,
        after: &after,
        names: after.names(),
    };
    let mut changes = vec![described.object(&inverse, &act)];
    changes.extend(described.moved(&difference::networks(&before, &after), &inverse));
    let moved = match changes.len() - 1 {
        0 => String::new(),
        n => format!("; {n} more changed with it"),
    };
    let until = match &inverse {
        Inverse::Uci { .. } => "; kept in the configuration, not applied until reload",
        _ => "",
    };
    Ok(Done {
        sentence: format!("{asked}: done{moved}{until} (back: {inverse})"),
        changes,
    })
}

async fn undo(world: &World, grants: &Grants, inverse: &Inverse, kernel: Option<&Kernel>) {
    if let Err(error) = inverse.undo(world, &grants.scope, kernel).await {
        // The journal holds the inverse: the rollback tries again and says so if it can't.
        tracing::warn!(%error, "a failed operation could not be undone at once");
    }
}

async fn plan(
    world: &World,
    grants: &Grants,
    exact: Exact,
    content: Vec<u8>,
    before: &Network,
    kernel: Option<&Kernel>,
) -> Result<Option<Plan>, BrokerError> {
    match exact {
        Exact::Route {
            verb,
            key,
            via,
            dev,
        } => route::plan(before, kernel, verb, key, via, dev).await,
        Exact::Address { verb, address, dev } => address::plan(before, verb, address, &dev),
        Exact::Link { dev, up, mtu } => link::plan(before, &dev, up, mtu),
        Exact::Sysctl { key, value } => sysctl::plan(key, value),
        Exact::File { write, path } => {
            file::plan(world, &grants.scope, &path, write.then_some(content))
        }
        Exact::Nft { replace, table } => nft::plan(table, replace.then_some(content)).await,
        Exact::Service { deed, name } => service::plan(world, name, deed).await,
        Exact::Uci { key, edit } => uci::plan(world, &grants.scope, key, &edit),
        Exact::Wireguard { dev, key, set } => wireguard::plan(world, dev, key, set).await,
        Exact::UciReload { package } => uci::plan_reload(world, package),
        Exact::Rule { verb, key } => rule::plan(before, verb, key),
        Exact::Neighbour { address, dev, mac } => neighbour::plan(before, address, &dev, mac),
    }
}
