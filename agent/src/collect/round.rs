//! One round: all collectors, side by side where they can be, each within its budget.

mod look;
mod see;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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
use super::schedule::{self, Schedule};
use super::{CollectError, Door, Seen, Settings, history, neighbour};
use crate::clock;

/// Runs rounds, and keeps what one round needs of the one before.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    boot: BootId,
    last: RoundId,
    schedule: Schedule,
    host: host::Memory,
    history: history::Memory,
    kept: BTreeMap<&'static str, Kept>,
}

/// What a rare collector saw when it last ran: told again, with the time it was seen.
#[derive(Clone, Debug)]
struct Kept {
    at: Timestamp,
    body: Option<Body>,
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
            host: host::Memory::default(),
            history: history::Memory::default(),
            kept: BTreeMap::new(),
        }
    }

    /// Goes on from what another process of this device remembers.
    pub fn recall(&mut self, history: History) {
        self.history.recall(history);
    }

    /// Runs every collector once and ends with [`Body::Round`]. `dropped` counts the records that never left.
    pub async fn round(&mut self, trigger: Trigger, dropped: u64) -> Vec<Observation> {
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
        let due = self.schedule.start(began, trigger);
        let settings = &self.settings;
        let ((tables, probed, behind), machine) = tokio::join!(
            async {
                let tables = tables::see(settings).await;
                let (probed, behind) = tokio::join!(
                    probes::see(settings, &due, &tables),
                    door::see(settings, &due, &tables),
                );
                (tables, probed, behind)
            },
            host::see(settings, &due, &mut self.host),
        );
        pass.add(clock::now(), Body::Profile(profile(settings)));
        let duplicates = self.see_duplicates(&tables, behind.arp);
        let mut parts = tables.into_parts();
        parts.extend(probed);
        parts.extend(behind.parts);
        for collector in behind.over {
            self.kept.remove(collector);
        }
        parts.push(duplicates);
        parts.extend(machine);
        parts.push(self.remember(&parts));
        self.take(&mut pass, parts);
        let took_ms = clock::since_boot().0.saturating_sub(began.0).as_millis();
        pass.end(trigger, u32::try_from(took_ms).unwrap_or(u32::MAX), dropped)
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
        Part::new("history", told, Body::History)
    }

    /// What was seen now, and what rare collectors saw last, from the cable upwards.
    fn take(&mut self, pass: &mut Pass, mut parts: Vec<Part>) {
        for part in &parts {
            if schedule::is_rare(part.collector) {
                self.kept.insert(part.collector, Kept::of(&part.told));
            }
        }
        let log = self.merge_log(&mut parts);
        parts.extend(log);
        for collector in COLLECTORS {
            let place = parts.iter().position(|part| part.collector == *collector);
            if let Some(place) = place {
                pass.take(collector, parts.swap_remove(place).told);
            } else if let Some(kept) = self.kept.get(collector) {
                pass.retell(collector, kept);
            }
        }
    }

    /// Lines of the log from wherever they come, in the order of their time, as one part; none if nobody brought any.
    fn merge_log(&self, parts: &mut Vec<Part>) -> Option<Part> {
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
        Some(Part::new(LOG, Told { at, result }, Body::Log))
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
            if let Some(Body::Duplicates(found)) = &kept.body {
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
            Ok(seen) => (Some(seen.value.clone()), seen.gaps.clone()),
            Err(error) => (None, vec![error.to_string()]),
        };
        Self {
            at: told.at,
            body,
            gaps,
        }
    }

    /// The same again.
    fn part(&self, collector: &'static str) -> Part {
        let result = match &self.body {
            Some(body) => Ok(Seen {
                value: body.clone(),
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
            self.add(kept.at, body.clone());
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

    fn end(mut self, trigger: Trigger, took_ms: u32, dropped: u64) -> Vec<Observation> {
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.truncate(MAX_GAPS);
        self.add(
            clock::now(),
            Body::Round(Round {
                trigger,
                took_ms,
                gaps,
                dropped,
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

const ARP: &str = "arp";
const LOG: &str = "log";
const MAX_GAPS: usize = 64;
const MAX_REASON: usize = 300;

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    fn line(second: i64, text: &str) -> LogLine {
        LogLine {
            at: Timestamp::from_second(second).unwrap(),
            origin: aizen_protocol::record::LogOrigin::Kernel,
            program: "kernel".to_owned(),
            severity: 4,
            text: Text(text.to_owned()),
        }
    }

    fn log(collector: &'static str, result: Result<Vec<LogLine>, CollectError>) -> Part {
        let told = Told {
            at: clock::now(),
            result: result.map(|value| Seen {
                value,
                gaps: Vec::new(),
            }),
        };
        Part::new(collector, told, Body::Log)
    }

    fn told(collector: &mut Collector, parts: Vec<Part>) -> (Vec<String>, Vec<Gap>) {
        let mut pass = Pass {
            round: RoundId(1),
            boot: BootId::fresh(),
            observations: Vec::new(),
            gaps: Vec::new(),
        };
        collector.take(&mut pass, parts);
        let mut texts = Vec::new();
        for observation in pass.observations {
            if let Body::Log(lines) = &observation.local().body {
                texts.extend(lines.iter().map(|line| line.text.0.clone()));
            }
        }
        (texts, pass.gaps)
    }

    #[test]
    fn lines_of_the_kernel_and_of_programs_are_one_log_in_the_order_of_time() {
        let mut collector = Collector::new(Settings::default());
        let kernel = || log(KERNEL_LOG, Ok(vec![line(2, "two")]));
        let programs = || log(LOG, Ok(vec![line(1, "one"), line(3, "three")]));
        let (texts, gaps) = told(&mut collector, vec![kernel(), programs()]);
        assert_eq!(
            (texts.join(" "), gaps.len()),
            ("one two three".to_owned(), 0)
        );
        // The kernel isn't asked in every round: what it said is told again.
        let (texts, _) = told(&mut collector, vec![programs()]);
        assert_eq!(texts.join(" "), "one two three");
        let closed = log(KERNEL_LOG, Err(CollectError::Closed));
        let (texts, gaps) = told(&mut collector, vec![closed, programs()]);
        assert_eq!(texts.join(" "), "one three");
        assert_eq!((gaps.len(), gaps[0].collector.as_str()), (1, LOG));
        assert_eq!(
            told(&mut Collector::new(Settings::default()), Vec::new())
                .0
                .len(),
            0
        );
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
