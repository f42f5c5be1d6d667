//! What is at the other ends of the shadow's links: the neighbours that the device knows of, and behind them everything.
//!
//! A namespace of its own holds all of these ends. Whatever comes in there is its own, so it answers for any address;
//! but on the link only those neighbours answer that are known to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aizen_protocol::private::{Mac, Prefix};
use nix::sched::{CloneFlags, setns};
use tokio::sync::{mpsc, oneshot};

use super::exchange::{self, Heard};
use super::lockout::Way;
use crate::rollback::address::{self, AddressState};
use crate::rollback::checkpoint::Network;
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::link::{self, LinkSettings, LinkState, Names};
use crate::rollback::neighbour::{self, NeighbourState};
use crate::rollback::route::{self, LOCAL, MAIN, Put, RouteKey, RouteState};
use crate::rollback::rule::{self, RuleKey, RuleState};
use crate::rollback::sysctl::{self, SysctlKey};

/// `IFA_F_NODAD`.
const NODAD: u32 = 0x02;
/// `RTN_LOCAL` and `RT_SCOPE_HOST`.
const LOCAL_KIND: u8 = 2;
const SCOPE_HOST: u8 = 254;
/// The table that takes everything in.
const TAKE_ALL: u32 = 100;
/// Links that are answered on.
const LINKS: usize = 32;
/// Jobs that wait.
const JOBS: usize = 16;
/// Neighbours of one link.
const NEIGHBOURS: usize = 64;

/// Who is known to be on each link, with the hardware address where it is known.
pub(super) type Neighbours = BTreeMap<String, BTreeMap<IpAddr, Option<Mac>>>;

/// The neighbours that matter: next hops, and those of `wanted` that are on a link.
pub(super) fn neighbours(
    network: &Network,
    heard: &[NeighbourState],
    wanted: &[IpAddr],
) -> Neighbours {
    let own: BTreeSet<IpAddr> = network
        .addresses
        .iter()
        .map(|a| a.address.address)
        .collect();
    let mut found = Neighbours::new();
    let mac = |dev: &str, address: IpAddr| {
        let mut entries = network.neighbours.iter().chain(heard);
        entries
            .find(|n| n.is_entry(dev, address))
            .and_then(|n| n.mac)
    };
    let mut add = |dev: &str, address: IpAddr| {
        let of = found.entry(dev.to_owned()).or_default();
        if !own.contains(&address) && of.len() < NEIGHBOURS {
            of.insert(address, mac(dev, address));
        }
    };
    for (via, dev) in next_hops(network) {
        add(&dev, via);
    }
    for address in wanted {
        for on in network.addresses.iter() {
            let point_to_point = on.peer == Some(*address);
            if point_to_point
                || (on.address.contains(*address) && !on.address.address.is_loopback())
            {
                add(&on.dev, *address);
            }
        }
        // A link without hardware addresses asks nobody: whoever is meant gets it.
        for link in network.links.iter().filter(|l| l.mac.is_none()) {
            add(&link.name, *address);
        }
    }
    found
}

/// Every next hop with its link.
pub(super) fn next_hops(network: &Network) -> BTreeSet<(IpAddr, String)> {
    let hops = network.routes.iter().flat_map(|r| &r.hops);
    hops.filter_map(|hop| Some((hop.via?, hop.dev.clone()?)))
        .collect()
}

