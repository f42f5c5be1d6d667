//! One round: all collectors, side by side where they can be, each within its budget. And a glance: the kernel's tables
//! alone, when it says that they changed.

mod look;
mod see;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aizen_protocol::id::{BootId, RoundId};
use aizen_protocol::private::Text;
use aizen_protocol::record::{
    Address, Body, COLLECTORS, Duplicate, Gap, History, LogLine, Profile, Record, Round, Trigger,
};
use aizen_sanitizer::Observation;
use jiff::Timestamp;

use self::see::door::KERNEL_LOG;
use self::see::tables::Tables;
use self::see::{Part, Told, door, host, probes, tables};
use super::duplicate;
use super::schedule::{self, Due, Schedule};
use super::{CollectError, Door, Seen, Settings, history, neighbour};
use crate::clock::{self, BootTime};

/// Runs rounds, and keeps what one round needs of the one before.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    boot: BootId,
    last: RoundId,
    schedule: Schedule,
    tables: tables::Memory,
    host: host::Memory,
    history: history::Memory,
    tried: Duration,
    kept: BTreeMap<&'static str, Kept>,
}

/// What a collector saw when it last ran: told again, with the time it was seen.
#[derive(Clone, Debug)]
struct Kept {
    at: Timestamp,
    since: BootTime,
    body: Option<Arc<Body>>,
    gaps: Vec<String>,
}

