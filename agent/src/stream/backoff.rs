//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Doubles from a short wait to a small cap, with jitter, so that a fleet doesn't come back as one.
#[derive(Clone, Debug)]
pub struct Backoff {
    attempts: u32,
    cap: Duration,
}

impl Backoff {
    /// Starts with the shortest wait; no wait is longer than `cap`.
    #[must_use]
    pub fn new(cap: Duration) -> Self {
        Self { attempts: 0, cap }
    }

    /// The wait before the next attempt: between half and all of the current step, by `random`.
    pub fn next(&mut self, random: u32) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.attempts.min(16));
        let step = doubled.min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        let half = step / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Something changed that may have brought the network back: the next wait is the shortest.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Attempts since the last reset.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

const FIRST: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_cap_or_shorter_than_half_its_step(
            cap_ms in 1_u64..100_000, randoms in prop::collection::vec(any::<u32>(), 1..100)
        ) {
            let cap = Duration::from_millis(cap_ms);
            let mut backoff = Backoff::new(cap);
            for (i, random) in randoms.into_iter().enumerate() {
                let step = FIRST.saturating_mul(1 << i.min(16)).min(cap);
                let wait = backoff.next(random);
                prop_assert!(wait <= step, "{wait:?} of {step:?}");
                prop_assert!(wait >= step / 2);
            }
        }

        #[test]
        fn after_a_reset_the_wait_is_as_short_as_the_first(
            before in 0_u32..1000, random in any::<u32>()
        ) {
            let mut backoff = Backoff::new(Duration::from_secs(8));
            for _ in 0..before {
                backoff.next(random);
            }
            backoff.reset();
            prop_assert!(backoff.next(random) <= FIRST);
        }
    }

    #[test]
    fn two_devices_do_not_come_back_at_the_same_time() {
        let mut one = Backoff::new(Duration::from_secs(8));
        let mut other = one.clone();
        assert_ne!(one.next(1 << 20), other.next(3 << 30));
    }
}
