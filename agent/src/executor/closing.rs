//! How a change ends, in a running session and at a start after a crash alike: put back, then reported, once.

use aizen_protocol::effect::{Effect, ScriptRun};
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::ChangeId;
use aizen_protocol::outcome::{End, Isolation, Outcome, ProbeResult};
use aizen_protocol::private::Text;
use aizen_protocol::reason::Reason;

use super::ExecutorError;
use super::shared::Shared;
use crate::change::{Cause, Change, Event};
use crate::report;
use crate::rollback::{self, Checkpoint, Inverse};

/// Longest snapshot that is read, bytes.
pub(super) const SNAPSHOT: u64 = 64 << 20;

/// What only the process that ran the change knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) script: Option<ScriptRun>,
    pub(crate) effect: Option<Effect>,
    pub(crate) isolation: Isolation,
    pub(crate) probes: Vec<ProbeResult>,
    pub(crate) notes: Vec<String>,
}

/// Journals that undoing begins, undoes, journals how that ended. Repeatable: a second call after an interruption does
/// the same again.
pub(crate) async fn roll_back(
    shared: &Shared,
    change: &ChangeId,
    cause: Cause,
    evidence: &mut Evidence,
) -> Result<(), ExecutorError> {
    tracing::warn!(%change, %cause, "rolling back");
    // The state is put back even if the journal can't say so: the next start repeats it from what the journal has.
    let journalled = shared.record(change, Event::RollbackBegan { cause });
    let ended = undo(shared, change, evidence).await;
    journalled?;
    Ok(shared.record(change, ended)?)
}

/// Ends a change that undoing never brought to an end: it stays as it is, and a person looks at it.
pub(crate) fn give_up(
    shared: &Shared,
    change: &ChangeId,
    cause: Cause,
    died: usize,
) -> Result<(), ExecutorError> {
    shared.record(change, Event::RollbackBegan { cause })?;
    let told = format!(
        "everything that it changed: undoing it was tried {died} times, died each time, and is not tried again; look at the device, then say 'aizen changes clear {change}'"
    );
    let ended = Event::RollbackIncomplete {
        after: None,
        not_restored: vec![told],
    };
    Ok(shared.record(change, ended)?)
}

/// Puts the device back when the journal takes no more records: nobody knows whether the next start can read it.
pub(crate) async fn put_back_unrecorded(shared: &Shared, change: &ChangeId) {
    let armed = {
        let ledger = shared.ledger.borrow();
        ledger.find(change).is_some_and(|c| c.undo().is_some())
    };
    if armed {
        let ended = undo(shared, change, &mut Evidence::default()).await;
        tracing::error!(%change, ended = ended.name(), "put back without a journal");
    }
}

async fn undo(shared: &Shared, change: &ChangeId, evidence: &mut Evidence) -> Event {
    let (inverses, armed_in) = {
        let ledger = shared.ledger.borrow();
        let undo = ledger.find(change).and_then(Change::undo);
        (
            undo.map(|u| u.inverses.clone()).unwrap_or_default(),
            undo.map(|u| u.deadline.boot.clone()),
        )
    };
    let rebooted = armed_in.is_some_and(|boot| boot != shared.boot);
    put_back(shared, change, &inverses, rebooted, evidence).await
}

