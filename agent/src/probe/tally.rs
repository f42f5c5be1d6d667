//! What many probes to one target come to.

use std::time::Duration;

/// Counts and times of one target, bounded in memory.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Probes that left.
    pub sent: u64,
    /// Probes that were answered in time.
    pub received: u64,
    /// Probes that nobody answered in time.
    pub lost: u64,
    /// Probes of which this device can't say whether an answer came: its own socket overflowed meanwhile.
    pub not_measured: u64,
    /// Answers beyond the first.
    pub duplicates: u64,
    /// Answers after the deadline.
    pub late: u64,
    /// Probes that an ICMP error ended; they are among the lost.
    pub errors: u64,
    /// Probes that the kernel refused to send.
    pub refused: u64,
    /// The newest round-trip times, as a ring.
    recent: Vec<u32>,
    next: usize,
    room: usize,
    min: u64,
    max: u64,
    sum: u128,
    squares: u128,
    last: Option<u64>,
    jitter: f64,
}

/// What a [`Tally`] says of round-trip times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Least.
    pub min: Duration,
    /// Mean.
    pub avg: Duration,
    /// Most.
    pub max: Duration,
    /// Standard deviation, as ping(8) has it.
    pub mdev: Duration,
    /// Median of the newest ones kept.
    pub p50: Duration,
    /// 95th percentile (nearest rank) of the same.
    pub p95: Duration,
    /// 99th percentile of the same.
    pub p99: Duration,
    /// Smoothed difference of neighbours (RFC 3550, 6.4.1).
    pub jitter: Duration,
}

impl Tally {
    /// Empty, for percentiles of at most the newest `room` times.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            sent: 0,
            received: 0,
            lost: 0,
            not_measured: 0,
            duplicates: 0,
            late: 0,
            errors: 0,
            refused: 0,
            recent: Vec::new(),
            next: 0,
            room: room.max(1),
            min: u64::MAX,
            max: 0,
            sum: 0,
            squares: 0,
            last: None,
            jitter: 0.0,
        }
    }

    /// Counts an answer.
    pub fn answer(&mut self, rtt: Duration) {
        let ns = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
        self.received += 1;
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        self.sum += u128::from(ns);
        self.squares = self.squares.saturating_add(u128::from(ns) * u128::from(ns));
        if let Some(last) = self.last.replace(ns) {
            self.jitter += (last.abs_diff(ns) as f64 - self.jitter) / 16.0;
        }
        // In steps of 16 ns the ring reaches over a minute.
        let kept = u32::try_from(ns / STEP).unwrap_or(u32::MAX);
        if self.recent.len() < self.room {
            self.recent.push(kept);
        } else {
            self.recent[self.next] = kept;
        }
        self.next = (self.next + 1) % self.room;
    }

    /// Lost per hundred of those that were measured.
    #[must_use]
    pub fn loss_percent(&self) -> f64 {
        let measured = self.received + self.lost;
        if measured == 0 {
            0.0
        } else {
            self.lost as f64 * 100.0 / measured as f64
        }
    }

    /// Round-trip times; none without answers.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        if self.received == 0 {
            return None;
        }
        let count = u128::from(self.received);
        let mean = self.sum / count;
        let variance = (self.squares / count).saturating_sub(mean * mean);
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            let kept = sorted.get(place).copied().unwrap_or_default();
            Duration::from_nanos((u64::from(kept) * STEP).clamp(self.min, self.max))
        };
        Some(Summary {
            min: Duration::from_nanos(self.min),
            avg: Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)),
            max: Duration::from_nanos(self.max),
            mdev: Duration::from_nanos((variance as f64).sqrt() as u64),
            p50: rank(50),
            p95: rank(95),
            p99: rank(99),
            jitter: Duration::from_nanos(self.jitter as u64),
        })
    }
}

const STEP: u64 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(times: impl IntoIterator<Item = u64>) -> Tally {
        let mut tally = Tally::new(1000);
        for ms in times {
            tally.answer(Duration::from_millis(ms));
        }
        tally
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let summary = tally(1..=100).summary().unwrap();
        assert_eq!(
            [summary.p50, summary.p95, summary.p99].map(|d| d.as_millis()),
            [50, 95, 99]
        );
        assert_eq!((summary.min.as_millis(), summary.max.as_millis()), (1, 100));
        assert_eq!(summary.avg.as_micros(), 50_500);
    }

    #[test]
    fn equal_times_have_neither_deviation_nor_jitter() {
        let summary = tally([7; 20]).summary().unwrap();
        assert_eq!(
            (summary.mdev, summary.jitter),
            (Duration::ZERO, Duration::ZERO)
        );
    }

    #[test]
    fn jitter_follows_rfc_3550() {
        // |20 - 10| / 16
        let jitter = tally([10, 20]).summary().unwrap().jitter;
        assert_eq!(jitter.as_micros(), 625);
    }

    #[test]
    fn what_was_not_measured_is_no_loss() {
        let mut tally = tally([1; 8]);
        tally.lost = 2;
        tally.not_measured = 10;
        assert!((tally.loss_percent() - 20.0).abs() < 1e-9);
        assert!(Tally::new(1).summary().is_none());
    }

    #[test]
    fn a_small_ring_keeps_the_newest() {
        let mut tally = Tally::new(4);
        for ms in 1..=10 {
            tally.answer(Duration::from_millis(ms));
        }
        let summary = tally.summary().unwrap();
        assert_eq!(summary.p50.as_millis(), 8);
        assert_eq!(summary.min.as_millis(), 1);
    }

    proptest! {
        #[test]
        fn the_order_of_the_figures_holds(times in prop::collection::vec(0_u64..10_000_000_000, 1..50), room in 1_usize..60) {
            let mut tally = Tally::new(room);
            for ns in &times {
                tally.answer(Duration::from_nanos(*ns));
            }
            let s = tally.summary().unwrap();
            prop_assert!(s.min <= s.p50 && s.p50 <= s.p95 && s.p95 <= s.p99 && s.p99 <= s.max);
            prop_assert!(s.min <= s.avg && s.avg <= s.max);
        }
    }
}
