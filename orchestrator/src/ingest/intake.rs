//! One batch of frames in one transaction: what is new is stored, what was stored before is only acknowledged.

use aizen_protocol::envelope::PayloadType;
use aizen_protocol::frame::{CloudFrame, DeviceFrame};
use aizen_protocol::id::Sequence;
use aizen_protocol::reason::Reason;
use aizen_protocol::record::{Body, Record};
use aizen_sanitizer::leak;
use jiff::Timestamp;
use rusqlite::Transaction;
use serde_json::json;

use crate::app::App;
use crate::audit::{self, Event, Kind};
use crate::store::devices::Device;
use crate::store::records::Bound;
use crate::store::{StoreError, devices, records};
use crate::{confirm, dispatch, rehearse, report};

/// Why frames were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    /// `Hello` is the first frame and no other.
    #[error("hello came twice on one connection")]
    SecondHello,
    /// A number that no device reaches by counting.
    #[error("record number {0} is out of range")]
    OutOfRange(u64),
    /// The store did not take it; nothing is acknowledged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What came of a batch.
#[derive(Debug)]
pub(super) struct Taken {
    /// Everything up to and with this number is stored.
    pub(super) through: Option<Sequence>,
    /// What the device is answered.
    pub(super) answers: Vec<CloudFrame>,
    /// A round of evidence is complete.
    pub(super) round: bool,
}

/// Stores a batch from this device.
///
/// Numbers come in order; a number that is missing was dropped by the device, which counts it. So everything up to
/// the highest number is stored or lost for good, and one number tells both sides where they are.
pub(super) fn take(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    connection: i64,
    frames: Vec<DeviceFrame>,
    now: Timestamp,
) -> Result<Taken, IntakeError> {
    let Some(device) = devices::by_id(tx, &device.device)? else {
        return Ok(Taken {
            through: None,
            answers: Vec::new(),
            round: false,
        });
    };
    let mut through = device.through;
    let mut numbered = false;
    let mut taken = Taken {
        through: None,
        answers: Vec::new(),
        round: false,
    };
    for frame in frames {
        match frame {
            DeviceFrame::Hello(_) => return Err(IntakeError::SecondHello),
            DeviceFrame::Standing(standing) => devices::stands(tx, &device.device, &standing)?,
            DeviceFrame::Record { seq, record } => {
                numbered = true;
                if is_next(&mut through, seq)? && !leaks(tx, &device, seq, &record, now)? {
                    records::insert(tx, &device.device, seq, &record, now)?;
                    taken.round |= matches!(record.body, Body::Round(_));
                }
            }
            DeviceFrame::Signed { seq, envelope } => {
                numbered = true;
                if is_next(&mut through, seq)? {
                    match envelope.payload_type() {
                        kind if kind == PayloadType::Effect.as_str() => {
                            rehearse::answered(tx, app, &device, &envelope, now)?;
                        }
                        kind if kind == PayloadType::Outcome.as_str() => {
                            report::take(tx, &device, &envelope, now)?;
                        }
                        _ => report::disbelieve(tx, &device, Reason::WrongPayloadType, now)?,
                    }
                }
            }
            DeviceFrame::Received { package } => {
                dispatch::received(tx, &device.device, package, now)?;
            }
            DeviceFrame::ConfirmWanted(confirmation) => {
                taken.answers.extend(confirm::answer(
                    tx,
                    app,
                    &device,
                    connection,
                    &confirmation,
                    now,
                )?);
            }
        }
    }
    if numbered {
        devices::stored_through(tx, &device.device, through, taken.round, now)?;
        taken.through = Some(through);
        let bound = Bound {
            records: app.settings.records_per_device,
            bytes: app.settings.record_bytes_per_device,
        };
        records::bound(tx, &device.device, bound)?;
    }
    Ok(taken)
}

/// True if the number was never stored; moves the mark.
fn is_next(through: &mut Sequence, seq: Sequence) -> Result<bool, IntakeError> {
    if i64::try_from(seq.0).is_err() {
        return Err(IntakeError::OutOfRange(seq.0));
    }
    let fresh = seq > *through;
    if fresh {
        *through = seq;
    }
    Ok(fresh)
}

/// True if a record holds what the device's sanitizer should have taken out. It is not stored, and counted as a bug:
/// the audit says which number it was, never what it held.
fn leaks(
    tx: &Transaction<'_>,
    device: &Device,
    seq: Sequence,
    record: &Record,
    now: Timestamp,
) -> Result<bool, IntakeError> {
    let Ok(text) = serde_json::to_string(record) else {
        return Ok(false);
    };
    let Some(kind) = leak::secrets(&text) else {
        return Ok(false);
    };
    tracing::error!(device = %device.device, seq = seq.0, kind, "a record held a secret and was not stored");
    let event = Event {
        kind: Kind::LeakCaught,
        device: Some(&device.device),
        case: None,
        detail: json!({ "seq": seq, "collector": record.body.collector(), "kind": kind }),
    };
    audit::append_bounded(tx, event, now)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_once_and_gaps_are_no_duplicates() {
        let mut through = Sequence(3);
        assert!(!is_next(&mut through, Sequence(3)).unwrap());
        assert!(is_next(&mut through, Sequence(7)).unwrap());
        assert!(!is_next(&mut through, Sequence(7)).unwrap());
        assert_eq!(through, Sequence(7));
        assert!(is_next(&mut through, Sequence(u64::MAX)).is_err());
    }
}
