//! The device's memory of the last hours: probes minute by minute, and what changed when.
//!
//! It lives in this process and is bounded. Minutes are the wall clock's; a clock that was set begins new series.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use aizen_protocol::private::{Prefix, Text};
use aizen_protocol::record::{
    Body, Change, ChangeKind, DnsPurpose, DnsTransport, History, Minute, Series, SeriesKind,
};
use jiff::Timestamp;

use crate::clock::BootTime;

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    series: BTreeMap<(SeriesKind, IpAddr), Probes>,
    changes: VecDeque<Change>,
    known: Known,
    last: Option<(Timestamp, BootTime)>,
    recalled: bool,
}

/// One target's minutes.
#[derive(Debug)]
struct Probes {
    /// Minutes since the epoch of the first.
    start: i64,
    minutes: VecDeque<Minute>,
    /// Round trips of the last minute, for its percentiles.
    times_us: Vec<u32>,
}

/// What of a link is a change worth remembering.
#[derive(Clone, Debug)]
struct LinkState {
    name: String,
    up: bool,
    carrier: Option<bool>,
}

/// The tables as they were last seen; none before the first look.
#[derive(Debug, Default)]
struct Known {
    links: Option<BTreeMap<u32, LinkState>>,
    addresses: Option<BTreeSet<Prefix>>,
    defaults: Option<BTreeSet<String>>,
}

impl Memory {
    /// Goes on from what somebody else remembered of this device.
    pub(crate) fn recall(&mut self, history: History) {
        self.changes = history.changes.into();
        for series in history.series.into_iter().take(SERIES) {
            let probes = Probes {
                start: series.start.as_second().div_euclid(60),
                minutes: series.minutes.into(),
                times_us: Vec::new(),
            };
            self.series.insert((series.kind, series.target), probes);
        }
        // It knows of the start already.
        self.recalled = true;
    }

    /// Begins a look at `now`.
    pub(crate) fn begin(&mut self, now: Timestamp, since_boot: BootTime) {
        if let Some((then, boot)) = self.last {
            let passed = now.duration_since(then);
            let really = since_boot.0.saturating_sub(boot.0);
            let really = jiff::SignedDuration::try_from(really).unwrap_or(passed);
            if (passed - really).abs() > STEP {
                let by = (passed - really).as_secs();
                self.series.clear();
                self.change(now, ChangeKind::ClockStepped, format!("by {by} s"));
            }
        } else if since_boot.0 < YOUNG && !self.recalled {
            let uptime = jiff::SignedDuration::try_from(since_boot.0).unwrap_or_default();
            self.change(now - uptime, ChangeKind::Booted, String::new());
        }
        self.last = Some((now, since_boot));
    }

    /// Takes what one collector saw at `at`.
    pub(crate) fn learn(&mut self, at: Timestamp, body: &Body) {
        match body {
            Body::Links(links) => {
                let links = links.iter().map(|link| {
                    let state = LinkState {
                        name: link.name.clone(),
                        up: link.admin_up,
                        carrier: link.carrier,
                    };
                    (link.index, state)
                });
                self.learn_links(at, links.collect());
            }
            Body::Addresses(addresses) => {
                let now: BTreeSet<Prefix> = addresses.iter().map(|a| a.address).collect();
                let was = self.known.addresses.replace(now.clone());
                let names = |set: BTreeSet<Prefix>| set.iter().map(Prefix::to_string).collect();
                let (came, went) = (ChangeKind::AddressAdded, ChangeKind::AddressRemoved);
                self.compare(at, was.map(names), &names(now), came, went);
            }
            Body::Routes(routes) => {
                let defaults = routes.iter().filter(|route| {
                    route.destination.is_default() && route.table == MAIN && route.kind == "unicast"
                });
                let now: BTreeSet<String> = defaults
                    .map(|route| match route.gateway {
                        Some(gateway) => gateway.to_string(),
                        None => route.destination.to_string(),
                    })
                    .collect();
                let was = self.known.defaults.replace(now.clone());
                let (came, went) = (
                    ChangeKind::DefaultRouteAdded,
                    ChangeKind::DefaultRouteRemoved,
                );
                self.compare(at, was, &now, came, went);
            }
            Body::Reach(all) => all.iter().for_each(|reach| {
                let sent = reach.sent;
                self.probed(at, SeriesKind::Echo, reach.target, sent, &reach.rtt_us);
            }),
            Body::Dns(all) => {
                let lookups = all.iter().filter(|probe| {
                    (probe.transport, probe.purpose) == (DnsTransport::Udp, DnsPurpose::Lookup)
                });
                lookups.for_each(|probe| {
                    let sent = u16::try_from(probe.answers.len()).unwrap_or(u16::MAX);
                    self.probed(at, SeriesKind::Dns, probe.resolver, sent, &probe.rtt_us);
                });
            }
            _ => {}
        }
    }

