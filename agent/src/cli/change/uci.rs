//! `change uci`: the words of `uci`; what is set is committed.

use aizen_protocol::package::manifest::{Operation, UciOperation, UciPair, Value};

use super::{UsageError, after, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let known = "set, add_list, del_list, delete or reload";
    let command = after(
        &mut words,
        "a command (set, add_list, del_list, delete or reload)",
    )?;
    let operation = match command {
        "set" => UciOperation::Set(pair(&mut words)?),
        "add_list" => UciOperation::AddList(pair(&mut words)?),
        "del_list" => UciOperation::DelList(pair(&mut words)?),
        "delete" => UciOperation::Delete(after(&mut words, "PACKAGE.SECTION[.OPTION]")?.to_owned()),
        "reload" => UciOperation::Reload(after(&mut words, "the package")?.to_owned()),
        other => {
            return Err(UsageError::Command {
                object: "uci",
                word: shown(other),
                known,
            });
        }
    };
    match words.next() {
        None => Ok(Operation::Uci(operation)),
        Some(other) => Err(UsageError::Unknown(shown(other))),
    }
}

fn pair<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<UciPair, UsageError> {
    let word = after(words, "PACKAGE.SECTION[.OPTION]=VALUE")?;
    let (key, value) = word.split_once('=').ok_or_else(|| UsageError::NotA {
        what: "PACKAGE.SECTION[.OPTION]=VALUE",
        word: shown(word),
    })?;
    Ok(UciPair {
        key: key.to_owned(),
        value: Value::from(value),
    })
}
