//! One round: all collectors, side by side where they can be, each within its budget.

mod see;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aizen_protocol::id::{BootId, RoundId};
use aizen_protocol::private::Text;
use aizen_protocol::record::{
    Address, Body, COLLECTORS, Duplicate, Gap, Profile, Record, Round, Trigger,
};
use aizen_sanitizer::Observation;
use jiff::Timestamp;

use self::see::tables::Tables;
use self::see::{Part, Told, host, probes, tables};
use super::duplicate::{self, Candidate};
use super::schedule::{self, Schedule};
use super::{Seen, Settings};
use crate::clock;

/// Runs rounds, and keeps what one round needs of the one before.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    boot: BootId,
    last: RoundId,
    schedule: Schedule,
    host: host::Memory,
    kept: BTreeMap<&'static str, Kept>,
    candidates: Vec<Candidate>,
    learned: Option<Vec<Duplicate>>,
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
        Self {
            settings,
            boot,
            last: RoundId::default(),
            schedule: Schedule::default(),
            host: host::Memory::default(),
            kept: BTreeMap::new(),
            candidates: Vec::new(),
            learned: None,
        }
    }

    /// The IPv4 addresses of the last round that somebody with CAP_NET_RAW may probe for.
    #[must_use]
    pub fn arp_candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Hands in what such a probe found, for the rounds that follow: it takes the place of a probe of our own.
    pub fn learn_duplicates(&mut self, found: Vec<Duplicate>) {
        self.learned = Some(found);
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
        let mut due = self.schedule.start(began, trigger);
        if self.learned.is_some() {
            due.rest("arp");
        }
        let settings = &self.settings;
        let ((tables, (probed, arp)), machine) = tokio::join!(
            async {
                let tables = tables::see(settings).await;
                let probed = probes::see(settings, &due, &tables).await;
                (tables, probed)
            },
            host::see(settings, &mut self.host),
        );
        pass.add(clock::now(), Body::Profile(profile(settings)));
        if due.runs("traces") && !probed.iter().any(probes::traced) {
            self.schedule.give_back("traces");
        }
        let duplicates = self.see_duplicates(&tables, arp);
        let mut parts = tables.into_parts();
        parts.extend(probed);
        parts.push(duplicates);
        parts.extend(machine);
        self.take(&mut pass, parts);
        let took_ms = clock::since_boot().0.saturating_sub(began.0).as_millis();
        pass.end(trigger, u32::try_from(took_ms).unwrap_or(u32::MAX), dropped)
    }

    /// What was seen now, and what rare collectors saw last, from the cable upwards.
    fn take(&mut self, pass: &mut Pass, mut parts: Vec<Part>) {
        for part in &parts {
            if schedule::is_rare(part.collector) {
                self.kept.insert(part.collector, Kept::of(&part.told));
            }
        }
        for collector in COLLECTORS {
            let place = parts.iter().position(|part| part.collector == *collector);
            if let Some(place) = place {
                pass.take(collector, parts.swap_remove(place).told);
            } else if let Some(kept) = self.kept.get(collector) {
                pass.retell(collector, kept);
            }
        }
    }

    fn see_duplicates(&mut self, tables: &Tables, arp: Option<Told<Vec<Duplicate>>>) -> Part {
        let links = tables.links.value().map(Vec::as_slice).unwrap_or_default();
        let addresses = tables
            .addresses
            .value()
            .map(Vec::as_slice)
            .unwrap_or_default();
        self.candidates = duplicate::candidates(links, addresses);
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
        if let Some(learned) = &self.learned {
            duplicates.extend(learned.iter().cloned());
        } else if let Some(kept) = self.kept.get(ARP) {
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
