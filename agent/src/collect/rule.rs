//! Policy rules.

use aizen_protocol::record::Rule;

use super::netlink::attribute::{attributes, prefix};
use super::netlink::{self, Question};
use super::{CollectError, Seen};

/// All IPv4 and IPv6 policy rules of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Rule>>, CollectError> {
    let question = Question::route(RTM_GETRULE, vec![0; HEADER]);
    let dump = netlink::dump_parts(&question, |part| decode(part.payload), |_| false).await?;
    Ok(dump.seen("rules"))
}

/// Reads one `RTM_NEWRULE`: `struct fib_rule_hdr` and attributes. None if it can't be right; no rule for other families.
pub(crate) fn decode(message: &[u8]) -> Option<Option<Rule>> {
    let &[family, to_length, from_length, _, table, _, _, action] = message.first_chunk()?;
    let family = match family {
        AF_INET => 4,
        AF_INET6 => 6,
        _ => return Some(None),
    };
    let mut rule = Rule {
        priority: 0,
        family,
        from: None,
        to: None,
        table: u32::from(table),
        action: self::action(action),
        iif: None,
        oif: None,
        mark: None,
    };
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            FRA_PRIORITY => rule.priority = attribute.u32()?,
            FRA_TABLE => rule.table = attribute.u32()?,
            FRA_SRC => rule.from = Some(prefix(attribute.ip()?, from_length)?),
            FRA_DST => rule.to = Some(prefix(attribute.ip()?, to_length)?),
            FRA_IIFNAME => rule.iif = Some(attribute.text()),
            FRA_OIFNAME => rule.oif = Some(attribute.text()),
            FRA_FWMARK => rule.mark = attribute.u32(),
            _ => {}
        }
    }
    Some(Some(rule))
}

/// `FR_ACT_*` (linux/fib_rules.h).
fn action(action: u8) -> String {
    let name = match action {
        0 => "unspec",
        1 => "to_table",
        2 => "goto",
        3 => "nop",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        other => return other.to_string(),
    };
    name.to_owned()
}

const RTM_GETRULE: u16 = 34;
/// `struct fib_rule_hdr`: family, lengths of destination and source, TOS, table, reserved, action, flags.
const HEADER: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    fn message(family: u8, given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![family, 0, 24, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    #[test]
    fn a_rule_keeps_its_source_with_length_and_its_long_table() {
        let given: [(u16, &[u8]); 5] = [
            (FRA_SRC, &[192, 0, 2, 0]),
            (FRA_TABLE, &1000_u32.to_ne_bytes()),
            (FRA_PRIORITY, &32765_u32.to_ne_bytes()),
            (FRA_IIFNAME, b"lan\0"),
            (FRA_FWMARK, &7_u32.to_ne_bytes()),
        ];
        let rule = decode(&message(AF_INET, &given)).unwrap().unwrap();
        assert_eq!(rule.from.unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(
            (rule.table, rule.priority, rule.action.as_str()),
            (1000, 32765, "to_table")
        );
        assert_eq!(
            (rule.iif.as_deref(), rule.oif, rule.mark),
            (Some("lan"), None, Some(7))
        );
    }

    #[test]
    fn rules_of_multicast_routing_are_passed_over() {
        assert_eq!(decode(&message(128, &[])), Some(None));
    }

    #[test]
    fn a_source_longer_than_its_family_or_of_an_odd_length_is_refused() {
        assert_eq!(decode(&message(AF_INET, &[(FRA_SRC, &[1, 2, 3])])), None);
        let mut long = message(AF_INET, &[(FRA_SRC, &[192, 0, 2, 0])]);
        long[2] = 33;
        assert_eq!(decode(&long), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_rule_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
        }
    }
}
