//! What netlink can set and no operation does: queueing, next hops, address labels, VLANs and forwarding entries of
//! bridges, a link's other settings (rtnetlink(7), linux/{rtnetlink,pkt_sched,nexthop,if_addrlabel,if_bridge,if_link,neighbour}.h).
//!
//! A script with capabilities reaches them, nothing else of ours does. They are kept and sent back as the kernel's own
//! bytes, without what moves by itself.

use std::collections::BTreeMap;
use std::fmt;

use aizen_protocol::id::Digest;
use serde::{Deserialize, Serialize};

use super::link::Names;
use super::route::Attributes;
use crate::collect::netlink::attribute::{NESTED, attributes, find, put};
use crate::collect::netlink::{NetlinkError, Question, dump_parts};

mod decode;
mod send;

pub(crate) use send::restore;

/// What kind of object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Settings of a link that no operation sets.
    Link,
    /// A VLAN of a bridge's port, or of the bridge.
    Vlan,
    /// A forwarding entry of a bridge or of VXLAN that somebody made; those that they learn come and go.
    Fdb,
    /// A queueing discipline that somebody chose: the kernel's own come by themselves.
    Queue,
    /// A class of one.
    QueueClass,
    /// A filter of one. Its settings hold counters: that it is there is compared, what it does is not.
    Filter,
    /// A next hop.
    NextHop,
    /// A label of addresses (RFC 6724).
    Label,
}

impl Kind {
    /// The number of the message that tells one; the one that removes it follows, then the one that asks.
    fn number(self) -> u16 {
        match self {
            Self::Link => 16,
            Self::Vlan => 112,
            Self::Fdb => 28,
            Self::Queue => 36,
            Self::QueueClass => 40,
            Self::Filter => 44,
            Self::NextHop => 104,
            Self::Label => 72,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Link => "other settings of link",
            Self::Vlan => "bridge vlan",
            Self::Fdb => "bridge fdb",
            Self::Queue => "qdisc",
            Self::QueueClass => "class",
            Self::Filter => "filter",
            Self::NextHop => "nexthop",
            Self::Label => "addrlabel",
        }
    }
}

/// What tells one object from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct BeyondKey {
    pub(crate) kind: Kind,
    /// As `tc`, `ip` and `bridge` name it.
    pub(crate) name: String,
}

impl BeyondKey {
    /// True for settings that a link has as long as it is there.
    pub(crate) fn is_of_a_link(&self) -> bool {
        self.kind == Kind::Link
    }
}

impl fmt::Display for BeyondKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

const KINDS: [Kind; 8] = [
    Kind::Link,
    Kind::Vlan,
    Kind::Fdb,
    Kind::Queue,
    Kind::QueueClass,
    Kind::Filter,
    Kind::NextHop,
    Kind::Label,
];

impl From<BeyondKey> for String {
    fn from(key: BeyondKey) -> Self {
        key.to_string()
    }
}

/// A text that is no key.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' names no kind of object")]
pub(crate) struct NoKind(String);

impl TryFrom<String> for BeyondKey {
    type Error = NoKind;
    fn try_from(text: String) -> Result<Self, NoKind> {
        let found = KINDS.into_iter().find_map(|kind| {
            let name = text.strip_prefix(kind.word())?.strip_prefix(' ')?;
            let name = name.to_owned();
            Some(Self { kind, name })
        });
        found.ok_or_else(|| NoKind(text.chars().take(80).collect()))
    }
}

/// One object, as the kernel's own bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BeyondState {
    /// The fixed header, with zeros for what moves.
    header: Vec<u8>,
    /// What is compared.
    attributes: Attributes,
    /// What is sent back and not compared.
    carried: Attributes,
}

impl BeyondState {
    /// What a comparison looks at.
    pub(crate) fn canonical(&self) -> Self {
        Self {
            carried: Attributes::new(),
            ..self.clone()
        }
    }
}

impl fmt::Display for BeyondState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.header.clone();
        attach(&mut bytes, &self.attributes);
        let digest = Digest::of(&bytes).to_string();
        write!(f, "{} bytes (SHA-256 {}…)", bytes.len(), &digest[..16])
    }
}

/// All of them.
pub(crate) type Beyond = BTreeMap<BeyondKey, BeyondState>;

/// Reads all of them. What this kernel does not have is not there.
pub(crate) async fn read(names: &Names) -> Result<Beyond, NetlinkError> {
    let mut all = Beyond::new();
    for kind in [
        Kind::Link,
        Kind::Vlan,
        Kind::Fdb,
        Kind::NextHop,
        Kind::Label,
    ] {
        all.extend(ask(kind, decode::question(kind), names).await?);
    }
    let queues = ask(Kind::Queue, decode::question(Kind::Queue), names).await?;
    let mut ways: Vec<(u32, u32)> = queues.iter().flat_map(|(_, q)| decode::ways(q)).collect();
    ways.sort_unstable();
    ways.dedup();
    let mut links: Vec<u32> = ways.iter().map(|(index, _)| *index).collect();
    links.dedup();
    all.extend(queues);
    for index in links {
        let question = decode::traffic_question(index, 0);
        all.extend(ask(Kind::QueueClass, question, names).await?);
    }
    for (index, parent) in ways {
        let question = decode::traffic_question(index, parent);
        all.extend(ask(Kind::Filter, question, names).await?);
    }
    Ok(all)
}

async fn ask(
    kind: Kind,
    body: Vec<u8>,
    names: &Names,
) -> Result<Vec<(BeyondKey, BeyondState)>, NetlinkError> {
    let question = Question::route(kind.number() + 2, body);
    let decode =
        |part: &crate::collect::netlink::Part<'_>| Some(decode::objects(kind, part.payload, names));
    match dump_parts(&question, decode, |_| true).await {
        Ok(dump) => match dump.cut {
            Some(error) => Err(error.into()),
            None => Ok(dump.items),
        },
        // Built without it, or older than it: nobody can set it either.
        Err(NetlinkError::Refused(error))
            if matches!(
                error.raw_os_error(),
                Some(nix::libc::EOPNOTSUPP | nix::libc::EINVAL | nix::libc::ENOENT)
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn attach(body: &mut Vec<u8>, attributes: &Attributes) {
    for (kind, value) in attributes {
        put(body, *kind, value);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|b| b.first_chunk());
    four.map_or(0, |four| u32::from_ne_bytes(*four))
}

#[cfg(test)]
mod tests;
