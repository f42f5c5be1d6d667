//! Wi-Fi: a busy channel, a weak signal, keys that don't fit, radar.

use std::collections::{BTreeMap, BTreeSet};

use aizen_protocol::finding::Severity;
use aizen_protocol::private::Mac;
use aizen_protocol::record::{
    Radio, Station, Wireless, WirelessChange, WirelessEvent, WirelessMode,
};
use jiff::SignedDuration;

use super::draft::{Draft, Examined, Layer};
use super::trend::{self, Step, percent, wrapped};
use super::unit::list;
use crate::case::View;

/// Time on a channel that is busy, percent.
const BUSY: u64 = 60;
/// Packets that are sent again, percent of those sent.
const RETRIES: u64 = 20;
/// Packets in a step below which a share says nothing.
const PACKETS: u64 = 100;
/// Milliseconds that a channel must have been watched.
const WATCHED_MS: u64 = 500;
/// Weaker is weak; from here on it is good, dBm.
const WEAK_DBM: i8 = -75;
const GOOD_DBM: i8 = -70;
/// Reason codes of IEEE 802.11: previous authentication no longer valid, 4-way handshake timeout.
const KEY_REASONS: [u16; 2] = [2, 15];
const TIMES: usize = 3;
const MINUTES: i64 = 10;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().wireless else {
        return examined;
    };
    if let Some(steps) = trend::steps(view, |pass| pass.wireless.as_ref(), 2) {
        for interface in &seen.value.interfaces {
            examined
                .drafts
                .extend(interference(view, interface, &steps));
            examined.drafts.extend(weak(view, interface, &steps));
        }
    }
    for interface in &seen.value.interfaces {
        let events = recent(view, &seen.value, interface.link);
        examined.drafts.extend(keys(view, interface, &events));
        examined.drafts.extend(radar(view, interface, &events));
    }
    if examined.drafts.is_empty() && !seen.value.interfaces.is_empty() {
        examined
            .well
            .push("The radio has a free channel and good signals".into());
    }
    examined
}

fn find(radio: &Radio, link: u32) -> Option<&Wireless> {
    radio
        .interfaces
        .iter()
        .find(|interface| interface.link == link)
}

fn draft(
    view: &View<'_>,
    interface: &Wireless,
    cause: &'static str,
    summary: impl FnOnce(&str) -> String,
) -> Draft {
    let name = view.link_name(interface.link);
    Draft::new(
        cause,
        Layer::Link,
        name.as_str(),
        Severity::Warning,
        summary(&name),
    )
}

/// Share of time that the channel was busy; none if it changed or wasn't watched.
fn busy(step: &Step<'_, Radio>, link: u32) -> Option<u64> {
    let (before, after) = (find(step.before, link)?, find(step.after, link)?);
    if before.frequency_mhz != after.frequency_mhz {
        return None;
    }
    let watched = after
        .active_ms?
        .checked_sub(before.active_ms?)
        .filter(|ms| *ms >= WATCHED_MS)?;
    Some(percent(
        after.busy_ms?.checked_sub(before.busy_ms?)?,
        watched,
    ))
}

/// Sent packets and retries of one station.
fn retries(step: &Step<'_, Radio>, link: u32, mac: Mac) -> Option<(u64, u64)> {
    let station = |radio: &Radio| -> Option<Station> {
        find(radio, link)?
            .stations
            .iter()
            .find(|station| station.mac == mac)
            .cloned()
    };
    let (before, after) = (station(step.before)?, station(step.after)?);
    Some((
        wrapped(before.tx_packets, after.tx_packets)?.into(),
        wrapped(before.tx_retries, after.tx_retries)?.into(),
    ))
}

fn is_retried(step: &Step<'_, Radio>, link: u32, mac: Mac) -> bool {
    retries(step, link, mac)
        .is_some_and(|(sent, again)| sent >= PACKETS && percent(again, sent) >= RETRIES)
}

fn interference(view: &View<'_>, interface: &Wireless, steps: &[Step<'_, Radio>]) -> Option<Draft> {
    let link = interface.link;
    let shares: Vec<u64> = steps
        .iter()
        .map(|step| busy(step, link))
        .collect::<Option<_>>()?;
    // A busy channel is a fault only where it costs somebody who is near.
    let hit = interface.stations.iter().find(|station| {
        station.signal_dbm.is_some_and(|signal| signal >= GOOD_DBM)
            && steps.iter().all(|step| is_retried(step, link, station.mac))
    })?;
    if shares.iter().any(|share| *share <= BUSY) {
        return None;
    }
    let mut draft = draft(view, interface, "wifi_interference", |name| {
        format!("The channel of {name} is taken by others")
    });
    let channel = interface
        .frequency_mhz
        .map_or_else(String::new, |mhz| format!(" ({mhz} MHz)"));
    for (step, share) in steps.iter().zip(&shares) {
        draft.shown(
            "wireless",
            "busy",
            step.at,
            format!(
                "the channel{channel} was busy for {share} % of {} s",
                step.seconds()
            ),
        );
    }
    if let Some((sent, again)) = retries(&steps[0], link, hit.mac) {
        let signal = hit.signal_dbm.unwrap_or_default();
        draft.backed(
            "wireless",
            "retries",
            steps[0].at,
            format!(
                "{again} of {sent} packets to {} were sent again although its signal is good, \
                 {signal} dBm",
                hit.mac
            ),
        );
    }
    draft.explains("Wi-Fi is slow and uneven for everybody on that channel");
    draft.misses("who else uses the channel (`iw dev scan`, a person looks)");
    draft.next(
        "Choose another channel or a narrower width in a quiet hour, after a scan of the \
         neighbourhood",
    );
    Some(draft)
}

