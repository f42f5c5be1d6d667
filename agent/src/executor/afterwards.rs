//! After a restart: a change whose files are put back is told once the network is up and was compared with the state
//! before. Repeatable: each step is journalled, and an end without them is told all the same.

use std::rc::Rc;
use std::time::Duration;

use aizen_protocol::id::{ChangeId, Digest};

use super::closing::{self, Evidence};
use super::rescue;
use super::shared::Shared;
use super::{ExecutorError, Pending};
use crate::change::Event;
use crate::clock;
use crate::rescue::decide;
use crate::rollback::Checkpoint;
use crate::rollback::checkpoint::Network;
use crate::rollback::difference::Difference;
use crate::rollback::kernel::Kernel;

/// Between two looks at a network that comes up.
const LOOK: Duration = Duration::from_millis(500);
/// Differences that an outcome names.
const NAMED: usize = 20;

/// Sees out a change that waits for the network. Others are refused as busy until it is told.
pub(super) fn begin(shared: &Rc<Shared>, waits: Option<ChangeId>) -> Pending {
    let change = waits?;
    let shared = Rc::clone(shared);
    shared.seeing_out.set(true);
    Some(Box::pin(async move {
        let seen = see_out(&shared, &change).await;
        shared.seeing_out.set(false);
        seen
    }))
}

async fn see_out(shared: &Shared, change: &ChangeId) -> Result<(), ExecutorError> {
    let mut evidence = Evidence::default();
    let before = closing::load_snapshot(shared, change);
    let missing = match network_to_wait_for(shared, &before).await {
        Some(network) => settled(&network, shared.settings.settle).await,
        None => Vec::new(),
    };
    let (after, mut told) = match &before {
        Ok(before) => compared(shared, before).await,
        Err(error) => {
            let told = format!("after the restart nothing could be compared: {error}");
            (None, vec![told])
        }
    };
    if !missing.is_empty() {
        let waited = shared.settings.settle.as_secs();
        told.push(format!(
            "{waited} s after the restart there was no {}",
            missing.join(", no ")
        ));
    }
    shared.record(change, Event::Compared { after, told })?;
    rescue::after(shared, change, &mut evidence.notes).await?;
    closing::report(shared, change, evidence).map(drop)
}

/// The network whose links and default routes are waited for.
async fn network_to_wait_for(
    shared: &Shared,
    before: &Result<Checkpoint, String>,
) -> Option<Network> {
    let held = before
        .as_ref()
        .ok()
        .and_then(|before| before.network.clone());
    match held {
        Some(network) => Some(network),
        None => rescue::kept_network(shared).await,
    }
}

/// Waits until the network is up or the time is over; gives what is missing then.
async fn settled(before: &Network, within: Duration) -> Vec<String> {
    let since = clock::since_boot().0;
    loop {
        let missing = match look().await {
            Some(now) => decide::unsettled(before, &now),
            None => vec!["answer of the kernel".to_owned()],
        };
        if missing.is_empty() || clock::since_boot().0.saturating_sub(since) >= within {
            return missing;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look() -> Option<Network> {
    Network::read(&Kernel::open().ok()?).await.ok()
}

async fn compared(shared: &Shared, before: &Checkpoint) -> (Option<Digest>, Vec<String>) {
    let now = match before.again(&shared.world).await {
        Ok(now) => now,
        Err(error) => {
            let told = format!("after the restart the state can't be read: {error}");
            return (None, vec![told]);
        }
    };
    let differs = before.difference(&now);
    let differs: Vec<String> = differs
        .iter()
        .filter(|d| d.is_of_the_kernel())
        .map(Difference::to_string)
        .collect();
    let told = if differs.is_empty() {
        "after the restart the network is as before".to_owned()
    } else {
        let named = rescue::sentences(differs, NAMED);
        format!(
            "after the restart these differ from before: {}",
            named.join("; ")
        )
    };
    (Some(now.digest()), vec![told])
}
