//! `change neighbour`: the words of `ip neighbour`.

use aizen_protocol::package::manifest::{
    Neighbour, NeighbourName, NeighbourOperation, Operation, Value,
};

use super::{UsageError, after, once, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let put = match after(&mut words, "a command (replace or delete)")? {
        "replace" => true,
        "delete" | "del" => false,
        other => {
            return Err(UsageError::Command {
                object: "neighbour",
                word: shown(other),
                known: "replace or delete",
            });
        }
    };
    let address = Value::from(after(&mut words, "the address")?);
    let (mut lladdr, mut dev) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "lladdr" if put => {
                let mac = Value::from(after(&mut words, "the hardware address after lladdr")?);
                once(&mut lladdr, word, mac)?;
            }
            "dev" => {
                let name = after(&mut words, "the interface after dev")?.to_owned();
                once(&mut dev, word, name)?;
            }
            other => return Err(UsageError::Unknown(shown(other))),
        }
    }
    let dev = dev.ok_or(UsageError::Missing("dev NAME"))?;
    Ok(Operation::Neighbour(if put {
        NeighbourOperation::Replace(Neighbour {
            address,
            lladdr: lladdr.ok_or(UsageError::Missing("lladdr MAC"))?,
            dev,
        })
    } else {
        NeighbourOperation::Delete(NeighbourName { address, dev })
    }))
}
