//! Services: started, stopped, restarted, told to read their configuration again.

use super::{BrokerError, Plan, World};
use crate::rollback::inverse::Inverse;
use crate::rollback::service::{self, Deed, ServiceError};

/// What is about to be done.
pub(super) struct Act {
    world: World,
    name: String,
    deed: Deed,
}

impl Act {
    pub(super) async fn run(&self) -> Result<(), ServiceError> {
        service::act(&self.world, &self.name, self.deed).await
    }
}

pub(super) async fn plan(
    world: &World,
    name: String,
    deed: Deed,
) -> Result<Option<Plan>, BrokerError> {
    let running =
        service::is_running(world, &name)
            .await
            .map_err(|source| BrokerError::Service {
                asked: format!("service {} {name}", deed.word()),
                source,
            })?;
    match (deed, running) {
        (Deed::Start, true) | (Deed::Stop, false) => return Ok(None),
        // As systemctl has it: only what runs can read its configuration again.
        (Deed::Reload, false) => {
            return Err(BrokerError::Service {
                asked: format!("service reload {name}"),
                source: ServiceError::NotRunning,
            });
        }
        (Deed::Start | Deed::Stop | Deed::Restart | Deed::Reload, _) => {}
    }
    Ok(Some(Plan {
        inverse: Inverse::Service {
            name: name.clone(),
            deed,
            before: running,
        },
        act: super::Act::Service(Act {
            world: world.clone(),
            name,
            deed,
        }),
    }))
}

/// What changes, in words: a restart leaves it running, but not as it was.
pub(super) fn diff(name: &str, deed: Deed, before: bool) -> String {
    let was = if before { "running" } else { "stopped" };
    let is = match deed {
        Deed::Start => "running",
        Deed::Stop => "stopped",
        Deed::Restart => "running, restarted",
        Deed::Reload => "running, its configuration read again",
    };
    format!("- {name} {was}\n+ {name} {is}\n")
}
