//! Policy rules as the kernel has them (`RTM_GETRULE`). No operation touches them; they are watched and replicated.

use std::fmt;

use netlink_packet_core::{Emitable as _, NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::rule::{RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::kernel::{Kernel, KernelError};

/// `FIB_RULE_IIF_DETACHED`, `FIB_RULE_OIF_DETACHED`, `FIB_RULE_UNRESOLVED`: follow from the links and the other rules.
const FOLLOWS: u32 = 0x4 | 0x8 | 0x10;

/// One rule, as the kernel's own message: it names interfaces by name, so it holds in any namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RuleState {
    message: Vec<u8>,
}

impl RuleState {
    fn decode(&self) -> Option<RuleMessage> {
        RuleMessage::parse(self.message.as_slice()).ok()
    }
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
                let mut bytes = vec![0; rule.buffer_len()];
                rule.emit(&mut bytes);
                rules.push(RuleState { message: bytes });
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
