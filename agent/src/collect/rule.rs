//! Policy rules.

use aizen_protocol::record::Rule;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::attribute::prefix;
use super::{CollectError, Seen, netlink};

/// All IPv4 and IPv6 policy rules of this network namespace.
pub(crate) async fn collect() -> Result<Seen<Vec<Rule>>, CollectError> {
    let question = RouteNetlinkMessage::GetRule(RuleMessage::default());
    let dump = netlink::dump(
        question,
        |message| match message {
            RouteNetlinkMessage::NewRule(rule) => decode(&rule).into_iter().collect(),
            _ => Vec::new(),
        },
        |_| false,
    )
    .await?;
    Ok(dump.seen("rules"))
}

pub(crate) fn decode(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => 4,
        AddressFamily::Inet6 => 6,
        _ => return None,
    };
    let mut rule = Rule {
        priority: 0,
        family,
        from: None,
        to: None,
        table: u32::from(header.table),
        action: action(header.action),
        iif: None,
        oif: None,
        mark: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Source(address) => rule.from = Some(prefix(*address, header.src_len)?),
            RuleAttribute::Destination(address) => {
                rule.to = Some(prefix(*address, header.dst_len)?)
            }
            RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
            RuleAttribute::Oifname(name) => rule.oif = Some(name.clone()),
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            _ => {}
        }
    }
    Some(rule)
}

fn action(action: RuleAction) -> String {
    let name = match action {
        RuleAction::Unspec => "unspec",
        RuleAction::ToTable => "to_table",
        RuleAction::Goto => "goto",
        RuleAction::Nop => "nop",
        RuleAction::Blackhole => "blackhole",
        RuleAction::Unreachable => "unreachable",
        RuleAction::Prohibit => "prohibit",
        other => return u8::from(other).to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_its_source_with_length_and_its_long_table() {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.src_len = 24;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Source("192.0.2.0".parse().unwrap()),
            RuleAttribute::Table(1000),
            RuleAttribute::Priority(32765),
            RuleAttribute::Iifname("lan".to_owned()),
            RuleAttribute::FwMark(7),
        ];
        let rule = decode(&message).unwrap();
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
        assert_eq!(decode(&RuleMessage::default()), None);
    }
}
