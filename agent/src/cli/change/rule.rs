//! `change rule`: the words of `ip rule`.

use aizen_protocol::package::manifest::{Operation, Rule, RuleOperation, Value};

use super::{UsageError, after, number, once, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let wrap = match after(&mut words, "a command (add or delete)")? {
        "add" => RuleOperation::Add,
        "delete" | "del" => RuleOperation::Delete,
        other => {
            return Err(UsageError::Command {
                object: "rule",
                word: shown(other),
                known: "add or delete",
            });
        }
    };
    let (mut priority, mut table, mut ipv6) = (None, None, None);
    let (mut from, mut to, mut iif, mut oif, mut fwmark) = (None, None, None, None, None);
    while let Some(word) = words.next() {
        match word {
            "priority" | "preference" | "pref" | "order" => {
                let value = number(words.next(), "the number after priority", "a priority")?;
                once(&mut priority, "priority", value)?;
            }
            "lookup" | "table" => {
                let value = match words.next() {
                    Some("main") => 254,
                    Some("default") => 253,
                    word => number(word, "the number after lookup", "the number of a table")?,
                };
                once(&mut table, "lookup", value)?;
            }
            "from" | "to" => {
                let prefix = Value::from(after(&mut words, "the prefix after from or to")?);
                once(
                    if word == "from" { &mut from } else { &mut to },
                    word,
                    prefix,
                )?;
            }
            "iif" | "oif" => {
                let dev = after(&mut words, "the interface after iif or oif")?.to_owned();
                once(if word == "iif" { &mut iif } else { &mut oif }, word, dev)?;
            }
            "fwmark" => once(&mut fwmark, word, mark(words.next())?)?,
            "ipv6" => once(&mut ipv6, word, true)?,
            other => return Err(UsageError::Unknown(shown(other))),
        }
    }
    Ok(Operation::Rule(wrap(Rule {
        priority: priority.ok_or(UsageError::Missing("priority N"))?,
        from,
        to,
        iif,
        oif,
        fwmark,
        table: table.ok_or(UsageError::Missing("lookup TABLE"))?,
        ipv6: ipv6.unwrap_or(false),
    })))
}

/// Decimal or, as firewalls write it, hexadecimal.
fn mark(word: Option<&str>) -> Result<u32, UsageError> {
    match word.and_then(|word| word.strip_prefix("0x")) {
        Some(digits) => u32::from_str_radix(digits, 16).map_err(|_| UsageError::NotA {
            what: "a mark",
            word: shown(digits),
        }),
        None => number(word, "the number after fwmark", "a mark"),
    }
}
