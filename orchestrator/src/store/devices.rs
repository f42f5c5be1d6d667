//! Enrolled devices, their connections, and the one-time tokens that enrolled them.

use aizen_protocol::finding::Verdict;
use aizen_protocol::frame::{Hello, Standing};
use aizen_protocol::id::{DeviceId, Digest, Epoch, Sequence};
use aizen_protocol::key::PublicKey;
use aizen_protocol::outcome::Isolation;
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::column::{At, Json, Key, Plain, Seq};

/// One enrolled device.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Device {
    /// Its name.
    pub(crate) device: DeviceId,
    /// The key of its client certificate.
    pub(crate) uplink_key: PublicKey,
    /// The key that signs its effects and outcomes.
    pub(crate) result_key: PublicKey,
    /// Its state generation.
    pub(crate) epoch: Epoch,
    /// The agent's version.
    pub(crate) agent: String,
    /// When it enrolled.
    pub(crate) enrolled_at: Timestamp,
    /// When it was last heard.
    pub(crate) seen_at: Timestamp,
    /// What its sandbox gives.
    pub(crate) isolation: Isolation,
    /// Version of its trust document.
    pub(crate) trust_version: u64,
    /// Its policy allows changes.
    pub(crate) takes_changes: bool,
    /// Everything up to and with this number is stored.
    pub(crate) through: Sequence,
    /// A round was stored and not analyzed yet.
    #[serde(skip)]
    pub(crate) round_waits: bool,
    /// What the expert said about its newest round.
    pub(crate) verdict: Option<Verdict>,
}

const COLUMNS: &str = "id, uplink_key, result_key, epoch, agent, enrolled_at, seen_at, isolation, \
                       trust_version, takes_changes, through, round_waits, verdict";

fn read(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        device: row.get::<_, Plain<_>>(0)?.0,
        uplink_key: row.get::<_, Key>(1)?.0,
        result_key: row.get::<_, Key>(2)?.0,
        epoch: row.get::<_, Plain<_>>(3)?.0,
        agent: row.get(4)?,
        enrolled_at: row.get::<_, At>(5)?.0,
        seen_at: row.get::<_, At>(6)?.0,
        isolation: row.get::<_, Json<_>>(7)?.0,
        trust_version: row.get::<_, Seq>(8)?.0.0,
        takes_changes: row.get(9)?,
        through: row.get::<_, Seq>(10)?.0,
        round_waits: row.get(11)?,
        verdict: row.get::<_, Option<Json<_>>>(12)?.map(|v| v.0),
    })
}

/// Writes a device that enrolled at this moment.
pub(crate) fn insert(
    tx: &Transaction<'_>,
    device: &DeviceId,
    request: &aizen_protocol::frame::EnrollRequest,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO devices (id, uplink_key, result_key, epoch, agent, enrolled_at, seen_at, \
         isolation, trust_version, takes_changes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, 0, 0)",
        params![
            Plain(device),
            Key(request.uplink_key.clone()),
            Key(request.result_key.clone()),
            Plain(&request.epoch),
            request.agent,
            At(now),
            Json(Isolation::default()),
        ],
    )?;
    Ok(())
}

/// True if one of the keys already belongs to a device.
pub(crate) fn knows_key(
    tx: &Transaction<'_>,
    uplink: &PublicKey,
    result: &PublicKey,
) -> Result<bool, StoreError> {
    Ok(tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM devices WHERE uplink_key IN (?1, ?2) OR result_key IN (?1, ?2))",
        params![Key(uplink.clone()), Key(result.clone())],
        |row| row.get(0),
    )?)
}

/// The device with this name.
pub(crate) fn by_id(tx: &Transaction<'_>, id: &DeviceId) -> Result<Option<Device>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM devices WHERE id = ?1");
    Ok(tx.query_row(&sql, [Plain(id)], read).optional()?)
}

