//! `change link`: the words of `ip link set`.

use aizen_protocol::package::manifest::{Link, LinkOperation, Operation};

use super::{UsageError, number, once, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    match words.next() {
        Some("set") => {}
        Some(other) => {
            return Err(UsageError::Command {
                object: "link",
                word: shown(other),
                known: "set",
            });
        }
        None => return Err(UsageError::Missing("set")),
    }
    let mut dev = words.next().ok_or(UsageError::Missing("the interface"))?;
    if dev == "dev" {
        dev = words
            .next()
            .ok_or(UsageError::Missing("the interface after dev"))?;
    }
    let (mut up, mut mtu) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "up" | "down" => once(&mut up, "up or down", word == "up")?,
            "mtu" => once(
                &mut mtu,
                word,
                number(words.next(), "the number after mtu", "an MTU in bytes")?,
            )?,
            other => return Err(UsageError::Unknown(shown(other))),
        }
    }
    if up.is_none() && mtu.is_none() {
        return Err(UsageError::Missing("what to set (up, down or mtu BYTES)"));
    }
    Ok(Operation::Link(LinkOperation::Set(Link {
        dev: dev.to_owned(),
        up,
        mtu,
    })))
}