fn weak(view: &View<'_>, interface: &Wireless, steps: &[Step<'_, Radio>]) -> Option<Draft> {
    let link = interface.link;
    let is_weak = |radio: &Radio, mac: Mac| {
        find(radio, link).is_some_and(|interface| {
            interface.stations.iter().any(|station| {
                station.mac == mac && station.signal_dbm.is_some_and(|signal| signal < WEAK_DBM)
            })
        })
    };
    let stations: Vec<&Station> = interface
        .stations
        .iter()
        .filter(|station| steps.iter().all(|step| is_weak(step.after, station.mac)))
        // Somebody walks away from an access point every day: only one who suffers and stays is worth a word.
        .filter(|station| {
            interface.mode == WirelessMode::Station
                || steps.iter().all(|step| is_retried(step, link, station.mac))
        })
        .collect();
    let first = stations.first()?;
    let mut draft = draft(view, interface, "wifi_weak_signal", |name| {
        format!("The signal on {name} is weak")
    });
    for step in steps {
        let signal = find(step.after, link)
            .and_then(|interface| {
                interface
                    .stations
                    .iter()
                    .find(|station| station.mac == first.mac)?
                    .signal_dbm
            })
            .unwrap_or_default();
        draft.shown(
            "wireless",
            "signal",
            step.at,
            format!("the signal of {} is {signal} dBm", first.mac),
        );
    }
    if let Some((sent, again)) =
        retries(&steps[0], link, first.mac).filter(|_| is_retried(&steps[0], link, first.mac))
    {
        draft.backed(
            "wireless",
            "retries",
            steps[0].at,
            format!("{again} of {sent} packets to it were sent again"),
        );
    }
    draft.explains("Wi-Fi is slow there and breaks off");
    draft.misses("where the station is, and what stands between (a person looks)");
    draft
        .next("Bring the two ends nearer to each other, turn the antennas, or add an access point");
    Some(draft)
}

fn recent<'a>(view: &View<'_>, radio: &'a Radio, link: u32) -> Vec<&'a WirelessEvent> {
    let oldest = view.now().ended.at - SignedDuration::from_mins(MINUTES);
    radio
        .events
        .iter()
        .filter(|event| event.link == link && event.at >= oldest)
        .collect()
}

/// Hands that were not shaken: one station again and again has the wrong key, several at once meet a fault here.
fn keys(view: &View<'_>, interface: &Wireless, events: &[&WirelessEvent]) -> Option<Draft> {
    let failed = events.iter().filter(|event| matches!(event.change, WirelessChange::Deauthenticated { reason } if KEY_REASONS.contains(&reason)));
    let mut by_station: BTreeMap<Option<Mac>, Vec<&WirelessEvent>> = BTreeMap::new();
    for event in failed {
        by_station.entry(event.station).or_default().push(event);
    }
    by_station.retain(|_, events| events.len() >= TIMES);
    // Who is let in by now has the key after all.
    by_station.retain(|mac, _| {
        !interface
            .stations
            .iter()
            .any(|station| Some(station.mac) == *mac && station.authorised == Some(true))
    });
    let worst = by_station.values().max_by_key(|events| events.len())?;
    let all: BTreeSet<Mac> = by_station.keys().flatten().copied().collect();
    let mut draft = draft(view, interface, "wifi_authentication", |name| {
        if all.len() > 1 {
            format!("Several stations fail to authenticate on {name}")
        } else {
            format!("A station fails to authenticate on {name}")
        }
    });
    let first = worst.first()?;
    draft.shown(
        "wireless",
        "handshake",
        first.at,
        format!(
            "{} was sent away {} times within {MINUTES} min because no key was agreed",
            list(all.iter().take(4)),
            worst.len()
        ),
    );
    if all.len() > 1 {
        draft.backed(
            "wireless",
            "several",
            first.at,
            format!("{} stations met the same", all.len()),
        );
    }
    draft.explains("These stations have no network");
    draft.misses("what the access point's daemon says (`logread`, `journalctl -u hostapd`)");
    draft.next(if all.len() > 1 {
        "Check the key in the access point's configuration and whether the RADIUS server answers"
    } else {
        "Enter the network's key on that station again"
    });
    Some(draft)
}

