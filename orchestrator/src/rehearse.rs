//! Before a person is asked, the device shows the effect: a rehearsal goes out, a signed effect comes back.

use aizen_protocol::effect::{Effect, RehearsalResult, Rehearsed, ScriptEnd};
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::frame::CloudFrame;
use aizen_protocol::id::{CaseId, CorrelationId, Digest, ProposalId};
use aizen_protocol::proposal::Proposal;
use aizen_protocol::reason::Reason;
use aizen_protocol::{limit, strict};
use jiff::Timestamp;
use rusqlite::Transaction;
use serde_json::json;

use crate::app::App;
use crate::approve;
use crate::audit::{self, Event, Kind};
use crate::compose::{self, Terms};
use crate::report::disbelieve;
use crate::sign::Statement;
use crate::store::cases::{CaseState, Origin};
use crate::store::devices::Device;
use crate::store::proposals::{ProposalRow, ProposalState};
use crate::store::{StoreError, cases, proposals};

/// A device that gave no answer to so many rehearsals will not give one.
const ATTEMPTS: u32 = 4;

/// Writes a proposal and puts its case on the way to a rehearsal.
pub(crate) fn propose(
    tx: &Transaction<'_>,
    device: &Device,
    case: &CaseId,
    proposal: Proposal,
    evidence: Vec<Digest>,
    now: Timestamp,
) -> Result<ProposalId, StoreError> {
    let row = ProposalRow {
        id: ProposalId::fresh(),
        case: case.clone(),
        device: device.device.clone(),
        correlation_id: CorrelationId::fresh(),
        state: ProposalState::Rehearsing,
        proposal,
        evidence,
        created_at: now,
        attempts: 0,
        note: String::new(),
    };
    proposals::insert(tx, &row)?;
    cases::reach(
        tx,
        case,
        CaseState::Rehearsing,
        "the device rehearses the proposed repair",
    )?;
    let detail = json!({
        "proposal": row.id.as_str(),
        "correlation_id": row.correlation_id.as_str(),
        "intent": row.proposal.intent,
        "class": row.proposal.manifest.class,
        "risk": row.proposal.manifest.risk(),
    });
    note(tx, Kind::Proposed, &row, detail, now)?;
    Ok(row.id)
}

/// The rehearsal that is to be sent next.
pub(crate) fn next(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    now: Timestamp,
) -> Result<Option<CloudFrame>, StoreError> {
    while let Some(row) = proposals::next_to_rehearse(tx, &device.device, now)? {
        if row.attempts >= ATTEMPTS {
            fail(
                tx,
                &row,
                "the device never answered its rehearsal",
                None,
                now,
            )?;
            continue;
        }
        let terms = Terms {
            trust_version: app.signer.trust_version(),
            now,
        };
        let payload = match compose::rehearsal(terms, &row, device) {
            Ok(payload) => payload,
            Err(reason) => {
                fail(tx, &row, "no package can be made of it", Some(reason), now)?;
                continue;
            }
        };
        let digest = Digest::of(&payload);
        let lease = now
            .checked_add(app.settings.lease)
            .unwrap_or(Timestamp::MAX);
        proposals::sent(tx, &row.id, digest, lease, now)?;
        let detail = json!({ "proposal": row.id.as_str(), "rehearsal": digest });
        note(tx, Kind::RehearsalSent, &row, detail, now)?;
        return Ok(Some(CloudFrame::Rehearse {
            package: app.signer.sign(Statement::Rehearsal, &payload),
        }));
    }
    Ok(None)
}

/// Takes what a device says a rehearsal showed.
pub(crate) fn answered(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    envelope: &Envelope,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rehearsed = match open(device, envelope) {
        Ok(rehearsed) => rehearsed,
        Err(reason) => return disbelieve(tx, device, reason, now),
    };
    let row = proposals::of_rehearsal(tx, rehearsed.package)?;
    let Some(row) = row.filter(|row| row.device == device.device) else {
        return disbelieve(tx, device, Reason::WrongTarget, now);
    };
    if row.state != ProposalState::Rehearsing {
        return Ok(());
    }
    match rehearsed.result {
        RehearsalResult::Effect(effect) => shown(tx, app, device, &row, &effect, envelope, now),
        // The device is occupied, or has had this very package: the lease runs out and another one goes out.
        RehearsalResult::Refused {
            reason: Reason::Busy | Reason::Replayed,
            ..
        } => Ok(()),
        RehearsalResult::Refused { reason, detail } => fail(tx, &row, &detail.0, Some(reason), now),
    }
}

fn open(device: &Device, envelope: &Envelope) -> Result<Rehearsed, Reason> {
    let opened = envelope.open(PayloadType::Effect, std::iter::once(&device.result_key))?;
    let rehearsed: Rehearsed =
        strict::from_slice(opened.payload(), limit::FRAME).map_err(|_| Reason::MalformedPayload)?;
    if rehearsed.device == device.device {
        Ok(rehearsed)
    } else {
        Err(Reason::WrongTarget)
    }
}

fn shown(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    row: &ProposalRow,
    effect: &Effect,
    envelope: &Envelope,
    now: Timestamp,
) -> Result<(), StoreError> {
    let detail = json!({
        "proposal": row.id.as_str(),
        "effect": effect.digest(),
        "changes": effect.changes.len(),
        "risk": effect.risk,
        "script": effect.script.end,
    });
    note(tx, Kind::Rehearsed, row, detail, now)?;
    if effect.script.end != ScriptEnd::Exited(0) {
        let sentence = format!("the script failed in the shadow: {:?}", effect.script.end);
        return fail(tx, row, &sentence, None, now);
    }
    proposals::shown(tx, &row.id, envelope)?;
    match approve::ask(tx, app, device, row, effect, now) {
        Ok(()) => Ok(()),
        Err(approve::AskError::NotComposable(reason)) => {
            fail(tx, row, "no package can be made of it", Some(reason), now)
        }
        Err(approve::AskError::Store(error)) => Err(error),
    }
}

/// The proposal can't be shown to anybody. The expert's case stays open; a person's ends with its proposal.
fn fail(
    tx: &Transaction<'_>,
    row: &ProposalRow,
    sentence: &str,
    reason: Option<Reason>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let why = match reason {
        Some(reason) => format!("not rehearsed: {reason} ({sentence})"),
        None => format!("not rehearsed: {sentence}"),
    };
    proposals::reach(tx, &row.id, ProposalState::Failed, &why)?;
    let origin = cases::by_id(tx, &row.case)?.map(|case| case.origin);
    match origin {
        Some(Origin::Person) => {
            cases::close(tx, &row.case, CaseState::Refused, &why, None, now)?;
        }
        Some(Origin::Expert) | None => cases::reach(tx, &row.case, CaseState::Open, &why)?,
    }
    let detail = json!({
        "proposal": row.id.as_str(),
        "reason": reason.map(Reason::code),
        "detail": sentence,
    });
    note(tx, Kind::RehearsalFailed, row, detail, now)
}

fn note(
    tx: &Transaction<'_>,
    kind: Kind,
    row: &ProposalRow,
    detail: serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let event = Event {
        kind,
        device: Some(&row.device),
        case: Some(&row.case),
        detail,
    };
    audit::append(tx, event, now)
}