/// Settings of the namespace in which the caller is, before it has links: it answers for all that comes in, and asks
/// nothing by itself.
pub(super) fn settings() {
    for (key, value) in [
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv4.conf.all.accept_local", "1"),
        ("net.ipv4.conf.all.arp_ignore", "1"),
        ("net.ipv4.conf.all.arp_announce", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv6.conf.default.disable_ipv6", "0"),
    ] {
        let set = SysctlKey::parse(key).map(|key| sysctl::write(&key, value));
        tracing::debug!(key, ?set, "outside");
    }
}

/// Work for the thread in the namespace.
enum Job {
    Resolve(Vec<IpAddr>, oneshot::Sender<()>),
    Knock {
        link: String,
        from: IpAddr,
        to: SocketAddr,
        heard: oneshot::Sender<Heard>,
    },
}

/// The namespace, with somebody in it.
pub(super) struct Outside {
    kernel: Kernel,
    names: Names,
    /// Links of the device as they were.
    links: Vec<LinkState>,
    known: Neighbours,
    jobs: mpsc::Sender<Job>,
}

impl Outside {
    /// Settles neighbours at the other ends of the links and starts to answer there.
    pub(super) async fn settle(
        kernel: Kernel,
        namespace: File,
        network: &Network,
        known: Neighbours,
        ports: &BTreeSet<u16>,
    ) -> io::Result<Self> {
        let ends = link::read(&kernel).await.map_err(io::Error::other)?;
        let (jobs, taken) = mpsc::channel(JOBS);
        let outside = Self {
            names: Names::of(&ends),
            kernel,
            links: network.links.clone(),
            known: Neighbours::new(),
            jobs,
        };
        let outside = outside.furnish(network, known, &ends).await;
        let links: Vec<String> = outside
            .links
            .iter()
            .filter(|l| {
                l.seen.carrier && outside.names.index(&l.name).is_some() && !l.seen.loopback
            })
            .map(|l| l.name.clone())
            .take(LINKS)
            .collect();
        let ports = ports.clone();
        let (ready, is_ready) = oneshot::channel();
        std::thread::Builder::new()
            .name("aizen-outside".to_owned())
            .spawn(move || {
                let served = live(&namespace, &links, &ports, ready, taken);
                tracing::debug!(?served, "nobody is outside any more");
            })?;
        is_ready
            .await
            .map_err(|_| io::Error::other("the other ends of the links can't be reached"))?;
        Ok(outside)
    }

    async fn furnish(mut self, network: &Network, known: Neighbours, ends: &[LinkState]) -> Self {
        if let Some(loopback) = ends.iter().find(|l| l.seen.loopback) {
            let up = LinkSettings {
                up: Some(true),
                ..LinkSettings::default()
            };
            note(link::set(&self.kernel, loopback.seen.index, &up).await);
            note(self.rules(&loopback.name).await);
        }
        for (dev, neighbours) in &known {
            for (address, mac) in neighbours {
                self.add_neighbour(dev, *address, *mac).await;
            }
        }
        for state in &network.addresses {
            self.route_back(state, false).await;
        }
        self.known = known;
        self
    }

    /// What is sent goes by the main table; what comes in is taken.
    async fn rules(&self, loopback: &str) -> Result<(), KernelError> {
        let present = rule::read(&self.kernel).await?;
        for ipv6 in [false, true] {
            let key = |priority: u32, iif: Option<&str>, table: u32| RuleKey {
                ipv6,
                priority,
                from: None,
                to: None,
                iif: iif.map(str::to_owned),
                oif: None,
                fwmark: None,
                table,
            };
            let any = if ipv6 {
                IpAddr::from(Ipv6Addr::UNSPECIFIED)
            } else {
                IpAddr::from(Ipv4Addr::UNSPECIFIED)
            };
            let all = RouteKey {
                destination: Prefix {
                    address: any,
                    length: 0,
                },
                table: TAKE_ALL,
                metric: 0,
                tos: 0,
            };
            let take = RouteState {
                kind: LOCAL_KIND,
                scope: SCOPE_HOST,
                ..RouteState::asked(all, None, Some(loopback.to_owned()))
            };
            note(route::put(&self.kernel, &self.names, &take, Put::Append).await);
            for key in [
                key(1, Some(loopback), MAIN),
                // Multicast is its link's alone: the table that takes everything has none.
                key(2, None, LOCAL),
                key(3, None, TAKE_ALL),
            ] {
                note(rule::add(&self.kernel, &RuleState::asked(&key)).await);
            }
        }
        // Else what one link sends to a neighbour on another would never leave.
        for first in present
            .iter()
            .filter(|r| r.key().is_some_and(|k| k.priority == 0))
        {
            note(rule::remove(&self.kernel, first).await);
        }
        Ok(())
    }

    /// The other ends of a link: those of its ports, if it is a bridge.
    fn ends(&self, dev: &str) -> Vec<String> {
        let there = |name: &str| self.names.index(name).is_some();
        let ports = self
            .links
            .iter()
            .filter(|l| l.master.as_deref() == Some(dev) && there(&l.name));
        let ports: Vec<String> = ports.map(|l| l.name.clone()).collect();
        if ports.is_empty() && there(dev) {
            return vec![dev.to_owned()];
        }
        ports
    }

    async fn add_neighbour(&self, dev: &str, address: IpAddr, mac: Option<Mac>) {
        for end in self.ends(dev) {
            let length = if address.is_ipv4() { 32 } else { 128 };
            let mut state = AddressState::asked(&end, Prefix { address, length });
            if address.is_ipv6() {
                state.flags |= NODAD;
            }
            note(address::add(&self.kernel, &self.names, &state).await);
            let Some(index) = self.names.index(&end) else {
                continue;
            };
            if mac.is_some() {
                let settings = LinkSettings {
                    mac,
                    ..LinkSettings::default()
                };
                note(link::set(&self.kernel, index, &settings).await);
            }
        }
    }

    /// The way back to an address of the device, and through it to what is behind the device.
    async fn route_back(&self, state: &AddressState, preferred: bool) {
        let Prefix { address, length } = state.address;
        if address.is_loopback() || length == 0 {
            return;
        }
        for end in self.ends(&state.dev) {
            let index = self.names.index(&end).unwrap_or_default();
            let any: IpAddr = if address.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let key = |destination: Prefix, metric: u32| RouteKey {
                destination,
                table: MAIN,
                metric,
                tos: 0,
            };
            let metric = index.saturating_mul(2) + u32::from(!preferred);
            let near = Prefix {
                address: state
                    .peer
                    .unwrap_or(crate::broker::network(state.address).address),
                length: state
                    .peer
                    .map_or(length, |_| if address.is_ipv4() { 32 } else { 128 }),
            };
            let near = RouteState::asked(key(near, metric), None, Some(end.clone()));
            note(route::put(&self.kernel, &self.names, &near, Put::Append).await);
            let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
            if !link_local && !state.is_secondary() {
                let all = Prefix {
                    address: any,
                    length: 0,
                };
                let mut far = RouteState::asked(key(all, metric), Some(address), Some(end));
                for hop in &mut far.hops {
                    hop.onlink = true;
                }
                note(route::put(&self.kernel, &self.names, &far, Put::Add).await);
            }
        }
    }

    /// Lets neighbours that only the changed device names be there too, where nothing is known to the contrary; tells
    /// who is believed without proof. Forgets what was learned.
    pub(super) async fn follow(
        &mut self,
        before: &Network,
        after: &Network,
        wanted: &[IpAddr],
    ) -> Vec<String> {
        let mut believed = Vec::new();
        // Whoever is to be asked on a link as it was may be there.
        for (dev, neighbours) in neighbours(before, &[], wanted) {
            for address in neighbours.into_keys() {
                if !self
                    .known
                    .get(&dev)
                    .is_some_and(|n| n.contains_key(&address))
                {
                    self.add_neighbour(&dev, address, None).await;
                    self.known
                        .entry(dev.clone())
                        .or_default()
                        .insert(address, None);
                }
            }
        }
        for (via, dev) in next_hops(after) {
            let link_local = matches!(via, IpAddr::V6(a) if a.is_unicast_link_local());
            let elsewhere = self
                .known
                .iter()
                .any(|(d, n)| *d != dev && n.contains_key(&via));
            let here = self.known.get(&dev).is_some_and(|n| n.contains_key(&via));
            if !here && (link_local || !elsewhere) {
                believed.push(format!(
                    "whether {via} is there on {dev}: this device has not heard of it"
                ));
                self.add_neighbour(&dev, via, None).await;
                self.known.entry(dev).or_default().insert(via, None);
            }
        }
        for entry in &after.neighbours {
            let unknown = self
                .known
                .get(&entry.dev)
                .and_then(|n| n.get(&entry.address))
                .is_some_and(Option::is_none);
            if let (true, Some(mac)) = (unknown, entry.mac) {
                believed.push(format!(
                    "whether {} on {} has the hardware address {mac}: this device has not heard of it",
                    entry.address, entry.dev
                ));
                self.add_neighbour(&entry.dev, entry.address, Some(mac))
                    .await;
            }
        }
        let carries = |network: &Network, dev: &str| {
            let mut defaults = network
                .routes
                .iter()
                .filter(|r| r.key.destination.is_default());
            defaults.any(|r| r.uses(dev))
        };
        for state in &after.addresses {
            if !before.addresses.iter().any(|a| a.key() == state.key()) {
                // Who is beyond an uplink sends to its new address; who is on the inside keeps to the old one.
                self.route_back(
                    state,
                    carries(before, &state.dev) || carries(after, &state.dev),
                )
                .await;
            }
        }
        forget(&self.kernel, &self.names).await;
        believed
    }

    /// Answers datagrams to these addresses too.
    pub(super) async fn resolve(&self, addresses: &[IpAddr]) {
        let (done, is_done) = oneshot::channel();
        if self
            .jobs
            .send(Job::Resolve(addresses.to_vec(), done))
            .await
            .is_ok()
        {
            // A thread that ended answers nothing, and that shows.
            is_done.await.ok();
        }
    }

    /// Asks the device, or through it, from outside.
    pub(super) async fn knock(&self, dev: &str, from: IpAddr, to: SocketAddr) -> Heard {
        for link in self.ends(dev).into_iter().take(1) {
            let (heard, answer) = oneshot::channel();
            let job = Job::Knock {
                link,
                from,
                to,
                heard,
            };
            if self.jobs.send(job).await.is_ok() {
                return answer.await.unwrap_or(Heard::Silence);
            }
        }
        Heard::Silence
    }

    /// How a way is tried; all but questions from outside are the shadow's own.
    pub(super) async fn try_way(&self, way: &Way) -> Heard {
        match way {
            Way::Orchestrator(to) | Way::Internet(to) => exchange::ask(*to, None).await,
            Way::Resolver(address) => {
                exchange::ask_by_datagram(SocketAddr::new(*address, super::lockout::DNS)).await
            }
            Way::Technician { dev, from, at } => self.knock(dev, *from, *at).await,
            Way::Clients { dev, from, to } => self.knock(dev, *from, *to).await,
        }
    }
}

/// Removes what a namespace learned of its neighbours.
pub(super) async fn forget(kernel: &Kernel, names: &Names) {
    match neighbour::heard(kernel, names).await {
        Ok(entries) => {
            for entry in entries.iter().take(LINKS * NEIGHBOURS) {
                note(neighbour::remove(kernel, names, entry).await);
            }
        }
        Err(error) => note(Err(error)),
    }
}

fn note(outcome: Result<(), KernelError>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "something is missing outside the shadow");
    }
}

