//! What of a round goes to the orchestrator.

use std::collections::BTreeMap;

use aizen_protocol::record::{Again, Body, Record};
use aizen_sanitizer::Sanitized;
use jiff::Timestamp;

use crate::clock;
use crate::stream::handle::SpoolHandle;
use crate::stream::retell::{Retelling, Way};

/// Puts rounds into the spool, each thing once.
#[derive(Debug, Default)]
pub(super) struct Teller(Retelling);

impl Teller {
    /// Tells what an earlier round did not tell. Returns what the round's end says of the rest.
    pub(super) async fn tell(
        &mut self,
        spool: &SpoolHandle,
        connection: Option<Timestamp>,
        round: &[Sanitized<Record>],
    ) -> BTreeMap<String, Again> {
        let mut again = BTreeMap::new();
        let Ok(status) = spool.status().await else {
            return again;
        };
        let way = Way {
            dropped: status.dropped,
            acknowledged: status.acknowledged,
            connection,
        };
        self.0.begin(clock::since_boot(), way);
        for record in round {
            if matches!(record.get().body, Body::Round(_)) {
                continue;
            }
            match self.0.again(record.get()) {
                Some(told) => {
                    again.insert(record.get().body.collector().to_owned(), told);
                }
                None => self.append(spool, record).await,
            }
        }
        again
    }

    /// Tells the end of a round.
    pub(super) async fn end(&mut self, spool: &SpoolHandle, end: &Sanitized<Record>) {
        self.append(spool, end).await;
    }

    async fn append(&mut self, spool: &SpoolHandle, record: &Sanitized<Record>) {
        match spool.append_record(record).await {
            Ok(number) => self.0.told(record.get(), number),
            Err(error) => tracing::warn!(%error, "a record was dropped and counted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::frame::DeviceFrame;
    use aizen_protocol::id::RoundId;
    use aizen_protocol::record::{Forwarding, Profile, Round, Trigger};
    use aizen_sanitizer::{Observation, Policy, Sanitizer, SanitizerKey};

    use super::*;
    use crate::analyze;
    use crate::stream::spool::{Spool, SpoolLimits};

    const SMALL: SpoolLimits = SpoolLimits {
        records: 16 << 10,
        signed: 16 << 10,
        segment: 4 << 10,
        reserve: 0,
    };

    struct Device {
        sanitizer: Sanitizer,
        teller: Teller,
        spool: SpoolHandle,
    }

    impl Device {
        fn new(spool: Spool) -> Self {
            Self {
                sanitizer: Sanitizer::new(SanitizerKey::from_bytes([7; 32]), Policy::default()),
                teller: Teller::default(),
                spool: SpoolHandle::new(spool),
            }
        }

        fn sanitized(&mut self, round: u64, body: Body) -> Sanitized<Record> {
            let record = Record {
                round: RoundId(round * 1000),
                at: Timestamp::from_second(i64::try_from(round).unwrap()).unwrap(),
                boot: "boot-1".parse().unwrap(),
                body,
            };
            self.sanitizer.sanitize(Observation::new(record)).unwrap()
        }

        /// A round in which one thing never changes, and another always does. How many of both were told before.
        async fn round(&mut self, round: u64) -> usize {
            let agent = format!("{round:0700}");
            let bodies = [
                Body::Forwarding(Forwarding::default()),
                Body::Profile(Profile {
                    agent,
                    ..Profile::default()
                }),
            ];
            let records: Vec<_> = bodies.map(|body| self.sanitized(round, body)).into();
            let again = self.teller.tell(&self.spool, None, &records).await;
            let count = again.len();
            let end = Body::Round(Round {
                trigger: Trigger::Tick,
                took_ms: 1,
                gaps: vec![],
                dropped: 0,
                again,
            });
            let end = self.sanitized(round, end);
            self.teller.end(&self.spool, &end).await;
            count
        }
    }

    /// What the orchestrator would get.
    fn arriving(mut spool: Spool) -> Vec<Record> {
        std::iter::from_fn(|| spool.next_frame())
            .map(
                |frame| match serde_json::from_slice(&frame.into_text()).unwrap() {
                    DeviceFrame::Record { record, .. } => *record,
                    other => panic!("{other:?}"),
                },
            )
            .collect()
    }

    /// Why it was not seen whether packets are forwarded.
    fn unseen(records: Vec<Record>) -> Option<String> {
        let gaps = analyze::records(records).unseen;
        let gap = gaps.into_iter().find(|gap| gap.collector == "forwarding")?;
        Some(gap.reason.0)
    }

    #[tokio::test]
    async fn what_is_told_once_is_part_of_every_round_and_heals_after_the_spool_dropped_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut device = Device::new(Spool::open(dir.path(), SMALL));
        assert_eq!(device.round(1).await, 0);
        assert_eq!(device.round(2).await, 1);
        device.spool.close().await.unwrap();
        let arrived = arriving(Spool::open(dir.path(), SMALL));
        let told = |record: &&Record| matches!(record.body, Body::Forwarding(_));
        assert_eq!(arrived.iter().filter(told).count(), 1);
        assert_eq!(unseen(arrived.clone()), None);
        let without = arrived.into_iter().filter(|record| !told(&record));
        assert!(unseen(without.collect()).is_some_and(|why| why.contains("did not arrive")));

        let mut device = Device::new(Spool::open(dir.path(), SMALL));
        let mut round = 2;
        while device.spool.status().await.unwrap().dropped == 0 {
            round += 1;
            device.round(round).await;
        }
        assert_eq!(device.round(round + 1).await, 0);
        assert_eq!(device.round(round + 2).await, 1);
        device.spool.close().await.unwrap();
        let arrived = arriving(Spool::open(dir.path(), SMALL));
        assert!(arrived.iter().all(|record| record.round > RoundId(2000)));
        assert_eq!(unseen(arrived), None);
    }
}
