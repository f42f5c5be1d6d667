//! Approved packages to the device that is online: queued, leased, sent again until received or reported.

use aizen_protocol::envelope::Envelope;
use aizen_protocol::frame::CloudFrame;
use aizen_protocol::id::{DeviceId, Digest};
use aizen_protocol::package::Package;
use aizen_protocol::reason::Reason;
use aizen_protocol::statement::Delivery;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Transaction;
use serde_json::json;

use crate::app::App;
use crate::approve::ApproveError;
use crate::audit::{self, Event, Kind};
use crate::rehearse;
use crate::sign::Statement;
use crate::store::approvals::Approval;
use crate::store::cases::CaseState;
use crate::store::deliveries::{DeliveryRow, DeliveryState};
use crate::store::{StoreError, cases, deliveries, devices};

/// A device that was offline at the end of a change has so much longer to report before its queue goes on.
const REPORT_GRACE: SignedDuration = SignedDuration::from_mins(15);

/// Queues an approved package with the orchestrator's delivery statement.
pub(crate) fn queue(
    tx: &Transaction<'_>,
    app: &App,
    approval: &Approval,
    package: Envelope,
    form: &Package,
    now: Timestamp,
) -> Result<(), ApproveError> {
    let delivery = Delivery {
        package: approval.digest,
        device: approval.device.clone(),
        deadline: form.expires,
    };
    let payload = serde_json::to_vec(&delivery)
        .map_err(|_| ApproveError::Payload(Reason::MalformedPayload))?;
    let manifest = &form.manifest;
    let runs = i64::from(manifest.timeout_s) + i64::from(manifest.confirm.within_s);
    let blocks_until = form
        .expires
        .checked_add(SignedDuration::from_secs(runs))
        .and_then(|end| end.checked_add(REPORT_GRACE))
        .unwrap_or(Timestamp::MAX);
    let row = DeliveryRow {
        digest: approval.digest,
        approval: approval.id.clone(),
        case: approval.case.clone(),
        device: approval.device.clone(),
        state: DeliveryState::Queued,
        package,
        statement: app.signer.sign(Statement::Delivery, &payload),
        created_at: now,
        deadline: form.expires,
        blocks_until,
        attempts: 0,
        first_connection: None,
        change: None,
    };
    deliveries::insert(tx, &row)?;
    let waits = "approved: on its way to the device";
    cases::reach(tx, &row.case, CaseState::Delivering, waits)?;
    Ok(())
}

/// What is to be sent to a device, and when to look again.
#[derive(Debug)]
pub(crate) struct Due {
    /// What is sent at once.
    pub(crate) frame: Option<CloudFrame>,
    /// When an unanswered lease ends.
    pub(crate) again: Option<Timestamp>,
}

/// What is to be sent to a device on this connection. One change at a time, and no rehearsal beside a change.
pub(crate) fn due(
    tx: &Transaction<'_>,
    app: &App,
    device: &DeviceId,
    connection: i64,
    now: Timestamp,
) -> Result<Due, StoreError> {
    let frame = next(tx, app, device, connection, now)?;
    let again = deliveries::next_lease_end(tx, device, now)?;
    Ok(Due { frame, again })
}

fn next(
    tx: &Transaction<'_>,
    app: &App,
    device: &DeviceId,
    connection: i64,
    now: Timestamp,
) -> Result<Option<CloudFrame>, StoreError> {
    let Some(device) = devices::by_id(tx, device)? else {
        return Ok(None);
    };
    if app.signer.is_revoked(&device.device) {
        return Ok(None);
    }
    let occupied = deliveries::in_flight(tx, &device.device, now)?;
    let next = deliveries::next_to_send(tx, &device.device, now)?;
    let free = |next: &DeliveryRow| occupied.as_ref().is_none_or(|o| o.digest == next.digest);
    if let Some(next) = next.filter(free) {
        return send(tx, app, next, connection, now).map(Some);
    }
    if occupied.is_some() {
        return Ok(None);
    }
    rehearse::next(tx, app, &device, now)
}

fn send(
    tx: &Transaction<'_>,
    app: &App,
    row: DeliveryRow,
    connection: i64,
    now: Timestamp,
) -> Result<CloudFrame, StoreError> {
    let lease = now
        .checked_add(app.settings.lease)
        .unwrap_or(Timestamp::MAX);
    deliveries::sent(tx, row.digest, connection, lease)?;
    let detail = json!({ "package": row.digest, "attempt": row.attempts + 1 });
    note(tx, Kind::Delivered, &row, detail, now)?;
    Ok(CloudFrame::Deliver {
        package: row.package,
        delivery: row.statement,
    })
}

/// The device's executor has the package.
pub(crate) fn received(
    tx: &Transaction<'_>,
    device: &DeviceId,
    package: Digest,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(row) = deliveries::to_device(tx, device, package)? else {
        tracing::debug!(%device, %package, "a package was received that was not delivered by uplink");
        return Ok(());
    };
    if row.state != DeliveryState::Sent {
        return Ok(());
    }
    deliveries::reach(tx, row.digest, DeliveryState::Received)?;
    let runs = "the device has the package";
    cases::reach(tx, &row.case, CaseState::Running, runs)?;
    note(
        tx,
        Kind::Received,
        &row,
        json!({ "package": row.digest }),
        now,
    )
}

/// Settles what no device took in time; an outcome that still comes settles it again.
pub(crate) fn expire(tx: &Transaction<'_>, now: Timestamp) -> Result<usize, StoreError> {
    let overdue = deliveries::overdue(tx, now)?;
    for row in &overdue {
        deliveries::reach(tx, row.digest, DeliveryState::Expired)?;
        let sentence = match row.state {
            DeliveryState::Queued => "the device did not come for the package in time",
            DeliveryState::Sent
            | DeliveryState::Received
            | DeliveryState::Settled
            | DeliveryState::Expired => {
                "the device took the package and never reported: its state is unknown"
            }
        };
        cases::close(tx, &row.case, CaseState::Expired, sentence, None, now)?;
        let detail = json!({ "package": row.digest, "detail": sentence });
        note(tx, Kind::DeliveryExpired, row, detail, now)?;
    }
    Ok(overdue.len())
}

fn note(
    tx: &Transaction<'_>,
    kind: Kind,
    row: &DeliveryRow,
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