async fn put_back(
    shared: &Shared,
    change: &ChangeId,
    inverses: &[serde_json::Value],
    rebooted: bool,
    evidence: &mut Evidence,
) -> Event {
    let mut unreadable = Vec::new();
    let mut inverses: Vec<Inverse> = inverses
        .iter()
        .filter_map(|value| {
            let opened = shared.seal.unseal_inverse(change.as_str(), value);
            let told =
                |error| unreadable.push(format!("a journalled inverse can't be read: {error}"));
            opened.map_err(told).ok()
        })
        .collect();
    let checkpoint = match load_snapshot(shared, change) {
        Ok(checkpoint) => checkpoint,
        Err(what) => {
            unreadable.insert(0, what);
            return undo_alone(shared, inverses, rebooted, unreadable).await;
        }
    };
    // A reboot took the kernel's objects back; before the network is up, comparing them would "repair" what only has
    // not been configured yet.
    let checkpoint = if rebooted {
        inverses.retain(outlives_a_reboot);
        evidence.notes.push(
            "the device was restarted meanwhile: the kernel's state went with it, files were put back".to_owned(),
        );
        checkpoint.persistent()
    } else {
        checkpoint
    };
    let restored = rollback::restore(&shared.world, &checkpoint, &inverses).await;
    evidence.notes.extend(
        restored
            .drift
            .iter()
            .map(|d| format!("changed by somebody else meanwhile: {d}")),
    );
    let after = restored.after.as_ref().map(Checkpoint::digest);
    match after {
        Some(after) if restored.not_restored.is_empty() && unreadable.is_empty() => {
            Event::RolledBack {
                // The digest of the whole state before stands for the whole; the part that persists has its own.
                after: if rebooted && after == checkpoint.digest() {
                    load_snapshot(shared, change).map_or(after, |whole| whole.digest())
                } else {
                    after
                },
            }
        }
        Some(_) | None => Event::RollbackIncomplete {
            after,
            not_restored: unreadable
                .into_iter()
                .chain(restored.not_restored.into_iter().map(|t| t.0))
                .collect(),
        },
    }
}

/// What a change has journalled so far.
pub(crate) fn inverses(shared: &Shared, change: &ChangeId) -> Result<Vec<Inverse>, String> {
    let ledger = shared.ledger.borrow();
    let undo = ledger.find(change).and_then(Change::undo);
    let journalled = undo.map_or(&[][..], |undo| &undo.inverses);
    let unseal = |value| shared.seal.unseal_inverse(change.as_str(), value);
    let parsed: Result<Vec<Inverse>, _> = journalled.iter().map(unseal).collect();
    parsed.map_err(|error| format!("a journalled inverse can't be read: {error}"))
}

fn outlives_a_reboot(inverse: &Inverse) -> bool {
    matches!(inverse, Inverse::File { .. } | Inverse::Uci { .. })
}

/// Without the state before, each step that the journal has is undone by itself. Nobody can say that this is all.
async fn undo_alone(
    shared: &Shared,
    mut inverses: Vec<Inverse>,
    rebooted: bool,
    unreadable: Vec<String>,
) -> Event {
    if rebooted {
        inverses.retain(outlives_a_reboot);
    }
    let failed = rollback::undo_alone(&shared.world, &inverses).await;
    let steps = format!(
        "{} of {} journalled steps were undone one by one, and could not be compared with the state before",
        inverses.len().saturating_sub(failed.len()),
        inverses.len()
    );
    Event::RollbackIncomplete {
        after: None,
        not_restored: unreadable
            .into_iter()
            .chain([steps])
            .chain(failed.into_iter().map(|t| t.0))
            .collect(),
    }
}

pub(super) fn load_snapshot(shared: &Shared, change: &ChangeId) -> Result<Checkpoint, String> {
    let bytes = shared
        .snapshots
        .read(change.as_str(), SNAPSHOT)
        .map_err(|e| e.to_string())?
        .ok_or("the snapshot is missing")?;
    let opened = shared
        .seal
        .unseal(change.as_str(), &bytes)
        .map_err(|e| format!("the snapshot: {e}"))?;
    serde_json::from_slice(&opened).map_err(|e| format!("the snapshot can't be read: {e}"))
}

