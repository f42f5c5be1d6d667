//! Signed outcomes, each stored exactly once.

use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{CaseId, DeviceId, Digest};
use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::StoreError;
use super::column::{At, Json, Plain};

/// An outcome as it came.
pub(crate) struct OutcomeRow {
    /// Who signed it.
    pub(crate) device: DeviceId,
    /// SHA-256 of its payload.
    pub(crate) digest: Digest,
    /// The package it ends.
    pub(crate) package: Option<Digest>,
    /// The case it settles.
    pub(crate) case: Option<CaseId>,
    /// The signed form.
    pub(crate) envelope: Envelope,
}

/// Writes an outcome; false if it is there already.
pub(crate) fn insert(
    tx: &Transaction<'_>,
    row: &OutcomeRow,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let inserted = tx.execute(
        "INSERT INTO outcomes (device, digest, package, case_id, envelope, received_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        params![
            Plain(&row.device),
            Plain(row.digest),
            row.package.map(Plain),
            row.case.as_ref().map(Plain),
            Json(&row.envelope),
            At(now),
        ],
    )?;
    Ok(inserted == 1)
}

/// The outcomes of a case, oldest first, in their signed form.
pub(crate) fn of_case(tx: &Transaction<'_>, case: &CaseId) -> Result<Vec<Envelope>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT envelope FROM outcomes WHERE case_id = ?1 ORDER BY received_at, digest",
    )?;
    let rows = statement.query_map([Plain(case)], |row| Ok(row.get::<_, Json<_>>(0)?.0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
