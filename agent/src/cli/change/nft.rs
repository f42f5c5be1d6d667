//! `change nft`: tables, whole.

use aizen_protocol::package::manifest::{NftOperation, NftTable, Operation};

use super::{UsageError, after, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let wrap = match after(&mut words, "a command (replace-table or delete-table)")? {
        "replace-table" => NftOperation::ReplaceTable,
        "delete-table" => NftOperation::DeleteTable,
        other => {
            return Err(UsageError::Command {
                object: "nft",
                word: shown(other),
                known: "replace-table or delete-table",
            });
        }
    };
    let family = after(
        &mut words,
        "the family (ip, ip6, inet, arp, bridge or netdev)",
    )?;
    let name = after(&mut words, "the table's name")?;
    match words.next() {
        None => Ok(Operation::Nft(wrap(NftTable {
            family: family.to_owned(),
            name: name.to_owned(),
        }))),
        Some(other) => Err(UsageError::Unknown(shown(other))),
    }
}
