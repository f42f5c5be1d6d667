//! Routes of all tables as the kernel has them (`RTM_GETROUTE`), and how one is put and removed.
//!
//! What this code does not model (metrics, encapsulation, preference) is carried as the kernel's own bytes, so that a
//! route comes back as it was.

use std::fmt;
use std::net::IpAddr;

use aizen_protocol::private::Prefix;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, KernelError};
use super::link::Names;
use crate::collect::route::protocol_name;

mod message;

use message::{RTA_NH_ID, message, parse};

/// `RT_TABLE_MAIN`.
pub(crate) const MAIN: u32 = 254;
/// `RT_TABLE_LOCAL`.
pub(crate) const LOCAL: u32 = 255;
const UNICAST: u8 = 1;
/// `RTN_LOCAL`, `RTN_BROADCAST`, `RTN_ANYCAST`, `RTN_MULTICAST`.
const OWN_TRAFFIC: std::ops::RangeInclusive<u8> = 2..=5;
const PROTOCOL_KERNEL: u8 = 2;
/// `RTPROT_STATIC`: an administrator's.
pub(crate) const PROTOCOL_STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;

/// What tells routes apart: the kernel replaces what has the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteKey {
    /// Destination.
    pub destination: Prefix,
    /// Table.
    pub table: u32,
    /// Metric.
    pub metric: u32,
    /// Type of service.
    pub tos: u8,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.destination.is_default() {
            f.write_str(if self.destination.address.is_ipv4() {
                "default"
            } else {
                "default6"
            })?;
        } else {
            write!(f, "{}", self.destination)?;
        }
        if self.table != MAIN {
            write!(f, " table {}", self.table)?;
        }
        // 1024 is what the kernel makes of no metric in IPv6 (`IP6_RT_PRIO_USER`).
        let usual = if self.destination.address.is_ipv4() {
            0
        } else {
            1024
        };
        if self.metric != usual {
            write!(f, " metric {}", self.metric)?;
        }
        if self.tos != 0 {
            write!(f, " tos {}", self.tos)?;
        }
        Ok(())
    }
}

/// Attributes by number, as the kernel's own bytes, in order of number.
pub(crate) type Attributes = Vec<(u16, Vec<u8>)>;

/// One way that a route may take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hop {
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Interface.
    pub dev: Option<String>,
    /// Share among several, less one (`rtnh_hops`).
    pub weight: u8,
    /// The next hop is taken to be on the link whatever the addresses say.
    pub onlink: bool,
    /// Everything else, by attribute.
    pub other: Attributes,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteState {
    /// What tells it apart.
    pub key: RouteKey,
    /// `RTN_*`.
    pub kind: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `RTPROT_*`: who made it.
    pub protocol: u8,
    /// Source prefix (IPv6 subtrees).
    pub source: Option<Prefix>,
    /// Preferred source address.
    pub preferred: Option<IpAddr>,
    /// Its ways; none for `blackhole` and the like.
    pub hops: Vec<Hop>,
    /// Everything else, by attribute.
    pub other: Attributes,
    /// Seconds left, if it ends. Never compared.
    pub expires_s: Option<u32>,
}

impl RouteState {
    /// As `ip route add` makes it.
    pub(crate) fn asked(key: RouteKey, via: Option<IpAddr>, dev: Option<String>) -> Self {
        let direct = via.is_none() && key.destination.address.is_ipv4();
        Self {
            key,
            kind: UNICAST,
            scope: if direct { SCOPE_LINK } else { 0 },
            protocol: PROTOCOL_STATIC,
            source: None,
            preferred: None,
            hops: vec![Hop {
                via,
                dev,
                weight: 0,
                onlink: false,
                other: Attributes::new(),
            }],
            other: Attributes::new(),
            expires_s: None,
        }
    }

    /// What a comparison looks at.
    pub(crate) fn canonical(&self) -> Self {
        Self {
            expires_s: None,
            ..self.clone()
        }
    }

    /// True if the kernel makes it from an address and takes it away with it.
    pub(crate) fn follows_from_address(&self) -> bool {
        self.protocol == PROTOCOL_KERNEL
            && (self.key.table == LOCAL || OWN_TRAFFIC.contains(&self.kind))
    }

    pub(crate) fn is_kernel_made(&self) -> bool {
        self.protocol == PROTOCOL_KERNEL
    }

    pub(crate) fn uses(&self, dev: &str) -> bool {
        self.hops.iter().any(|hop| hop.dev.as_deref() == Some(dev))
    }

    /// True if it goes where `other` goes, whoever made it.
    pub(crate) fn same_way(&self, other: &Self) -> bool {
        let plain = |r: &Self| {
            Self {
                protocol: 0,
                ..r.canonical()
            }
            .without_preference()
        };
        plain(self) == plain(other)
    }

