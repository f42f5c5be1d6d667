//! Lock-outs: ways that held before a script and do not hold after it. Which ways there are, and what is said of one
//! that is lost. Pure; [`super::look`] tries them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aizen_protocol::effect::{ObjectChange, ObjectKind};
use aizen_protocol::private::{Prefix, Text};
use serde::{Deserialize, Serialize};

use super::exchange::Heard;
use super::way;
use crate::rollback::checkpoint::Network;
use crate::rollback::route::Hop;

/// Port of DNS.
pub(super) const DNS: u16 = 53;
const HTTPS: u16 = 443;
/// `a.root-servers.net` stands for the Internet. Nothing is sent to it: the shadow's links end in the shadow.
pub(super) const INTERNET: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];
/// Networks whose clients are tried.
const NETWORKS: usize = 4;
/// Every host takes packets of this size (RFC 791 section 3.1, RFC 8200 section 5).
const LEAST_MTU: [u32; 2] = [576, 1280];
/// Services that answer questions of names on the device itself.
const RESOLVERS: [&str; 8] = [
    "bind9",
    "dnsmasq",
    "knot-resolver",
    "named",
    "pdns-recursor",
    "stubby",
    "systemd-resolved",
    "unbound",
];

/// The login of whoever asks, where it came over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The technician's address.
    pub from: IpAddr,
    /// The device's own address and port.
    pub at: SocketAddr,
}

/// A way that should hold after a change as it did before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// To the orchestrator.
    Orchestrator(SocketAddr),
    /// Out by the default route.
    Internet(SocketAddr),
    /// In from the technician, as a new login.
    Technician {
        dev: String,
        from: IpAddr,
        at: SocketAddr,
    },
    /// Through the device, from a client.
    Clients {
        dev: String,
        from: IpAddr,
        to: SocketAddr,
    },
    /// To a resolver.
    Resolver(IpAddr),
}

impl Way {
    /// Whose packets leave the device by its own routes.
    pub(super) fn to(&self) -> Option<IpAddr> {
        match self {
            Self::Orchestrator(to) | Self::Internet(to) | Self::Clients { to, .. } => Some(to.ip()),
            Self::Technician { from, .. } => Some(*from),
            Self::Resolver(address) => Some(*address),
        }
    }

    fn name(&self) -> String {
        let family = |to: &SocketAddr| if to.is_ipv4() { "IPv4" } else { "IPv6" };
        match self {
            Self::Orchestrator(to) => format!("the orchestrator ({to})"),
            Self::Internet(to) => format!("the Internet ({})", family(to)),
            Self::Technician { from, at, .. } => {
                format!("a new login from {from} to port {}", at.port())
            }
            Self::Clients { dev, to, .. } => format!("clients on {dev} ({})", family(to)),
            Self::Resolver(address) => format!("the resolver {address}"),
        }
    }

    /// What a person can do about it.
    fn next(&self) -> &'static str {
        match self {
            Self::Orchestrator(_) => {
                "let the script keep a way to it, or have somebody at the device: nobody can confirm from afar"
            }
            Self::Internet(_) => "let the script put a default route with a next hop that is there",
            Self::Technician { .. } => {
                "let the script keep this login possible, or be at the device's console"
            }
            Self::Clients { .. } => {
                "let the script keep forwarding, filters and translation for them"
            }
            Self::Resolver(_) => "let the script name a resolver that this device reaches",
        }
    }
}

/// What is seen of the device at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) network: Network,
    /// Where packets leave, by destination.
    pub(super) hops: BTreeMap<IpAddr, Option<Hop>>,
    pub(super) heard: BTreeMap<Way, Heard>,
    /// As `/etc/resolv.conf` has them.
    pub(super) resolvers: Vec<IpAddr>,
}

impl Look {
    pub(super) fn owns(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self
                .network
                .addresses
                .iter()
                .any(|a| a.address.address == address)
    }

    fn hop(&self, way: &Way) -> Option<&Hop> {
        self.hops.get(&way.to()?)?.as_ref()
    }
}

/// What the ways depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) uplink: &'a [IpAddr],
    pub(super) port: u16,
    pub(super) login: Option<&'a Login>,
    /// Forwarding of IPv4 and of IPv6.
    pub(super) forwards: [bool; 2],
}

