//! `change file`: writing and deleting; the content comes on standard input.

use aizen_protocol::package::manifest::{FileOperation, Operation};

use super::{UsageError, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let command = words
        .next()
        .ok_or(UsageError::Missing("a command (write or delete)"))?;
    let wrap = match command {
        "write" => FileOperation::Write,
        "delete" | "del" => FileOperation::Delete,
        other => {
            return Err(UsageError::Command {
                object: "file",
                word: shown(other),
                known: "write or delete",
            });
        }
    };
    let path = words.next().ok_or(UsageError::Missing("the path"))?;
    match words.next() {
        None => Ok(Operation::File(wrap(path.to_owned()))),
        Some(other) => Err(UsageError::Unknown(shown(other))),
    }
}
