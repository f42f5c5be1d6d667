//! The only file that asks what time it is; everybody else receives a moment as a parameter.

use aizen_protocol::id::BootId;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since boot, suspend included (`CLOCK_BOOTTIME`, clock_gettime(2)): wall-clock jumps don't move it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(pub Duration);

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// This boot's name (`/proc/sys/kernel/random/boot_id`, random(4)); a fresh one where the kernel has none.
#[must_use]
pub fn boot() -> BootId {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.ok()
        .and_then(|name| name.trim().parse().ok())
        .unwrap_or_else(BootId::fresh)
}

/// The boot-time clock; zero where the kernel has none, which makes every deadline pass late rather than early.
#[must_use]
pub fn since_boot() -> BootTime {
    BootTime(
        clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default(),
    )
}

/// Time since boot without time asleep (`CLOCK_MONOTONIC`): the kernel stamps its messages with it, nearly.
#[must_use]
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
}

/// The wall clock in nanoseconds since 1970, as the kernel stamps packets (`CLOCK_REALTIME`).
#[must_use]
pub fn wall_ns() -> u64 {
    u64::try_from(now().as_nanosecond()).unwrap_or_default()
}