/// The ways of a device, without those to its resolvers.
pub(super) fn ways(look: &Look, wanted: &Wanted<'_>) -> Vec<Way> {
    let hop = |to: IpAddr| look.hops.get(&to).and_then(Option::as_ref);
    let mut ways: Vec<Way> = wanted
        .uplink
        .iter()
        .map(|to| Way::Orchestrator(SocketAddr::new(*to, wanted.port)))
        .collect();
    for (to, forwards) in INTERNET.into_iter().zip(wanted.forwards) {
        let Some(out) = hop(to) else { continue };
        let to = SocketAddr::new(to, HTTPS);
        ways.push(Way::Internet(to));
        if forwards {
            let inside = look
                .network
                .addresses
                .iter()
                .filter(|a| Some(&a.dev) != out.dev.as_ref() && !a.is_secondary());
            let clients = inside.filter_map(|a| {
                let from = client(&look.network, a.address, to.is_ipv6())?;
                let dev = a.dev.clone();
                Some(Way::Clients { dev, from, to })
            });
            ways.extend(clients.take(NETWORKS));
        }
    }
    if let Some(login) = wanted.login
        && let Some(dev) = hop(login.from).and_then(|hop| hop.dev.clone())
    {
        ways.push(Way::Technician {
            dev,
            from: login.from,
            at: login.at,
        });
    }
    ways
}

/// An address of a network that nobody is known to have; none of one without room for clients.
fn client(network: &Network, own: Prefix, ipv6: bool) -> Option<IpAddr> {
    let link_local = match own.address {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local(),
    };
    let room = if ipv6 { 120 } else { 29 };
    if link_local || own.address.is_ipv6() != ipv6 || own.length > room {
        return None;
    }
    let taken: BTreeSet<IpAddr> = network
        .addresses
        .iter()
        .map(|a| a.address.address)
        .chain(
            network
                .routes
                .iter()
                .flat_map(|r| &r.hops)
                .filter_map(|h| h.via),
        )
        .chain(network.neighbours.iter().map(|n| n.address))
        .collect();
    let base = crate::broker::network(own).address;
    // From the middle of the smallest network with room.
    (3..=6_u8)
        .map(|host| match base {
            IpAddr::V4(a) => IpAddr::from(Ipv4Addr::from(u32::from(a) | u32::from(host))),
            IpAddr::V6(a) => IpAddr::from(Ipv6Addr::from(u128::from(a) | u128::from(host))),
        })
        .find(|address| !taken.contains(address))
}

/// What came of comparing two looks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// What no longer holds, why, and what to do next.
    pub(super) lock_outs: Vec<Text>,
    /// What could not be judged.
    pub(super) not_judged: Vec<String>,
    /// True if the way to the orchestrator is among them.
    pub(super) management: bool,
}

/// Compares what held before with what holds after. `listening` are addresses of this device at which somebody answers
/// questions of names.
pub(super) fn judge(
    before: &Look,
    after: &Look,
    listening: &[IpAddr],
    changes: &[ObjectChange],
) -> Judged {
    let mut judged = Judged::default();
    for (way, was) in &before.heard {
        if matches!(way, Way::Resolver(_)) {
            continue;
        }
        if !was.is_answer() {
            // Not every network behind a router is one of clients.
            if matches!(way, Way::Clients { .. }) {
                continue;
            }
            judged.not_judged.push(format!(
                "whether this still holds: {}; nothing came back before the script either",
                way.name()
            ));
            continue;
        }
        let is = after.heard.get(way).copied().unwrap_or(Heard::Silence);
        let why = lost(way, *was, is, before, after).or_else(|| tunnel(way, before, changes));
        if let Some(why) = why {
            judged.management |= matches!(way, Way::Orchestrator(_));
            let was = before
                .hop(way)
                .map_or_else(String::new, |hop| format!(" (before: {})", way::shown(hop)));
            judged
                .lock_outs
                .push(Text(format!("{}: {why}{was}; {}", way.name(), way.next())));
        }
    }
    resolvers(before, after, listening, changes, &mut judged);
    judged
}