/// Radar drove the access point from its channel, and it isn't on air again or moved.
fn radar(view: &View<'_>, interface: &Wireless, events: &[&WirelessEvent]) -> Option<Draft> {
    let heard: Vec<&&WirelessEvent> = events
        .iter()
        .filter(|event| event.change == WirelessChange::Radar)
        .collect();
    let (first, last) = heard.first().zip(heard.last())?;
    let mut draft = draft(view, interface, "dfs_radar", |name| {
        format!("Radar drove {name} from its channel")
    });
    draft.shown(
        "wireless",
        "radar",
        first.at,
        format!("radar was heard {} times within {MINUTES} min", heard.len()),
    );
    for event in events.iter().filter(|event| event.at >= last.at) {
        match event.change {
            WirelessChange::Channel { frequency_mhz } => draft.backed(
                "wireless",
                "channel",
                event.at,
                format!("it moved to {frequency_mhz} MHz"),
            ),
            WirelessChange::AvailabilityCheck { finished: false } => draft.backed(
                "wireless",
                "check",
                event.at,
                "it listens for radar before it may send".into(),
            ),
            WirelessChange::AvailabilityCheck { finished: true }
            | WirelessChange::Radar
            | WirelessChange::Deauthenticated { .. } => {}
        }
    }
    draft.explains("Stations lose the network for a minute or more each time");
    draft.misses("how often it happens (the log of the access point's daemon over days)");
    draft.next("Choose a channel without radar duty (36 to 48, or 2.4 GHz) if it happens again");
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Body, Radio, WirelessChange, WirelessEvent, WirelessMode};

    use crate::fixture::machine::{RADIO, history, radio};
    use crate::fixture::{Evidence, at, link, only, verdict};

    fn with(change: impl Fn(u64, &mut Radio)) -> Vec<Evidence> {
        history(4, |round, evidence| {
            let mut seen = radio(round);
            change(round, &mut seen);
            evidence.links.push(link(RADIO, "wlan0", true));
            evidence.see(Body::Wireless(seen));
        })
    }

    fn retry(round: u64, seen: &mut Radio) {
        seen.interfaces[0].stations[0].tx_retries = u32::try_from(round).unwrap() * 900;
    }

    fn hear(seen: &mut Radio, round: u64, change: WirelessChange) {
        seen.events.push(WirelessEvent {
            at: at(round),
            link: RADIO,
            station: Some("02:00:5e:10:70:09".parse().unwrap()),
            change,
        });
    }

    #[test]
    fn a_busy_channel_with_retries_to_a_near_station_is_interference() {
        let rounds = with(|round, seen| {
            seen.interfaces[0].busy_ms = Some(round * 8_200);
            retry(round, seen);
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("wifi_interference", "wlan0")
        );
    }

    #[test]
    fn a_weak_station_that_suffers_and_a_weak_access_point_are_told() {
        let suffering = with(|round, seen| {
            seen.interfaces[0].stations[0].signal_dbm = Some(-82);
            retry(round, seen);
        });
        assert_eq!(only(&verdict(&suffering)).cause.0, "wifi_weak_signal");
        let client = with(|_, seen| {
            seen.interfaces[0].mode = WirelessMode::Station;
            seen.interfaces[0].stations[0].signal_dbm = Some(-82);
        });
        assert_eq!(only(&verdict(&client)).cause.0, "wifi_weak_signal");
    }

    #[test]
    fn own_traffic_on_a_channel_a_far_client_that_is_well_and_a_new_channel_do_not_alarm() {
        let changes: [fn(u64, &mut Radio); 5] = [
            |_, _| {},
            |round, seen| seen.interfaces[0].busy_ms = Some(round * 9_000),
            retry,
            |_, seen| seen.interfaces[0].stations[0].signal_dbm = Some(-82),
            |round, seen| {
                seen.interfaces[0].busy_ms = Some(round * 9_000);
                seen.interfaces[0].frequency_mhz = Some(5_180 + 20 * u32::try_from(round).unwrap());
                retry(round, seen);
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(verdict(&with(change)).findings, [], "{number}");
        }
    }

    #[test]
    fn a_key_that_never_fits_and_radar_are_told_and_a_station_that_leaves_is_not() {
        let wrong = with(|_, seen| {
            for round in [0, 1, 1] {
                hear(seen, round, WirelessChange::Deauthenticated { reason: 15 });
            }
        });
        assert_eq!(only(&verdict(&wrong)).cause.0, "wifi_authentication");
        let radar = with(|_, seen| {
            hear(seen, 1, WirelessChange::Radar);
            hear(
                seen,
                1,
                WirelessChange::Channel {
                    frequency_mhz: 5_260,
                },
            );
        });
        assert_eq!(only(&verdict(&radar)).cause.0, "dfs_radar");
        let left = with(|_, seen| {
            for round in [0, 1, 1] {
                hear(seen, round, WirelessChange::Deauthenticated { reason: 3 });
            }
            hear(seen, 1, WirelessChange::Deauthenticated { reason: 15 });
            hear(
                seen,
                1,
                WirelessChange::AvailabilityCheck { finished: true },
            );
        });
        assert_eq!(verdict(&left).findings, []);
    }
}
