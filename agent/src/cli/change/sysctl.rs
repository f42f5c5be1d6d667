//! `change sysctl`: the words of `sysctl -w`.

use aizen_protocol::package::manifest::{Operation, Sysctl, SysctlOperation};

use super::{UsageError, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let mut word = words.next();
    if word == Some("-w") {
        word = words.next();
    }
    let word = word.ok_or(UsageError::Missing("NAME=VALUE"))?;
    let (key, value) = word.split_once('=').ok_or_else(|| UsageError::NotA {
        what: "NAME=VALUE",
        word: shown(word),
    })?;
    match words.next() {
        None => Ok(Operation::Sysctl(SysctlOperation::Set(Sysctl {
            key: key.trim().to_owned(),
            value: value.trim().to_owned(),
        }))),
        Some(other) => Err(UsageError::Unknown(shown(other))),
    }
}