/// The thread's life: it ends with the shadow.
fn live(
    namespace: &File,
    links: &[String],
    ports: &BTreeSet<u16>,
    ready: oneshot::Sender<()>,
    mut jobs: mpsc::Receiver<Job>,
) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        for link in links {
            for port in ports {
                for ipv6 in [false, true] {
                    let answers = exchange::answer_streams(*port, ipv6, Some(link));
                    tracing::debug!(link, port, ipv6, ?answers, "outside");
                }
            }
        }
        // Whoever waits may be gone.
        ready.send(()).ok();
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Resolve(addresses, done) => {
                    for (link, address) in links
                        .iter()
                        .flat_map(|l| addresses.iter().map(move |a| (l, a)))
                    {
                        let at = SocketAddr::new(*address, super::lockout::DNS);
                        // It answers already, or can't: that shows.
                        let answers = exchange::answer_datagrams(at, link);
                        tracing::debug!(link, %at, ?answers, "outside");
                    }
                    done.send(()).ok();
                }
                Job::Knock {
                    link,
                    from,
                    to,
                    heard,
                } => {
                    tokio::task::spawn_local(async move {
                        heard
                            .send(exchange::ask(to, Some((&link, from))).await)
                            .ok();
                    });
                }
            }
        }
        Ok(())
    })
}
