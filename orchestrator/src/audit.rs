//! The record: append-only entries, each holding the digest of the one before.
//!
//! An entry's digest is SHA-256 over the previous digest and every field, each with its length in front, so that no
//! byte can move from one field to its neighbour.

use aizen_protocol::id::{CaseId, DeviceId, Digest};
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::StoreError;
use crate::store::column::{At, Plain, named};

named! {
    /// What happened.
    Kind {
        /// A one-time token was made.
        TokenCreated = "token_created",
        /// A device enrolled.
        DeviceEnrolled = "device_enrolled",
        /// An enrollment was refused.
        EnrollmentRefused = "enrollment_refused",
        /// A device drew another state generation.
        EpochChanged = "epoch_changed",
        /// A fault was found, or a person proposed something.
        CaseOpened = "case_opened",
        /// The fault went away by itself.
        CaseCleared = "case_cleared",
        /// A repair was proposed.
        Proposed = "proposed",
        /// A rehearsal went to the device.
        RehearsalSent = "rehearsal_sent",
        /// The device showed the effect.
        Rehearsed = "rehearsed",
        /// The proposal could not be rehearsed.
        RehearsalFailed = "rehearsal_failed",
        /// A person was asked.
        ApprovalAsked = "approval_asked",
        /// A person signed.
        Signed = "signed",
        /// Enough people signed.
        Approved = "approved",
        /// A person said no.
        Denied = "denied",
        /// Nobody decided in time.
        ApprovalExpired = "approval_expired",
        /// The question was taken back.
        ApprovalWithdrawn = "approval_withdrawn",
        /// The package was handed to the device's connection.
        Delivered = "delivered",
        /// The device's executor has it.
        Received = "received",
        /// The device did not take it in time.
        DeliveryExpired = "delivery_expired",
        /// A confirmation was signed.
        ConfirmSigned = "confirm_signed",
        /// A confirmation was not signed.
        ConfirmRefused = "confirm_refused",
        /// A signed outcome was stored.
        OutcomeStored = "outcome_stored",
        /// Something signed was not believed.
        SignedRefused = "signed_refused",
        /// A record held what looks like a private value and was not stored.
        LeakCaught = "leak_caught",
    }
}

/// What is appended.
#[derive(Clone, Debug)]
pub(crate) struct Event<'a> {
    /// What happened.
    pub(crate) kind: Kind,
    /// On which device.
    pub(crate) device: Option<&'a DeviceId>,
    /// In which case.
    pub(crate) case: Option<&'a CaseId>,
    /// What exactly: one JSON object.
    pub(crate) detail: Value,
}

/// One entry as it is stored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    /// Its place, from 1.
    pub(crate) n: i64,
    /// When.
    pub(crate) at: Timestamp,
    /// What happened.
    pub(crate) event: String,
    /// On which device.
    pub(crate) device: Option<String>,
    /// In which case.
    pub(crate) case: Option<String>,
    /// What exactly, for people.
    pub(crate) detail: String,
    /// The same for programs: one object.
    pub(crate) data: Value,
    /// Digest of the entry before; zeros for the first.
    pub(crate) previous: Digest,
    /// Its own digest.
    pub(crate) digest: Digest,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Verification {
    /// Entries that hang together from the first on.
    pub(crate) entries: i64,
    /// Digest of the last of them: kept elsewhere, it proves later that nothing was cut off.
    pub(crate) head: Digest,
    /// Place of the first entry that was altered, dropped or swapped.
    pub(crate) broken_at: Option<i64>,
}

struct Stored {
    n: i64,
    at: i64,
    kind: String,
    device: Option<String>,
    case: Option<String>,
    detail: String,
    previous: Digest,
    digest: Digest,
}

impl Stored {
    fn computed(&self) -> Digest {
        let mut bytes = self.previous.0.to_vec();
        for part in [
            self.n.to_string().as_str(),
            self.at.to_string().as_str(),
            &self.kind,
            self.device.as_deref().unwrap_or(""),
            self.case.as_deref().unwrap_or(""),
            &self.detail,
        ] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Digest::of(&bytes)
    }
}

const COLUMNS: &str = "n, at, kind, device, case_id, detail, previous, digest";
const START: Digest = Digest([0; 32]);

fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        n: row.get(0)?,
        at: row.get(1)?,
        kind: row.get(2)?,
        device: row.get(3)?,
        case: row.get(4)?,
        detail: row.get(5)?,
        previous: row.get::<_, Plain<_>>(6)?.0,
        digest: row.get::<_, Plain<_>>(7)?.0,
    })
}

