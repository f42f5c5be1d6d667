//! The moment at which an unconfirmed change is undone, on the clock that nobody can set.

use std::time::Duration;

use aizen_protocol::id::BootId;
use serde::{Deserialize, Serialize};

use crate::clock::BootTime;

/// A deadline within one boot. In any other boot it has passed: nothing is confirmed that was not probed in its boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The boot that it counts in.
    pub boot: BootId,
    /// Time since that boot.
    pub until: BootTime,
}

impl Deadline {
    /// `within` from `now`.
    #[must_use]
    pub fn after(boot: BootId, now: BootTime, within: Duration) -> Self {
        Self {
            boot,
            until: BootTime(now.0.saturating_add(within)),
        }
    }

    /// True from the deadline on, and in every other boot.
    #[must_use]
    pub fn passed(&self, boot: &BootId, now: BootTime) -> bool {
        self.left(boot, now).is_zero()
    }

    /// What is left; zero once it passed.
    #[must_use]
    pub fn left(&self, boot: &BootId, now: BootTime) -> Duration {
        if self.boot == *boot {
            self.until.0.saturating_sub(now.0)
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(name: &str) -> BootId {
        name.parse().unwrap()
    }

    #[test]
    fn a_deadline_passes_at_its_moment_and_not_before() {
        let deadline = Deadline::after(
            boot("boot-a"),
            BootTime(Duration::from_secs(100)),
            Duration::from_secs(20),
        );
        let at = |s| BootTime(Duration::from_secs(s));
        assert!(!deadline.passed(&boot("boot-a"), at(119)));
        assert_eq!(
            deadline.left(&boot("boot-a"), at(119)),
            Duration::from_secs(1)
        );
        assert!(deadline.passed(&boot("boot-a"), at(120)));
    }

    #[test]
    fn in_another_boot_every_deadline_has_passed() {
        let deadline = Deadline::after(
            boot("boot-a"),
            BootTime(Duration::from_secs(100)),
            Duration::from_secs(20),
        );
        assert!(deadline.passed(&boot("boot-b"), BootTime(Duration::ZERO)));
    }
}
