//! Readiness and watchdog notices to the service manager (sd_notify(3)); silent where there is none.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that the program serves.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the program ends on purpose.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Says that the program's main loop still turns.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is due: half of `WatchdogSec=`; none if the unit has no watchdog.
#[must_use]
pub fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager took no notice");
    }
}