/// Why a way that held does not hold any more; none if it does.
fn lost(way: &Way, was: Heard, is: Heard, before: &Look, after: &Look) -> Option<String> {
    let Some(hop) = after.hop(way) else {
        let dev = before.hop(way).and_then(|hop| hop.dev.as_deref());
        let down = dev.filter(|dev| after.network.links.iter().any(|l| l.name == **dev && !l.up));
        return Some(match down {
            Some(dev) => format!("{dev} is down, and there is no other route"),
            None => "there is no route any more".to_owned(),
        });
    };
    let by = way::shown(hop);
    if let Heard::Answer { seen_as } = is {
        let Heard::Answer { seen_as: first } = was else {
            return None;
        };
        if let Way::Clients { from, .. } = way
            && first != Some(*from)
            && seen_as == Some(*from)
        {
            return Some(format!(
                "their packets leave with their own addresses, where this device's address stood before ({by})"
            ));
        }
        return too_small(way, hop, before, after);
    }
    let moved = before.hop(way) != Some(hop);
    Some(match is {
        Heard::Refused(nix::libc::EPERM | nix::libc::EACCES) => {
            "a filter or route of this device refuses the packets".to_owned()
        }
        Heard::Refused(nix::libc::ECONNREFUSED) => {
            "a filter of this device answers in its place".to_owned()
        }
        Heard::Refused(errno) if moved => format!(
            "packets can't leave {by}: {}",
            io::Error::from_raw_os_error(errno)
        ),
        Heard::Refused(_) | Heard::Silence | Heard::Answer { .. } if moved => {
            format!("packets leave {by} now, where nobody is known to answer")
        }
        Heard::Refused(_) | Heard::Silence | Heard::Answer { .. } => format!(
            "packets should leave {by} as before, but no answer gets in: look at filters, addresses, neighbours and \
             parameters of this change"
        ),
    })
}

/// The smallest packets get through, but the link carries too little.
fn too_small(way: &Way, hop: &Hop, before: &Look, after: &Look) -> Option<String> {
    let dev = hop.dev.as_deref()?;
    let mtu = |look: &Look| {
        look.network
            .links
            .iter()
            .find(|l| l.name == dev)
            .map(|l| l.mtu)
    };
    let least = LEAST_MTU[usize::from(way.to()?.is_ipv6())];
    let (was, is) = (mtu(before)?, mtu(after)?);
    (was >= least && is < least).then(|| {
        format!("{dev} carries {is} bytes, less than the {least} that every host must take")
    })
}

/// A tunnel that loses a peer is recorded, not done.
fn tunnel(way: &Way, before: &Look, changes: &[ObjectChange]) -> Option<String> {
    let dev = before.hop(way)?.dev.as_deref()?;
    let mut peers = changes.iter().filter(|c| c.kind == ObjectKind::Wireguard);
    let lost = peers.any(|c| {
        c.object.0.split(' ').next() == Some(dev) && !c.diff.0.lines().any(|l| l.starts_with('+'))
    });
    lost.then(|| format!("the tunnel {dev} loses a peer"))
}

/// How good a resolver is, as far as a shadow can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Packets don't leave for it, or nobody listens.
    Dead,
    /// Packets leave, none comes back.
    Silent,
    Fine,
}

