//! Cases: one fault on one device, from the first finding to the last report.

use aizen_protocol::finding::Finding;
use aizen_protocol::id::{CaseId, DeviceId};
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::column::{At, Json, Plain, named};

named! {
    /// Where a case is.
    CaseState {
        /// Found; nothing is proposed, or the proposal could not be rehearsed.
        Open = "open",
        /// The device rehearses the proposal, or will when it is online.
        Rehearsing = "rehearsing",
        /// A person is asked.
        Approval = "awaiting_approval",
        /// Approved, on its way to the device.
        Delivering = "delivering",
        /// The device has it.
        Running = "running",
        /// The change is kept.
        Resolved = "resolved",
        /// A `diagnose` script ran to its end.
        Diagnosed = "diagnosed",
        /// The device is as before.
        RolledBack = "rolled_back",
        /// The device could not put everything back.
        RollbackIncomplete = "rollback_incomplete",
        /// The device refused the package.
        Refused = "refused",
        /// The device stopped before anything was touched.
        Interrupted = "interrupted",
        /// A person said no.
        Denied = "denied",
        /// Nobody decided in time, or the device never came for it.
        Expired = "expired",
        /// The fault went away by itself.
        Cleared = "cleared",
    }
}

named! {
    /// Who opened a case.
    Origin {
        /// The expert's finding.
        Expert = "expert",
        /// A person's proposal.
        Person = "person",
    }
}

impl CaseState {
    /// True while a package of the case is with the device or on its way.
    pub(crate) fn has_change(self) -> bool {
        matches!(self, Self::Delivering | Self::Running)
    }
}

/// One case.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct CaseRow {
    /// Its name.
    pub(crate) id: CaseId,
    /// The device.
    pub(crate) device: DeviceId,
    /// Who opened it.
    pub(crate) origin: Origin,
    /// The fault's name.
    pub(crate) cause: String,
    /// What is broken, or what a person wants to achieve.
    pub(crate) component: String,
    /// Where it is.
    pub(crate) state: CaseState,
    /// What the expert found, newest form.
    pub(crate) finding: Option<Finding>,
    /// The last thing that happened, for people.
    pub(crate) note: String,
    /// When it was opened.
    pub(crate) opened_at: Timestamp,
    /// When the fault was last seen.
    pub(crate) seen_at: Timestamp,
    /// When it was closed.
    pub(crate) closed_at: Option<Timestamp>,
    /// When the change ended, by the device's clock.
    #[serde(skip)]
    pub(crate) settled_on_device_at: Option<Timestamp>,
    /// Verdicts in a row that did not name it.
    #[serde(skip)]
    pub(crate) absent: u32,
}

const COLUMNS: &str = "id, device, origin, cause, component, state, finding, note, opened_at, \
                       seen_at, closed_at, settled_on_device_at, absent";

fn read(row: &Row<'_>) -> rusqlite::Result<CaseRow> {
    Ok(CaseRow {
        id: row.get::<_, Plain<_>>(0)?.0,
        device: row.get::<_, Plain<_>>(1)?.0,
        origin: row.get(2)?,
        cause: row.get(3)?,
        component: row.get(4)?,
        state: row.get(5)?,
        finding: row.get::<_, Option<Json<_>>>(6)?.map(|f| f.0),
        note: row.get(7)?,
        opened_at: row.get::<_, At>(8)?.0,
        seen_at: row.get::<_, At>(9)?.0,
        closed_at: row.get::<_, Option<At>>(10)?.map(|t| t.0),
        settled_on_device_at: row.get::<_, Option<At>>(11)?.map(|t| t.0),
        absent: row.get(12)?,
    })
}

/// Writes a case that was opened at this moment.
pub(crate) fn insert(tx: &Transaction<'_>, case: &CaseRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO cases (id, device, origin, cause, component, state, finding, note, opened_at, seen_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            Plain(&case.id),
            Plain(&case.device),
            case.origin,
            case.cause,
            case.component,
            case.state,
            case.finding.as_ref().map(Json),
            case.note,
            At(case.opened_at),
            At(case.seen_at),
        ],
    )?;
    Ok(())
}

/// One case.
pub(crate) fn by_id(tx: &Transaction<'_>, id: &CaseId) -> Result<Option<CaseRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM cases WHERE id = ?1");
    Ok(tx.query_row(&sql, [Plain(id)], read).optional()?)
}

/// The newest cases, of one device or of all.
pub(crate) fn newest(
    tx: &Transaction<'_>,
    device: Option<&DeviceId>,
    limit: u32,
) -> Result<Vec<CaseRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM cases WHERE ?1 IS NULL OR device = ?1 \
         ORDER BY opened_at DESC, id DESC LIMIT ?2"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map(params![device.map(Plain), limit], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The expert's cases of a device that are open or were closed after `since`.
pub(crate) fn current(
    tx: &Transaction<'_>,
    device: &DeviceId,
    since: Timestamp,
) -> Result<Vec<CaseRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM cases WHERE device = ?1 AND origin = 'expert' \
         AND (closed_at IS NULL OR closed_at > ?2) ORDER BY opened_at, id"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map(params![Plain(device), At(since)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The fault was seen again.
pub(crate) fn refresh(
    tx: &Transaction<'_>,
    id: &CaseId,
    finding: &Finding,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE cases SET finding = ?2, seen_at = ?3, absent = 0 WHERE id = ?1",
        params![Plain(id), Json(finding), At(now)],
    )?;
    Ok(())
}

/// A verdict did not name the fault.
pub(crate) fn count_absence(tx: &Transaction<'_>, id: &CaseId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE cases SET absent = absent + 1 WHERE id = ?1",
        [Plain(id)],
    )?;
    Ok(())
}

/// The case reached a state from which it goes on.
pub(crate) fn reach(
    tx: &Transaction<'_>,
    id: &CaseId,
    state: CaseState,
    note: &str,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE cases SET state = ?2, note = ?3 WHERE id = ?1",
        params![Plain(id), state, note],
    )?;
    Ok(())
}

/// The case ended. A later end (an outcome after the deadline) replaces an earlier one.
pub(crate) fn close(
    tx: &Transaction<'_>,
    id: &CaseId,
    state: CaseState,
    note: &str,
    on_device_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE cases SET state = ?2, note = ?3, settled_on_device_at = ?4, closed_at = ?5 WHERE id = ?1",
        params![Plain(id), state, note, on_device_at.map(At), At(now)],
    )?;
    Ok(())
}