/// The device whose client certificate carries this key.
pub(crate) fn by_uplink_key(
    tx: &Transaction<'_>,
    key: &PublicKey,
) -> Result<Option<Device>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM devices WHERE uplink_key = ?1");
    Ok(tx.query_row(&sql, [Key(key.clone())], read).optional()?)
}

/// All devices, oldest first.
pub(crate) fn all(tx: &Transaction<'_>) -> Result<Vec<Device>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM devices ORDER BY enrolled_at, id");
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Keeps what a device said of itself and numbers the connection; numbers count up over restarts.
pub(crate) fn connected(
    tx: &Transaction<'_>,
    hello: &Hello,
    now: Timestamp,
) -> Result<i64, StoreError> {
    tx.execute(
        "UPDATE devices SET epoch = ?2, agent = ?3, seen_at = ?4 WHERE id = ?1",
        params![
            Plain(&hello.device),
            Plain(&hello.epoch),
            hello.agent,
            At(now),
        ],
    )?;
    stands(tx, &hello.device, &hello.standing)?;
    tx.execute(
        "INSERT INTO connections (device, opened_at) VALUES (?1, ?2)",
        params![Plain(&hello.device), At(now)],
    )?;
    let connection = tx.last_insert_rowid();
    // The newest hundred say enough about a device that flaps.
    tx.execute(
        "DELETE FROM connections WHERE device = ?1 AND id <= (SELECT id FROM connections \
         WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET 100)",
        [Plain(&hello.device)],
    )?;
    Ok(connection)
}

/// Keeps what a device says of its standing.
pub(crate) fn stands(
    tx: &Transaction<'_>,
    device: &DeviceId,
    standing: &Standing,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE devices SET isolation = ?2, trust_version = ?3, takes_changes = ?4 WHERE id = ?1",
        params![
            Plain(device),
            Json(&standing.isolation),
            Seq(Sequence(standing.trust_version)),
            standing.takes_changes,
        ],
    )?;
    Ok(())
}

/// Everything up to `through` is stored; `round_waits` if a round ended in it.
pub(crate) fn stored_through(
    tx: &Transaction<'_>,
    device: &DeviceId,
    through: Sequence,
    round_waits: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE devices SET through = ?2, seen_at = ?3, round_waits = round_waits OR ?4 WHERE id = ?1",
        params![Plain(device), Seq(through), At(now), round_waits],
    )?;
    Ok(())
}

/// The newest round is analyzed, with this verdict.
pub(crate) fn analyzed(
    tx: &Transaction<'_>,
    device: &DeviceId,
    verdict: &Verdict,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE devices SET round_waits = 0, verdict = ?2 WHERE id = ?1",
        params![Plain(device), Json(verdict)],
    )?;
    Ok(())
}

/// Writes a one-time token; only the digest of its secret is kept.
pub(crate) fn insert_token(
    tx: &Transaction<'_>,
    secret: &Digest,
    now: Timestamp,
    expires: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO tokens (secret, created_at, expires_at) VALUES (?1, ?2, ?3)",
        params![Plain(Digest::of(&secret.0)), At(now), At(expires)],
    )?;
    Ok(())
}

/// What is known of a token.
pub(crate) struct Token {
    /// After this it enrols nobody.
    pub(crate) expires: Timestamp,
    /// It enrolled somebody.
    pub(crate) used: bool,
}

/// The token with this secret.
pub(crate) fn token(tx: &Transaction<'_>, secret: &Digest) -> Result<Option<Token>, StoreError> {
    Ok(tx
        .query_row(
            "SELECT expires_at, used_at IS NOT NULL FROM tokens WHERE secret = ?1",
            [Plain(Digest::of(&secret.0))],
            |row| {
                Ok(Token {
                    expires: row.get::<_, At>(0)?.0,
                    used: row.get(1)?,
                })
            },
        )
        .optional()?)
}

/// Spends a token.
pub(crate) fn spend_token(
    tx: &Transaction<'_>,
    secret: &Digest,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE tokens SET used_at = ?2 WHERE secret = ?1",
        params![Plain(Digest::of(&secret.0)), At(now)],
    )?;
    Ok(())
}
