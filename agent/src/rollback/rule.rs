//! Policy rules as the kernel has them (`RTM_GETRULE`, rtnetlink(7)).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::private::Prefix;

use netlink_packet_core::{Emitable as _, NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, KernelError};

/// `FIB_RULE_IIF_DETACHED`, `FIB_RULE_OIF_DETACHED`, `FIB_RULE_UNRESOLVED`: follow from the links and the other rules.
const FOLLOWS: u32 = 0x4 | 0x8 | 0x10;
/// `FIB_RULE_INVERT`.
const INVERT: u32 = 0x2;

/// What tells one rule from another: all that an operation can say of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleKey {
    pub(crate) ipv6: bool,
    pub(crate) priority: u32,
    pub(crate) from: Option<Prefix>,
    pub(crate) to: Option<Prefix>,
    pub(crate) iif: Option<String>,
    pub(crate) oif: Option<String>,
    pub(crate) fwmark: Option<u32>,
    pub(crate) table: u32,
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.priority)?;
        for (word, prefix) in [("from", &self.from), ("to", &self.to)] {
            prefix.map_or(Ok(()), |p| write!(f, " {word} {p}"))?;
        }
        for (word, dev) in [("iif", &self.iif), ("oif", &self.oif)] {
            dev.as_ref().map_or(Ok(()), |d| write!(f, " {word} {d}"))?;
        }
        self.fwmark
            .map_or(Ok(()), |mark| write!(f, " fwmark {mark:#x}"))?;
        write!(f, " lookup {}", self.table)?;
        f.write_str(if self.ipv6 { " (IPv6)" } else { "" })
    }
}

/// One rule, as the kernel's own message: it names interfaces by name, so it holds in any namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleState {
    message: Vec<u8>,
}

impl RuleState {
    fn decode(&self) -> Option<RuleMessage> {
        RuleMessage::parse(self.message.as_slice()).ok()
    }

    fn encode(rule: &RuleMessage) -> Self {
        let mut message = vec![0; rule.buffer_len()];
        rule.emit(&mut message);
        Self { message }
    }

    /// The rule that an operation asks for, as `ip rule add … protocol static` makes it.
    pub(crate) fn asked(key: &RuleKey) -> Self {
        let mut rule = RuleMessage::default();
        rule.header.family = if key.ipv6 {
            AddressFamily::Inet6
        } else {
            AddressFamily::Inet
        };
        rule.header.action = RuleAction::ToTable;
        // A table beyond a byte is told by its attribute alone.
        rule.header.table = u8::try_from(key.table).unwrap_or(0);
        rule.header.src_len = key.from.map_or(0, |p| p.length);
        rule.header.dst_len = key.to.map_or(0, |p| p.length);
        let list = &mut rule.attributes;
        list.push(RuleAttribute::Priority(key.priority));
        list.push(RuleAttribute::Table(key.table));
        list.push(RuleAttribute::Protocol(RouteProtocol::Static));
        list.extend(key.from.map(|p| RuleAttribute::Source(p.address)));
        list.extend(key.to.map(|p| RuleAttribute::Destination(p.address)));
        list.extend(key.iif.clone().map(RuleAttribute::Iifname));
        list.extend(key.oif.clone().map(RuleAttribute::Oifname));
        if let Some(mark) = key.fwmark {
            list.push(RuleAttribute::FwMark(mark));
            list.push(RuleAttribute::FwMask(u32::MAX));
        }
        Self::encode(&rule)
    }