impl Collector {
    /// A collector that has seen nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let boot = boot_id(&settings.root).unwrap_or_else(BootId::fresh);
        let wakes = matches!(settings.door, Door::Executor(_));
        Self {
            settings,
            boot,
            last: RoundId::default(),
            schedule: Schedule::new(wakes),
            tables: tables::Memory::default(),
            host: host::Memory::default(),
            history: history::Memory::default(),
            tried: Duration::ZERO,
            kept: BTreeMap::new(),
        }
    }

    /// Goes on from what another process of this device remembers.
    pub fn inherit(&mut self, history: History) {
        self.history.recall(history);
    }

    /// Runs every collector once and ends with [`Body::Round`]. `dropped` counts the records that never left.
    pub async fn round(&mut self, trigger: Trigger, dropped: u64) -> Vec<Observation> {
        let (began, mut pass) = self.begin();
        self.forget(began);
        let due = self.schedule.start(began, trigger);
        let settings = &self.settings;
        let ((tables, (probed, tried), behind), machine) = tokio::join!(
            async {
                let tables = tables::see(settings, &due, &mut self.tables).await;
                let probes = async {
                    let probed = probes::see(settings, &due, &tables).await;
                    (probed, clock::since_boot())
                };
                let (probed, behind) = tokio::join!(probes, door::see(settings, &due, &tables));
                (tables, probed, behind)
            },
            host::see(settings, &due, &mut self.host),
        );
        self.tried = tried.0.saturating_sub(began.0);
        for collector in behind.over {
            self.kept.remove(collector);
        }
        if due.runs("traces") && !probed.iter().any(probes::traced) {
            self.schedule.give_back("traces");
        }
        let duplicates = self.see_duplicates(&tables, behind.arp);
        let mut parts = probed;
        parts.extend(behind.parts);
        parts.extend(machine);
        self.keep(&parts, |_| true);
        let log = self.merge_log(&mut parts);
        parts.extend(log);
        let read = tables.into_parts();
        self.keep(&read, schedule::is_rare);
        parts.extend(read);
        parts.push(duplicates);
        parts.push(self.remember(&parts));
        self.take(&mut pass, parts, schedule::is_rare);
        pass.end(trigger, began, dropped)
    }

    /// How long the tables and all that was tried took in the last round. What listens behind the door goes on beside it,
    /// and rests in the round that follows.
    pub fn tried(&self) -> Duration {
        self.tried
    }

    /// Reads the kernel's tables alone: milliseconds. What is tried and what the machine says is told again as it was
    /// seen last, so that the pass is as complete as a round's. Nothing counts as run.
    pub async fn glance(&mut self, trigger: Trigger, dropped: u64) -> Vec<Observation> {
        let (began, mut pass) = self.begin();
        let tables = tables::see(&self.settings, &Due::default(), &mut self.tables).await;
        let mut parts = vec![self.see_duplicates(&tables, None)];
        parts.extend(tables.into_parts());
        self.take(&mut pass, parts, |_| true);
        pass.end(trigger, began, dropped)
    }

    /// Takes over what another collector knows, so that a glance of this one can tell it while the other's round is
    /// under way.
    pub fn recall(&mut self, other: &Self) {
        self.boot = other.boot.clone();
        self.last = self.last.max(other.last);
        self.kept.clone_from(&other.kept);
    }

    fn begin(&mut self) -> (BootTime, Pass) {
        let began = clock::since_boot();
        // Milliseconds since boot count up over restarts of this program, too.
        let now = RoundId(u64::try_from(began.0.as_millis()).unwrap_or(u64::MAX));
        self.last = now.max(RoundId(self.last.0 + 1));
        let mut pass = Pass {
            round: self.last,
            boot: self.boot.clone(),
            observations: Vec::new(),
            gaps: Vec::new(),
        };
        pass.add(clock::now(), Body::Profile(profile(&self.settings)));
        (began, pass)
    }

    /// Forgets what a rare collector saw longer ago than it rests.
    fn forget(&mut self, now: BootTime) {
        self.kept.retain(|collector, kept| {
            let age = now.0.saturating_sub(kept.since.0);
            schedule::holds(collector).is_none_or(|longest| age <= longest)
        });
    }

    fn keep(&mut self, parts: &[Part], which: impl Fn(&str) -> bool) {
        for part in parts.iter().filter(|part| which(part.collector)) {
            self.kept.insert(part.collector, Kept::of(&part.told));
        }
    }

    /// Adds what was seen to the memory, and tells it.
    fn remember(&mut self, parts: &[Part]) -> Part {
        self.history.begin(clock::now(), clock::since_boot());
        for Part { told, .. } in parts {
            if let Some(body) = told.value() {
                self.history.learn(told.at, body);
            }
        }
        let told = Told {
            at: clock::now(),
            result: Ok(Seen {
                value: self.history.tell(),
                gaps: Vec::new(),
            }),
        };
        let part = Part::new("history", told, Body::History);
        self.keep(std::slice::from_ref(&part), |_| true);
        part
    }

    /// What was seen now, and what some others saw last, from the cable upwards.
    fn take(&self, pass: &mut Pass, mut parts: Vec<Part>, retold: impl Fn(&str) -> bool) {
        for collector in COLLECTORS {
            let place = parts.iter().position(|part| part.collector == *collector);
            if let Some(place) = place {
                pass.take(collector, parts.swap_remove(place).told);
            } else if let Some(kept) = self.kept.get(collector).filter(|_| retold(collector)) {
                pass.retell(collector, kept);
            }
        }
    }

    /// Lines of the log from wherever they come, in the order of their time, as one part; none if nobody brought any.
    fn merge_log(&mut self, parts: &mut Vec<Part>) -> Option<Part> {
        let is_log = |part: &mut Part| [LOG, KERNEL_LOG].contains(&part.collector);
        let mut came: Vec<_> = parts.extract_if(.., is_log).collect();
        if !came.iter().any(|part| part.collector == KERNEL_LOG) {
            came.extend(self.kept.get(KERNEL_LOG).map(|kept| kept.part(KERNEL_LOG)));
        }
        let at = came.iter().map(|part| part.told.at).max()?;
        let (mut lines, mut gaps) = (None::<Vec<LogLine>>, Vec::new());
        for part in came {
            match part.told.result {
                Ok(seen) => {
                    gaps.extend(seen.gaps);
                    if let Body::Log(more) = seen.value {
                        lines.get_or_insert_default().extend(more);
                    }
                }
                Err(error) => gaps.push(error.to_string()),
            }
        }
        let result = match lines {
            Some(mut value) => {
                value.sort_by_key(|line| line.at);
                Ok(Seen { value, gaps })
            }
            None => Err(CollectError::Unseen(gaps.join("; "))),
        };
        let part = Part::new(LOG, Told { at, result }, Body::Log);
        // A glance tells the lines as they were told.
        self.keep(std::slice::from_ref(&part), |_| true);
        Some(part)
    }

    fn see_duplicates(&mut self, tables: &Tables, arp: Option<Told<Vec<Duplicate>>>) -> Part {
        let addresses = tables
            .addresses
            .value()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let duplicates = self.merge_duplicates(addresses, arp);
        Part::new("duplicates", duplicates, Body::Duplicates)
    }

    /// Failed detections of this round, and the newest answers to ARP probes.
    fn merge_duplicates(
        &mut self,
        addresses: &[Address],
        arp: Option<Told<Vec<Duplicate>>>,
    ) -> Told<Vec<Duplicate>> {
        let mut duplicates = duplicate::detected(addresses);
        let mut gaps = Vec::new();
        if let Some(arp) = arp {
            self.kept.insert(ARP, Kept::of(&arp.map(Body::Duplicates)));
        }
        if let Some(kept) = self.kept.get(ARP) {
            if let Some(Body::Duplicates(found)) = kept.body.as_deref() {
                duplicates.extend(found.iter().cloned());
            }
            gaps.clone_from(&kept.gaps);
        }
        Told {
            at: clock::now(),
            result: Ok(Seen {
                value: duplicates,
                gaps,
            }),
        }
    }
}

impl Kept {
    fn of(told: &Told<Body>) -> Self {
        let (body, gaps) = match &told.result {
            Ok(seen) => (Some(Arc::new(seen.value.clone())), seen.gaps.clone()),
            Err(error) => (None, vec![error.to_string()]),
        };
        Self {
            at: told.at,
            since: clock::since_boot(),
            body,
            gaps,
        }
    }

