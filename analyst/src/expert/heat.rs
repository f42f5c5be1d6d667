//! Hardware at its limits: heat and supply.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Host;

use super::draft::{Draft, Examined, Layer};
use super::trend;
use crate::case::{Seen, View};

/// A processor that was slowed down runs below this share of its highest clock, percent.
const SLOWED: f32 = 80.0;
/// An idle processor is slow because nobody wants more, percent.
const IDLE: f32 = 50.0;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().host else {
        return examined;
    };
    if let Some(draft) = hot(view) {
        examined.drafts.push(draft);
    } else if let Some(celsius) = seen.value.temperature_c {
        examined
            .well
            .push(format!("The hottest sensor shows {celsius:.0} °C"));
    }
    if seen.value.undervoltage == Some(true) {
        examined.drafts.push(weak_supply(view, seen));
    }
    examined
}

/// At or above the point at which it slows down, and not at full speed all the same.
fn is_hot(host: &Host) -> bool {
    let reached = host
        .temperature_c
        .zip(host.throttle_c)
        .is_some_and(|(celsius, throttle)| celsius >= throttle);
    reached && host.frequency_percent.is_none_or(|share| share < SLOWED)
}

fn hot(view: &View<'_>) -> Option<Draft> {
    let hot: Vec<&Seen<Host>> = trend::readings(view, |pass| pass.host.as_ref())
        .take_while(|seen| is_hot(&seen.value))
        .collect();
    let (newest, oldest) = hot.first().zip(hot.last())?;
    if hot.len() < 2 {
        return None;
    }
    let slowed = newest
        .value
        .frequency_percent
        .filter(|_| newest.value.cpu_percent.is_some_and(|busy| busy >= IDLE));
    let severity = if slowed.is_some() {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let (celsius, throttle) = newest.value.temperature_c.zip(newest.value.throttle_c)?;
    let mut draft = Draft::new(
        "overheating",
        Layer::Resource,
        "temperature",
        severity,
        format!("The device is too hot: {celsius:.0} °C"),
    );
    draft.shown(
        "host",
        "temperature",
        oldest.at,
        format!(
            "the hottest sensor shows {celsius:.0} °C in {} readings in a row; at {throttle:.0} \
             °C it slows down or stops",
            hot.len()
        ),
    );
    if let Some(share) = slowed {
        draft.backed(
            "host",
            "frequency",
            newest.at,
            format!("a busy processor runs at {share:.0} % of its highest clock"),
        );
    }
    draft.explains("The device is slow and may switch itself off");
    draft.misses("whether the fan turns and air gets in (a person looks)");
    draft.next("Let a person check fan, dust and place; reduce the load until it is cool");
    Some(draft)
}

fn weak_supply(view: &View<'_>, seen: &Seen<Host>) -> Draft {
    let mut draft = Draft::new(
        "undervoltage",
        Layer::Resource,
        "power supply",
        Severity::Warning,
        "The supply fell below the voltage that the device needs".into(),
    );
    draft.shown(
        "host",
        "undervoltage",
        seen.at,
        "the voltage sensor raised its alarm since the start".into(),
    );
    let fine = trend::readings(view, |pass| pass.host.as_ref())
        .find(|seen| seen.value.undervoltage == Some(false));
    if let Some(seen) = fine {
        draft.backed(
            "host",
            "earlier",
            seen.at,
            "the alarm was not raised earlier in this boot".into(),
        );
    }
    draft.explains("The device may slow down, lose its disks or restart");
    draft.misses("the voltage at the device under load (a person measures)");
    draft.next(
        "Let a person replace the power supply and its cable by ones of the rated current, and \
         unplug what draws from the device",
    );
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Severity;

    use crate::fixture::machine::history;
    use crate::fixture::{Evidence, only, verdict};

    fn with(change: impl Fn(u64, &mut Evidence)) -> Vec<Evidence> {
        history(3, |round, evidence| {
            evidence.host.throttle_c = Some(85.0);
            evidence.host.temperature_c = Some(60.0);
            change(round, evidence);
        })
    }

    #[test]
    fn a_busy_device_that_is_slowed_by_its_heat_is_critical() {
        let rounds = with(|_, evidence| {
            evidence.host.temperature_c = Some(91.0);
            evidence.host.frequency_percent = Some(45.0);
            evidence.host.cpu_percent = Some(97.0);
        });
        let verdict = verdict(&rounds);
        assert_eq!(
            (only(&verdict).cause.0.as_str(), only(&verdict).severity),
            ("overheating", Severity::Critical)
        );
    }

    #[test]
    fn a_warm_one_a_peak_full_speed_an_idle_clock_and_an_unknown_limit_do_not_alarm() {
        let changes: [fn(u64, &mut Evidence); 5] = [
            |_, evidence| evidence.host.temperature_c = Some(84.0),
            |round, evidence| {
                if round == 3 {
                    evidence.host.temperature_c = Some(90.0);
                }
            },
            |_, evidence| {
                (evidence.host.temperature_c, evidence.host.frequency_percent) =
                    (Some(90.0), Some(100.0))
            },
            |_, evidence| evidence.host.frequency_percent = Some(20.0),
            |_, evidence| {
                (evidence.host.temperature_c, evidence.host.throttle_c) = (Some(90.0), None)
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(verdict(&with(change)).findings, [], "{number}");
        }
    }

    #[test]
    fn a_raised_voltage_alarm_warns() {
        let rounds = with(|round, evidence| evidence.host.undervoltage = Some(round > 1));
        assert_eq!(only(&verdict(&rounds)).cause.0, "undervoltage");
    }
}
