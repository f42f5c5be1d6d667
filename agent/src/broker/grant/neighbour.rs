//! Neighbour entries in the one form in which they are compared.

use std::net::IpAddr;

use aizen_protocol::package::manifest::{
    Neighbour, NeighbourName, NeighbourOperation, Operation, Value,
};
use aizen_protocol::private::Mac;

use super::{Exact, GrantError, device, literal, not_an_address};

pub(super) fn exact(operation: &NeighbourOperation) -> Result<Exact, GrantError> {
    let (address, dev, mac) = match operation {
        NeighbourOperation::Replace(entry) => {
            let text = literal(&entry.lladdr)?;
            let mac: Mac = text
                .parse()
                .map_err(|_| GrantError::NotAMac(text.chars().take(80).collect()))?;
            (&entry.address, &entry.dev, Some(mac))
        }
        NeighbourOperation::Delete(name) => (&name.address, &name.dev, None),
    };
    let text = literal(address)?;
    Ok(Exact::Neighbour {
        address: text.parse().map_err(|_| not_an_address(text))?,
        dev: device(dev)?,
        mac,
    })
}

pub(super) fn operation(address: IpAddr, dev: &str, mac: Option<Mac>) -> Operation {
    let address = Value(address.to_string());
    let dev = dev.to_owned();
    Operation::Neighbour(match mac {
        Some(mac) => NeighbourOperation::Replace(Neighbour {
            address,
            lladdr: Value(mac.to_string()),
            dev,
        }),
        None => NeighbourOperation::Delete(NeighbourName { address, dev }),
    })
}
