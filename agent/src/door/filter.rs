//! The packet filter: chains, rules and counters of nf_tables (linux/netfilter/nf_tables.h, nfnetlink).
//!
//! It needs CAP_NET_ADMIN. Rules of iptables-nft are among them; those of the old x_tables interface are not.

mod load;
mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::{fs, io};

use aizen_protocol::limit;
use aizen_protocol::record::{Body, FilterChain};

use super::attribute::Attributes;
use super::netlink::{NETLINK_NETFILTER, dump};
use super::{DoorError, Seen};
use crate::collect::{NetlinkError, aside};

/// Reads the whole ruleset of this network namespace.
pub(super) async fn see() -> Result<Seen, DoorError> {
    let mut attempt = 1;
    let (mut ruleset, torn) = loop {
        let mut ruleset = Ruleset::default();
        let torn = read(&mut ruleset).await.map_err(explain)?;
        if !torn || attempt == ATTEMPTS {
            break (ruleset, torn);
        }
        attempt += 1;
    };
    if torn {
        let gap = format!("the packet filter changed while it was read, {ATTEMPTS} times");
        ruleset.gaps.push(gap);
    }
    ruleset
        .gaps
        .extend(aside::run_alone("aizen-xtables", unseen_tables).await?);
    Ok(ruleset.seen())
}

async fn read(ruleset: &mut Ruleset) -> Result<bool, NetlinkError> {
    let mut torn = ask(NFT_MSG_GETTABLE, |object| ruleset.take_table(object)).await?;
    torn |= ask(NFT_MSG_GETCHAIN, |object| ruleset.take_chain(object)).await?;
    torn |= ask(NFT_MSG_GETRULE, |object| ruleset.take_rule(object)).await?;
    Ok(torn)
}

/// True if there is any table, of whatever family, in the current network namespace.
pub(crate) async fn has_tables() -> Result<bool, NetlinkError> {
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE;
    let mut any = false;
    dump(NETLINK_NETFILTER, kind, &[0; NFGENMSG], |_| any = true).await?;
    Ok(any)
}

/// Asks for the objects of all families; each comes with the number of its own.
async fn ask(message: u16, mut each: impl FnMut(&Object<'_>)) -> Result<bool, NetlinkError> {
    let all_families = [0; NFGENMSG];
    let kind = NFNL_SUBSYS_NFTABLES << 8 | message;
    dump(NETLINK_NETFILTER, kind, &all_families, |payload| {
        if let Some(object) = Object::of(payload) {
            each(&object);
        }
    })
    .await
}

fn explain(error: NetlinkError) -> DoorError {
    let (NetlinkError::Socket(source) | NetlinkError::Refused(source)) = &error;
    match source.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EPERM) => DoorError::Capability("CAP_NET_ADMIN"),
        Some(
            nix::errno::Errno::EPROTONOSUPPORT
            | nix::errno::Errno::EINVAL
            | nix::errno::Errno::EOPNOTSUPP,
        ) => DoorError::Absent("nf_tables"),
        _ => error.into(),
    }
}

/// Tables of the old interface, which netlink doesn't show.
fn unseen_tables() -> Vec<String> {
    let read = |file: &str| -> io::Result<String> { fs::read_to_string(file) };
    let mut gaps = Vec::new();
    for (file, program) in [
        ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
        ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
    ] {
        // Without the module there is no such file, and nothing unseen.
        let tables = read(file).unwrap_or_default();
        let tables: Vec<_> = tables.split_whitespace().take(16).collect();
        if !tables.is_empty() {
            let tables = tables.join(", ");
            gaps.push(format!("rules of {program} in {tables} are not seen"));
        }
    }
    gaps
}

/// One table, chain or rule as the kernel tells it.
pub(crate) struct Object<'a> {
    family: u8,
    attributes: Attributes<'a>,
}

