//! Keys of uci in the one form in which they are compared.

use aizen_protocol::package::manifest::{Operation, UciOperation, UciPair, Value};

use super::{Exact, GrantError, literal};
use crate::rollback::uci::{self, Edit, Key, UciError};

pub(super) fn exact(operation: &UciOperation) -> Result<Exact, GrantError> {
    let (key, edit) = match operation {
        UciOperation::Set(pair) => (&pair.key, Edit::Set(value(pair)?)),
        UciOperation::AddList(pair) => (&pair.key, Edit::AddList(value(pair)?)),
        UciOperation::DelList(pair) => (&pair.key, Edit::DelList(value(pair)?)),
        UciOperation::Delete(key) => (key, Edit::Delete),
        UciOperation::Reload(package) => {
            if !uci::is_package(package) {
                return Err(UciError::Key(package.chars().take(80).collect()).into());
            }
            return Ok(Exact::UciReload {
                package: package.clone(),
            });
        }
    };
    Ok(Exact::Uci {
        key: Key::parse(key)?,
        edit,
    })
}

fn value(pair: &UciPair) -> Result<String, GrantError> {
    let text = literal(&pair.value)?;
    let plain = !text.is_empty() && text.len() <= uci::VALUE && !text.chars().any(char::is_control);
    if plain {
        Ok(text.to_owned())
    } else {
        Err(UciError::Value.into())
    }
}

pub(super) fn operation(key: &Key, edit: &Edit) -> Operation {
    let pair = |value: &str| UciPair {
        key: key.to_string(),
        value: Value(value.to_owned()),
    };
    Operation::Uci(match edit {
        Edit::Set(value) => UciOperation::Set(pair(value)),
        Edit::AddList(value) => UciOperation::AddList(pair(value)),
        Edit::DelList(value) => UciOperation::DelList(pair(value)),
        Edit::Delete => UciOperation::Delete(key.to_string()),
    })
}

/// What is asked, as `uci` writes it; what is secret is not repeated.
pub(super) fn shown(key: &Key, edit: &Edit, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let (verb, value) = match edit {
        Edit::Set(value) => ("set", value),
        Edit::AddList(value) => ("add_list", value),
        Edit::DelList(value) => ("del_list", value),
        Edit::Delete => return write!(f, "uci delete {key}"),
    };
    if key.is_secret() {
        return write!(f, "uci {verb} {key}=(secret)");
    }
    write!(f, "uci {verb} {key}='{value}'")
}
