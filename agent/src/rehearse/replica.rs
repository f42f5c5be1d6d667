//! A network namespace that looks like the device's: links of the same names, addresses, routes, rules, neighbours,
//! parameters. What could not be made alike is told, never passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use nix::sched::{CloneFlags, unshare};

use crate::rollback::checkpoint::Network;
use crate::rollback::difference::{self, Difference};
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::link::{self, LinkSettings, LinkState, Names};
use crate::rollback::neighbour::NeighbourState;
use crate::rollback::nft::{self, Tables};
use crate::rollback::route::{Put, RouteState};
use crate::rollback::service::Recorded;
use crate::rollback::sysctl::{self, SysctlKey};
use crate::rollback::{address, neighbour, route, rule};

/// `IFA_F_NODAD`: a shadow has nobody to ask.
const NODAD: u32 = 0x02;
/// Rounds in which routes are put: each may need one of the round before as the way to its next hop.
const ROUNDS: usize = 8;
/// Sentences about what is not alike.
const NOTES: usize = 40;

/// What the device is at this moment.
pub(super) struct Original {
    pub(super) network: Network,
    pub(super) sysctls: BTreeMap<SysctlKey, String>,
    /// As they run on the device.
    pub(super) services: Recorded,
    /// None if nobody here can read them.
    pub(super) tables: Option<Tables>,
    /// Why not.
    pub(super) filters: Option<String>,
    /// Neighbours that answered lately.
    pub(super) heard: Vec<NeighbourState>,
    /// Addresses of the device at which names are resolved.
    pub(super) listening: Vec<IpAddr>,
}

/// The replica. The other ends of its links are in a namespace of their own, which ends with it.
pub(super) struct Replica {
    pub(super) kernel: Kernel,
    /// What is not alike.
    pub(super) notes: Vec<String>,
    /// Keeps the other ends alive, until somebody lives there: closing them takes the carrier away.
    pub(super) outside: Option<(Kernel, File)>,
}

/// Moves the calling thread into a replica of `original`. Must run on a single-threaded runtime.
pub(super) async fn enter(original: &Original) -> io::Result<Replica> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let outside = File::open("/proc/thread-self/ns/net")?;
    let peers = Kernel::open().map_err(io::Error::other)?;
    super::outside::settings();
    unshare(CloneFlags::CLONE_NEWNET)?;
    let kernel = Kernel::open().map_err(io::Error::other)?;
    let mut notes = Vec::new();
    // Link-local addresses are replicated, not made anew from the replica's own idea of them.
    for (key, value) in [
        ("addr_gen_mode", "1"),
        ("accept_dad", "0"),
        ("accept_ra", "0"),
    ] {
        if let Ok(key) = SysctlKey::parse(&format!("net/ipv6/conf/default/{key}")) {
            sysctl::write(&key, value).ok();
        }
    }
    links(&kernel, &peers, &outside, &original.network, &mut notes).await;
    parameters(&original.sysctls, &mut Vec::new());
    let names = up(&kernel, &original.network, &mut notes)
        .await
        .map_err(io::Error::other)?;
    objects(&kernel, &names, &original.network)
        .await
        .map_err(io::Error::other)?;
    parameters(&original.sysctls, &mut notes);
    filters(original.tables.as_ref(), &mut notes).await;
    notes.extend(
        original
            .filters
            .as_ref()
            .map(|why| format!("filters are not in the shadow: {why}")),
    );
    let made = Network::read(&kernel).await.map_err(io::Error::other)?;
    notes.extend(
        difference::networks(&original.network, &made)
            .iter()
            .filter_map(unlike),
    );
    notes.truncate(NOTES);
    Ok(Replica {
        kernel,
        notes,
        outside: Some((peers, outside)),
    })
}

