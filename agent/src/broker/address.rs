//! Addresses: `add`, `delete`, with the meaning that `ip address` gives them.

use aizen_protocol::private::Prefix;

use super::grant::Verb;
use super::{BrokerError, Plan};
use crate::rollback::address::{self, AddressState};
use crate::rollback::checkpoint::Network;
use crate::rollback::inverse::Inverse;
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::link::Names;

/// What is about to be done.
pub(super) struct Act {
    state: AddressState,
    add: bool,
    names: Names,
}

impl Act {
    pub(super) async fn run(&self, kernel: &Kernel) -> Result<(), KernelError> {
        if self.add {
            address::add(kernel, &self.names, &self.state).await
        } else {
            address::remove(kernel, &self.names, &self.state).await
        }
    }
}

pub(super) fn plan(
    network: &Network,
    verb: Verb,
    address: Prefix,
    dev: &str,
) -> Result<Option<Plan>, BrokerError> {
    let names = network.names();
    if names.index(dev).is_none() {
        return Err(BrokerError::NoDevice(dev.to_owned()));
    }
    let existing = network
        .addresses
        .iter()
        .find(|a| a.dev == dev && a.address == address);
    let (inverse, state, add) = match (verb, existing) {
        (Verb::Delete, None) => {
            return Err(BrokerError::NoAddress {
                address,
                dev: dev.to_owned(),
            });
        }
        (Verb::Delete, Some(state)) => (
            Inverse::Address {
                before: Some(state.clone()),
                after: None,
            },
            state.clone(),
            false,
        ),
        (Verb::Add | Verb::Replace, Some(_)) => {
            return Err(BrokerError::AddressExists {
                address,
                dev: dev.to_owned(),
            });
        }
        (Verb::Add | Verb::Replace, None) => {
            let state = AddressState::asked(dev, address);
            (
                Inverse::Address {
                    before: None,
                    after: Some(state.clone()),
                },
                state,
                true,
            )
        }
    };
    Ok(Some(Plan {
        inverse,
        act: super::Act::Address(Act { state, add, names }),
    }))
}
