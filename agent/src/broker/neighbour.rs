//! Neighbour entries: `replace`, `delete`, with the meaning that `ip neighbour` gives them.

use std::net::IpAddr;

use aizen_protocol::private::Mac;

use super::{BrokerError, Plan};
use crate::rollback::checkpoint::Network;
use crate::rollback::inverse::Inverse;
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::link::Names;
use crate::rollback::neighbour::{self, NeighbourState};

/// What is about to be done.
pub(super) struct Act {
    entry: NeighbourState,
    put: bool,
    names: Names,
}

impl Act {
    pub(super) async fn run(&self, kernel: &Kernel) -> Result<(), KernelError> {
        if self.put {
            neighbour::put(kernel, &self.names, &self.entry).await
        } else {
            // One that the kernel learned may expire by itself meanwhile: gone is gone.
            neighbour::remove(kernel, &self.names, &self.entry).await
        }
    }
}

pub(super) fn plan(
    network: &Network,
    address: IpAddr,
    dev: &str,
    mac: Option<Mac>,
) -> Result<Option<Plan>, BrokerError> {
    let names = network.names();
    if names.index(dev).is_none() {
        return Err(BrokerError::NoDevice(dev.to_owned()));
    }
    let before = network
        .neighbours
        .iter()
        .find(|n| n.is_entry(dev, address))
        .cloned();
    let entry = NeighbourState::asked(dev, address, mac);
    let after = mac.map(|_| entry.clone());
    if after.is_some() && after == before {
        return Ok(None);
    }
    let put = after.is_some();
    Ok(Some(Plan {
        inverse: Inverse::Neighbour {
            dev: dev.to_owned(),
            address,
            before,
            after,
        },
        act: super::Act::Neighbour(Act { entry, put, names }),
    }))
}
