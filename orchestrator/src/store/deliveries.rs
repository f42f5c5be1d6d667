//! The queue of each device: approved packages on their way, until received or reported.

use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{ApprovalId, CaseId, ChangeId, DeviceId, Digest};
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use super::StoreError;
use super::column::{At, Json, Plain, named};

named! {
    /// Where a delivery is.
    DeliveryState {
        /// Waits for the device.
        Queued = "queued",
        /// Sent, not answered.
        Sent = "sent",
        /// The device's executor has it.
        Received = "received",
        /// Its outcome is stored.
        Settled = "settled",
        /// The device did not take it in time.
        Expired = "expired",
    }
}

/// One approved package on its way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeliveryRow {
    /// SHA-256 of the package's payload.
    pub(crate) digest: Digest,
    /// The approval it comes from.
    pub(crate) approval: ApprovalId,
    /// Its case.
    pub(crate) case: CaseId,
    /// The device.
    pub(crate) device: DeviceId,
    /// Where it is.
    pub(crate) state: DeliveryState,
    /// The approved package.
    #[serde(skip)]
    pub(crate) package: Envelope,
    /// The orchestrator's delivery statement.
    #[serde(skip)]
    pub(crate) statement: Envelope,
    /// When it was queued.
    pub(crate) created_at: Timestamp,
    /// The device must have admitted it by then.
    pub(crate) deadline: Timestamp,
    /// After this a missing outcome no longer holds up the device's queue.
    pub(crate) blocks_until: Timestamp,
    /// Times it was sent.
    pub(crate) attempts: u32,
    /// The connection it was first sent on.
    pub(crate) first_connection: Option<i64>,
    /// The device's name for what it made of it.
    pub(crate) change: Option<ChangeId>,
}

const COLUMNS: &str = "digest, approval, case_id, device, state, package, statement, created_at, \
                       deadline, blocks_until, attempts, first_connection, change_id";

fn read(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        digest: row.get::<_, Plain<_>>(0)?.0,
        approval: row.get::<_, Plain<_>>(1)?.0,
        case: row.get::<_, Plain<_>>(2)?.0,
        device: row.get::<_, Plain<_>>(3)?.0,
        state: row.get(4)?,
        package: row.get::<_, Json<_>>(5)?.0,
        statement: row.get::<_, Json<_>>(6)?.0,
        created_at: row.get::<_, At>(7)?.0,
        deadline: row.get::<_, At>(8)?.0,
        blocks_until: row.get::<_, At>(9)?.0,
        attempts: row.get(10)?,
        first_connection: row.get(11)?,
        change: row.get::<_, Option<Plain<_>>>(12)?.map(|c| c.0),
    })
}

/// Queues a package.
pub(crate) fn insert(tx: &Transaction<'_>, delivery: &DeliveryRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO deliveries (digest, approval, case_id, device, state, package, statement, \
         created_at, deadline, blocks_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            Plain(delivery.digest),
            Plain(&delivery.approval),
            Plain(&delivery.case),
            Plain(&delivery.device),
            delivery.state,
            Json(&delivery.package),
            Json(&delivery.statement),
            At(delivery.created_at),
            At(delivery.deadline),
            At(delivery.blocks_until),
        ],
    )?;
    Ok(())
}

/// The delivery of this package to this device.
pub(crate) fn to_device(
    tx: &Transaction<'_>,
    device: &DeviceId,
    digest: Digest,
) -> Result<Option<DeliveryRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM deliveries WHERE digest = ?1 AND device = ?2");
    Ok(tx
        .query_row(&sql, params![Plain(digest), Plain(device)], read)
        .optional()?)
}

/// The deliveries of a case, oldest first.
pub(crate) fn of_case(tx: &Transaction<'_>, case: &CaseId) -> Result<Vec<DeliveryRow>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM deliveries WHERE case_id = ?1 ORDER BY created_at, digest");
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map([Plain(case)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The delivery that occupies a device: sent or received, its outcome not stored, its time not over.
pub(crate) fn in_flight(
    tx: &Transaction<'_>,
    device: &DeviceId,
    now: Timestamp,
) -> Result<Option<DeliveryRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM deliveries WHERE device = ?1 AND state IN ('sent', 'received') \
         AND blocks_until > ?2 ORDER BY created_at, digest LIMIT 1"
    );
    Ok(tx
        .query_row(&sql, params![Plain(device), At(now)], read)
        .optional()?)
}

/// The oldest delivery of a device that may be sent: queued, or sent with its lease over.
pub(crate) fn next_to_send(
    tx: &Transaction<'_>,
    device: &DeviceId,
    now: Timestamp,
) -> Result<Option<DeliveryRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM deliveries WHERE device = ?1 AND deadline > ?2 AND (state = 'queued' \
         OR (state = 'sent' AND coalesce(lease_until, 0) <= ?2)) ORDER BY created_at, digest LIMIT 1"
    );
    Ok(tx
        .query_row(&sql, params![Plain(device), At(now)], read)
        .optional()?)
}

/// It goes out on this connection.
pub(crate) fn sent(
    tx: &Transaction<'_>,
    digest: Digest,
    connection: i64,
    lease_until: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE deliveries SET state = 'sent', lease_until = ?3, attempts = attempts + 1, \
         first_connection = coalesce(first_connection, ?2) WHERE digest = ?1",
        params![Plain(digest), connection, At(lease_until)],
    )?;
    Ok(())
}

/// A fresh connection: what was sent on the one before is sent again at `until`.
pub(crate) fn shorten_leases(
    tx: &Transaction<'_>,
    device: &DeviceId,
    until: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE deliveries SET lease_until = ?2 WHERE device = ?1 AND state = 'sent'",
        params![Plain(device), At(until)],
    )?;
    Ok(())
}

/// When the next lease of a delivery or rehearsal of this device ends.
pub(crate) fn next_lease_end(
    tx: &Transaction<'_>,
    device: &DeviceId,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let end: Option<At> = tx
        .prepare_cached(
            "SELECT min(lease_until) FROM (SELECT lease_until FROM deliveries \
             WHERE device = ?1 AND state = 'sent' AND lease_until > ?2 AND deadline > ?2 \
             UNION ALL SELECT lease_until FROM proposals \
             WHERE device = ?1 AND state = 'rehearsing' AND lease_until > ?2)",
        )?
        .query_row(params![Plain(device), At(now)], |row| row.get(0))?;
    Ok(end.map(|end| end.0))
}

/// It reached a state.
pub(crate) fn reach(
    tx: &Transaction<'_>,
    digest: Digest,
    state: DeliveryState,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE deliveries SET state = ?2 WHERE digest = ?1",
        params![Plain(digest), state],
    )?;
    Ok(())
}

/// The device named its change.
pub(crate) fn name_change(
    tx: &Transaction<'_>,
    digest: Digest,
    change: &ChangeId,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE deliveries SET change_id = ?2 WHERE digest = ?1",
        params![Plain(digest), Plain(change)],
    )?;
    Ok(())
}

/// Deliveries that no device took in time.
pub(crate) fn overdue(
    tx: &Transaction<'_>,
    now: Timestamp,
) -> Result<Vec<DeliveryRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM deliveries WHERE (state = 'queued' AND deadline <= ?1) \
         OR (state IN ('sent', 'received') AND blocks_until <= ?1)"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map([At(now)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
