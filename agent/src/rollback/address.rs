//! Addresses of interfaces as the kernel has them (`RTM_GETADDR`), and how one is added and removed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use aizen_protocol::private::Prefix;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, KernelError};
use super::link::Names;

/// `IFA_F_*` of linux/if_addr.h that are kept; the others (tentative, dadfailed, deprecated, optimistic, how an IPv6
/// address was generated) move by themselves.
const KEPT: u32 =
    SECONDARY | NODAD | HOME | PERMANENT | MANAGED_TEMPORARY | NO_PREFIX_ROUTE | MULTICAST_JOIN;
/// Flags that a request may carry.
const SETTABLE: u32 = NODAD | HOME | MANAGED_TEMPORARY | NO_PREFIX_ROUTE | MULTICAST_JOIN;
const SECONDARY: u32 = 0x01;
const NODAD: u32 = 0x02;
const HOME: u32 = 0x10;
const PERMANENT: u32 = 0x80;
const MANAGED_TEMPORARY: u32 = 0x100;
const NO_PREFIX_ROUTE: u32 = 0x200;
const MULTICAST_JOIN: u32 = 0x400;
/// Lifetime of what does not end.
const FOR_EVER: u32 = u32::MAX;
/// `IFAPROT_KERNEL_LO`, `_RA`, `_LL`: the kernel made it.
const MADE_BY_KERNEL: std::ops::RangeInclusive<u8> = 1..=3;

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressState {
    /// Interface.
    pub dev: String,
    /// The address and the length of its network.
    pub address: Prefix,
    /// The other end of a point-to-point address.
    pub peer: Option<IpAddr>,
    /// IPv4 broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// IPv4 label, if it is not the interface's name.
    pub label: Option<String>,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `IFA_F_*` that do not move by themselves.
    pub flags: u32,
    /// Metric of its prefix route.
    pub metric: Option<u32>,
    /// `IFAPROT_*`: who made it.
    pub protocol: Option<u8>,
    /// Seconds left (valid, preferred); none if it does not end. Never compared.
    pub lifetime: Option<(u32, u32)>,
}

impl AddressState {
    /// As `ip address add` makes it.
    pub(crate) fn asked(dev: &str, address: Prefix) -> Self {
        let scope = match address.address {
            IpAddr::V4(a) if a.is_loopback() => 254,
            IpAddr::V6(a) if a.is_loopback() => 254,
            IpAddr::V6(a) if a.is_unicast_link_local() => 253,
            IpAddr::V4(_) | IpAddr::V6(_) => 0,
        };
        Self {
            dev: dev.to_owned(),
            address,
            peer: None,
            broadcast: None,
            label: None,
            scope,
            flags: PERMANENT,
            metric: None,
            protocol: None,
            lifetime: None,
        }
    }

    /// What a comparison looks at.
    pub(crate) fn canonical(&self) -> Self {
        Self {
            lifetime: None,
            ..self.clone()
        }
    }

    /// What tells it from the others of the device.
    pub(crate) fn key(&self) -> (String, Prefix, Option<IpAddr>) {
        (self.dev.clone(), self.address, self.peer)
    }

    pub(crate) fn is_secondary(&self) -> bool {
        self.address.address.is_ipv4() && self.flags & SECONDARY != 0
    }

    /// True if a lease or an advertisement gave it.
    pub(crate) fn is_dynamic(&self) -> bool {
        self.flags & PERMANENT == 0
    }

    /// True if the kernel makes it by itself whenever the link comes up.
    pub(crate) fn is_kernel_made(&self) -> bool {
        self.protocol.is_some_and(|p| MADE_BY_KERNEL.contains(&p))
    }
}

impl fmt::Display for AddressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(peer) = self.peer {
            write!(f, " peer {peer}")?;
        }
        if let Some(broadcast) = self.broadcast {
            write!(f, " brd {broadcast}")?;
        }
        write!(f, " dev {}", self.dev)?;
        if let Some(label) = &self.label {
            write!(f, " label {label}")?;
        }
        if self.is_secondary() {
            f.write_str(" secondary")?;
        }
        if self.is_dynamic() {
            f.write_str(" dynamic")?;
        }
        Ok(())
    }
}

