//! A clock that nobody ever set: it shows a time before this program was written.

use aizen_protocol::finding::Severity;
use jiff::Timestamp;

use super::breaks_trust;
use crate::case::View;
use crate::expert::draft::{Draft, Layer};

/// 2026-01-01T00:00:00Z: no device runs this program earlier.
const WRITTEN_S: i64 = 1_767_225_600;

pub(super) fn examine(view: &View<'_>) -> Option<Draft> {
    let at = view.now().ended.at;
    let written = Timestamp::from_second(WRITTEN_S).ok()?;
    if at >= written {
        return None;
    }
    let mut draft = Draft::new(
        "clock_unset",
        Layer::Time,
        "clock",
        Severity::Critical,
        format!("The clock was never set: it shows {at}"),
    );
    breaks_trust(&mut draft);
    draft.covers("ntp_offset", None);
    let fact =
        format!("this round is from {at} by the device's clock, and this program from {written}");
    draft.shown("round", "clock", at, fact);
    if let Some(host) = &view.now().host {
        let started = at
            .as_second()
            .saturating_sub(i64::try_from(host.value.uptime_s).unwrap_or(i64::MAX));
        if (-86_400..=86_400).contains(&started) {
            let fact = "it started to count at the beginning of 1970: the device has no clock \
                        that runs without power";
            draft.backed("host", "uptime", host.at, fact.into());
        }
    }
    if let Some(time) = view
        .now()
        .time
        .as_ref()
        .filter(|time| time.value.kernel_synchronised == Some(false))
    {
        let fact = "the kernel says that no daemon disciplines the clock";
        draft.backed("time", "kernel", time.at, fact.into());
    }
    draft.explains("TLS certificates, DNSSEC signatures and one-time passwords are refused");
    draft.misses(
        "whether a time server is reached (`chronyc sources`, `timedatectl timesync-status`)",
    );
    draft.next(
        "Let the time daemon step the clock once from a time server given by address (`chronyc \
         makestep`), because names may not resolve before; then replace the RTC battery or add a \
         clock",
    );
    Some(draft)
}

#[cfg(test)]
mod tests {
    use crate::case::Case;
    use crate::expert::analyze;
    use crate::fixture::{healthy, only, shift_clock};

    #[test]
    fn a_clock_of_1970_is_unset_and_its_offset_follows() {
        let mut evidence = healthy(1);
        shift_clock(&mut evidence);
        evidence.host.uptime_s = 95;
        let mut records = evidence.records();
        for record in &mut records {
            record.at = "1970-01-01T00:01:35Z".parse().unwrap();
        }
        let verdict = analyze(&Case::new(records));
        assert_eq!(only(&verdict).cause.0, "clock_unset");
        assert_eq!(verdict.health, aizen_protocol::finding::Health::Critical);
    }
}
