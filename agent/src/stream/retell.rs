//! What of a round need not be told: an earlier round told it, and it did not change.
//!
//! Pure: who has the records asks [`Retelling::again`] of each, tells the rest, and says what was taken. Everything is
//! told anew where the orchestrator may lack something: first of all, after records were dropped, on every new
//! connection, and now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use aizen_protocol::id::{BootId, Digest, RoundId, Sequence};
use aizen_protocol::record::{Again, Record};
use jiff::Timestamp;

use crate::clock::BootTime;

/// What is known of the way to the orchestrator when a round is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Records lost so far.
    pub dropped: u64,
    /// What the orchestrator has stored.
    pub acknowledged: Sequence,
    /// When the present connection began; none without one.
    pub connection: Option<Timestamp>,
}

/// What was told, by collector.
#[derive(Debug, Default)]
pub struct Retelling {
    now: Option<BootTime>,
    whole: Option<Whole>,
    told: BTreeMap<&'static str, Told>,
}

/// The newest round that was told from scratch.
#[derive(Debug)]
struct Whole {
    began: BootTime,
    way: Way,
    /// The number of its end.
    through: Option<Sequence>,
    /// Rounds that were told since then only in part.
    is_over: bool,
}

#[derive(Debug)]
struct Told {
    boot: BootId,
    round: RoundId,
    at: Timestamp,
    body: Digest,
    since: BootTime,
}

impl Retelling {
    /// A round is about to be told.
    pub fn begin(&mut self, now: BootTime, way: Way) {
        self.now = Some(now);
        if self.whole.as_ref().is_some_and(|w| w.stands(now, way)) {
            self.whole.iter_mut().for_each(|w| w.is_over = true);
            return;
        }
        // The memory may be large and has a cadence of its own.
        self.told.retain(|collector, _| *collector == MEMORY);
        self.whole = Some(Whole {
            began: now,
            way,
            through: None,
            is_over: false,
        });
    }

    /// Where this was told before; none if it has to be told.
    #[must_use]
    pub fn again(&self, record: &Record) -> Option<Again> {
        let collector = record.body.collector();
        let told = self.told.get(collector)?;
        if told.boot != record.boot || told.round >= record.round {
            return None;
        }
        let age = self.now?.0.saturating_sub(told.since.0);
        if collector == MEMORY && age < MEMORY_EVERY {
            // It grows with each round: what the orchestrator has of it holds with the time it had.
            return Some(Again {
                round: told.round,
                at: None,
            });
        }
        (digest(record)? == told.body && age < WHOLE_EVERY).then(|| Again {
            round: told.round,
            at: (record.at != told.at).then_some(record.at),
        })
    }

    /// This was taken, under this number.
    pub fn told(&mut self, record: &Record, number: Sequence) {
        let collector = record.body.collector();
        if let Some(whole) = self.whole.as_mut().filter(|whole| !whole.is_over) {
            whole.through = Some(number);
        }
        let (Some(since), Some(body)) = (self.now, digest(record)) else {
            self.told.remove(collector);
            return;
        };
        let told = Told {
            boot: record.boot.clone(),
            round: record.round,
            at: record.at,
            body,
            since,
        };
        self.told.insert(collector, told);
    }
}

impl Whole {
    /// True while what was told since then can be counted on.
    fn stands(&self, now: BootTime, way: Way) -> bool {
        let stored = self.through.is_some_and(|end| way.acknowledged >= end);
        let longest = if stored {
            WHOLE_EVERY
        } else {
            WHOLE_EVERY_UNSTORED
        };
        let is_new = way.connection.is_some() && way.connection != self.way.connection;
        self.way.dropped == way.dropped && !is_new && now.0.saturating_sub(self.began.0) < longest
    }
}

/// Of what a record says, without its time.
fn digest(record: &Record) -> Option<Digest> {
    let json = serde_json::to_vec(&record.body).ok()?;
    Some(Digest::of(&json))
}

