//! Outcomes in, cases settled: each signed outcome is stored once and ends its case.

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::Digest;
use aizen_protocol::outcome::{End, Outcome};
use aizen_protocol::reason::Reason;
use aizen_protocol::{limit, strict};
use jiff::Timestamp;
use rusqlite::Transaction;
use serde_json::json;

use crate::audit::{self, Event, Kind};
use crate::store::cases::CaseState;
use crate::store::deliveries::DeliveryState;
use crate::store::devices::Device;
use crate::store::outcomes::OutcomeRow;
use crate::store::{StoreError, cases, deliveries, outcomes};

/// Takes a signed outcome.
pub(crate) fn take(
    tx: &Transaction<'_>,
    device: &Device,
    envelope: &Envelope,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (outcome, digest) = match open(device, envelope) {
        Ok(opened) => opened,
        Err(reason) => return disbelieve(tx, device, reason, now),
    };
    let delivery = match outcome.package_digest {
        Some(package) => deliveries::to_device(tx, &device.device, package)?,
        None => None,
    };
    let row = OutcomeRow {
        device: device.device.clone(),
        digest,
        package: outcome.package_digest,
        case: delivery.as_ref().map(|d| d.case.clone()),
        envelope: envelope.clone(),
    };
    if !outcomes::insert(tx, &row, now)? {
        return Ok(());
    }
    let detail = json!({
        "outcome": digest,
        "package": outcome.package_digest,
        "change": outcome.change.as_ref().map(|c| c.as_str()),
        "end": outcome.end,
        "reason": outcome.reason.map(Reason::code),
        "effect_as_approved": outcome.effect_as_approved(),
        "state_before": outcome.state_before,
        "state_after": outcome.state_after,
        "journal_head": outcome.journal_head,
    });
    let event = Event {
        kind: Kind::OutcomeStored,
        device: Some(&device.device),
        case: row.case.as_ref(),
        detail,
    };
    audit::append(tx, event, now)?;
    let Some(delivery) = delivery else {
        return Ok(());
    };
    // A second copy of a package is refused as replayed; the first one's own outcome settles the case.
    if delivery.state == DeliveryState::Settled || outcome.reason == Some(Reason::Replayed) {
        return Ok(());
    }
    deliveries::reach(tx, delivery.digest, DeliveryState::Settled)?;
    let ended = outcome.steps.last().map(|step| step.at);
    let (state, sentence) = settled(&outcome);
    cases::close(tx, &delivery.case, state, &sentence, ended, now)
}

fn open(device: &Device, envelope: &Envelope) -> Result<(Outcome, Digest), Reason> {
    let opened = envelope.open(PayloadType::Outcome, std::iter::once(&device.result_key))?;
    let outcome: Outcome =
        strict::from_slice(opened.payload(), limit::FRAME).map_err(|_| Reason::MalformedPayload)?;
    if outcome.device == device.device {
        Ok((outcome, opened.digest()))
    } else {
        Err(Reason::WrongTarget)
    }
}

fn settled(outcome: &Outcome) -> (CaseState, String) {
    let detail = &outcome.detail.0;
    let with = |sentence: &str| {
        if detail.is_empty() {
            sentence.to_owned()
        } else {
            format!("{sentence}: {detail}")
        }
    };
    match outcome.end {
        End::Confirmed => (CaseState::Resolved, with("the change is kept")),
        End::Diagnosed => (CaseState::Diagnosed, with("the script ran to its end")),
        End::RolledBack => (
            CaseState::RolledBack,
            with("the device is as it was before"),
        ),
        End::RollbackIncomplete => (
            CaseState::RollbackIncomplete,
            with("the device could not put everything back"),
        ),
        End::Interrupted => (
            CaseState::Interrupted,
            with("the device stopped before anything was touched"),
        ),
        End::Refused => {
            let reason = outcome.reason.map_or("no reason given", Reason::code);
            (
                CaseState::Refused,
                with(&format!("the device refused the package ({reason})")),
            )
        }
    }
}

/// Records that something signed was not believed. It is acknowledged all the same: a liar must not block the queue
/// of evidence behind it.
pub(crate) fn disbelieve(
    tx: &Transaction<'_>,
    device: &Device,
    reason: Reason,
    now: Timestamp,
) -> Result<(), StoreError> {
    tracing::warn!(device = %device.device, %reason, "a signed message was not believed");
    let event = Event {
        kind: Kind::SignedRefused,
        device: Some(&device.device),
        case: None,
        detail: json!({ "reason": reason.code() }),
    };
    audit::append_bounded(tx, event, now)
}