    /// Its key; none for a rule that says what no operation can say.
    pub(crate) fn key(&self) -> Option<RuleKey> {
        let rule = self.decode()?;
        let header = &rule.header;
        let ipv6 = header.family == AddressFamily::Inet6;
        let whole: IpAddr = if ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        // A zero prefix is told by no attribute, and says "all".
        let prefix = |length: u8| {
            (length > 0).then_some(Prefix {
                address: whole,
                length,
            })
        };
        let inverted = header.flags.bits() & INVERT != 0;
        if header.action != RuleAction::ToTable || header.tos != 0 || inverted {
            return None;
        }
        let mut key = RuleKey {
            ipv6,
            priority: 0,
            from: prefix(header.src_len),
            to: prefix(header.dst_len),
            iif: None,
            oif: None,
            fwmark: None,
            table: header.table.into(),
        };
        let mut mask = u32::MAX;
        for attribute in rule.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => key.priority = priority,
                RuleAttribute::Table(table) => key.table = table,
                RuleAttribute::Source(address) => {
                    key.from = key.from.map(|p| Prefix { address, ..p });
                }
                RuleAttribute::Destination(address) => {
                    key.to = key.to.map(|p| Prefix { address, ..p });
                }
                RuleAttribute::Iifname(dev) => key.iif = Some(dev),
                RuleAttribute::Oifname(dev) => key.oif = Some(dev),
                RuleAttribute::FwMark(mark) => key.fwmark = Some(mark),
                RuleAttribute::FwMask(of) => mask = of,
                RuleAttribute::Protocol(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
                | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
                _ => return None,
            }
        }
        let whole_mark = key.fwmark.is_none() || mask == u32::MAX;
        whole_mark.then_some(key)
    }

    /// Family and priority: rules that share them are asked in the order in which they were added.
    fn place(&self) -> Option<(AddressFamily, u32)> {
        let rule = self.decode()?;
        let priority = rule.attributes.iter().find_map(|a| match a {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
        Some((rule.header.family, priority.unwrap_or(0)))
    }
}

/// Those that share the place of `key`, in order.
pub(crate) fn beside(rules: &[RuleState], key: &RuleKey) -> Vec<RuleState> {
    let place = RuleState::asked(key).place();
    let same = |rule: &&RuleState| rule.place() == place;
    rules.iter().filter(same).cloned().collect()
}

/// Makes the rules of one place what they were, in their order; those that somebody else added stay, last.
pub(crate) async fn restore(
    kernel: &Kernel,
    key: &RuleKey,
    before: &[RuleState],
) -> Result<(), KernelError> {
    let now = beside(&read(kernel).await?, key);
    let ours = |rule: &&RuleState| rule.key().as_ref() == Some(key);
    // Another one that is gone was taken by somebody else.
    let mut wanted: Vec<RuleState> = before
        .iter()
        .filter(|rule| now.contains(rule) || ours(rule))
        .cloned()
        .collect();
    let foreign = now
        .iter()
        .filter(|rule| !before.contains(rule) && !ours(rule));
    wanted.extend(foreign.cloned());
    let kept = wanted
        .iter()
        .zip(&now)
        .take_while(|(wanted, now)| wanted == now)
        .count();
    for rule in now.iter().skip(kept) {
        remove(kernel, rule).await?;
    }
    for rule in wanted.iter().skip(kept) {
        add(kernel, rule).await?;
    }
    Ok(())
}

impl fmt::Display for RuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rule) = self.decode() else {
            return f.write_str("rule");
        };
        let mut priority = 0;
        let mut table = u32::from(rule.header.table);
        let mut rest = String::new();
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Priority(p) => priority = *p,
                RuleAttribute::Table(t) => table = *t,
                RuleAttribute::Source(a) => rest += &format!(" from {a}/{}", rule.header.src_len),
                RuleAttribute::Destination(a) => {
                    rest += &format!(" to {a}/{}", rule.header.dst_len)
                }
                RuleAttribute::Iifname(dev) => rest += &format!(" iif {dev}"),
                RuleAttribute::Oifname(dev) => rest += &format!(" oif {dev}"),
                RuleAttribute::FwMark(mark) => rest += &format!(" fwmark {mark:#x}"),
                _ => {}
            }
        }
        let family = if rule.header.family == AddressFamily::Inet6 {
            " (IPv6)"
        } else {
            ""
        };
        write!(f, "rule {priority}{rest} lookup {table}{family}")
    }
}

/// All rules of both families, in the order in which they are asked.
pub(crate) async fn read(kernel: &Kernel) -> Result<Vec<RuleState>, KernelError> {
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let answer = match kernel.dump(RouteNetlinkMessage::GetRule(message)).await {
            // Built without policy routing, or without IPv6.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(nix::libc::EOPNOTSUPP | nix::libc::EAFNOSUPPORT)
                ) =>
            {
                continue;
            }
            answer => answer?,
        };
        for object in answer {
            if let RouteNetlinkMessage::NewRule(mut rule) = object {
                rule.header.flags =
                    RuleFlags::from_bits_retain(rule.header.flags.bits() & !FOLLOWS);
                rules.push(RuleState::encode(&rule));
            }
        }
    }
    Ok(rules)
}

/// Adds it.
pub(crate) async fn add(kernel: &Kernel, rule: &RuleState) -> Result<(), KernelError> {
    match rule.decode() {
        Some(rule) => {
            kernel
                .act(
                    RouteNetlinkMessage::NewRule(rule),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
                .await
        }
        None => Err(KernelError::Refused {
            errno: nix::libc::EINVAL,
            said: None,
        }),
    }
}

/// Removes it.
pub(crate) async fn remove(kernel: &Kernel, rule: &RuleState) -> Result<(), KernelError> {
    match rule.decode() {
        Some(rule) => kernel.act(RouteNetlinkMessage::DelRule(rule), 0).await,
        None => Err(KernelError::Refused {
            errno: nix::libc::EINVAL,
            said: None,
        }),
    }
}
