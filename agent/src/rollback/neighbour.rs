//! Neighbour entries that a person made (`RTM_GETNEIGH`, permanent and proxies): a link that goes down loses them.

use std::fmt;
use std::net::IpAddr;

use aizen_protocol::private::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, KernelError};
use super::link::Names;

/// `NTF_PROXY`.
const PROXY: u8 = 0x08;

/// One permanent entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NeighbourState {
    /// Interface.
    pub dev: String,
    /// Whose.
    pub address: IpAddr,
    /// Its hardware address; none for a proxy entry.
    pub mac: Option<Mac>,
    /// `NTF_*`.
    pub flags: u8,
}

impl NeighbourState {
    /// The permanent entry that an operation asks for.
    pub(crate) fn asked(dev: &str, address: IpAddr, mac: Option<Mac>) -> Self {
        Self {
            dev: dev.to_owned(),
            address,
            mac,
            flags: 0,
        }
    }

    /// True for the entry of this name; a proxy is another object.
    pub(crate) fn is_entry(&self, dev: &str, address: IpAddr) -> bool {
        self.dev == dev && self.address == address && self.flags & PROXY == 0
    }
}

impl fmt::Display for NeighbourState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.flags & PROXY != 0 {
            f.write_str("proxy ")?;
        }
        write!(f, "{} dev {}", self.address, self.dev)?;
        self.mac.map_or(Ok(()), |mac| write!(f, " lladdr {mac}"))
    }
}

/// All permanent and proxy entries of IPv4 and IPv6.
pub(crate) async fn read(
    kernel: &Kernel,
    names: &Names,
) -> Result<Vec<NeighbourState>, KernelError> {
    let mut entries = Vec::new();
    for flags in [
        NeighbourFlags::empty(),
        NeighbourFlags::from_bits_retain(PROXY),
    ] {
        let mut message = NeighbourMessage::default();
        message.header.flags = flags;
        let answer = kernel
            .dump(RouteNetlinkMessage::GetNeighbour(message))
            .await?;
        entries.extend(answer.iter().filter_map(|m| match m {
            RouteNetlinkMessage::NewNeighbour(m) => parse(m, names),
            _ => None,
        }));
    }
    entries.sort();
    entries.dedup();
    Ok(entries)
}

/// What the kernel learned from neighbours that answered, and still keeps.
pub(crate) async fn heard(
    kernel: &Kernel,
    names: &Names,
) -> Result<Vec<NeighbourState>, KernelError> {
    let message = NeighbourMessage::default();
    let answer = kernel
        .dump(RouteNetlinkMessage::GetNeighbour(message))
        .await?;
    let learned = |m: &NeighbourMessage| {
        !matches!(
            m.header.state,
            Nud::Permanent | Nud::Noarp | Nud::None | Nud::Incomplete | Nud::Failed
        )
    };
    Ok(answer
        .iter()
        .filter_map(|m| match m {
            RouteNetlinkMessage::NewNeighbour(m) if learned(m) => entry(m, names),
            _ => None,
        })
        .collect())
}

fn parse(message: &NeighbourMessage, names: &Names) -> Option<NeighbourState> {
    let header = &message.header;
    (header.state == Nud::Permanent || header.flags.bits() & PROXY != 0)
        .then(|| entry(message, names))
        .flatten()
}

fn entry(message: &NeighbourMessage, names: &Names) -> Option<NeighbourState> {
    let header = &message.header;
    let flags = header.flags.bits();
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let address = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => Some(IpAddr::from(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => Some(IpAddr::from(*a)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => {
            <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac)
        }
        _ => None,
    });
    Some(NeighbourState {
        dev: names.name(header.ifindex),
        address,
        mac,
        flags,
    })
}

fn message(entry: &NeighbourState, names: &Names) -> Result<NeighbourMessage, KernelError> {
    let mut message = NeighbourMessage::default();
    message.header.family = if entry.address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.ifindex = names.require(&entry.dev)?;
    message.header.state = Nud::Permanent;
    message.header.flags = NeighbourFlags::from_bits_retain(entry.flags);
    message
        .attributes
        .push(NeighbourAttribute::Destination(entry.address.into()));
    let mac = entry
        .mac
        .map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend(mac);
    Ok(message)
}

/// Adds it, or makes what is there for this address permanent.
pub(crate) async fn put(
    kernel: &Kernel,
    names: &Names,
    entry: &NeighbourState,
) -> Result<(), KernelError> {
    let message = message(entry, names)?;
    kernel
        .act(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .await
}

/// Removes it.
///
/// # Errors
/// [`KernelError`]; an entry that is gone already is no error.
pub(crate) async fn remove(
    kernel: &Kernel,
    names: &Names,
    entry: &NeighbourState,
) -> Result<(), KernelError> {
    let message = message(entry, names)?;
    match kernel
        .act(RouteNetlinkMessage::DelNeighbour(message), 0)
        .await
    {
        Err(error) if error.errno() != Some(nix::libc::ENOENT) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
