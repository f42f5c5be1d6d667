//! The orchestrator's word that it saw the device over the changed network.
//!
//! It is signed only on a connection that is newer than the one the package went out on: a connection from before the
//! change proves nothing about the network after it.

use aizen_protocol::frame::CloudFrame;
use aizen_protocol::statement::Confirmation;
use jiff::Timestamp;
use rusqlite::Transaction;
use serde_json::json;

use crate::app::App;
use crate::audit::{self, Event, Kind};
use crate::sign::Statement;
use crate::store::deliveries::{DeliveryRow, DeliveryState};
use crate::store::devices::Device;
use crate::store::{StoreError, deliveries};

/// Why a confirmation was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfirmRefusal {
    /// The statement names somebody else.
    #[error("the confirmation names another device")]
    WrongDevice,
    /// This orchestrator did not deliver the package to this device.
    #[error("this package was not delivered to this device")]
    NotDelivered,
    /// The change is over.
    #[error("the change has ended")]
    Ended,
    /// The connection is as old as the delivery.
    #[error("the connection is not newer than the delivery: redial over the changed network")]
    StaleConnection,
    /// A package is one change.
    #[error("the package belongs to another change")]
    OtherChange,
}

/// Signs a confirmation, or records why not: the device rolls back at its deadline.
pub(crate) fn answer(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    connection: i64,
    wanted: &Confirmation,
    now: Timestamp,
) -> Result<Option<CloudFrame>, StoreError> {
    let row = deliveries::to_device(tx, &device.device, wanted.package)?;
    let decided = decide(device, row.as_ref(), connection, wanted);
    let detail = json!({
        "package": wanted.package,
        "change": wanted.change.as_str(),
        "nonce": wanted.nonce,
        "refusal": decided.err().map(|refusal| refusal.to_string()),
    });
    let event = Event {
        kind: if decided.is_ok() {
            Kind::ConfirmSigned
        } else {
            Kind::ConfirmRefused
        },
        device: Some(&device.device),
        case: row.as_ref().map(|row| &row.case),
        detail,
    };
    if decided.is_ok() {
        audit::append(tx, event, now)?;
    } else {
        audit::append_bounded(tx, event, now)?;
    }
    if let Err(refusal) = decided {
        tracing::warn!(device = %device.device, change = %wanted.change, %refusal, "confirmation refused");
        return Ok(None);
    }
    deliveries::name_change(tx, wanted.package, &wanted.change)?;
    let Ok(payload) = serde_json::to_vec(wanted) else {
        return Ok(None);
    };
    Ok(Some(CloudFrame::Confirmed {
        statement: app.signer.sign(Statement::Confirm, &payload),
    }))
}

fn decide(
    device: &Device,
    row: Option<&DeliveryRow>,
    connection: i64,
    wanted: &Confirmation,
) -> Result<(), ConfirmRefusal> {
    if wanted.device != device.device {
        return Err(ConfirmRefusal::WrongDevice);
    }
    let row = row.ok_or(ConfirmRefusal::NotDelivered)?;
    match row.state {
        DeliveryState::Queued => return Err(ConfirmRefusal::NotDelivered),
        DeliveryState::Settled => return Err(ConfirmRefusal::Ended),
        DeliveryState::Sent | DeliveryState::Received | DeliveryState::Expired => {}
    }
    if row.first_connection.is_none_or(|first| connection <= first) {
        return Err(ConfirmRefusal::StaleConnection);
    }
    if row.change.as_ref().is_some_and(|c| *c != wanted.change) {
        return Err(ConfirmRefusal::OtherChange);
    }
    Ok(())
}