    /// The same again.
    fn part(&self, collector: &'static str) -> Part {
        let result = match &self.body {
            Some(body) => Ok(Seen {
                value: Body::clone(body),
                gaps: self.gaps.clone(),
            }),
            None => Err(CollectError::Unseen(self.gaps.join("; "))),
        };
        let told = Told {
            at: self.at,
            result,
        };
        Part { collector, told }
    }
}

/// The records of a round under way.
struct Pass {
    round: RoundId,
    boot: BootId,
    observations: Vec<Observation>,
    gaps: Vec<Gap>,
}

impl Pass {
    fn take(&mut self, name: &'static str, told: Told<Body>) {
        match told.result {
            Ok(seen) => {
                self.gaps
                    .extend(seen.gaps.into_iter().map(|reason| gap(name, reason)));
                self.add(told.at, seen.value);
            }
            Err(error) => self.gaps.push(gap(name, error.to_string())),
        }
    }

    fn retell(&mut self, name: &'static str, kept: &Kept) {
        self.gaps
            .extend(kept.gaps.iter().map(|reason| gap(name, reason.clone())));
        if let Some(body) = &kept.body {
            self.add(kept.at, Body::clone(body));
        }
    }

    fn add(&mut self, at: Timestamp, body: Body) {
        let record = Record {
            round: self.round,
            at,
            boot: self.boot.clone(),
            body,
        };
        self.observations.push(Observation::new(record));
    }

    fn end(mut self, trigger: Trigger, began: BootTime, dropped: u64) -> Vec<Observation> {
        let took_ms = clock::since_boot().0.saturating_sub(began.0).as_millis();
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.truncate(MAX_GAPS);
        self.add(
            clock::now(),
            Body::Round(Round {
                trigger,
                took_ms: u32::try_from(took_ms).unwrap_or(u32::MAX),
                gaps,
                dropped,
                again: BTreeMap::new(),
            }),
        );
        self.observations
    }
}

fn gap(collector: &str, reason: String) -> Gap {
    Gap {
        collector: collector.to_owned(),
        reason: Text(reason.chars().take(MAX_REASON).collect()),
    }
}

fn profile(settings: &Settings) -> Profile {
    Profile {
        role: settings.role,
        wan: settings.wan.clone(),
        expected_up: settings.expected_up.clone(),
        gateway: settings.gateway,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn boot_id(root: &Path) -> Option<BootId> {
    fs::read_to_string(root.join("proc/sys/kernel/random/boot_id"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

const LOG: &str = "log";
const ARP: &str = "arp";
const MAX_GAPS: usize = 64;
const MAX_REASON: usize = 300;

#[cfg(test)]
mod tests {
    use super::see::within;
    use super::*;
    use crate::collect::CollectError;

    #[tokio::test]
    async fn a_collector_that_hangs_or_panics_is_a_gap_and_no_more() {
        let hung = within::<()>(Duration::from_millis(10), std::future::pending()).await;
        assert!(matches!(hung.result, Err(CollectError::DeadlinePassed(_))));
        let broken = within::<()>(Duration::from_secs(5), async { panic!("on purpose") }).await;
        assert!(matches!(broken.result, Err(CollectError::Panicked)));
        let mut pass = Pass {
            round: RoundId(1),
            boot: BootId::fresh(),
            observations: Vec::new(),
            gaps: Vec::new(),
        };
        pass.take("routes", hung.map(|()| Body::Routes(Vec::new())));
        assert_eq!(
            pass.gaps,
            [gap("routes", "no result within 10 ms".to_owned())]
        );
        assert!(pass.observations.is_empty());
    }

    #[test]
    fn what_a_rare_collector_saw_holds_while_it_rests_and_no_longer() {
        let mut collector = Collector::new(Settings::default());
        let since = BootTime(Duration::from_secs(1000));
        for name in ["path_mtu", "dns"] {
            let kept = Kept {
                at: clock::now(),
                since,
                body: None,
                gaps: Vec::new(),
            };
            collector.kept.insert(name, kept);
        }
        let mut kept_after = |seconds| {
            collector.forget(BootTime(since.0 + Duration::from_secs(seconds)));
            collector.kept.keys().copied().collect::<Vec<_>>()
        };
        assert_eq!(kept_after(60), ["dns", "path_mtu"]);
        // Its turn came, and it had nothing to look at.
        assert_eq!(kept_after(600), ["dns"]);
    }

    #[test]
    fn a_device_without_boot_id_still_has_one_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let settings = || Settings {
            root: root.path().to_owned(),
            ..Settings::default()
        };
        assert_ne!(
            Collector::new(settings()).boot,
            Collector::new(settings()).boot
        );
    }
}
