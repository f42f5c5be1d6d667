//! Interfaces as the kernel has them (`RTM_GETLINK`), and how one is set.

use std::collections::BTreeMap;
use std::fmt;

use aizen_protocol::private::Mac;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, KernelError};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkState {
    /// Its name.
    pub name: String,
    /// Driver kind of a virtual link (`veth`, `bridge`); none for hardware.
    pub kind: Option<String>,
    /// Hardware address, 48 bits; none where the link has another kind or none.
    pub mac: Option<Mac>,
    /// MTU, bytes.
    pub mtu: u32,
    /// Administrative state.
    pub up: bool,
    /// The bridge or bond it belongs to.
    pub master: Option<String>,
    /// What moves by itself or follows from the rest; never compared.
    pub seen: LinkSeen,
}

/// What a link shows beside its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkSeen {
    /// Index.
    pub index: u32,
    /// Carrier.
    pub carrier: bool,
    /// `lo`.
    pub loopback: bool,
    /// The link below (`vlan`, `macvlan`), by name.
    pub lower: Option<String>,
}

impl LinkState {
    /// What a comparison looks at.
    pub(crate) fn canonical(&self) -> Self {
        Self {
            seen: LinkSeen::default(),
            ..self.clone()
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.up { "up" } else { "down" };
        write!(f, "{} {state} mtu {}", self.name, self.mtu)?;
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        if let Some(master) = &self.master {
            write!(f, " master {master}")?;
        }
        Ok(())
    }
}

/// Names, indices and hardware addresses of the links, as of one dump.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    by_index: BTreeMap<u32, String>,
    by_name: BTreeMap<String, u32>,
    macs: BTreeMap<u32, Mac>,
}

impl Names {
    pub(crate) fn of(links: &[LinkState]) -> Self {
        let pairs = links.iter().map(|l| (l.seen.index, l.name.clone()));
        Self {
            by_index: pairs.clone().collect(),
            by_name: pairs.map(|(index, name)| (name, index)).collect(),
            macs: links
                .iter()
                .filter_map(|l| Some((l.seen.index, l.mac?)))
                .collect(),
        }
    }

    /// The name, or `if7` for a link that went between two dumps.
    pub(crate) fn name(&self, index: u32) -> String {
        self.by_index
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("if{index}"))
    }

    pub(crate) fn index(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The link's own hardware address.
    pub(crate) fn mac(&self, index: u32) -> Option<Mac> {
        self.macs.get(&index).copied()
    }

    /// The index, as the kernel would say that there is none.
    pub(crate) fn require(&self, name: &str) -> Result<u32, KernelError> {
        self.index(name).ok_or(KernelError::Refused {
            errno: nix::libc::ENODEV,
            said: Some(format!("there is no interface {name}")),
        })
    }
}

/// All links, by name.
pub(crate) async fn read(kernel: &Kernel) -> Result<Vec<LinkState>, KernelError> {
    let answer = kernel
        .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
        .await?;
    let messages: Vec<LinkMessage> = answer
        .into_iter()
        .filter_map(|m| match m {
            RouteNetlinkMessage::NewLink(m) => Some(m),
            _ => None,
        })
        .collect();
    let name_of = |message: &LinkMessage| {
        message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
    };
    let names: BTreeMap<u32, String> = messages
        .iter()
        .filter_map(|m| Some((m.header.index, name_of(m)?)))
        .collect();
    let mut links: Vec<LinkState> = messages.iter().map(|m| parse(m, &names)).collect();
    links.sort();
    Ok(links)
}

fn parse(message: &LinkMessage, names: &BTreeMap<u32, String>) -> LinkState {
    let flags = message.header.flags;
    let mut foreign_lower = false;
    let mut link = LinkState {
        name: names
            .get(&message.header.index)
            .cloned()
            .unwrap_or_default(),
        kind: None,
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        master: None,
        seen: LinkSeen {
            index: message.header.index,
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            lower: None,
        },
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::Controller(index) => link.master = names.get(index).cloned(),
            LinkAttribute::Link(index) if *index != message.header.index => {
                link.seen.lower = names.get(index).cloned();
            }
            // The lower one of a link with this attribute is in another namespace: its index means nothing here.
            LinkAttribute::LinkNetNsId(_) => foreign_lower = true,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if foreign_lower {
        link.seen.lower = None;
    }
    link
}

/// Settings of a link that are to hold; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkSettings {
    pub(crate) up: Option<bool>,
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Option<Mac>,
    /// The inner none takes it out of its bridge.
    pub(crate) master: Option<Option<u32>>,
}

/// Sets them in one message.
pub(crate) async fn set(
    kernel: &Kernel,
    index: u32,
    settings: &LinkSettings,
) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(up) = settings.up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
    }
    let attributes = &mut message.attributes;
    attributes.extend(settings.mtu.map(LinkAttribute::Mtu));
    attributes.extend(
        settings
            .mac
            .map(|mac| LinkAttribute::Address(mac.0.to_vec())),
    );
    let master = settings.master;
    attributes.extend(master.map(|m| LinkAttribute::Controller(m.unwrap_or(0))));
    kernel.act(RouteNetlinkMessage::SetLink(message), 0).await
}

/// Makes `now` what `before` was, as far as settings go.
pub(crate) async fn restore(
    kernel: &Kernel,
    names: &Names,
    before: &LinkState,
    now: &LinkState,
) -> Result<(), KernelError> {
    let changed = LinkSettings {
        up: (before.up != now.up).then_some(before.up),
        mtu: (before.mtu != now.mtu).then_some(before.mtu),
        mac: before.mac.filter(|mac| Some(*mac) != now.mac),
        master: match &before.master {
            same if *same == now.master => None,
            Some(master) => Some(Some(names.require(master)?)),
            None => Some(None),
        },
    };
    if changed == LinkSettings::default() {
        return Ok(());
    }
    set(kernel, names.require(&before.name)?, &changed).await
}

/// Removes a link that a driver made on demand (a bridge, a veth pair, a tunnel); others refuse.
pub(crate) async fn remove(kernel: &Kernel, index: u32) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    kernel.act(RouteNetlinkMessage::DelLink(message), 0).await
}

/// Gives a link a name. It is set down for it, which kernels before 6.0 ask for.
pub(crate) async fn rename(kernel: &Kernel, index: u32, name: &str) -> Result<(), KernelError> {
    let down = LinkSettings {
        up: Some(false),
        ..LinkSettings::default()
    };
    set(kernel, index, &down).await?;
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    kernel.act(RouteNetlinkMessage::SetLink(message), 0).await
}