/// Creates every link: bridges as bridges, all else as one half of a veth pair, with the same index where it is free.
async fn links(
    kernel: &Kernel,
    peers: &Kernel,
    outside: &File,
    network: &Network,
    notes: &mut Vec<String>,
) {
    for state in network.links.iter().filter(|l| !l.seen.loopback) {
        let far = pair_of(network, state);
        // One request made both halves.
        if far.is_some_and(|far| far.name < state.name) {
            continue;
        }
        let kind = state.kind.as_deref().unwrap_or("hardware");
        if !matches!(kind, "veth" | "bridge" | "hardware") {
            notes.push(format!(
                "{} is a {kind} link; in the shadow it is an Ethernet one",
                state.name
            ));
        }
        if let (Some(lower), None) = (&state.seen.lower, far) {
            notes.push(format!(
                "{} does not follow {lower} in the shadow",
                state.name
            ));
        }
        let mut created = create(kernel, outside, state, far, true).await;
        if created
            .as_ref()
            .is_err_and(|e| matches!(e.errno(), Some(nix::libc::EBUSY | nix::libc::EEXIST)))
        {
            created = create(kernel, outside, state, far, false).await;
        }
        if let Err(error) = created {
            notes.push(format!(
                "link {} is missing in the shadow: {error}",
                state.name
            ));
        }
    }
    // The far end gives the carrier.
    let Ok(far) = link::read(peers).await else {
        return;
    };
    for state in network.links.iter().filter(|l| l.seen.carrier) {
        if let Some(peer) = far
            .iter()
            .find(|l| l.name == state.name && !l.seen.loopback)
        {
            let up = LinkSettings {
                up: Some(true),
                ..LinkSettings::default()
            };
            link::set(peers, peer.seen.index, &up).await.ok();
        }
    }
}

/// The other half of a veth pair, if both are in this namespace.
fn pair_of<'a>(network: &'a Network, state: &LinkState) -> Option<&'a LinkState> {
    let far = network
        .links
        .iter()
        .find(|l| Some(&l.name) == state.seen.lower.as_ref())?;
    let veth = |l: &LinkState| l.kind.as_deref() == Some("veth");
    (veth(state) && veth(far) && far.seen.lower.as_ref() == Some(&state.name)).then_some(far)
}

