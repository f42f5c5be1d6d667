//! Evidence, by device and number; bounded by count for each device and by age for all.

use aizen_protocol::id::{DeviceId, Digest, Sequence};
use aizen_protocol::record::{Body, COLLECTORS, Record};
use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

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
    /// The records, oldest first: of these rounds, and of earlier ones what these name in place of an equal one.
    pub(crate) records: Vec<Record>,
    /// SHA-256 of each record that the newest round has or names, as it is stored.
    pub(crate) newest: Vec<Digest>,
}

/// A record and the digest of its JSON.
struct Stored {
    seq: i64,
    digest: Digest,
    record: Record,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text: String = row.get(1)?;
        Ok(Self {
            seq: row.get(0)?,
            digest: Digest::of(text.as_bytes()),
            record: row.get::<_, Json<_>>(1)?.0,
        })
    }
}

/// The records of the newest `rounds` complete rounds, none if no round is complete.
pub(crate) fn newest_rounds(
    tx: &Transaction<'_>,
    device: &DeviceId,
    rounds: u32,
) -> Result<Option<Evidence>, StoreError> {
    let end = |skip: u32| -> Result<Option<i64>, StoreError> {
        Ok(tx
            .prepare_cached(
                "SELECT seq FROM records WHERE device = ?1 AND kind = 'round' \
                 ORDER BY seq DESC LIMIT 1 OFFSET ?2",
            )?
            .query_row(params![Plain(device), skip], |row| row.get(0))
            .optional()?)
    };
    let Some(last) = end(0)? else {
        return Ok(None);
    };
    let before_newest = end(1)?.unwrap_or(0);
    let before_oldest = end(rounds)?.unwrap_or(0);
    let mut own = Vec::new();
    {
        let mut statement = tx.prepare_cached(
            "SELECT seq, record FROM records WHERE device = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq",
        )?;
        let mut rows = statement.query(params![Plain(device), before_oldest, last])?;
        while let Some(row) = rows.next()? {
            own.push(Stored::read(row)?);
        }
    }
    let mut stored = named(tx, device, before_oldest, &own)?;
    stored.extend(own);
    let newest_end = stored.last().map(|end| end.record.clone());
    let is_newest = |stored: &Stored| {
        stored.seq > before_newest
            || newest_end
                .as_ref()
                .is_some_and(|end| names(end, &stored.record))
    };
    Ok(Some(Evidence {
        newest: stored
            .iter()
            .filter(|stored| is_newest(stored))
            .map(|stored| stored.digest)
            .collect(),
        records: stored.into_iter().map(|stored| stored.record).collect(),
    }))
}

/// What rounds name and an earlier one told. A device names what it told last: of each kind that is the newest record
/// before these rounds, or it was lost.
fn named(
    tx: &Transaction<'_>,
    device: &DeviceId,
    before: i64,
    rounds: &[Stored],
) -> Result<Vec<Stored>, StoreError> {
    let ends: Vec<&Record> = rounds.iter().map(|stored| &stored.record).collect();
    let mut statement = tx.prepare_cached(
        "SELECT seq, record FROM records WHERE device = ?1 AND kind = ?2 AND seq <= ?3 \
         ORDER BY seq DESC LIMIT 1",
    )?;
    let mut found = Vec::new();
    for collector in COLLECTORS {
        let is_named = |end: &&Record| matches!(&end.body, Body::Round(round) if round.again.contains_key(*collector));
        if !ends.iter().any(is_named) {
            continue;
        }
        let newest = statement
            .query_row(params![Plain(device), collector, before], Stored::read)
            .optional()?;
        found.extend(newest.filter(|stored| ends.iter().any(|end| names(end, &stored.record))));
    }
    found.sort_by_key(|stored| stored.seq);
    Ok(found)
}

/// True if the end of a round names this record.
fn names(end: &Record, record: &Record) -> bool {
    let Body::Round(round) = &end.body else {
        return false;
    };
    let again = round.again.get(record.body.collector());
    end.boot == record.boot && again.is_some_and(|again| again.round == record.round)
}

/// How much evidence of one device is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Records.
    pub(crate) records: u32,
    /// Bytes of their JSON.
    pub(crate) bytes: u64,
}