fn resolvers(
    before: &Look,
    after: &Look,
    listening: &[IpAddr],
    changes: &[ObjectChange],
    judged: &mut Judged,
) {
    let listens = |address: IpAddr| {
        listening.iter().any(|l| {
            let whole = l.is_unspecified() && (l.is_ipv6() || address.is_ipv4());
            *l == address || whole || address.is_unspecified()
        })
    };
    let best = |look: &Look, runs: Option<bool>| {
        let worth = look.resolvers.iter().map(|address| {
            if look.owns(*address) || address.is_unspecified() {
                return if runs.unwrap_or_else(|| listens(*address)) {
                    Worth::Fine
                } else {
                    Worth::Dead
                };
            }
            match look.heard.get(&Way::Resolver(*address)) {
                Some(Heard::Answer { .. }) => Worth::Fine,
                Some(Heard::Silence) => Worth::Silent,
                Some(Heard::Refused(_)) | None => Worth::Dead,
            }
        });
        worth.max().unwrap_or(Worth::Dead)
    };
    let (was, is) = (best(before, None), best(after, ours(changes)));
    if was == Worth::Silent && is == Worth::Silent {
        judged.not_judged.push(
            "whether a resolver is still reached: none answered before the script either"
                .to_owned(),
        );
    }
    if is >= was {
        return;
    }
    let list = |look: &Look| {
        let names: Vec<String> = look.resolvers.iter().map(IpAddr::to_string).collect();
        if names.is_empty() {
            "there is none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let way = Way::Resolver(Ipv4Addr::UNSPECIFIED.into());
    judged.lock_outs.push(Text(format!(
        "names: no resolver answers any more: {} (before: {}); {}",
        list(after),
        list(before),
        way.next()
    )));
}

/// Whether a resolver of this device would run after its services were changed; none if none of them is one.
fn ours(changes: &[ObjectChange]) -> Option<bool> {
    let mut last = BTreeMap::new();
    for change in changes.iter().filter(|c| c.kind == ObjectKind::Service) {
        let name = change.object.0.trim_end_matches(".service");
        if RESOLVERS.contains(&name) {
            let stopped = change
                .diff
                .0
                .lines()
                .any(|l| l.starts_with('+') && l.ends_with(" stopped"));
            last.insert(name, !stopped);
        }
    }
    if last.is_empty() {
        return None;
    }
    Some(last.values().any(|runs| *runs))
}

#[cfg(test)]
mod tests {
    use aizen_protocol::effect::Lasts;

    use super::*;
    use crate::rollback::address::AddressState;

    const FINE: Heard = Heard::Answer { seen_as: None };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop(via: &str, dev: &str) -> Option<Hop> {
        Some(Hop {
            via: via.parse().ok(),
            dev: Some(dev.to_owned()),
            weight: 0,
            onlink: false,
            other: Vec::new(),
        })
    }

    fn look(hop: Option<Hop>, heard: Heard) -> Look {
        let to = SocketAddr::new(address("203.0.113.5"), 443);
        Look {
            hops: BTreeMap::from([(to.ip(), hop)]),
            heard: BTreeMap::from([(Way::Orchestrator(to), heard)]),
            resolvers: vec![address("127.0.0.1")],
            ..Look::default()
        }
    }

    fn judged(before: &Look, after: &Look, changes: &[ObjectChange]) -> Judged {
        judge(before, after, &[address("0.0.0.0")], changes)
    }

    fn change(kind: ObjectKind, object: &str, diff: &str) -> ObjectChange {
        ObjectChange {
            kind,
            object: object.into(),
            diff: diff.into(),
            inverse: "".into(),
            owner: "kernel".into(),
            lasts: Lasts::UntilReboot,
        }
    }

    #[test]
    fn a_way_is_lost_only_if_it_held_before_and_what_was_lost_already_is_told() {
        let way = || hop("192.0.2.1", "wan");
        let (fine, silent) = (look(way(), FINE), look(way(), Heard::Silence));
        assert_eq!(judged(&fine, &fine, &[]), Judged::default());
        let lost = judged(&fine, &silent, &[]);
        assert!(lost.management && lost.lock_outs.len() == 1, "{lost:?}");
        for after in [&fine, &silent] {
            let unknown = judged(&silent, after, &[]);
            assert!(unknown.lock_outs.is_empty() && unknown.not_judged.len() == 1);
        }
    }

    #[test]
    fn a_tunnel_that_loses_its_peer_is_lost_though_the_shadow_still_answers() {
        let fine = look(hop("10.9.0.1", "wg0"), FINE);
        let peer = |diff: &str| change(ObjectKind::Wireguard, "wg0 peer abc", diff);
        assert_eq!(
            judged(&fine, &fine, &[peer("- peer abc\n")])
                .lock_outs
                .len(),
            1
        );
        let replaced = [peer("- peer abc\n+ peer abc endpoint 192.0.2.9:1\n")];
        assert!(judged(&fine, &fine, &replaced).lock_outs.is_empty());
    }

    #[test]
    fn a_resolver_on_the_device_is_as_good_as_the_service_behind_it() {
        let fine = look(hop("192.0.2.1", "wan"), FINE);
        let service = |name: &str, state: &str| {
            change(
                ObjectKind::Service,
                name,
                &format!("- {name} running\n+ {name} {state}\n"),
            )
        };
        let stopped = service("dnsmasq", "stopped");
        let lost = |changes: &[ObjectChange]| judged(&fine, &fine, changes).lock_outs.len();
        assert_eq!(lost(std::slice::from_ref(&stopped)), 1);
        assert_eq!(lost(&[stopped.clone(), service("unbound", "running")]), 0);
        assert_eq!(lost(&[stopped, service("dnsmasq", "running")]), 0);
        assert_eq!(lost(&[service("chrony", "stopped")]), 0);
    }

    #[test]
    fn an_address_for_a_client_is_one_that_nobody_has() {
        let own = |text: &str| text.parse::<Prefix>().unwrap();
        let mut network = Network::default();
        network
            .addresses
            .push(AddressState::asked("lan", own("10.1.0.3/24")));
        let of = |text: &str, ipv6| client(&network, own(text), ipv6).map(|a| a.to_string());
        assert_eq!(of("10.1.0.3/24", false).as_deref(), Some("10.1.0.4"));
        assert_eq!(of("2001:db8::1/64", true).as_deref(), Some("2001:db8::3"));
        for (text, ipv6) in [
            ("10.1.0.1/30", false),
            ("127.0.0.1/8", false),
            ("169.254.1.1/16", false),
            ("fe80::1/64", true),
            ("10.1.0.1/24", true),
        ] {
            assert_eq!(of(text, ipv6), None, "{text}");
        }
    }
}
