//! The only file that asks what time it is; everybody else receives a moment as a parameter.

use jiff::Timestamp;

/// The wall clock.
#[must_use]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