/// All addresses, in the kernel's order: the first of a network is the one that packets leave with.
pub(crate) async fn read(kernel: &Kernel, names: &Names) -> Result<Vec<AddressState>, KernelError> {
    let answer = kernel
        .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
        .await?;
    Ok(answer
        .iter()
        .filter_map(|m| match m {
            RouteNetlinkMessage::NewAddress(m) => parse(m, names),
            _ => None,
        })
        .collect())
}

fn parse(message: &AddressMessage, names: &Names) -> Option<AddressState> {
    let dev = names.name(message.header.index);
    let (mut address, mut local) = (None, None);
    let mut flags = u32::from(message.header.flags.bits());
    let mut state = AddressState::asked(
        &dev,
        Prefix {
            address: Ipv4Addr::UNSPECIFIED.into(),
            length: 0,
        },
    );
    state.scope = message.header.scope.into();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(a) => address = Some(*a),
            AddressAttribute::Local(a) => local = Some(*a),
            AddressAttribute::Broadcast(a) => state.broadcast = Some(*a),
            AddressAttribute::Label(label) if *label != dev => state.label = Some(label.clone()),
            AddressAttribute::Flags(all) => flags = all.bits(),
            AddressAttribute::RoutePriority(metric) => state.metric = Some(*metric),
            AddressAttribute::Protocol(protocol) => state.protocol = Some((*protocol).into()),
            AddressAttribute::CacheInfo(cache) if cache.ifa_valid != FOR_EVER => {
                state.lifetime = Some((cache.ifa_valid, cache.ifa_preferred));
            }
            _ => {}
        }
    }
    let own = local.or(address)?;
    state.peer = address.filter(|a| *a != own);
    state.address = Prefix {
        address: own,
        length: message.header.prefix_len,
    };
    // In IPv6 the bit of "secondary" says "temporary" (RFC 8981): made anew by the kernel, never by a request.
    let kept = if own.is_ipv6() {
        KEPT & !SECONDARY
    } else {
        KEPT
    };
    state.flags = flags & kept;
    Some(state)
}

fn message(state: &AddressState, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    let own = state.address.address;
    message.header.family = if own.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.prefix_len = state.address.length;
    message.header.index = index;
    message.header.scope = state.scope.into();
    message.header.flags =
        AddressHeaderFlags::from_bits_retain((state.flags & SETTABLE & 0xff) as u8);
    let attributes = &mut message.attributes;
    attributes.push(AddressAttribute::Local(own));
    attributes.push(AddressAttribute::Address(state.peer.unwrap_or(own)));
    attributes.extend(state.broadcast.map(AddressAttribute::Broadcast));
    attributes.extend(state.label.clone().map(AddressAttribute::Label));
    attributes.push(AddressAttribute::Flags(AddressFlags::from_bits_retain(
        state.flags & SETTABLE,
    )));
    attributes.extend(state.metric.map(AddressAttribute::RoutePriority));
    attributes.extend(state.protocol.map(|p| AddressAttribute::Protocol(p.into())));
    if let Some((valid, preferred)) = state.lifetime {
        let mut cache = CacheInfo::default();
        cache.ifa_valid = valid.max(1);
        cache.ifa_preferred = preferred.min(valid.max(1));
        attributes.push(AddressAttribute::CacheInfo(cache));
    }
    message
}

/// Adds it as the last one of its device; fails if it is there.
pub(crate) async fn add(
    kernel: &Kernel,
    names: &Names,
    state: &AddressState,
) -> Result<(), KernelError> {
    let message = message(state, names.require(&state.dev)?);
    kernel
        .act(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .await
}

/// Removes it; fails if it is not there.
pub(crate) async fn remove(
    kernel: &Kernel,
    names: &Names,
    state: &AddressState,
) -> Result<(), KernelError> {
    let mut message = message(state, names.require(&state.dev)?);
    message
        .attributes
        .retain(|a| matches!(a, AddressAttribute::Local(_) | AddressAttribute::Address(_)));
    kernel
        .act(RouteNetlinkMessage::DelAddress(message), 0)
        .await
}