fn half(state: &LinkState, numbered: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = if numbered { state.seen.index } else { 0 };
    message
        .attributes
        .push(LinkAttribute::IfName(state.name.clone()));
    message
        .attributes
        .push(LinkAttribute::Mtu(state.mtu.clamp(68, 65535)));
    message
        .attributes
        .extend(state.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
}

async fn create(
    kernel: &Kernel,
    outside: &File,
    state: &LinkState,
    far: Option<&LinkState>,
    numbered: bool,
) -> Result<(), KernelError> {
    let mut message = half(state, numbered);
    let infos = if state.kind.as_deref() == Some("bridge") {
        vec![LinkInfo::Kind(InfoKind::Bridge)]
    } else {
        let peer = match far {
            Some(far) => half(far, numbered),
            None => {
                let mut peer = LinkMessage::default();
                peer.attributes
                    .push(LinkAttribute::IfName(state.name.clone()));
                peer.attributes
                    .push(LinkAttribute::Mtu(state.mtu.clamp(68, 65535)));
                peer.attributes
                    .push(LinkAttribute::NetNsFd(outside.as_raw_fd()));
                peer
            }
        };
        vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]
    };
    message.attributes.push(LinkAttribute::LinkInfo(infos));
    kernel
        .act(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .await
}

/// Puts links into their bridges and gives them their state.
async fn up(
    kernel: &Kernel,
    network: &Network,
    notes: &mut Vec<String>,
) -> Result<Names, KernelError> {
    let made = link::read(kernel).await?;
    let names = Names::of(&made);
    // Ports first: a bridge takes the smallest MTU of its ports until it is told one.
    let ports = network.links.iter().filter(|l| l.master.is_some());
    let rest = network.links.iter().filter(|l| l.master.is_none());
    for state in ports.chain(rest) {
        let Some(now) = made.iter().find(|l| l.name == state.name) else {
            continue;
        };
        if let Err(error) = link::restore(kernel, &names, state, now).await {
            notes.push(format!(
                "link {} is not set up in the shadow: {error}",
                state.name
            ));
        }
    }
    settle(kernel, network).await?;
    Ok(names)
}

/// A link's carrier is told with some delay (linkwatch): IPv6 needs it before addresses are of use.
async fn settle(kernel: &Kernel, network: &Network) -> Result<(), KernelError> {
    for _ in 0..20 {
        let now = link::read(kernel).await?;
        let waits = network.links.iter().any(|l| {
            l.up && l.seen.carrier && now.iter().any(|n| n.name == l.name && !n.seen.carrier)
        });
        if !waits {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    Ok(())
}

/// Addresses, rules, routes, neighbours. What fails shows in the comparison at the end.
async fn objects(kernel: &Kernel, names: &Names, network: &Network) -> Result<(), KernelError> {
    let present = Network::read(kernel).await?;
    for state in &network.addresses {
        if present.addresses.iter().any(|a| a.key() == state.key()) {
            continue;
        }
        let mut state = state.clone();
        if state.address.address.is_ipv6() {
            state.flags |= NODAD;
        }
        note(address::add(kernel, names, &state).await);
    }
    for state in network.rules.iter().filter(|r| !present.rules.contains(r)) {
        note(rule::add(kernel, state).await);
    }
    for state in present.rules.iter().filter(|r| !network.rules.contains(r)) {
        note(rule::remove(kernel, state).await);
    }
    for _ in 0..ROUNDS {
        if !routes(kernel, names, network).await? {
            break;
        }
    }
    for entry in &network.neighbours {
        note(neighbour::put(kernel, names, entry).await);
    }
    Ok(())
}

fn note(outcome: Result<(), KernelError>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "an object is missing in the shadow");
    }
}

/// One round; true if another one may help.
async fn routes(kernel: &Kernel, names: &Names, network: &Network) -> Result<bool, KernelError> {
    let present = route::read(kernel, names).await?;
    let set = |routes: &[RouteState]| {
        routes
            .iter()
            .map(RouteState::canonical)
            .collect::<BTreeSet<_>>()
    };
    let (is, ought) = (set(&present), set(&network.routes));
    let mut progress = false;
    for wanted in network
        .routes
        .iter()
        .filter(|r| !is.contains(&r.canonical()))
    {
        progress |= route::put(kernel, names, wanted, Put::Append).await.is_ok();
    }
    for extra in is.difference(&ought) {
        note(route::remove(kernel, names, extra).await);
    }
    Ok(progress)
}

/// Gives every parameter its value, those for all before those of each.
fn parameters(wanted: &BTreeMap<SysctlKey, String>, notes: &mut Vec<String>) {
    let mut keys: Vec<_> = wanted.iter().collect();
    keys.sort_by_key(|(key, _)| key.rank());
    for (key, value) in keys {
        match sysctl::read(key) {
            Ok(Some(now)) if now == *value => {}
            Ok(Some(_)) => {
                if let Err(error) = sysctl::write(key, value) {
                    notes.push(format!("{key} is not {value} in the shadow: {error}"));
                }
            }
            Ok(None) => notes.push(format!("{key} does not exist in the shadow")),
            Err(error) => notes.push(format!("{key} can't be read in the shadow: {error}")),
        }
    }
}

/// Loads every table, with its counters and elements.
async fn filters(tables: Option<&Tables>, notes: &mut Vec<String>) {
    for (table, state) in tables.into_iter().flatten() {
        if let Err(error) = nft::put(table, Some(&state.text)).await {
            notes.push(format!("nft table {table} is not in the shadow: {error}"));
        }
    }
}

/// A difference that people should know of; not those that a replica has by its nature.
fn unlike(difference: &Difference) -> Option<String> {
    match difference {
        Difference::Link {
            before: Some(old),
            now: Some(new),
        } => {
            let plain = |l: &LinkState| (l.up, l.mtu, l.mac, l.master.clone());
            (plain(old) != plain(new) && !old.seen.loopback)
                .then(|| format!("not alike in the shadow: {difference}"))
        }
        Difference::Address {
            before: Some(_),
            now: Some(_),
        } => None,
        Difference::Link { .. }
        | Difference::Address { .. }
        | Difference::AddressOrder { .. }
        | Difference::Route { .. }
        | Difference::Rule { .. }
        | Difference::Neighbour { .. } => Some(format!("not alike in the shadow: {difference}")),
        Difference::File { .. }
        | Difference::Sysctl { .. }
        | Difference::Service { .. }
        | Difference::Peer { .. }
        | Difference::Beyond { .. }
        | Difference::Nft { .. } => None,
    }
}
