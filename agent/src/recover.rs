//! Early in boot, and first at every start of the executor: whatever the journal leaves open is undone and reported.

use crate::change::attempts::Next;
use crate::change::{Cause, Event, Recovery};
use crate::executor::closing::{self, Evidence};
use crate::executor::rescue;
use crate::executor::shared::Shared;
use crate::executor::{ExecutorError, Settings};
use aizen_protocol::id::ChangeId;
use aizen_protocol::outcome::{End, Stage};

/// What a recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The change that was open, and what was done with it; none if nothing was open, or nothing is tried any more.
    pub change: Option<(ChangeId, Recovery)>,
    /// The change whose end the executor tells once the network is up.
    pub waits: Option<ChangeId>,
}

/// Recovers once and ends.
///
/// # Errors
/// [`ExecutorError`]; nothing is changed by the executor until it succeeds.
pub async fn run(settings: Settings) -> Result<Recovered, ExecutorError> {
    recover(&Shared::open(settings)?).await
}

/// Recovers. Repeatable: an interruption of it is recovered by the next one, but not for ever.
pub(crate) async fn recover(shared: &Shared) -> Result<Recovered, ExecutorError> {
    let Some(open) = Open::of(shared) else {
        return Ok(Recovered::default());
    };
    let (change, died) = (open.change.clone(), open.died);
    tracing::warn!(%change, stage = ?open.stage, recovery = ?open.recovery, "found an open change");
    let recovery = match open.next {
        Next::Try => {
            let boot = shared.boot.clone();
            // What can't be counted is put back all the same; the journal says so again when it is asked to hold that.
            if let Err(error) = shared.record(&change, Event::Recovering { boot }) {
                tracing::error!(%change, %error, "an attempt is not counted");
            }
            let mut evidence = Evidence::default();
            open.remember(shared)?;
            match open.recovery {
                Recovery::Nothing | Recovery::Report(_) => {}
                Recovery::Interrupt => open.interrupt(shared)?,
                Recovery::RollBack => {
                    closing::roll_back(shared, &change, open.cause(), &mut evidence).await?;
                }
            }
            if open.tell(shared, evidence).await? {
                return Ok(Recovered {
                    change: Some((change.clone(), open.recovery)),
                    waits: Some(change),
                });
            }
            open.recovery
        }
        Next::GiveUp => {
            tracing::error!(%change, died, "undoing it died again and again: it is not tried any more");
            closing::give_up(shared, &change, open.cause(), died)?;
            open.remember(shared)?;
            let recovery = Recovery::Report(End::RollbackIncomplete);
            if open.tell(shared, Evidence::default()).await? {
                return Ok(Recovered {
                    change: Some((change.clone(), recovery)),
                    waits: Some(change),
                });
            }
            recovery
        }
        Next::Hold => {
            tracing::error!(%change, died, "its end could not be told: other changes wait until it is");
            return Ok(Recovered::default());
        }
    };
    Ok(Recovered {
        change: Some((change, recovery)),
        waits: None,
    })
}

/// Tells the end of a change that a start left open because telling it died.
pub(crate) fn tell_held(shared: &Shared) -> Result<(), ExecutorError> {
    let Some(open) = Open::of(shared).filter(|open| open.next == Next::Hold) else {
        return Ok(());
    };
    open.remember(shared)?;
    if open.recovery == Recovery::Interrupt {
        open.interrupt(shared)?;
    }
    closing::report(shared, &open.change, Evidence::default())?;
    Ok(())
}

/// A change whose outcome is not stored.
struct Open {
    change: ChangeId,
    admission: crate::change::Admission,
    recovery: Recovery,
    stage: Stage,
    next: Next,
    died: usize,
}

impl Open {
    fn of(shared: &Shared) -> Option<Self> {
        let ledger = shared.ledger.borrow();
        let open = ledger.open_change()?;
        let recovery = open.recovery();
        Some(Self {
            change: open.admission().change.clone(),
            admission: open.admission().clone(),
            recovery,
            stage: open.stage(),
            next: open.attempts().next(recovery, &shared.boot),
            died: open.attempts().died(),
        })
    }

    fn cause(&self) -> Cause {
        Cause::Crash { stage: self.stage }
    }

    /// The crash may have come between the journal and the memory of packages.
    fn remember(&self, shared: &Shared) -> Result<(), ExecutorError> {
        shared.remember_admission(&self.admission)
    }

    /// Tells its end; true if that waits for the network.
    async fn tell(&self, shared: &Shared, mut evidence: Evidence) -> Result<bool, ExecutorError> {
        let waits = {
            let ledger = shared.ledger.borrow();
            let found = ledger.find(&self.change);
            found.is_some_and(|c| c.waits_for_the_network(&shared.boot))
        };
        if waits {
            let told = evidence.notes;
            if !told.is_empty() {
                shared.record(&self.change, Event::Noted { told })?;
            }
            return Ok(true);
        }
        rescue::after(shared, &self.change, &mut evidence.notes).await?;
        closing::report(shared, &self.change, evidence)?;
        Ok(false)
    }

    fn interrupt(&self, shared: &Shared) -> Result<(), ExecutorError> {
        let cause = self.cause();
        Ok(shared.record(&self.change, Event::Interrupted { cause })?)
    }
}
