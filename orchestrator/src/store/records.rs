//! Evidence, by device and number; bounded by count for each device and by age for all.

use aizen_protocol::id::{DeviceId, Digest, Sequence};
use aizen_protocol::record::Record;
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::StoreError;
use super::column::{At, Json, Plain, Seq};

/// Writes one record.
pub(crate) fn insert(
    tx: &Transaction<'_>,
    device: &DeviceId,
    seq: Sequence,
    record: &Record,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO records (device, seq, kind, received_at, record) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        Plain(device),
        Seq(seq),
        record.body.collector(),
        At(now),
        Json(record)
    ])?;
    Ok(())
}

/// Evidence of the newest complete rounds.
pub(crate) struct Evidence {
    /// The records, oldest first.
    pub(crate) records: Vec<Record>,
    /// SHA-256 of each record of the newest round, as it is stored.
    pub(crate) newest: Vec<Digest>,
}

/// The records of the newest `rounds` complete rounds, none if no round is complete.
pub(crate) fn newest_rounds(
    tx: &Transaction<'_>,
    device: &DeviceId,
    rounds: u32,
) -> Result<Option<Evidence>, StoreError> {
    let end = |skip: u32| -> Result<Option<i64>, StoreError> {
        Ok(tx
            .query_row(
                "SELECT seq FROM records WHERE device = ?1 AND kind = 'round' \
                 ORDER BY seq DESC LIMIT 1 OFFSET ?2",
                params![Plain(device), skip],
                |row| row.get(0),
            )
            .optional()?)
    };
    let Some(last) = end(0)? else {
        return Ok(None);
    };
    let before_newest = end(1)?.unwrap_or(0);
    let before_oldest = end(rounds)?.unwrap_or(0);
    let mut statement = tx.prepare_cached(
        "SELECT seq, record FROM records WHERE device = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![Plain(device), before_oldest, last])?;
    let mut evidence = Evidence {
        records: Vec::new(),
        newest: Vec::new(),
    };
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(0)? > before_newest {
            let text: String = row.get(1)?;
            evidence.newest.push(Digest::of(text.as_bytes()));
        }
        evidence.records.push(row.get::<_, Json<_>>(1)?.0);
    }
    Ok(Some(evidence))
}

/// How much evidence of one device is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Records.
    pub(crate) records: u32,
    /// Bytes of their JSON.
    pub(crate) bytes: u64,
}

/// Forgets a device's oldest records until the rest is within the bound.
pub(crate) fn bound(
    tx: &Transaction<'_>,
    device: &DeviceId,
    bound: Bound,
) -> Result<(), StoreError> {
    // In steps, so that a device that was just over the bound loses little.
    const STEP: u32 = 16;
    loop {
        let (records, bytes): (u64, u64) = tx
            .prepare_cached("SELECT record_count, record_bytes FROM devices WHERE id = ?1")?
            .query_row([Plain(device)], |row| {
                Ok((row.get::<_, Seq>(0)?.0.0, row.get::<_, Seq>(1)?.0.0))
            })?;
        if records <= bound.records.into() && bytes <= bound.bytes {
            return Ok(());
        }
        let forgotten = tx
            .prepare_cached(
                "DELETE FROM records WHERE device = ?1 AND seq IN \
                 (SELECT seq FROM records WHERE device = ?1 ORDER BY seq LIMIT ?2)",
            )?
            .execute(params![Plain(device), STEP])?;
        if forgotten == 0 {
            return Ok(());
        }
    }
}

/// Forgets what was received before `oldest`.
pub(crate) fn forget_before(tx: &Transaction<'_>, oldest: Timestamp) -> Result<usize, StoreError> {
    Ok(tx.execute("DELETE FROM records WHERE received_at < ?1", [At(oldest)])?)
}

