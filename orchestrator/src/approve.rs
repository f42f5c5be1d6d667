//! The effect shown, the decision taken. Only signatures of people's own keys over exactly the composed bytes
//! approve; everything else is no approval.

use aizen_protocol::effect::Effect;
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::{ApprovalId, DeviceId, Digest};
use aizen_protocol::limit;
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::Risk;
use aizen_protocol::reason::Reason;
use jiff::Timestamp;
use rusqlite::Transaction;
use serde_json::json;

use crate::app::App;
use crate::audit::{self, Event, Kind};
use crate::compose::{self, Terms};
use crate::dispatch;
use crate::store::approvals::{Approval, ApprovalState};
use crate::store::cases::{CaseRow, CaseState};
use crate::store::devices::Device;
use crate::store::proposals::{ProposalRow, ProposalState};
use crate::store::{StoreError, approvals, cases, proposals};

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The proposal violates a bound of the package.
    #[error("no package can be made of the proposal: {0}")]
    NotComposable(Reason),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an answer did not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApproveError {
    /// Nobody was asked this.
    #[error("there is no approval {0}")]
    Unknown(ApprovalId),
    /// It is decided.
    #[error("approval {id} is {state} already{by}")]
    Decided {
        /// The question.
        id: ApprovalId,
        /// Its state.
        state: ApprovalState,
        /// Who decided, for people.
        by: String,
    },
    /// Its time is over.
    #[error("approval {id} expired at {at}")]
    Expired {
        /// The question.
        id: ApprovalId,
        /// Its end.
        at: Timestamp,
    },
    /// No key of the trust document made this signature over these bytes.
    #[error("the signature is not that of a known key over exactly these bytes")]
    BadSignature,
    /// A known key that may not approve this.
    #[error(
        "the key may not approve this: it is no approver's for this class, or its time is over"
    )]
    NotAuthorised,
    /// This person signed already.
    #[error("{name} signed already: {missing} more of other people needed")]
    SignedAlready {
        /// Whose key it is.
        name: String,
        /// How many are missing.
        missing: u32,
    },
    /// A reason is missing or too long.
    #[error("a denial needs a reason of 1 to {} bytes", limit::SENTENCE)]
    Reason,
    /// The stored payload does not read back.
    #[error("the stored package does not read back: {0}")]
    Payload(Reason),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Composes the payload and asks.
pub(crate) fn ask(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    proposal: &ProposalRow,
    effect: &Effect,
    now: Timestamp,
) -> Result<(), AskError> {
    let terms = Terms {
        trust_version: app.signer.trust_version(),
        now,
    };
    let life = app.settings.package_life;
    let payload = compose::approvable(terms, proposal, device, effect.digest(), life)
        .map_err(AskError::NotComposable)?;
    let risk = effect.risk.max(proposal.proposal.manifest.risk());
    let approval = Approval {
        id: ApprovalId::fresh(),
        proposal: proposal.id.clone(),
        case: proposal.case.clone(),
        device: device.device.clone(),
        state: ApprovalState::Pending,
        digest: Digest::of(&payload),
        envelope: Envelope::unsigned(PayloadType::Package, &payload),
        effect: effect.clone(),
        risk,
        needed: if risk == Risk::High {
            app.settings.high_risk_approvers
        } else {
            1
        },
        created_at: now,
        expires_at: now
            .checked_add(app.settings.approval_life)
            .unwrap_or(Timestamp::MAX),
        decided_at: None,
        decided_by: String::new(),
        reason: String::new(),
    };
    approvals::insert(tx, &approval)?;
    let waits = "the effect is known: a person is asked";
    cases::reach(tx, &approval.case, CaseState::Approval, waits)?;
    let detail = json!({
        "approval": approval.id.as_str(),
        "package": approval.digest,
        "effect": effect.digest(),
        "risk": risk,
        "expires_at": approval.expires_at,
    });
    note(tx, Kind::ApprovalAsked, &approval, detail, now)?;
    Ok(())
}

/// What a signature did.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Counted {
    /// The device it is for.
    pub(crate) device: DeviceId,
    /// Whose key it is.
    pub(crate) signer: String,
    /// Signatures that are still missing.
    pub(crate) missing: u32,
}