/// Appends an event in the transaction that makes it true.
pub(crate) fn append(
    tx: &Transaction<'_>,
    event: Event<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let last: Option<(i64, Plain<Digest>)> = tx
        .query_row(
            "SELECT n, digest FROM audit ORDER BY n DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (n, previous) = last.map_or((1, START), |(n, digest)| (n + 1, digest.0));
    let mut entry = Stored {
        n,
        at: now.as_millisecond(),
        kind: event.kind.to_string(),
        device: event.device.map(ToString::to_string),
        case: event.case.map(ToString::to_string),
        detail: event.detail.to_string(),
        previous,
        digest: START,
    };
    entry.digest = entry.computed();
    tx.execute(
        &format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        params![
            entry.n,
            entry.at,
            entry.kind,
            entry.device,
            entry.case,
            entry.detail,
            Plain(entry.previous),
            Plain(entry.digest),
        ],
    )?;
    Ok(())
}

/// Entries of one kind that one device can cause in an hour: a stolen device key must not be able to fill the disk.
const HOURLY: i64 = 60;

/// Appends an event that a device causes at will, unless it did so too often in the last hour.
pub(crate) fn append_bounded(
    tx: &Transaction<'_>,
    event: Event<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let since = now
        .checked_sub(jiff::SignedDuration::from_hours(1))
        .unwrap_or(now);
    let recent: i64 = tx.query_row(
        "SELECT count(*) FROM audit WHERE device = ?1 AND kind = ?2 AND at > ?3",
        params![event.device.map(Plain), event.kind, At(since)],
        |row| row.get(0),
    )?;
    if recent >= HOURLY {
        tracing::warn!(kind = %event.kind, device = ?event.device, "too many in an hour: not recorded");
        return Ok(());
    }
    append(tx, event, now)
}

/// Entries after place `after`, of one case or of all.
pub(crate) fn entries(
    tx: &Transaction<'_>,
    case: Option<&CaseId>,
    after: i64,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM audit WHERE n > ?2 AND (?1 IS NULL OR case_id = ?1) ORDER BY n LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![case.map(Plain), after, limit], |row| {
        let at = row.get::<_, At>(1)?.0;
        let stored = read(row)?;
        let data = serde_json::from_str(&stored.detail).unwrap_or(Value::String(stored.detail));
        Ok(Entry {
            n: stored.n,
            at,
            event: stored.kind,
            device: stored.device,
            case: stored.case,
            detail: sentence(&data),
            data,
            previous: stored.previous,
            digest: stored.digest,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// `cause: link_down, component: wan`; what is null is left out.
fn sentence(data: &Value) -> String {
    let words = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match data {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| format!("{}: {}", name.replace('_', " "), words(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => words(other),
    }
}

/// Walks the whole chain.
pub(crate) fn verify(tx: &Transaction<'_>) -> Result<Verification, StoreError> {
    let mut found = Verification {
        entries: 0,
        head: START,
        broken_at: None,
    };
    let mut statement = tx.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY n"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let place = found.entries + 1;
        let intact = read(row).is_ok_and(|entry| {
            let hangs = entry.n == place
                && entry.previous == found.head
                && entry.digest == entry.computed();
            found.head = if hangs { entry.digest } else { found.head };
            hangs
        });
        if !intact {
            found.broken_at = Some(place);
            break;
        }
        found.entries = place;
    }
    Ok(found)
}

/// True if the chain holds an entry with this digest: what was seen then is still there.
pub(crate) fn holds(tx: &Transaction<'_>, head: Digest) -> Result<bool, StoreError> {
    Ok(tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM audit WHERE digest = ?1)",
        [Plain(head)],
        |row| row.get(0),
    )?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Store;
    use crate::store::tests::empty;

    fn with_entries(count: i64) -> Store {
        let store = empty();
        store
            .transact_here::<_, StoreError>(|tx| {
                for number in 0..count {
                    let event = Event {
                        kind: Kind::TokenCreated,
                        device: None,
                        case: None,
                        detail: json!({ "number": number }),
                    };
                    append(tx, event, Timestamp::UNIX_EPOCH)?;
                }
                Ok(())
            })
            .unwrap();
        store
    }

    fn broken_after(tampering: &str) -> Option<i64> {
        let store = with_entries(5);
        store
            .transact_here::<_, StoreError>(|tx| {
                tx.execute_batch(
                    "DROP TRIGGER audit_is_never_altered; DROP TRIGGER audit_is_never_cut",
                )?;
                tx.execute_batch(tampering)?;
                Ok(verify(tx)?.broken_at)
            })
            .unwrap()
    }

    #[test]
    fn an_intact_chain_verifies_to_its_head() {
        let store = with_entries(5);
        let found = store.transact_here(verify).unwrap();
        assert_eq!((found.entries, found.broken_at), (5, None));
        assert!(store.transact_here(|tx| holds(tx, found.head)).unwrap());
    }

    #[test]
    fn an_altered_dropped_or_swapped_entry_is_found() {
        for (tampering, place) in [
            ("UPDATE audit SET detail = '{\"number\":9}' WHERE n = 3", 3),
            ("UPDATE audit SET at = at + 1 WHERE n = 1", 1),
            ("UPDATE audit SET device = 'dev-x' WHERE n = 4", 4),
            ("DELETE FROM audit WHERE n = 2", 2),
            (
                "UPDATE audit SET n = 99 WHERE n = 4; UPDATE audit SET n = 4 WHERE n = 5; \
                 UPDATE audit SET n = 5 WHERE n = 99",
                4,
            ),
        ] {
            assert_eq!(broken_after(tampering), Some(place), "{tampering}");
        }
    }

    #[test]
    fn the_store_itself_refuses_to_alter_or_cut_the_chain() {
        let store = with_entries(2);
        for sql in ["UPDATE audit SET kind = 'x'", "DELETE FROM audit"] {
            let refused =
                store.transact_here::<_, StoreError>(|tx| Ok(tx.execute(sql, []).map(drop)?));
            assert!(refused.unwrap_err().to_string().contains("append-only"));
        }
    }

    #[test]
    fn a_cut_tail_is_found_by_the_head_that_was_kept() {
        let store = with_entries(3);
        let head = store.transact_here(verify).unwrap().head;
        let held = store
            .transact_here::<_, StoreError>(|tx| {
                tx.execute_batch("DROP TRIGGER audit_is_never_cut; DELETE FROM audit WHERE n = 3")?;
                holds(tx, head)
            })
            .unwrap();
        assert!(!held);
    }
}
