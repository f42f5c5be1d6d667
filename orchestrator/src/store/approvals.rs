//! Questions to people. The payload is stored as it was composed and never made again.

use aizen_protocol::effect::Effect;
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{ApprovalId, CaseId, DeviceId, Digest, ProposalId};
use aizen_protocol::package::manifest::Risk;
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::column::{At, Json, Plain, named};

named! {
    /// Where a question is.
    ApprovalState {
        /// Nobody decided yet.
        Pending = "pending",
        /// Signed by as many people as it needs.
        Approved = "approved",
        /// Somebody said no.
        Denied = "denied",
        /// Nobody decided in time.
        Expired = "expired",
        /// The fault went away before anybody decided.
        Withdrawn = "withdrawn",
    }
}

/// One question.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Approval {
    /// Its name.
    pub(crate) id: ApprovalId,
    /// What was proposed.
    pub(crate) proposal: ProposalId,
    /// Its case.
    pub(crate) case: CaseId,
    /// The device.
    pub(crate) device: DeviceId,
    /// Where it is.
    pub(crate) state: ApprovalState,
    /// SHA-256 of the payload.
    pub(crate) digest: Digest,
    /// The payload with the signatures so far.
    pub(crate) envelope: Envelope,
    /// What the rehearsal showed.
    pub(crate) effect: Effect,
    /// What can go wrong.
    pub(crate) risk: Risk,
    /// How many people must sign.
    pub(crate) needed: u32,
    /// When it was asked.
    pub(crate) created_at: Timestamp,
    /// After this no answer counts.
    pub(crate) expires_at: Timestamp,
    /// When it was decided.
    pub(crate) decided_at: Option<Timestamp>,
    /// Who decided.
    pub(crate) decided_by: String,
    /// Why, if denied.
    pub(crate) reason: String,
}

const COLUMNS: &str = "id, proposal, case_id, device, state, digest, envelope, effect, risk, needed, \
                       created_at, expires_at, decided_at, decided_by, reason";

fn read(row: &Row<'_>) -> rusqlite::Result<Approval> {
    Ok(Approval {
        id: row.get::<_, Plain<_>>(0)?.0,
        proposal: row.get::<_, Plain<_>>(1)?.0,
        case: row.get::<_, Plain<_>>(2)?.0,
        device: row.get::<_, Plain<_>>(3)?.0,
        state: row.get(4)?,
        digest: row.get::<_, Plain<_>>(5)?.0,
        envelope: row.get::<_, Json<_>>(6)?.0,
        effect: row.get::<_, Json<_>>(7)?.0,
        risk: row.get::<_, Json<_>>(8)?.0,
        needed: row.get(9)?,
        created_at: row.get::<_, At>(10)?.0,
        expires_at: row.get::<_, At>(11)?.0,
        decided_at: row.get::<_, Option<At>>(12)?.map(|t| t.0),
        decided_by: row.get(13)?,
        reason: row.get(14)?,
    })
}

/// Writes a question.
pub(crate) fn insert(tx: &Transaction<'_>, approval: &Approval) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO approvals (id, proposal, case_id, device, state, digest, envelope, effect, risk, \
         needed, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            Plain(&approval.id),
            Plain(&approval.proposal),
            Plain(&approval.case),
            Plain(&approval.device),
            approval.state,
            Plain(approval.digest),
            Json(&approval.envelope),
            Json(&approval.effect),
            Json(approval.risk),
            approval.needed,
            At(approval.created_at),
            At(approval.expires_at),
        ],
    )?;
    Ok(())
}

/// One question.
pub(crate) fn by_id(tx: &Transaction<'_>, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM approvals WHERE id = ?1");
    Ok(tx.query_row(&sql, [Plain(id)], read).optional()?)
}

/// The newest questions; only the undecided ones, or all.
pub(crate) fn newest(
    tx: &Transaction<'_>,
    only_pending: bool,
    limit: u32,
) -> Result<Vec<Approval>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM approvals WHERE NOT ?1 OR state = 'pending' \
         ORDER BY created_at DESC, id DESC LIMIT ?2"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map(params![only_pending, limit], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The questions of a case, oldest first.
pub(crate) fn of_case(tx: &Transaction<'_>, case: &CaseId) -> Result<Vec<Approval>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM approvals WHERE case_id = ?1 ORDER BY created_at, id");
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map([Plain(case)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Undecided questions whose time is over.
pub(crate) fn overdue(tx: &Transaction<'_>, now: Timestamp) -> Result<Vec<Approval>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM approvals WHERE state = 'pending' AND expires_at <= ?1");
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map([At(now)], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Keeps a signature that is not the last one needed.
pub(crate) fn keep_signature(
    tx: &Transaction<'_>,
    id: &ApprovalId,
    envelope: &Envelope,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE approvals SET envelope = ?2 WHERE id = ?1",
        params![Plain(id), Json(envelope)],
    )?;
    Ok(())
}

/// Decides a pending question; a decided one stays as it is.
pub(crate) fn decide(
    tx: &Transaction<'_>,
    id: &ApprovalId,
    state: ApprovalState,
    by: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE approvals SET state = ?2, decided_by = ?3, reason = ?4, decided_at = ?5 \
         WHERE id = ?1 AND state = 'pending'",
        params![Plain(id), state, by, reason, At(now)],
    )?;
    Ok(())
}