/// Counts a person's signature over [`Envelope::message`] of the composed payload.
pub(crate) fn sign(
    tx: &Transaction<'_>,
    app: &App,
    id: &ApprovalId,
    signature: &[u8; 64],
    now: Timestamp,
) -> Result<Counted, ApproveError> {
    let approval = pending(tx, id, now)?;
    let payload = approval
        .envelope
        .unverified_payload()
        .map_err(ApproveError::Payload)?;
    let package = Package::parse(&payload).map_err(ApproveError::Payload)?;
    let message = approval.envelope.message().map_err(ApproveError::Payload)?;
    let mut approvers = app.signer.approvers(package.manifest.class, now);
    let Some(person) = approvers.find(|k| k.key.verifies(&message, signature)) else {
        let known = app.signer.knows(&message, signature);
        return Err(if known {
            ApproveError::NotAuthorised
        } else {
            ApproveError::BadSignature
        });
    };
    let keys = || {
        app.signer
            .approvers(package.manifest.class, now)
            .map(|k| &k.key)
    };
    let count = |envelope: &Envelope| {
        envelope
            .open(PayloadType::Package, keys())
            .map_or(0, |opened| opened.signers().len() as u32)
    };
    let before = count(&approval.envelope);
    let mut envelope = approval.envelope.clone();
    envelope.attach(&person.key.id(), signature);
    let after = count(&envelope);
    let missing = approval.needed.saturating_sub(after);
    if after == before {
        return Err(ApproveError::SignedAlready {
            name: person.name.clone(),
            missing,
        });
    }
    let detail = json!({
        "approval": approval.id.as_str(),
        "package": approval.digest,
        "key": person.key.id().as_str(),
        "name": person.name,
        "missing": missing,
    });
    note(tx, Kind::Signed, &approval, detail, now)?;
    approvals::keep_signature(tx, id, &envelope)?;
    if missing == 0 {
        approvals::decide(tx, id, ApprovalState::Approved, &person.name, "", now)?;
        let detail = json!({ "approval": approval.id.as_str(), "package": approval.digest });
        note(tx, Kind::Approved, &approval, detail, now)?;
        dispatch::queue(tx, app, &approval, envelope, &package, now)?;
    }
    Ok(Counted {
        device: approval.device,
        signer: person.name.clone(),
        missing,
    })
}

/// A person says no.
pub(crate) fn deny(
    tx: &Transaction<'_>,
    id: &ApprovalId,
    reason: &str,
    now: Timestamp,
) -> Result<(), ApproveError> {
    if !(1..=limit::SENTENCE).contains(&reason.trim().len()) {
        return Err(ApproveError::Reason);
    }
    let approval = pending(tx, id, now)?;
    approvals::decide(tx, id, ApprovalState::Denied, "operator", reason, now)?;
    let sentence = format!("denied: {reason}");
    cases::close(tx, &approval.case, CaseState::Denied, &sentence, None, now)?;
    let detail = json!({ "approval": approval.id.as_str(), "reason": reason });
    note(tx, Kind::Denied, &approval, detail, now)?;
    Ok(())
}

/// Ends the questions whose time is over.
pub(crate) fn expire(tx: &Transaction<'_>, now: Timestamp) -> Result<usize, StoreError> {
    let overdue = approvals::overdue(tx, now)?;
    for approval in &overdue {
        let (id, state) = (&approval.id, ApprovalState::Expired);
        approvals::decide(tx, id, state, "", "nobody decided in time", now)?;
        let sentence = "nobody decided in time";
        cases::close(tx, &approval.case, CaseState::Expired, sentence, None, now)?;
        let detail = json!({ "approval": id.as_str() });
        note(tx, Kind::ApprovalExpired, approval, detail, now)?;
    }
    Ok(overdue.len())
}

/// The fault went away: a repair of it must not be approved any more.
pub(crate) fn withdraw(
    tx: &Transaction<'_>,
    case: &CaseRow,
    now: Timestamp,
) -> Result<(), StoreError> {
    let why = "the fault went away by itself";
    for approval in approvals::of_case(tx, &case.id)? {
        if approval.state == ApprovalState::Pending {
            let (id, state) = (&approval.id, ApprovalState::Withdrawn);
            approvals::decide(tx, id, state, "", why, now)?;
            let detail = json!({ "approval": id.as_str() });
            note(tx, Kind::ApprovalWithdrawn, &approval, detail, now)?;
        }
    }
    if let Some(last) = proposals::newest_of_case(tx, &case.id)?
        && last.state != ProposalState::Failed
    {
        proposals::reach(tx, &last.id, ProposalState::Withdrawn, why)?;
    }
    Ok(())
}

fn pending(
    tx: &Transaction<'_>,
    id: &ApprovalId,
    now: Timestamp,
) -> Result<Approval, ApproveError> {
    let approval = approvals::by_id(tx, id)?.ok_or_else(|| ApproveError::Unknown(id.clone()))?;
    match approval.state {
        ApprovalState::Pending if now < approval.expires_at => Ok(approval),
        ApprovalState::Pending | ApprovalState::Expired => Err(ApproveError::Expired {
            id: approval.id,
            at: approval.expires_at,
        }),
        state @ (ApprovalState::Approved | ApprovalState::Denied | ApprovalState::Withdrawn) => {
            let by = if approval.decided_by.is_empty() {
                String::new()
            } else {
                format!(" by {}", approval.decided_by)
            };
            Err(ApproveError::Decided {
                id: approval.id,
                state,
                by,
            })
        }
    }
}

fn note(
    tx: &Transaction<'_>,
    kind: Kind,
    approval: &Approval,
    detail: serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let event = Event {
        kind,
        device: Some(&approval.device),
        case: Some(&approval.case),
        detail,
    };
    audit::append(tx, event, now)
}
