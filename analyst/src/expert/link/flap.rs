//! Links whose carrier comes and goes.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{ChangeKind, Link};
use jiff::{SignedDuration, Timestamp};

use super::Duty;
use crate::case::{View, growth};
use crate::expert::draft::{Draft, Layer};

/// How far back carrier changes are counted.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// More changes than these in the window: a cable that was reseated makes two, a restart of the other end up to three.
const CHANGES: u32 = 3;
/// After a start, ports settle.
const SETTLED_S: u64 = 120;

/// A link that flaps.
#[derive(Debug)]
pub(super) struct Flap {
    pub(super) index: u32,
    changes: u32,
    seconds: u64,
    at: Timestamp,
}

/// Links whose carrier changed too often. What is virtual comes and goes with its guests, unless it is a cable between
/// two namespaces that the operator expects.
pub(super) fn flaps(view: &View<'_>) -> Vec<Flap> {
    let host = view.now().host.as_ref();
    let settles = host.is_some_and(|seen| seen.value.uptime_s < SETTLED_S);
    let Some(over) = view.links_over(WINDOW).filter(|_| !settles) else {
        return Vec::new();
    };
    let seconds = over.seconds();
    let is_hardware = |link: &Link| {
        link.driver_kind
            .as_deref()
            .is_none_or(|kind| kind == "dsa" || kind == "ppp")
    };
    let profile = view.profile().map(|seen| &seen.value);
    let is_expected = |link: &Link| {
        link.driver_kind.as_deref() == Some("veth")
            && profile.is_some_and(|profile| {
                profile.wan.contains(&link.name) || profile.expected_up.contains(&link.name)
            })
    };
    let flaps = over.links.iter().filter_map(|(before, link)| {
        let changes = growth(before, link).carrier_changes?;
        // Where rounds are rare, the same number of changes is spread over a longer time.
        let window = u64::try_from(WINDOW.as_secs()).unwrap_or(u64::MAX);
        let in_window = u64::from(changes) * window / seconds.max(window);
        let flaps = in_window > u64::from(CHANGES) && link.admin_up && !link.loopback;
        (flaps && (is_hardware(link) || is_expected(link))).then_some(Flap {
            index: link.index,
            changes,
            seconds,
            at: over.to,
        })
    });
    flaps.collect()
}

impl Flap {
    pub(super) fn draft(&self, view: &View<'_>, link: &Link, duty: &Duty) -> Draft {
        let severity = if duty.named || !duty.default.is_empty() {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let name = &link.name;
        let mut draft = Draft::new(
            "link_flapping",
            Layer::Link,
            name.as_str(),
            severity,
            format!("The carrier of {name} comes and goes"),
        );
        draft.shown(
            "links",
            "carrier_changes",
            self.at,
            format!(
                "the carrier of {name} changed {} times in {} s",
                self.changes, self.seconds
            ),
        );
        self.remembered(&mut draft, view, link);
        speed(&mut draft, view, link);
        draft.breaks_links.push(link.index);
        draft.breaks_beyond.clone_from(&duty.default);
        draft.explains(format!(
            "Connections through {name} stall and break again and again"
        ));
        draft.misses(format!(
            "whether the other end of {name} restarts or loses its link as well (its log, its uptime), and what the \
             driver says (`ethtool {name}`, `aizen links --watch`)"
        ));
        draft.next(format!(
            "Reseat both plugs of {name} and try another cable or SFP; if it goes on, try another port at the other end, \
             then the same fixed speed at both ends"
        ));
        draft
    }

    /// The device heard each loss when it happened.
    fn remembered(&self, draft: &mut Draft, view: &View<'_>, link: &Link) {
        let Some(seen) = &view.now().history else {
            return;
        };
        let lost = seen.value.changes.iter().filter(|change| {
            change.kind == ChangeKind::CarrierLost
                && change.component.0 == link.name
                && self.at.duration_since(change.at) <= WINDOW
        });
        let losses = lost.count();
        if losses > 1 {
            let fact = format!(
                "the kernel told {losses} losses of the carrier of {} in 5 minutes",
                link.name
            );
            draft.backed("history", "carrier_lost", seen.at, fact);
        }
    }
}

fn speed(draft: &mut Draft, view: &View<'_>, link: &Link) {
    let Some(seen) = &view.now().ethernet else {
        return;
    };
    let port = seen.value.iter().find(|port| port.link == link.index);
    if let Some((mbps, port)) = port.and_then(|port| Some((port.speed_mbps?, port))) {
        let negotiation = match port.autonegotiation {
            Some(true) => "negotiated",
            Some(false) => "set by hand",
            None => "unknown how",
        };
        let fact = format!("{} runs at {mbps} Mb/s ({negotiation})", link.name);
        draft.noted("ethernet", seen.at, fact);
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::private::Text;
    use aizen_protocol::record::{Body, Change, History};

    use super::*;
    use crate::fixture::{Evidence, SPARE, WAN, at, healthy, kill_gateway, only, verdict};

    fn flapping(link: u32, changes: u32) -> [Evidence; 2] {
        let mut after = healthy(2);
        after.link(link).carrier_changes = Some(2 + changes);
        [healthy(1), after]
    }

    #[test]
    fn a_carrier_that_changed_five_times_flaps_and_swallows_the_dead_gateway() {
        let mut rounds = flapping(WAN, 5);
        kill_gateway(&mut rounds[1]);
        rounds[1].link(WAN).carrier = Some(false);
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("link_flapping", "wan")
        );
        assert!(
            finding.evidence[0]
                .fact
                .0
                .contains("changed 5 times in 10 s")
        );
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.starts_with("The default gateway"))
        );
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn losses_that_the_kernel_told_make_it_likely() {
        let mut rounds = flapping(WAN, 4);
        let lost = |second| Change {
            at: at(1) + SignedDuration::from_secs(second),
            kind: ChangeKind::CarrierLost,
            component: Text("wan".into()),
        };
        rounds[1].extra.push(Body::History(History {
            series: vec![],
            changes: vec![lost(1), lost(5)],
        }));
        assert_eq!(only(&verdict(&rounds)).confidence, Confidence::Likely);
    }

    #[test]
    fn a_reseated_cable_a_reboot_a_settling_port_and_virtual_links_do_not_alarm() {
        let reseated = flapping(WAN, 2);
        let mut rebooted = flapping(WAN, 40);
        rebooted[0].boot = "boot-0";
        let mut settling = flapping(WAN, 6);
        settling[1].host.uptime_s = 40;
        let mut guest = flapping(SPARE, 9);
        for evidence in &mut guest {
            evidence.link(SPARE).driver_kind = Some("veth".into());
        }
        let mut off = flapping(SPARE, 9);
        off[1].link(SPARE).admin_up = false;
        // Many changes, but over an hour.
        let mut slow = flapping(WAN, 9);
        slow[1].round = 360;
        for (number, rounds) in [reseated, rebooted, settling, guest, off, slow]
            .iter()
            .enumerate()
        {
            assert_eq!(verdict(rounds).health, Health::Healthy, "{number}");
        }
    }
}
