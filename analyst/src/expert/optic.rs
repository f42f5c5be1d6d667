//! Fibre modules that receive too little or too much light.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Module;
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::link;
use crate::case::{View, grown};

/// Below this no light arrives at all (dBm): the fibre is out, or the other end is off. Modules show -40 for darkness.
const DARK_DBM: f32 = -38.0;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().modules else {
        return examined;
    };
    let mut well = 0;
    for module in &seen.value {
        let Some(link) = view.link(module.link).filter(|link| link.admin_up) else {
            continue;
        };
        let Some((power, [low, high])) = measured(module) else {
            continue;
        };
        if power > low && power < high {
            well += 1;
        } else if !is_dark(module)
            && (!link::is_without_carrier(link) || link::is_expected(view, link))
        {
            examined
                .drafts
                .push(weak(view, seen.at, module, power, [low, high]));
        }
    }
    if well > 0 {
        examined.well.push(format!(
            "Modules that receive as much light as they should: {well}"
        ));
    }
    examined
}

/// Received light and its thresholds, where the module measures and its thresholds make sense.
fn measured(module: &Module) -> Option<(f32, [f32; 2])> {
    let (power, [low, high]) = module.rx_power_dbm.zip(module.rx_alarm_dbm)?;
    let makes_sense = power.is_finite() && low.is_finite() && high.is_finite() && low < high;
    makes_sense.then_some((power, [low, high]))
}

fn is_dark(module: &Module) -> bool {
    match module.rx_power_dbm {
        // No reading: the flag alone tells.
        None => module.rx_los == Some(true),
        Some(power) => power.is_nan() || power <= DARK_DBM,
    }
}

/// That no light arrives at this link's module.
pub(super) fn no_light(view: &View<'_>, link: u32) -> Option<(Timestamp, String)> {
    let seen = view.now().modules.as_ref()?;
    let module = seen.value.iter().find(|module| module.link == link)?;
    let name = view.link_name(link);
    is_dark(module).then(|| (seen.at, format!("no light arrives at the module of {name}")))
}

fn weak(
    view: &View<'_>,
    at: Timestamp,
    module: &Module,
    power: f32,
    [low, high]: [f32; 2],
) -> Draft {
    let name = view.link_name(module.link);
    let carries = view
        .link(module.link)
        .is_some_and(|link| !link::is_without_carrier(link));
    let severity = if carries {
        Severity::Warning
    } else {
        Severity::Critical
    };
    let (what, step) = if power <= low {
        (
            "too little",
            "clean both plugs and the module, look for a sharp bend in the fibre, then swap the patch cable and the \
             module",
        )
    } else {
        (
            "too much",
            "put an attenuator in or use a module for the shorter distance: the receiver may be harmed",
        )
    };
    let mut draft = Draft::new(
        "optic_power",
        Layer::Link,
        name.as_str(),
        severity,
        format!("The module of {name} receives {what} light"),
    );
    let fact =
        format!("{name} receives {power:.1} dBm; its alarms are set at {low:.1} and {high:.1} dBm");
    draft.shown("modules", "rx_power", at, fact);
    if module.rx_los == Some(true) {
        let fact = format!("the module of {name} says that it lost the signal");
        draft.shown("modules", "rx_los", at, fact);
    }
    corrected(&mut draft, view, module.link);
    if !carries {
        draft.breaks_links.push(module.link);
    }
    // A receiver that tells bits badly hands up damaged frames.
    draft.covers("cable_errors", Some(name.clone()));
    draft.misses(format!(
        "the light that the other end sends and receives (its own status page; `ethtool -m {name}` here)"
    ));
    draft.next(format!("At {name}, {step}"));
    draft
}