/// How many records of a device are held.
pub(crate) fn count(tx: &Transaction<'_>, device: &DeviceId) -> Result<i64, StoreError> {
    Ok(tx.query_row(
        "SELECT record_count FROM devices WHERE id = ?1",
        [Plain(device)],
        |row| row.get(0),
    )?)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Verdict;
    use aizen_protocol::frame::EnrollRequest;
    use aizen_protocol::id::{Epoch, RoundId};
    use aizen_protocol::key::PrivateKey;
    use aizen_protocol::record::{Body, Forwarding, Round, Trigger};

    use super::*;
    use crate::store::tests::empty;
    use crate::store::{Store, devices};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn with_device() -> (Store, DeviceId) {
        let (store, device) = (empty(), DeviceId::fresh());
        let request = EnrollRequest {
            secret: Digest::of(b"x"),
            uplink_key: PrivateKey::generate().unwrap().public(),
            result_key: PrivateKey::generate().unwrap().public(),
            epoch: Epoch::fresh(),
            agent: String::new(),
            uplink_proof: String::new(),
            result_proof: String::new(),
        };
        store
            .transact_here(|tx| devices::insert(tx, &device, &request, NOW))
            .unwrap();
        (store, device)
    }

    fn record(round: u64, ends: bool) -> Record {
        let end = Round {
            trigger: Trigger::Tick,
            took_ms: 1,
            gaps: vec![],
            dropped: 0,
        };
        Record {
            round: RoundId(round),
            at: NOW,
            boot: "boot-1".parse().unwrap(),
            body: if ends {
                Body::Round(end)
            } else {
                Body::Forwarding(Forwarding::default())
            },
        }
    }

    #[test]
    fn the_bound_drops_the_oldest_and_the_weight_is_that_of_the_rest() {
        let (store, device) = with_device();
        store
            .transact_here::<_, StoreError>(|tx| {
                for seq in 1..=200 {
                    insert(tx, &device, Sequence(seq), &record(seq, false), NOW)?;
                }
                let bytes = u64::MAX;
                bound(
                    tx,
                    &device,
                    Bound {
                        records: 100,
                        bytes,
                    },
                )?;
                let (least, count, weight, stated): (i64, i64, i64, i64) = tx.query_row(
                    "SELECT min(seq), count(*), sum(octet_length(record)), \
                     (SELECT record_bytes FROM devices) FROM records",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
                )?;
                assert!(count <= 100 && least == 201 - count, "{least} {count}");
                assert_eq!(weight, stated);
                let records = 1000;
                bound(
                    tx,
                    &device,
                    Bound {
                        records,
                        bytes: 1000,
                    },
                )?;
                let weight: i64 =
                    tx.query_row("SELECT record_bytes FROM devices", [], |row| row.get(0))?;
                assert!((0..=1000).contains(&weight), "{weight}");
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn evidence_is_that_of_complete_rounds_only() {
        let (store, device) = with_device();
        let evidence = store
            .transact_here::<_, StoreError>(|tx| {
                let ends = [false, true, false, true, false, true, false];
                for (seq, end) in (1..).zip(ends) {
                    insert(tx, &device, Sequence(seq), &record(seq, end), NOW)?;
                }
                newest_rounds(tx, &device, 2)
            })
            .unwrap()
            .unwrap();
        let rounds: Vec<_> = evidence.records.iter().map(|r| r.round.0).collect();
        assert_eq!(rounds, [3, 4, 5, 6]);
        assert_eq!(evidence.newest.len(), 2);
    }

    #[test]
    fn a_verdict_of_a_device_reads_back() {
        let (store, device) = with_device();
        let verdict = Verdict {
            health: aizen_protocol::finding::Health::Healthy,
            at: NOW,
            findings: vec![],
            ruled_out: vec![],
            unseen: vec![],
        };
        let read = store
            .transact_here::<_, StoreError>(|tx| {
                devices::analyzed(tx, &device, &verdict)?;
                devices::by_id(tx, &device)
            })
            .unwrap()
            .unwrap();
        assert_eq!(read.verdict, Some(verdict));
    }
}