/// Stores the signed outcome of a change that ended, journals that it is stored, forgets the snapshot. Exactly one is
/// stored, however often this is interrupted and repeated.
pub(crate) fn report(
    shared: &Shared,
    change: &ChangeId,
    evidence: Evidence,
) -> Result<(Outcome, Envelope), ExecutorError> {
    let outcome = outcome(shared, change, evidence)?;
    let signed = {
        let standing = shared.standing.borrow();
        let standing = standing.as_ref().ok_or(ExecutorError::NotEnrolled)?;
        let mut sanitizer = shared.sanitizer().ok_or(ExecutorError::NotEnrolled)?;
        report::sign(outcome.clone(), &mut sanitizer, &standing.result_key)?
    };
    let digest = shared.outbox.keep(change.as_str(), &signed)?;
    // A crash between the two lines above and a report now: the first stored outcome is the one that counts.
    let kept = shared.outbox.find(change.as_str())?.unwrap_or(signed);
    shared.record(change, Event::Reported { outcome: digest })?;
    if outcome.end != End::RollbackIncomplete {
        shared.snapshots.remove(change.as_str())?;
    }
    Ok((locally(outcome, &kept), kept))
}

/// The outcome as it is shown on the spot: with real values its changes have another digest than the approved ones,
/// which hold pseudonyms, so what the signed one says of that is said in its own terms.
fn locally(outcome: Outcome, signed: &Envelope) -> Outcome {
    let told =
        || -> Option<Outcome> { serde_json::from_slice(&signed.unverified_payload().ok()?).ok() };
    let matches = told().and_then(|told| told.effect_as_approved());
    let own = outcome.effect.as_ref().map(Effect::changes_digest);
    match matches {
        Some(true) => Outcome {
            approved_changes: own,
            ..outcome
        },
        Some(false) | None => outcome,
    }
}

fn outcome(
    shared: &Shared,
    change: &ChangeId,
    evidence: Evidence,
) -> Result<Outcome, ExecutorError> {
    let ledger = shared.ledger.borrow();
    let standing = shared.standing.borrow();
    let standing = standing.as_ref().ok_or(ExecutorError::NotEnrolled)?;
    let found = ledger
        .find(change)
        .ok_or(ExecutorError::NoSuchChange(change.clone()))?;
    let ended = found
        .ended()
        .ok_or(ExecutorError::NotEnded(change.clone()))?;
    let admission = found.admission();
    let mut detail = match &ended.cause {
        Some(cause) => cause.to_string(),
        None => match ended.end {
            End::Diagnosed => "the script ran to its end".to_owned(),
            End::Confirmed
            | End::Refused
            | End::RolledBack
            | End::RollbackIncomplete
            | End::Interrupted => {
                "the script succeeded, the probes held, the confirmation came".to_owned()
            }
        },
    };
    let later = &ended.later;
    let restarted = later.armed_in.as_ref().is_some_and(|b| *b != shared.boot);
    let untold = (restarted && !later.compared)
        .then(|| "the network was not compared after the restart".to_owned());
    for note in later.told.iter().chain(&untold).chain(&evidence.notes) {
        detail.push_str("; ");
        detail.push_str(note);
    }
    Ok(Outcome {
        device: standing.device.clone(),
        epoch: standing.epoch.clone(),
        change: Some(change.clone()),
        package: Some(admission.package.clone()),
        package_digest: Some(admission.digest),
        correlation_id: Some(admission.correlation_id.clone()),
        end: ended.end,
        reason: match &ended.cause {
            Some(Cause::PolicyViolation { .. }) => Some(Reason::PolicyViolation),
            Some(_) | None => None,
        },
        detail: Text(detail),
        script: evidence.script.or_else(|| ended.run.clone()),
        effect: evidence.effect,
        approved_effect: admission.approved_effect,
        approved_changes: admission.approved_changes,
        isolation: evidence.isolation,
        probes: evidence.probes,
        state_before: ended.before,
        state_after: ended.after,
        not_restored: ended.not_restored.iter().map(|t| Text(t.clone())).collect(),
        steps: found.steps().to_vec(),
        journal_head: Some(ledger.head()),
    })
}
