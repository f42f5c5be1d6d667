//! Whether it is the time for a package, and whether this device knows what time it is.

use aizen_protocol::package::manifest::Class;
use aizen_protocol::package::{DeliveryMode, Package};
use aizen_protocol::reason::Reason;
use jiff::{SignedDuration, Timestamp};

use super::{Circumstances, Refused};

/// How far two honest clocks may differ.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Whether the wall clock can be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Not before anything that a trusted key has signed so far.
    Trusted,
    /// Before it: a router without a battery that was never synchronised.
    Untrusted,
}

impl Clock {
    /// Compares the wall clock with the floor: the newest signed time that was believed.
    #[must_use]
    pub fn judge(now: Timestamp, floor: Timestamp) -> Self {
        if now.saturating_add(SKEW).is_ok_and(|now| now >= floor) {
            Self::Trusted
        } else {
            Self::Untrusted
        }
    }
}

/// The least that the time can be: the clock, or the floor where the clock is behind it.
pub(super) fn at_least(at: &Circumstances<'_>) -> Timestamp {
    at.now.max(floor(at))
}

fn floor(at: &Circumstances<'_>) -> Timestamp {
    let trust = at.trust.map_or(Timestamp::MIN, |trust| trust.issued_at);
    trust.max(at.replay.floor())
}

/// The clock of these circumstances.
#[must_use]
pub fn clock(at: &Circumstances<'_>) -> Clock {
    Clock::judge(at.now, floor(at))
}

pub(super) fn check(
    package: &Package,
    executes: bool,
    at: &Circumstances<'_>,
) -> Result<(), Refused> {
    if package.expires <= at_least(at) {
        return Err(Refused::because(
            Reason::Expired,
            format!("it expired at {}", package.expires),
        ));
    }
    match clock(at) {
        Clock::Trusted => {
            // Composed in the future counts as well: it would move the floor of time ahead of the time.
            let start = package.not_before.max(package.issued_at);
            if at.now.saturating_add(SKEW).is_ok_and(|now| now < start) {
                return Err(Refused::because(
                    Reason::NotYetValid,
                    format!("it is valid from {start}"),
                ));
            }
        }
        Clock::Untrusted => {
            let changes = executes && package.manifest.class != Class::Diagnose;
            if changes && package.delivery == DeliveryMode::Uplink {
                return Err(Reason::ClockUntrusted.into());
            }
        }
    }
    Ok(())
}