/// The collector of what the device remembers of the last hours.
const MEMORY: &str = "history";
/// Between two tellings of the memory: the orchestrator hears of the rounds anyway.
const MEMORY_EVERY: Duration = Duration::from_secs(600);
/// Half of [`Again::LONGEST`].
const WHOLE_EVERY: Duration = Duration::from_secs(3600);
/// Without an orchestrator the oldest may be dropped at any time, and what refers to it is worth less.
const WHOLE_EVERY_UNSTORED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Body, Change, ChangeKind, Forwarding, History};

    use super::*;

    fn record(round: u64, body: Body) -> Record {
        Record {
            round: RoundId(round * 1000),
            at: Timestamp::from_second(i64::try_from(round).unwrap()).unwrap(),
            boot: "boot-1".parse().unwrap(),
            body,
        }
    }

    fn routes(round: u64, ipv4: bool) -> Record {
        let ipv4 = Some(ipv4);
        record(
            round,
            Body::Forwarding(Forwarding {
                ipv4,
                ..Forwarding::default()
            }),
        )
    }

    /// It holds another change each time.
    fn memory(round: u64) -> Body {
        let change = Change {
            at: Timestamp::UNIX_EPOCH,
            kind: ChangeKind::LinkUp,
            component: round.to_string().as_str().into(),
        };
        Body::History(History {
            series: Vec::new(),
            changes: vec![change],
        })
    }

    /// Tells a round at its second; where it was told before.
    fn tell(retelling: &mut Retelling, way: Way, record: &Record) -> Option<Again> {
        let now = BootTime(Duration::from_millis(record.round.0));
        retelling.begin(now, way);
        let again = retelling.again(record);
        if again.is_none() {
            retelling.told(record, Sequence(record.round.0));
        }
        again
    }

    #[test]
    fn what_did_not_change_is_told_once_and_then_named_with_the_time_it_was_seen() {
        let mut retelling = Retelling::default();
        let mut tell = |record: &Record| tell(&mut retelling, Way::default(), record);
        assert_eq!(tell(&routes(10, true)), None);
        let seen = routes(20, true);
        let again = Again {
            round: RoundId(10_000),
            at: Some(seen.at),
        };
        assert_eq!(tell(&seen), Some(again));
        let mut kept = routes(30, true);
        kept.at = routes(10, true).at;
        assert_eq!(tell(&kept), Some(Again { at: None, ..again }));
        assert_eq!(tell(&routes(40, false)), None);
        assert_eq!(tell(&routes(50, true)), None);
        let mut after_a_boot = routes(60, true);
        after_a_boot.boot = "boot-2".parse().unwrap();
        assert_eq!(tell(&after_a_boot), None);
    }

    #[test]
    fn everything_is_told_anew_after_a_loss_on_a_connection_and_in_time() {
        let mut retelling = Retelling::default();
        let mut is_told = |second, way| tell(&mut retelling, way, &routes(second, true)).is_none();
        let quiet = Way::default();
        assert!(is_told(10, quiet));
        assert!(!is_told(20, quiet));
        let lossy = Way {
            dropped: 3,
            ..quiet
        };
        assert!(is_told(30, lossy));
        assert!(!is_told(40, lossy));
        let connected = Way {
            connection: Some(Timestamp::UNIX_EPOCH),
            ..lossy
        };
        assert!(is_told(50, connected));
        // A connection that ends takes nothing with it.
        assert!(!is_told(60, lossy));
        assert!(!is_told(70, connected));
        // The orchestrator has it: an hour. It does not: ten minutes.
        let stored = Way {
            acknowledged: Sequence(50_000),
            ..connected
        };
        assert!(!is_told(3640, stored));
        assert!(is_told(3650, stored));
        assert!(!is_told(4200, stored));
        assert!(is_told(4250, stored));
    }

    #[test]
    fn the_memory_is_told_every_ten_minutes_although_it_grows_and_a_connection_adds_nothing() {
        let mut retelling = Retelling::default();
        let mut told = |second: u64, connection| {
            let way = Way {
                connection,
                ..Way::default()
            };
            tell(&mut retelling, way, &record(second, memory(second)))
        };
        assert_eq!(told(1, None), None);
        let again = Again {
            round: RoundId(1000),
            at: None,
        };
        assert_eq!(told(500, Some(Timestamp::UNIX_EPOCH)), Some(again));
        assert_eq!(told(601, None), None);
    }
}