/// Forward error correction works harder.
fn corrected(draft: &mut Draft, view: &View<'_>, link: u32) {
    let window = jiff::SignedDuration::from_mins(5);
    let Some((then, now)) = view.span(window, |pass| pass.ethernet.as_ref()) else {
        return;
    };
    let of = |seen: &'_ crate::case::Seen<Vec<aizen_protocol::record::Ethernet>>, name: &str| {
        let port = seen.value.iter().find(|port| port.link == link)?;
        port.statistics.get(name).copied()
    };
    let Some(port) = now.value.iter().find(|port| port.link == link) else {
        return;
    };
    let blocks = port.statistics.iter().filter_map(|(name, after)| {
        let plain = name.to_ascii_lowercase();
        let counts = plain.contains("fec") && plain.contains("corrected");
        grown(of(then, name)?, *after).filter(|_| counts)
    });
    if let Some(blocks) = blocks.max().filter(|blocks| *blocks > 0) {
        let fact = format!(
            "error correction of {} mended {blocks} blocks",
            view.link_name(link)
        );
        draft.backed("ethernet", "fec", now.at, fact);
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::Body;

    use super::*;
    use crate::fixture::{Evidence, SPARE, WAN, healthy, only, pull_cable, verdict};

    fn with(link: u32, power: f32, los: bool) -> Evidence {
        let mut evidence = healthy(1);
        evidence.extra.push(Body::Modules(vec![Module {
            link,
            rx_power_dbm: Some(power),
            rx_alarm_dbm: Some([-18.0, 0.5]),
            rx_los: Some(los),
            ..Module::default()
        }]));
        evidence
    }

    #[test]
    fn light_below_the_alarm_is_told_with_its_numbers() {
        let verdict = with(WAN, -21.34, true).verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("optic_power", "wan")
        );
        assert!(finding.evidence[0].fact.0.contains("-21.3 dBm"));
        assert_eq!(finding.confidence, Confidence::Likely);
        let bright = with(WAN, 3.0, false).verdict();
        assert!(only(&bright).next_step.0.contains("attenuator"));
    }

    #[test]
    fn a_link_that_lost_its_carrier_to_weak_light_is_its_consequence() {
        let mut broken = with(WAN, -26.0, true);
        pull_cable(&mut broken);
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "optic_power");
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.starts_with("wan is switched on but"))
        );
    }

    #[test]
    fn damaged_frames_of_a_port_with_weak_light_are_its_consequence() {
        let mut rounds = [with(WAN, -21.3, false), with(WAN, -21.3, false)];
        rounds[1].round = 2;
        for (errors, evidence) in [0, 60].into_iter().zip(&mut rounds) {
            let counters = evidence.link(WAN).counters.get_or_insert_default();
            counters.rx_packets = 1_000 * errors;
            counters.rx_crc_errors = errors;
        }
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(finding.cause.0, "optic_power");
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.starts_with("Frames arrive damaged"))
        );
    }

    #[test]
    fn darkness_is_the_missing_link_and_bears_it_out() {
        let mut broken = with(WAN, -40.0, true);
        pull_cable(&mut broken);
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "link_down");
        assert!(
            finding
                .evidence
                .iter()
                .any(|fact| fact.fact.0.starts_with("no light arrives"))
        );
    }

    #[test]
    fn good_light_empty_ports_and_modules_without_thresholds_do_not_alarm() {
        let mut silent = with(WAN, -21.0, false);
        let Body::Modules(modules) = &mut silent.extra[0] else {
            unreachable!()
        };
        modules[0].rx_alarm_dbm = None;
        let mut off = with(SPARE, -30.0, true);
        off.link(SPARE).admin_up = false;
        let quiet = [
            with(WAN, -9.0, false),
            // A spare port with a module and no fibre, or with stray light.
            with(SPARE, -40.0, true),
            with(SPARE, -30.0, true),
            with(WAN, f32::NAN, false),
            silent,
            off,
        ];
        for (number, evidence) in quiet.iter().enumerate() {
            assert_eq!(evidence.verdict().health, Health::Healthy, "{number}");
        }
    }
}