    /// The memory as a record.
    pub(crate) fn tell(&self) -> History {
        let series = self.series.iter().map(|((kind, target), probes)| Series {
            kind: *kind,
            target: *target,
            start: Timestamp::from_second(probes.start.saturating_mul(60)).unwrap_or_default(),
            minutes: probes.minutes.iter().copied().collect(),
        });
        History {
            series: series.collect(),
            changes: self.changes.iter().cloned().collect(),
        }
    }

    fn learn_links(&mut self, at: Timestamp, now: BTreeMap<u32, LinkState>) {
        let Some(was) = self.known.links.replace(now.clone()) else {
            return;
        };
        for (index, link) in &now {
            let name = || link.name.clone();
            let Some(before) = was.get(index) else {
                self.change(at, ChangeKind::LinkAdded, name());
                continue;
            };
            match (before.up, link.up) {
                (true, false) => self.change(at, ChangeKind::LinkDown, name()),
                (false, true) => self.change(at, ChangeKind::LinkUp, name()),
                _ => {}
            }
            match (before.carrier, link.carrier) {
                (Some(true), Some(false)) => self.change(at, ChangeKind::CarrierLost, name()),
                (Some(false), Some(true)) => self.change(at, ChangeKind::CarrierBack, name()),
                _ => {}
            }
        }
        let gone = was.iter().filter(|(index, _)| !now.contains_key(index));
        for (_, link) in gone {
            self.change(at, ChangeKind::LinkRemoved, link.name.clone());
        }
    }

    fn compare(
        &mut self,
        at: Timestamp,
        was: Option<BTreeSet<String>>,
        now: &BTreeSet<String>,
        came: ChangeKind,
        went: ChangeKind,
    ) {
        // The first look has nothing to compare with.
        let Some(was) = was else { return };
        for component in now.difference(&was) {
            self.change(at, came, component.clone());
        }
        for component in was.difference(now) {
            self.change(at, went, component.clone());
        }
    }

    fn change(&mut self, at: Timestamp, kind: ChangeKind, component: String) {
        self.changes.push_back(Change {
            at,
            kind,
            component: Text(component),
        });
        if self.changes.len() > CHANGES {
            self.changes.pop_front();
        }
    }

    fn probed(&mut self, at: Timestamp, kind: SeriesKind, target: IpAddr, sent: u16, us: &[u32]) {
        let minute = at.as_second().div_euclid(60);
        let full = self.series.len() >= SERIES && !self.series.contains_key(&(kind, target));
        if sent == 0 || full {
            return;
        }
        let probes = self.series.entry((kind, target)).or_insert_with(|| Probes {
            start: minute,
            minutes: VecDeque::new(),
            times_us: Vec::new(),
        });
        probes.add(minute, sent, us);
        // A target that is no longer probed makes room in time.
        self.series
            .retain(|_, probes| minute - probes.newest() <= i64::from(MINUTES));
    }
}

impl Probes {
    fn newest(&self) -> i64 {
        let count = i64::try_from(self.minutes.len()).unwrap_or(i64::MAX);
        self.start.saturating_add(count).saturating_sub(1)
    }

