//! `change address`: the words of `ip address`.

use aizen_protocol::package::manifest::{Address, AddressOperation, Operation};

use super::{UsageError, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let command = words
        .next()
        .ok_or(UsageError::Missing("a command (add or delete)"))?;
    let wrap = match command {
        "add" => AddressOperation::Add,
        "delete" | "del" => AddressOperation::Delete,
        other => {
            return Err(UsageError::Command {
                object: "address",
                word: shown(other),
                known: "add or delete",
            });
        }
    };
    let address = words
        .next()
        .ok_or(UsageError::Missing("the address (ADDRESS/LENGTH)"))?;
    match words.next() {
        Some("dev") => {}
        Some(other) => return Err(UsageError::Unknown(shown(other))),
        None => return Err(UsageError::Missing("dev NAME")),
    }
    let dev = words
        .next()
        .ok_or(UsageError::Missing("the interface after dev"))?;
    match words.next() {
        None => Ok(Operation::Address(wrap(Address {
            address: address.into(),
            dev: dev.to_owned(),
        }))),
        Some(other) => Err(UsageError::Unknown(shown(other))),
    }
}
