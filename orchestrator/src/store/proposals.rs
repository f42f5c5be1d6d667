//! Proposals and the rehearsals that were sent for them.

use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{CaseId, CorrelationId, DeviceId, Digest, ProposalId};
use aizen_protocol::proposal::Proposal;
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use super::StoreError;
use super::column::{At, Json, Plain, named};

named! {
    /// Where a proposal is.
    ProposalState {
        /// The device has not shown its effect yet.
        Rehearsing = "rehearsing",
        /// Its effect was shown to a person, who decides or decided.
        Asked = "asked",
        /// It could not be rehearsed.
        Failed = "failed",
        /// The fault went away before anybody decided.
        Withdrawn = "withdrawn",
    }
}

/// One proposal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProposalRow {
    /// Its name.
    pub(crate) id: ProposalId,
    /// Its case.
    pub(crate) case: CaseId,
    /// The device.
    pub(crate) device: DeviceId,
    /// Joins its packages, statements and outcomes.
    pub(crate) correlation_id: CorrelationId,
    /// Where it is.
    pub(crate) state: ProposalState,
    /// What is proposed.
    pub(crate) proposal: Proposal,
    /// Digests of the evidence it rests on.
    pub(crate) evidence: Vec<Digest>,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// Rehearsals sent.
    pub(crate) attempts: u32,
    /// Why it is where it is, for people.
    pub(crate) note: String,
}

const COLUMNS: &str =
    "id, case_id, device, correlation_id, state, proposal, evidence, created_at, attempts, note";

fn read(row: &Row<'_>) -> rusqlite::Result<ProposalRow> {
    Ok(ProposalRow {
        id: row.get::<_, Plain<_>>(0)?.0,
        case: row.get::<_, Plain<_>>(1)?.0,
        device: row.get::<_, Plain<_>>(2)?.0,
        correlation_id: row.get::<_, Plain<_>>(3)?.0,
        state: row.get(4)?,
        proposal: row.get::<_, Json<_>>(5)?.0,
        evidence: row.get::<_, Json<_>>(6)?.0,
        created_at: row.get::<_, At>(7)?.0,
        attempts: row.get(8)?,
        note: row.get(9)?,
    })
}

/// Writes a proposal.
pub(crate) fn insert(tx: &Transaction<'_>, proposal: &ProposalRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO proposals (id, case_id, device, correlation_id, state, proposal, evidence, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            Plain(&proposal.id),
            Plain(&proposal.case),
            Plain(&proposal.device),
            Plain(&proposal.correlation_id),
            proposal.state,
            Json(&proposal.proposal),
            Json(&proposal.evidence),
            At(proposal.created_at),
        ],
    )?;
    Ok(())
}

/// The newest proposal of a case.
pub(crate) fn newest_of_case(
    tx: &Transaction<'_>,
    case: &CaseId,
) -> Result<Option<ProposalRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM proposals WHERE case_id = ?1 ORDER BY created_at DESC, id DESC LIMIT 1"
    );
    Ok(tx.query_row(&sql, [Plain(case)], read).optional()?)
}

/// The oldest proposal of a device that waits for its rehearsal, unless one is out under a lease.
pub(crate) fn next_to_rehearse(
    tx: &Transaction<'_>,
    device: &DeviceId,
    now: Timestamp,
) -> Result<Option<ProposalRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM proposals WHERE device = ?1 AND state = 'rehearsing' AND NOT EXISTS \
         (SELECT 1 FROM proposals WHERE device = ?1 AND state = 'rehearsing' AND lease_until > ?2) \
         ORDER BY created_at, id LIMIT 1"
    );
    Ok(tx
        .query_row(&sql, params![Plain(device), At(now)], read)
        .optional()?)
}

/// A rehearsal of the proposal was sent.
pub(crate) fn sent(
    tx: &Transaction<'_>,
    id: &ProposalId,
    digest: Digest,
    lease_until: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE proposals SET lease_until = ?2, attempts = attempts + 1 WHERE id = ?1",
        params![Plain(id), At(lease_until)],
    )?;
    tx.execute(
        "INSERT INTO rehearsals (digest, proposal, sent_at) VALUES (?1, ?2, ?3)",
        params![Plain(digest), Plain(id), At(now)],
    )?;
    Ok(())
}

/// The proposal that a rehearsal was sent for.
pub(crate) fn of_rehearsal(
    tx: &Transaction<'_>,
    digest: Digest,
) -> Result<Option<ProposalRow>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM proposals WHERE id = (SELECT proposal FROM rehearsals WHERE digest = ?1)"
    );
    Ok(tx.query_row(&sql, [Plain(digest)], read).optional()?)
}

/// The device showed the effect.
pub(crate) fn shown(
    tx: &Transaction<'_>,
    id: &ProposalId,
    effect: &Envelope,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE proposals SET effect_envelope = ?2, state = 'asked', lease_until = NULL WHERE id = ?1",
        params![Plain(id), Json(effect)],
    )?;
    Ok(())
}

/// What the device signed when it showed the effect.
pub(crate) fn effect_envelope(
    tx: &Transaction<'_>,
    id: &ProposalId,
) -> Result<Option<Envelope>, StoreError> {
    let sql = "SELECT effect_envelope FROM proposals WHERE id = ?1";
    let read = |row: &Row<'_>| row.get::<_, Option<Json<_>>>(0);
    let envelope = tx.query_row(sql, [Plain(id)], read).optional()?;
    Ok(envelope.flatten().map(|json| json.0))
}

/// The proposal ended, or waits for another attempt (`Rehearsing`).
pub(crate) fn reach(
    tx: &Transaction<'_>,
    id: &ProposalId,
    state: ProposalState,
    note: &str,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE proposals SET state = ?2, note = ?3 WHERE id = ?1",
        params![Plain(id), state, note],
    )?;
    Ok(())
}
