//! Early in boot, and first at every start of the executor: whatever the journal leaves open is undone and reported.

use crate::change::{Cause, Event, Recovery};
use crate::executor::closing::{self, Evidence};
use crate::executor::shared::Shared;
use crate::executor::{ExecutorError, Settings};
use aizen_protocol::id::ChangeId;

/// What a recovery did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The change that was open, and what was done with it; none if nothing was open.
    pub change: Option<(ChangeId, Recovery)>,
}

/// Recovers once and ends.
///
/// # Errors
/// [`ExecutorError`]; nothing is changed by the executor until it succeeds.
pub async fn run(settings: Settings) -> Result<Recovered, ExecutorError> {
    recover(&Shared::open(settings)?).await
}

/// Recovers. Repeatable: an interruption of it is recovered by the next one.
pub(crate) async fn recover(shared: &Shared) -> Result<Recovered, ExecutorError> {
    let open = {
        let ledger = shared.ledger.borrow();
        ledger
            .open_change()
            .map(|c| (c.admission().clone(), c.recovery(), c.stage()))
    };
    let Some((admission, recovery, stage)) = open else {
        return Ok(Recovered { change: None });
    };
    let change = admission.change.clone();
    tracing::warn!(%change, ?stage, ?recovery, "found an open change");
    shared.remember_admission(&admission)?;
    let mut evidence = Evidence::default();
    let cause = Cause::Crash { stage };
    match recovery {
        Recovery::Nothing | Recovery::Report(_) => {}
        Recovery::Interrupt => shared.record(&change, Event::Interrupted { cause })?,
        Recovery::RollBack => {
            closing::roll_back(shared, &change, cause, &mut evidence).await?;
        }
    }
    closing::report(shared, &change, evidence)?;
    Ok(Recovered {
        change: Some((change, recovery)),
    })
}
