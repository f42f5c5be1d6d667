//! The state before a change: taken whole, compared by meaning, never as text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aizen_protocol::id::Digest;
use aizen_protocol::package::manifest::Operation;
use aizen_protocol::private::Text;
use serde::{Deserialize, Serialize};

use super::address::{self, AddressState};
use super::beyond::{self, Beyond, BeyondKey, BeyondState};
use super::difference::{self, Difference};
use super::file::{FileError, FileState, Place};
use super::kernel::{Kernel, KernelError};
use super::link::{self, LinkState, Names};
use super::neighbour::{self, NeighbourState};
use super::nft::{self, NftError, TableState, Tables};
use super::route::{self, RouteState};
use super::rule::{self, RuleState};
use super::service::{self, ServiceError};
use super::sysctl::{self, Pattern, SysctlKey};
use super::wireguard::{self, PeerState, WireguardError};
use crate::broker::grant::{Exact, GrantError};
use crate::broker::{World, uci_path};
use crate::collect::netlink::NetlinkError;

/// Why the state could not be taken. Without it nothing may run.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A grant that is not one.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// rtnetlink.
    #[error("the network's state can't be read: {0}")]
    Kernel(#[from] KernelError),
    /// What only a script with capabilities could set.
    #[error("the settings beyond the operations can't be read: {0}")]
    Beyond(#[from] NetlinkError),
    /// WireGuard.
    #[error(transparent)]
    Wireguard(#[from] WireguardError),
    /// A service.
    #[error("service {name}: {source}")]
    Service {
        /// Which.
        name: String,
        /// Why not.
        source: ServiceError,
    },
    /// nftables.
    #[error("the tables of nftables can't be read: {0}")]
    Nft(#[from] NftError),
    /// A file that could not be put back.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a checkpoint looks at: it follows from the grants alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    network: bool,
    /// Everything that netlink reaches, whatever it is called.
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    tables: bool,
    #[serde(default)]
    services: BTreeSet<String>,
    #[serde(default)]
    tunnels: BTreeSet<String>,
    sysctls: BTreeSet<Pattern>,
    files: BTreeSet<String>,
}

impl Scope {
    /// What the grants name, and what they can disturb: a link, an address or a parameter moves others with it, so
    /// any of them asks for the whole network.
    pub(crate) fn of(grants: &[Operation]) -> Result<Self, GrantError> {
        let mut scope = Self::default();
        for grant in grants {
            match Exact::try_from(grant)? {
                Exact::Route { .. }
                | Exact::Address { .. }
                | Exact::Rule { .. }
                | Exact::Neighbour { .. } => scope.network = true,
                Exact::Link { dev, mtu, .. } => {
                    scope.network = true;
                    if mtu.is_some() {
                        scope.sysctls.extend(Pattern::of_interface(&dev));
                    }
                }
                Exact::Sysctl { key, .. } => {
                    scope.network = true;
                    scope.sysctls.extend(key.moves());
                }
                Exact::Service { name, .. } => {
                    scope.services.insert(name);
                }
                Exact::Uci { key, .. } => {
                    scope.files.insert(uci_path(key.package()));
                }
                Exact::Wireguard { dev, .. } => {
                    scope.tunnels.insert(dev);
                }
                Exact::UciReload { .. } => {}
                Exact::Nft { .. } => scope.tables = true,
                Exact::File { path, .. } => {
                    scope.files.insert(path);
                }
            }
        }
        Ok(scope)
    }

    /// What the grants name, and all that a script can reach that changes the network with its own hands.
    pub(crate) fn whole(grants: &[Operation]) -> Result<Self, GrantError> {
        Ok(Self {
            network: true,
            whole: true,
            tables: true,
            ..Self::of(grants)?
        })
    }

    /// With what follows from the links that there are.
    pub(crate) fn with_links(mut self, links: &[LinkState]) -> Self {
        if self.whole {
            let names = links.iter().map(|link| link.name.as_str());
            self.sysctls.extend(names.flat_map(Pattern::of_interface));
            let tunnels = links
                .iter()
                .filter(|link| link.kind.as_deref() == Some("wireguard"));
            self.tunnels.extend(tunnels.map(|link| link.name.clone()));
        }
        self
    }

    /// The kernel's network, with the parameters of these interfaces and of forwarding.
    pub(crate) fn of_network<'a>(tables: bool, links: impl Iterator<Item = &'a str>) -> Self {
        let named = ["all", "default"].into_iter().chain(links);
        let mut sysctls: BTreeSet<Pattern> = named.flat_map(Pattern::of_interface).collect();
        sysctls.insert(Pattern::forwarding());
        Self {
            network: true,
            tables,
            sysctls,
            ..Self::default()
        }
    }

    /// What of it is the kernel's network.
    pub(crate) fn network_alone(&self) -> Self {
        Self {
            network: true,
            tables: self.tables,
            sysctls: self.sysctls.clone(),
            ..Self::default()
        }
    }

    /// These files alone.
    pub(crate) fn of_files(paths: impl Iterator<Item = String>) -> Self {
        Self {
            files: paths.collect(),
            ..Self::default()
        }
    }

    pub(crate) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.sysctls.iter()
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &String> {
        self.services.iter()
    }

    pub(crate) fn tunnels(&self) -> impl Iterator<Item = &String> {
        self.tunnels.iter()
    }

    /// True if it looks at nftables.
    pub(crate) fn tables(&self) -> bool {
        self.tables
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &String> {
        self.files.iter()
    }

    /// The place of one of its files.
    pub(crate) fn place(&self, root: &Path, path: &str) -> Result<Option<Place>, FileError> {
        Place::find(root, path, &|target| self.files.contains(target))
    }
}

/// The kernel's network objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) links: Vec<LinkState>,
    pub(crate) addresses: Vec<AddressState>,
    pub(crate) routes: Vec<RouteState>,
    pub(crate) rules: Vec<RuleState>,
    pub(crate) neighbours: Vec<NeighbourState>,
}

impl Network {
    pub(crate) async fn read(kernel: &Kernel) -> Result<Self, KernelError> {
        let links = link::read(kernel).await?;
        let names = Names::of(&links);
        Ok(Self {
            addresses: address::read(kernel, &names).await?,
            routes: route::read(kernel, &names).await?,
            rules: rule::read(kernel).await?,
            neighbours: neighbour::read(kernel, &names).await?,
            links,
        })
    }

    pub(crate) fn names(&self) -> Names {
        Names::of(&self.links)
    }

    fn canonical(&self) -> Self {
        let mut addresses: Vec<_> = self.addresses.iter().map(AddressState::canonical).collect();
        // Stable: the order of one device's IPv4 addresses has a meaning, that of its IPv6 addresses has none.
        addresses.sort_by(|a, b| {
            let of = |s: &AddressState| (s.dev.clone(), s.address.address.is_ipv6());
            of(a).cmp(&of(b))
        });
        for same in addresses.chunk_by_mut(|a, b| {
            a.dev == b.dev && a.address.address.is_ipv6() == b.address.address.is_ipv6()
        }) {
            if same.first().is_some_and(|a| a.address.address.is_ipv6()) {
                same.sort();
            } else {
                // The kernel lists the primary ones first.
                same.sort_by_key(AddressState::is_secondary);
            }
        }
        Self {
            links: self.links.iter().map(LinkState::canonical).collect(),
            addresses,
            routes: self.routes.iter().map(RouteState::canonical).collect(),
            rules: self.rules.clone(),
            neighbours: self.neighbours.clone(),
        }
    }
}

async fn read_network(wanted: bool) -> Result<Option<Network>, CheckpointError> {
    Ok(match wanted {
        true => Some(Network::read(&Kernel::open()?).await?),
        false => None,
    })
}

async fn read_tables(wanted: bool) -> Result<Option<Tables>, CheckpointError> {
    Ok(match wanted {
        true => Some(nft::read().await?),
        false => None,
    })
}

/// The state of every object that the grants name or can disturb, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub(crate) scope: Scope,
    pub(crate) network: Option<Network>,
    #[serde(default)]
    pub(crate) tables: Option<Tables>,
    #[serde(default)]
    pub(crate) services: BTreeMap<String, bool>,
    #[serde(default)]
    pub(crate) peers: BTreeMap<String, Vec<PeerState>>,
    pub(crate) sysctls: BTreeMap<SysctlKey, String>,
    #[serde(default)]
    pub(crate) beyond: Option<Beyond>,
    pub(crate) files: BTreeMap<String, FileState>,
}

impl Checkpoint {
    /// Takes the state that `grants` (as [`crate::broker::resolve_grants`] gives them) name or can disturb.
    ///
    /// # Errors
    /// [`CheckpointError`]: something that is granted can't be read, so it could not be put back.
    pub async fn take(world: &World, grants: &[Operation]) -> Result<Self, CheckpointError> {
        Self::take_scope(world, Scope::of(grants)?).await
    }

    /// Takes the state that `grants` name and that a script with capabilities can reach without them.
    ///
    /// # Errors
    /// As [`Self::take`]; and without the program `nft`, because tables could be changed and not be put back.
    pub async fn take_whole(world: &World, grants: &[Operation]) -> Result<Self, CheckpointError> {
        Self::take_scope(world, Scope::whole(grants)?).await
    }

    /// The part that outlives a reboot: the files. The kernel's objects are gone by themselves then, and what is there
    /// instead is not the change's.
    #[must_use]
    pub fn persistent(&self) -> Self {
        Self {
            scope: Scope {
                files: self.scope.files.clone(),
                ..Scope::default()
            },
            network: None,
            tables: None,
            services: BTreeMap::new(),
            peers: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            beyond: None,
            files: self.files.clone(),
        }
    }

    /// The same objects again.
    pub(crate) async fn again(&self, world: &World) -> Result<Self, CheckpointError> {
        Self::take_scope(world, self.scope.clone()).await
    }

    /// As [`Self::again`], with the tables only if they are wanted.
    pub(crate) async fn again_with(
        &self,
        world: &World,
        tables: bool,
    ) -> Result<Self, CheckpointError> {
        let mut scope = self.scope.clone();
        scope.tables &= tables;
        Self::take_scope(world, scope).await
    }

    pub(crate) async fn take_scope(world: &World, scope: Scope) -> Result<Self, CheckpointError> {
        // Side by side: the tables are told by a process of their own.
        let (network, tables) =
            tokio::try_join!(read_network(scope.network), read_tables(scope.tables))?;
        let links = network.as_ref().map_or(&[][..], |network| &network.links);
        let scope = scope.with_links(links);
        let beyond = match &network {
            Some(network) if scope.whole => Some(beyond::read(&network.names()).await?),
            Some(_) | None => None,
        };
        let mut services = BTreeMap::new();
        for name in &scope.services {
            let running = service::is_running(world, name).await;
            let failed = |source| CheckpointError::Service {
                name: name.clone(),
                source,
            };
            services.insert(name.clone(), running.map_err(failed)?);
        }
        let mut peers = BTreeMap::new();
        for dev in &scope.tunnels {
            peers.insert(dev.clone(), wireguard::peers(world, dev).await?);
        }
        let patterns: Vec<Pattern> = scope.sysctls.iter().cloned().collect();
        let mut files = BTreeMap::new();
        for path in &scope.files {
            let state = match scope.place(&world.root, path)? {
                Some(place) => place.read()?,
                None => FileState::Absent,
            };
            files.insert(path.clone(), state);
        }
        Ok(Self {
            network,
            tables,
            services,
            peers,
            sysctls: sysctl::read_all(&patterns),
            beyond,
            files,
            scope,
        })
    }

    /// SHA-256 over what a comparison looks at: equal exactly if nothing differs.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let canonical = Self {
            scope: self.scope.clone(),
            network: self.network.as_ref().map(Network::canonical),
            services: self.services.clone(),
            peers: self
                .peers
                .iter()
                .map(|(dev, peers)| {
                    let mut plain: Vec<_> = peers.iter().map(PeerState::canonical).collect();
                    plain.sort();
                    (dev.clone(), plain)
                })
                .collect(),
            tables: self.tables.as_ref().map(|tables| {
                // What is compared, in the place of what is stored.
                let plain = |state: &TableState| TableState {
                    text: state.plain.clone(),
                    plain: String::new(),
                };
                let pair = |(name, state): (&String, &TableState)| (name.clone(), plain(state));
                tables.iter().map(pair).collect()
            }),
            sysctls: self.sysctls.clone(),
            beyond: self.beyond.as_ref().map(|all| {
                let plain =
                    |(key, state): (&BeyondKey, &BeyondState)| (key.clone(), state.canonical());
                all.iter().map(plain).collect()
            }),
            files: self
                .files
                .iter()
                .map(|(path, state)| (path.clone(), state.canonical()))
                .collect(),
        };
        let bytes = serde_json::to_vec(&canonical)
            .expect("every key of a checkpoint is a text, so it can be written as JSON");
        Digest::of(&bytes)
    }

    /// What differs, one sentence an object: how it is here and how it is in `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Text> {
        difference::between(self, other)
            .iter()
            .map(|d| Text(d.to_string()))
            .collect()
    }

    /// Bytes that it takes in a journal, about: for reserving space before anything starts.
    #[must_use]
    pub fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len())
    }

    pub(crate) fn difference(&self, other: &Self) -> Vec<Difference> {
        difference::between(self, other)
    }
}