impl<'a> Object<'a> {
    pub(crate) fn of(payload: &'a [u8]) -> Option<Self> {
        let (header, attributes) = payload.split_first_chunk::<NFGENMSG>()?;
        Some(Self {
            family: header[0],
            attributes: Attributes(attributes),
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ruleset {
    dormant: BTreeSet<(u8, String)>,
    chains: Vec<FilterChain>,
    places: BTreeMap<(u8, String, String), usize>,
    rules: usize,
    chains_beyond: usize,
    rules_beyond: usize,
    gaps: Vec<String>,
}

impl Ruleset {
    pub(crate) fn take_table(&mut self, object: &Object<'_>) {
        let flags = object.attributes.be32(NFTA_TABLE_FLAGS).unwrap_or(0);
        if flags & NFT_TABLE_F_DORMANT != 0
            && let Some(name) = object.attributes.text(NFTA_TABLE_NAME)
            && self.dormant.len() < CHAINS
        {
            let family = family(object.family);
            self.gaps.push(format!(
                "the {family} table {name} is dormant: none of its rules works"
            ));
            self.dormant.insert((object.family, name));
        }
    }

    pub(crate) fn take_chain(&mut self, object: &Object<'_>) {
        let (Some(table), Some(chain)) = (
            object.attributes.text(NFTA_CHAIN_TABLE),
            object.attributes.text(NFTA_CHAIN_NAME),
        ) else {
            return;
        };
        if self.dormant.contains(&(object.family, table.clone())) {
            return;
        }
        if self.chains.len() == CHAINS {
            self.chains_beyond += 1;
            return;
        }
        let hook = object
            .attributes
            .nest(NFTA_CHAIN_HOOK)
            .be32(NFTA_HOOK_HOOKNUM);
        let policy = object.attributes.be32(NFTA_CHAIN_POLICY);
        let key = (object.family, table.clone(), chain.clone());
        self.places.insert(key, self.chains.len());
        self.chains.push(FilterChain {
            family: family(object.family),
            table,
            chain,
            hook: hook.map(|number| hook_name(object.family, number)),
            policy: hook.and(policy).map(|policy| match policy {
                0 => "drop".to_owned(),
                _ => "accept".to_owned(),
            }),
            rules: Vec::new(),
        });
    }

    pub(crate) fn take_rule(&mut self, object: &Object<'_>) {
        let (Some(table), Some(chain)) = (
            object.attributes.text(rule::NFTA_RULE_TABLE),
            object.attributes.text(rule::NFTA_RULE_CHAIN),
        ) else {
            return;
        };
        if self.dormant.contains(&(object.family, table.clone())) {
            return;
        }
        let place = self.places.get(&(object.family, table, chain));
        // A chain that came after the list of chains was read: the kernel calls that torn.
        let Some(chain) = place.and_then(|place| self.chains.get_mut(*place)) else {
            self.rules_beyond += 1;
            return;
        };
        if chain.rules.len() == RULES_OF_CHAIN || self.rules == limit::OBJECTS {
            self.rules_beyond += 1;
            return;
        }
        self.rules += 1;
        chain.rules.push(rule::decode(object.attributes));
    }

    pub(crate) fn seen(mut self) -> Seen {
        for (beyond, what) in [(self.chains_beyond, "chains"), (self.rules_beyond, "rules")] {
            if beyond > 0 {
                self.gaps.push(format!(
                    "{beyond} more {what} of the packet filter were left out"
                ));
            }
        }
        Seen {
            body: Body::Filter(self.chains),
            gaps: self.gaps,
        }
    }
}

/// `NFPROTO_*` (linux/netfilter.h), by nft's words.
fn family(number: u8) -> String {
    match number {
        1 => "inet".to_owned(),
        2 => "ip".to_owned(),
        3 => "arp".to_owned(),
        5 => "netdev".to_owned(),
        7 => "bridge".to_owned(),
        10 => "ip6".to_owned(),
        other => format!("family {other}"),
    }
}

/// `enum nf_inet_hooks`, `nf_dev_hooks` and `NF_ARP_*`, by nft's words.
fn hook_name(family: u8, number: u32) -> String {
    let names: &[&str] = match family {
        3 => &["input", "output", "forward"],
        5 => &["ingress", "egress"],
        _ => &[
            "prerouting",
            "input",
            "forward",
            "output",
            "postrouting",
            "ingress",
        ],
    };
    let name = usize::try_from(number).ok().and_then(|n| names.get(n));
    name.map_or_else(|| format!("hook {number}"), |name| (*name).to_owned())
}

const ATTEMPTS: u32 = 4;
const CHAINS: usize = 256;
const RULES_OF_CHAIN: usize = 256;
/// `struct nfgenmsg`: family, version, resource.
const NFGENMSG: usize = 4;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_DORMANT: u32 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::door::attribute::push;

    fn object(family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![family, 0, 0, 0];
        for (kind, payload) in attributes {
            push(&mut bytes, *kind, payload);
        }
        bytes
    }

    fn chain(name: &str, hook: Option<u32>) -> Vec<u8> {
        let mut nest = Vec::new();
        if let Some(hook) = hook {
            push(&mut nest, NFTA_HOOK_HOOKNUM, &hook.to_be_bytes());
        }
        let mut attributes: Vec<(u16, &[u8])> = vec![
            (NFTA_CHAIN_TABLE, b"filter\0"),
            (NFTA_CHAIN_NAME, name.as_bytes()),
        ];
        if hook.is_some() {
            attributes.push((NFTA_CHAIN_HOOK, &nest));
            attributes.push((NFTA_CHAIN_POLICY, &[0, 0, 0, 0]));
        }
        object(1, &attributes)
    }

    fn rule(chain: &str) -> Vec<u8> {
        object(
            1,
            &[
                (rule::NFTA_RULE_TABLE, b"filter\0"),
                (rule::NFTA_RULE_CHAIN, chain.as_bytes()),
                (rule::NFTA_RULE_HANDLE, &9_u64.to_be_bytes()),
            ],
        )
    }

    #[test]
    fn a_chain_has_its_hook_policy_and_rules_and_a_plain_one_has_neither() {
        let mut ruleset = Ruleset::default();
        ruleset.take_chain(&Object::of(&chain("in", Some(1))).unwrap());
        ruleset.take_chain(&Object::of(&chain("jumped", None)).unwrap());
        ruleset.take_rule(&Object::of(&rule("in")).unwrap());
        let [first, second] = &ruleset.chains[..] else {
            panic!("two chains")
        };
        assert_eq!(first.hook.as_deref(), Some("input"));
        assert_eq!(first.policy.as_deref(), Some("drop"));
        assert_eq!(first.rules[0].handle, 9);
        assert_eq!((&second.hook, &second.policy), (&None, &None));
    }

    #[test]
    fn rules_beyond_the_bound_are_counted_and_not_kept() {
        let mut ruleset = Ruleset::default();
        ruleset.take_chain(&Object::of(&chain("in", Some(1))).unwrap());
        for _ in 0..RULES_OF_CHAIN + 3 {
            ruleset.take_rule(&Object::of(&rule("in")).unwrap());
        }
        ruleset.take_rule(&Object::of(&rule("unknown")).unwrap());
        assert_eq!(ruleset.chains[0].rules.len(), RULES_OF_CHAIN);
        assert_eq!(
            ruleset.seen().gaps,
            ["4 more rules of the packet filter were left out"]
        );
    }

    #[test]
    fn a_dormant_table_filters_nothing() {
        let mut ruleset = Ruleset::default();
        let dormant = object(
            1,
            &[
                (NFTA_TABLE_NAME, b"filter\0"),
                (NFTA_TABLE_FLAGS, &[0, 0, 0, 1]),
            ],
        );
        ruleset.take_table(&Object::of(&dormant).unwrap());
        ruleset.take_chain(&Object::of(&chain("in", Some(1))).unwrap());
        ruleset.take_rule(&Object::of(&rule("in")).unwrap());
        let seen = ruleset.seen();
        assert_eq!(seen.body, Body::Filter(Vec::new()));
        assert!(seen.gaps[0].contains("dormant"));
    }

    proptest! {
        #[test]
        fn any_messages_become_a_bounded_ruleset(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20)) {
            let mut ruleset = Ruleset::default();
            for object in messages.iter().filter_map(|m| Object::of(m)) {
                ruleset.take_table(&object);
                ruleset.take_chain(&object);
                ruleset.take_rule(&object);
            }
            prop_assert!(ruleset.chains.len() <= messages.len());
        }
    }
}