/// Forgets a device's oldest records until the rest is within the bound. The newest of each kind goes last: later
/// rounds may name it.
pub(crate) fn bound(
    tx: &Transaction<'_>,
    device: &DeviceId,
    bound: Bound,
) -> Result<(), StoreError> {
    // In steps, so that a device that was just over the bound loses little.
    const STEP: u32 = 16;
    let mut spared: Option<Vec<i64>> = None;
    loop {
        let (records, bytes): (u64, u64) = tx
            .prepare_cached("SELECT record_count, record_bytes FROM devices WHERE id = ?1")?
            .query_row([Plain(device)], |row| {
                Ok((row.get::<_, Seq>(0)?.0.0, row.get::<_, Seq>(1)?.0.0))
            })?;
        if records <= bound.records.into() && bytes <= bound.bytes {
            return Ok(());
        }
        let kept = match &mut spared {
            Some(kept) => kept,
            None => spared.insert(newest_of_each_kind(tx, device)?),
        };
        let forgotten = tx
            .prepare_cached(
                "DELETE FROM records WHERE device = ?1 AND seq IN \
                 (SELECT seq FROM records WHERE device = ?1 \
                 AND seq NOT IN (SELECT value FROM json_each(?3)) ORDER BY seq LIMIT ?2)",
            )?
            .execute(params![Plain(device), STEP, Json(&*kept)])?;
        if forgotten == 0 && kept.is_empty() {
            return Ok(());
        }
        if forgotten == 0 {
            kept.clear();
        }
    }
}

fn newest_of_each_kind(tx: &Transaction<'_>, device: &DeviceId) -> Result<Vec<i64>, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT max(seq) FROM records WHERE device = ?1 AND kind = ?2")?;
    let mut newest = Vec::new();
    for collector in COLLECTORS {
        let seq: Option<i64> =
            statement.query_row(params![Plain(device), collector], |row| row.get(0))?;
        newest.extend(seq);
    }
    Ok(newest)
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
    use aizen_protocol::record::{Again, Forwarding, Round, Trigger};

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
            again: Default::default(),
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

    /// Round 1 tells how it forwards; every later one names that.
    fn named_ever_since(tx: &Transaction<'_>, device: &DeviceId, rounds: u64) {
        insert(tx, device, Sequence(1), &record(1, false), NOW).unwrap();
        for round in 1..=rounds {
            let mut end = record(round, true);
            if let Body::Round(end) = &mut end.body
                && round > 1
            {
                let again = Again {
                    round: RoundId(1),
                    at: None,
                };
                end.again.insert("forwarding".into(), again);
            }
            insert(tx, device, Sequence(round + 1), &end, NOW).unwrap();
        }
    }

    #[test]
    fn what_the_newest_rounds_name_is_given_however_long_ago_it_was_told() {
        let (store, device) = with_device();
        let evidence = store
            .transact_here::<_, StoreError>(|tx| {
                named_ever_since(tx, &device, 40);
                newest_rounds(tx, &device, 2)
            })
            .unwrap()
            .unwrap();
        let rounds: Vec<_> = evidence.records.iter().map(|r| r.round.0).collect();
        assert_eq!(rounds, [1, 39, 40]);
        let told = serde_json::to_string(&evidence.records[0]).unwrap();
        assert_eq!(evidence.newest.len(), 2);
        assert!(evidence.newest.contains(&Digest::of(told.as_bytes())));
    }

    #[test]
    fn a_record_that_replaced_the_one_that_was_named_is_not_given_in_its_place() {
        let (store, device) = with_device();
        let evidence = store
            .transact_here::<_, StoreError>(|tx| {
                named_ever_since(tx, &device, 40);
                tx.execute(
                    "UPDATE records SET record = replace(record, 'boot-1', 'boot-0') WHERE seq = 1",
                    [],
                )?;
                newest_rounds(tx, &device, 2)
            })
            .unwrap()
            .unwrap();
        let rounds: Vec<_> = evidence.records.iter().map(|r| r.round.0).collect();
        assert_eq!(rounds, [39, 40]);
    }

    #[test]
    fn the_bound_spares_the_newest_of_each_kind_as_long_as_it_holds() {
        let (store, device) = with_device();
        store
            .transact_here::<_, StoreError>(|tx| {
                named_ever_since(tx, &device, 200);
                let bytes = u64::MAX;
                let tight = |records| Bound { records, bytes };
                bound(tx, &device, tight(50))?;
                assert!(count(tx, &device)? <= 50);
                let evidence = newest_rounds(tx, &device, 2)?.unwrap();
                assert_eq!(evidence.records[0].round, RoundId(1));
                bound(tx, &device, tight(1))?;
                assert!(count(tx, &device)? <= 1);
                Ok(())
            })
            .unwrap();
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
