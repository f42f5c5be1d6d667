//! Policy rules in the one form in which they are compared.

use aizen_protocol::package::manifest::{Operation, Rule, RuleOperation, Value};
use aizen_protocol::private::Prefix;

use super::{Exact, GrantError, Verb, device, literal, network, not_an_address};
use crate::rollback::route::{LOCAL, MAIN};
use crate::rollback::rule::RuleKey;

pub(super) fn exact(verb: Verb, rule: &Rule) -> Result<Exact, GrantError> {
    let (from, to) = (prefix(rule.from.as_ref())?, prefix(rule.to.as_ref())?);
    let families: Vec<bool> = from
        .iter()
        .chain(&to)
        .map(|p| p.address.is_ipv6())
        .collect();
    let ipv6 = families.first().copied().unwrap_or(rule.ipv6);
    if families.iter().any(|f| *f != ipv6) || (rule.ipv6 && !ipv6) {
        return Err(GrantError::RuleFamilies(rule.priority));
    }
    // Local first, main and default last: `fib_default_rules` of the kernel.
    if matches!(rule.priority, 0 | 32766 | 32767) {
        return Err(GrantError::KernelRule(rule.priority));
    }
    let table = match rule.table {
        0 => MAIN,
        LOCAL => return Err(GrantError::LocalTable),
        table => table,
    };
    // "All" is said by nothing.
    let some = |prefix: Option<Prefix>| prefix.filter(|p| p.length > 0);
    Ok(Exact::Rule {
        verb,
        key: RuleKey {
            ipv6,
            priority: rule.priority,
            from: some(from),
            to: some(to),
            iif: rule.iif.as_deref().map(device).transpose()?,
            oif: rule.oif.as_deref().map(device).transpose()?,
            fwmark: rule.fwmark.filter(|mark| *mark != 0),
            table,
        },
    })
}

fn prefix(value: Option<&Value>) -> Result<Option<Prefix>, GrantError> {
    let Some(value) = value else { return Ok(None) };
    let text = literal(value)?;
    let parsed = text.parse().map_err(|_| not_an_address(text))?;
    Ok(Some(network(parsed)))
}

pub(super) fn operation(verb: Verb, key: &RuleKey) -> Operation {
    let value = |prefix: Option<Prefix>| prefix.map(|p| Value(p.to_string()));
    let rule = Rule {
        priority: key.priority,
        from: value(key.from),
        to: value(key.to),
        iif: key.iif.clone(),
        oif: key.oif.clone(),
        fwmark: key.fwmark,
        table: key.table,
        ipv6: key.ipv6,
    };
    Operation::Rule(match verb {
        Verb::Delete => RuleOperation::Delete(rule),
        Verb::Add | Verb::Replace => RuleOperation::Add(rule),
    })
}
