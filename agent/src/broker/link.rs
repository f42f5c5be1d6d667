//! Interfaces: up, down, MTU.

use super::{BrokerError, Plan};
use crate::rollback::checkpoint::Network;
use crate::rollback::inverse::Inverse;
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::link::{self, LinkSettings};

/// What is about to be done.
pub(super) struct Act {
    index: u32,
    settings: LinkSettings,
}

impl Act {
    pub(super) async fn run(&self, kernel: &Kernel) -> Result<(), KernelError> {
        link::set(kernel, self.index, &self.settings).await
    }
}

pub(super) fn plan(
    network: &Network,
    dev: &str,
    up: Option<bool>,
    mtu: Option<u32>,
) -> Result<Option<Plan>, BrokerError> {
    let before = network.links.iter().find(|l| l.name == dev);
    let before = before
        .ok_or_else(|| BrokerError::NoDevice(dev.to_owned()))?
        .clone();
    let mut after = before.clone();
    after.up = up.unwrap_or(before.up);
    after.mtu = mtu.unwrap_or(before.mtu);
    if after == before {
        return Ok(None);
    }
    let settings = LinkSettings {
        up: up.filter(|up| *up != before.up),
        mtu: mtu.filter(|mtu| *mtu != before.mtu),
        ..LinkSettings::default()
    };
    let index = before.seen.index;
    Ok(Some(Plan {
        inverse: Inverse::Link { before, after },
        act: super::Act::Link(Act { index, settings }),
    }))
}
