//! `change route`: the words of `ip route`.

use aizen_protocol::package::manifest::{Operation, Route, RouteOperation, Value};

use super::{UsageError, number, once, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let known = "add, replace or delete";
    let command = words
        .next()
        .ok_or(UsageError::Missing("a command (add, replace or delete)"))?;
    let wrap = match command {
        "add" => RouteOperation::Add,
        "replace" => RouteOperation::Replace,
        "delete" | "del" => RouteOperation::Delete,
        other => {
            return Err(UsageError::Command {
                object: "route",
                word: shown(other),
                known,
            });
        }
    };
    let dst = words
        .next()
        .ok_or(UsageError::Missing("the destination (default or PREFIX)"))?;
    let (mut via, mut dev, mut table, mut metric) = (None, None, None, None);
    while let Some(word) = words.next() {
        match word {
            "via" => once(
                &mut via,
                word,
                Value::from(
                    words
                        .next()
                        .ok_or(UsageError::Missing("the address after via"))?,
                ),
            )?,
            "dev" => once(
                &mut dev,
                word,
                words
                    .next()
                    .ok_or(UsageError::Missing("the interface after dev"))?
                    .to_owned(),
            )?,
            "table" => {
                let table_of = match words.next() {
                    Some("main") => 254,
                    word => number(word, "the number after table", "the number of a table")?,
                };
                once(&mut table, word, table_of)?;
            }
            "metric" | "preference" => once(
                &mut metric,
                word,
                number(words.next(), "the number after metric", "a metric")?,
            )?,
            other => return Err(UsageError::Unknown(shown(other))),
        }
    }
    Ok(Operation::Route(wrap(Route {
        dst: dst.into(),
        via,
        dev,
        table,
        metric,
    })))
}