    /// `RTA_PREF` of medium (0) is what the kernel adds to every IPv6 route.
    fn without_preference(mut self) -> Self {
        const RTA_PREF: u16 = 20;
        self.other
            .retain(|(kind, value)| *kind != RTA_PREF || value.as_slice() != [0]);
        self
    }
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            UNICAST => {}
            2 => f.write_str("local ")?,
            6 => f.write_str("blackhole ")?,
            7 => f.write_str("unreachable ")?,
            8 => f.write_str("prohibit ")?,
            9 => f.write_str("throw ")?,
            other => write!(f, "type {other} ")?,
        }
        let plain = RouteKey {
            table: MAIN,
            metric: if self.key.destination.address.is_ipv4() {
                0
            } else {
                1024
            },
            ..self.key.clone()
        };
        write!(f, "{plain}")?;
        for hop in &self.hops {
            if self.hops.len() > 1 {
                f.write_str(" nexthop")?;
            }
            if let Some(via) = hop.via {
                write!(f, " via {via}")?;
            }
            if let Some(dev) = &hop.dev {
                write!(f, " dev {dev}")?;
            }
            if self.hops.len() > 1 {
                write!(f, " weight {}", u16::from(hop.weight) + 1)?;
            }
            if hop.onlink {
                f.write_str(" onlink")?;
            }
        }
        if self.key.table != MAIN {
            write!(f, " table {}", self.key.table)?;
        }
        write!(f, " proto {}", protocol_name(self.protocol))?;
        if let Some(source) = self.preferred {
            write!(f, " src {source}")?;
        }
        if self.key.metric != 0 {
            write!(f, " metric {}", self.key.metric)?;
        }
        Ok(())
    }
}

/// All routes of all tables but those that follow from addresses, in the kernel's order within a key.
pub(crate) async fn read(kernel: &Kernel, names: &Names) -> Result<Vec<RouteState>, KernelError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let answer = match kernel.dump(RouteNetlinkMessage::GetRoute(message)).await {
            // A kernel without IPv6 has no routes of it.
            Err(error)
                if family == AddressFamily::Inet6
                    && error.errno() == Some(nix::libc::EOPNOTSUPP) =>
            {
                continue;
            }
            answer => answer?,
        };
        routes.extend(answer.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewRoute(m) if !m.header.flags.contains(RouteFlags::Cloned) => {
                Some(parse(m, names))
            }
            _ => None,
        }));
    }
    routes.retain(|route| !route.follows_from_address());
    // Stable: routes of one key keep the kernel's order, the first of which wins in IPv4.
    routes.sort_by(|a, b| a.key.cmp(&b.key));
    for same in routes.chunk_by_mut(|a, b| a.key == b.key) {
        if same
            .first()
            .is_some_and(|r| r.key.destination.address.is_ipv6())
        {
            same.sort();
        }
    }
    Ok(routes)
}

/// How a route is put beside what has its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Fails if there is one.
    Add,
    /// In one step instead of the one that is there.
    Replace,
    /// Behind those that are there.
    Append,
}

/// Puts it.
pub(crate) async fn put(
    kernel: &Kernel,
    names: &Names,
    route: &RouteState,
    how: Put,
) -> Result<(), KernelError> {
    let flags = match how {
        Put::Add => NLM_F_CREATE | NLM_F_EXCL,
        Put::Replace => NLM_F_CREATE | NLM_F_REPLACE,
        Put::Append => NLM_F_CREATE | NLM_F_APPEND,
    };
    kernel
        .act(RouteNetlinkMessage::NewRoute(message(route, names)?), flags)
        .await
}

/// Removes exactly this one.
pub(crate) async fn remove(
    kernel: &Kernel,
    names: &Names,
    route: &RouteState,
) -> Result<(), KernelError> {
    let mut message = message(
        &RouteState {
            expires_s: None,
            ..route.clone()
        },
        names,
    )?;
    message.attributes.retain(|a| !matches!(a, RouteAttribute::Other(nla) if netlink_packet_core::Nla::kind(nla) != RTA_NH_ID));
    kernel.act(RouteNetlinkMessage::DelRoute(message), 0).await
}

/// Makes the routes of one key what `before` says.
pub(crate) async fn restore(
    kernel: &Kernel,
    names: &Names,
    before: &[RouteState],
    now: &[RouteState],
) -> Result<(), KernelError> {
    let same = |a: &RouteState, b: &RouteState| a.canonical() == b.canonical();
    if before.len() == now.len() && before.iter().zip(now).all(|(a, b)| same(a, b)) {
        return Ok(());
    }
    // In one step, so that there is no moment without a default route.
    if let ([wanted], [_]) = (before, now) {
        return put(kernel, names, wanted, Put::Replace).await;
    }
    // In IPv4 the first of a key wins, so order is kept; in IPv6 there is none.
    let ordered = before
        .iter()
        .chain(now)
        .any(|r| r.key.destination.address.is_ipv4());
    let kept = before
        .iter()
        .zip(now)
        .take_while(|(a, b)| same(a, b))
        .count();
    let stays = |at: usize, route: &RouteState, others: &[RouteState]| {
        if ordered {
            at < kept
        } else {
            others.iter().any(|other| same(route, other))
        }
    };
    for (at, extra) in now.iter().enumerate().rev() {
        if stays(at, extra, before) {
            continue;
        }
        match remove(kernel, names, extra).await {
            Err(error) if error.errno() != Some(nix::libc::ESRCH) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    for (at, missing) in before.iter().enumerate() {
        if !stays(at, missing, now) {
            put(kernel, names, missing, Put::Append).await?;
        }
    }
    Ok(())
}

/// Where the kernel would send a packet for `to` (`ip route get`).
pub(crate) async fn way_to(
    kernel: &Kernel,
    names: &Names,
    to: IpAddr,
) -> Result<Option<Hop>, KernelError> {
    let mut message = RouteMessage::default();
    let (family, length) = if to.is_ipv4() {
        (AddressFamily::Inet, 32)
    } else {
        (AddressFamily::Inet6, 128)
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message
        .attributes
        .push(RouteAttribute::Destination(to.into()));
    match kernel.get(RouteNetlinkMessage::GetRoute(message)).await {
        Ok(answer) => Ok(answer.iter().find_map(|m| match m {
            RouteNetlinkMessage::NewRoute(m) => parse(m, names).hops.into_iter().next(),
            _ => None,
        })),
        Err(KernelError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