    fn add(&mut self, minute: i64, sent: u16, us: &[u32]) {
        if self.minutes.is_empty() || minute > self.newest() {
            self.times_us.clear();
        }
        if minute.saturating_sub(self.newest()) > i64::from(MINUTES) {
            (self.start, self.minutes) = (minute, VecDeque::new());
        }
        while self.newest() < minute {
            self.minutes.push_back(Minute::default());
        }
        while self.minutes.len() > usize::from(MINUTES) {
            self.minutes.pop_front();
            self.start += 1;
        }
        let Some(last) = self.minutes.back_mut() else {
            return;
        };
        let answered = u16::try_from(us.len()).unwrap_or(u16::MAX);
        last.sent = last.sent.saturating_add(sent);
        last.lost = last.lost.saturating_add(sent.saturating_sub(answered));
        let room = TIMES.saturating_sub(self.times_us.len());
        self.times_us.extend(us.iter().take(room));
        let mut sorted = self.times_us.clone();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            rank.checked_sub(1)
                .and_then(|rank| sorted.get(rank))
                .copied()
        };
        last.p50_us = rank(50).unwrap_or_default();
        last.p95_us = rank(95).unwrap_or_default();
    }
}

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;
/// Targets that are remembered.
const SERIES: usize = 32;
/// Minutes of each: three hours.
const MINUTES: u8 = 180;
/// Round trips of the minute under way.
const TIMES: usize = 256;
const CHANGES: usize = 512;
/// A clock that runs apart from the monotonic one by more was set.
const STEP: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);
/// Before this the start of the device is part of the story.
const YOUNG: Duration = Duration::from_secs(3 * 3600);

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Link, Reach, ReachRole};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn boot(seconds: u64) -> BootTime {
        BootTime(YOUNG + Duration::from_secs(seconds))
    }

    fn echo(received: u16) -> Body {
        Body::Reach(vec![Reach {
            target: "192.0.2.1".parse().unwrap(),
            role: ReachRole::Gateway,
            sent: 5,
            received,
            rtt_us: (1..=u32::from(received)).map(|n| n * 100).collect(),
            no_route: false,
        }])
    }

    fn wan(carrier: bool) -> Body {
        Body::Links(vec![Link {
            index: 2,
            name: "wan".into(),
            admin_up: true,
            carrier: Some(carrier),
            ..Link::default()
        }])
    }

    #[test]
    fn minutes_add_up_and_hours_are_the_most_that_is_kept() {
        let mut memory = Memory::default();
        memory.learn(at(0), &echo(5));
        memory.learn(at(30), &echo(3));
        memory.learn(at(150), &echo(0));
        let series = &memory.tell().series[0];
        let lost: Vec<(u16, u16)> = series.minutes.iter().map(|m| (m.sent, m.lost)).collect();
        assert_eq!(lost, [(10, 2), (0, 0), (5, 5)]);
        assert_eq!(
            (series.minutes[0].p50_us, series.minutes[0].p95_us),
            (200, 500)
        );
        for minute in 0..400 {
            memory.learn(at(minute * 60), &echo(5));
        }
        let series = &memory.tell().series[0];
        assert_eq!(series.minutes.len(), usize::from(MINUTES));
        assert_eq!(series.start, at(220 * 60));
    }

    #[test]
    fn a_carrier_that_goes_and_comes_is_two_changes_and_the_first_look_is_none() {
        let mut memory = Memory::default();
        for (second, carrier) in [(0, true), (1, false), (2, false), (3, true)] {
            memory.learn(at(second), &wan(carrier));
        }
        let changes = memory.tell().changes;
        let told: Vec<_> = changes.iter().map(|c| (c.at, c.kind)).collect();
        assert_eq!(
            told,
            [
                (at(1), ChangeKind::CarrierLost),
                (at(3), ChangeKind::CarrierBack)
            ]
        );
    }

    #[test]
    fn a_clock_that_was_set_begins_anew_and_says_so() {
        let mut memory = Memory::default();
        memory.begin(at(0), boot(0));
        memory.learn(at(0), &echo(5));
        memory.begin(at(11), boot(10));
        assert_eq!(memory.tell().series.len(), 1);
        memory.begin(at(-5000), boot(20));
        let history = memory.tell();
        assert!(history.series.is_empty());
        assert_eq!(history.changes[0].kind, ChangeKind::ClockStepped);
        assert_eq!(history.changes[0].component.0, "by -5021 s");
    }

    #[test]
    fn a_young_device_remembers_when_it_started() {
        let mut memory = Memory::default();
        memory.begin(at(0), BootTime(Duration::from_secs(40)));
        let changes = memory.tell().changes;
        assert_eq!(
            (changes[0].kind, changes[0].at),
            (ChangeKind::Booted, at(-40))
        );
    }

    #[test]
    fn what_another_process_remembered_goes_on() {
        let mut memory = Memory::default();
        memory.learn(at(0), &echo(5));
        memory.learn(at(0), &wan(true));
        memory.learn(at(1), &wan(false));
        let mut heir = Memory::default();
        heir.recall(memory.tell());
        heir.begin(at(60), BootTime(Duration::from_secs(40)));
        heir.learn(at(60), &echo(0));
        let history = heir.tell();
        assert_eq!(history.series[0].minutes.len(), 2);
        assert_eq!(history.changes, memory.tell().changes);
    }

    #[test]
    fn targets_and_changes_are_bounded() {
        let mut memory = Memory::default();
        for n in 0..100_u8 {
            let target = IpAddr::from([192, 0, 2, n]);
            memory.probed(at(0), SeriesKind::Echo, target, 1, &[1]);
        }
        assert_eq!(memory.tell().series.len(), SERIES);
        for second in 0..2000 {
            memory.learn(at(second), &wan(second % 2 == 0));
        }
        assert_eq!(memory.tell().changes.len(), CHANGES);
    }
}
