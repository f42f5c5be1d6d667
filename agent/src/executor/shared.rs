//! What every part of the executor works with: one owner each, borrowed for a moment, never across an await.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::PathBuf;

use aizen_protocol::control::ExecutorStatus;
use aizen_protocol::control::TrustState;
use aizen_protocol::id::{BootId, ChangeId, Digest};
use aizen_protocol::outcome::{Isolation, Stage};
use aizen_sanitizer::{Sanitizer, SanitizerKey};
use serde::{Deserialize, Serialize};

use super::ledger::{Entry, Ledger, LedgerError, summary};
use super::standing::{Standing, StandingError};
use super::watchers::Watchers;
use super::{ExecutorError, Settings};
use crate::broker::World;
use crate::change::{Admission, Event, Moment};
use crate::clock;
use crate::report::Outbox;
use crate::rescue::profile::FILE as RESCUE;
use crate::rollback::seal::Seal;
use crate::store::{Store, StoreError};
use crate::verify::{Circumstances, Policy, Refused, Replay};
use aizen_protocol::reason::Reason;

/// Name of the entry that says that a person paused changes.
const PAUSED: &str = "paused";

/// The executor's belongings.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) snapshots: Store,
    /// Seals them, and the inverses in the journal.
    pub(crate) seal: Seal,
    pub(crate) outbox: Outbox,
    pub(crate) world: World,
    pub(crate) boot: BootId,
    pub(crate) ledger: RefCell<Ledger>,
    pub(crate) replay: RefCell<Replay>,
    /// What was rehearsed, and the effect that was signed for it; oldest first.
    rehearsed: RefCell<VecDeque<Shown>>,
    sanitizer: RefCell<Option<Sanitizer>>,
    pub(crate) standing: RefCell<Option<Standing>>,
    pub(crate) isolation: RefCell<Isolation>,
    pub(crate) watchers: RefCell<Watchers>,
    /// A journal that failed: nothing may be changed until a restart has read it again.
    pub(crate) failed: Cell<bool>,
    /// The network is being put back to the rescue profile by hand.
    pub(crate) rescuing: Cell<bool>,
    /// A change waits for the network after a restart.
    pub(crate) seeing_out: Cell<bool>,
}

/// A rehearsal as this device signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// SHA-256 of what was rehearsed.
    pub(crate) deed: Digest,
    /// SHA-256 of the effect.
    pub(crate) effect: Digest,
    /// SHA-256 of its changes.
    pub(crate) changes: Digest,
    /// It named a lock-out.
    pub(crate) locks_out: bool,
}

/// Rehearsals that are remembered.
const REHEARSALS: usize = 256;
/// Their file.
const REHEARSED: &str = "rehearsed";

/// What a power cut left of writes. The journal is locked: nobody else is at these entries; enrollment writes others.
fn sweep(store: &Store, ledger: &Ledger) -> Result<(), StoreError> {
    store.sweep(|entry| ["replay", REHEARSED, PAUSED, RESCUE].contains(&entry))?;
    store.inside("outcomes")?.sweep(|_| true)?;
    let snapshots = store.inside("snapshots")?;
    snapshots.sweep(|_| true)?;
    // The power may have gone between a report and the end of its snapshot.
    for name in snapshots.names()? {
        let change = name.parse::<ChangeId>().ok();
        let change = change.and_then(|change| ledger.find(&change));
        if !change.is_some_and(|change| change.is_open() || change.blocks_others()) {
            snapshots.remove(&name)?;
        }
    }
    Ok(())
}

/// A list that can't be read is an empty one: the orchestrator then has it rehearsed again.
fn rehearsed(store: &Store) -> Result<VecDeque<Shown>, StoreError> {
    let bytes = store.read(REHEARSED, 128 << 10)?;
    Ok(bytes
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default())
}

impl Shared {
    /// Opens the state directory. A damaged journal or replay memory is an error: the executor then does not start.
    pub(crate) fn open(settings: Settings) -> Result<Self, ExecutorError> {
        let store = Store::open(&settings.state)?;
        let boot = super::standing::boot_id(&PathBuf::from("/proc"))
            .map_err(|source| ExecutorError::Boot { source })?;
        let ledger = Ledger::open(&store)?;
        sweep(&store, &ledger)?;
        let replay = match store.read("replay", crate::verify::replay::FILE as u64)? {
            Some(bytes) => Replay::parse(&bytes).map_err(ExecutorError::Replay)?,
            // A memory that is gone while the journal is there would let an old package run again.
            None if !ledger.is_fresh() => return Err(ExecutorError::Replay(Reason::StorageFailed)),
            None => {
                let empty = Replay::default();
                let bytes = empty.to_bytes().map_err(ExecutorError::Replay)?;
                store.write("replay", &bytes)?;
                empty
            }
        };
        let shared = Self {
            snapshots: store.inside("snapshots")?,
            seal: Seal::open(&store)?,
            outbox: Outbox::open(&store)?,
            world: World::at(&settings.root),
            boot,
            ledger: RefCell::new(ledger),
            replay: RefCell::new(replay),
            rehearsed: RefCell::new(rehearsed(&store)?),
            sanitizer: RefCell::default(),
            standing: RefCell::default(),
            isolation: RefCell::new(Isolation::default()),
            watchers: RefCell::default(),
            failed: Cell::new(false),
            rescuing: Cell::new(false),
            seeing_out: Cell::new(false),
            store,
            settings,
        };
        shared.refresh_standing()?;
        Ok(shared)
    }

    /// This moment.
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            at: clock::now(),
            boot: self.boot.clone(),
            since_boot: clock::since_boot(),
        }
    }

    /// Reads the enrollment again: it may have been made since the start.
    pub(crate) fn refresh_standing(&self) -> Result<(), StandingError> {
        let standing = Standing::load(&self.store)?;
        if standing.is_some() && self.sanitizer.borrow().is_none() {
            let key = SanitizerKey::load(&self.settings.sanitizer_key)
                .map_err(StandingError::Sanitizer)?;
            let sanitizer = Sanitizer::new(key, aizen_sanitizer::Policy::default());
            *self.sanitizer.borrow_mut() = Some(sanitizer);
        }
        *self.standing.borrow_mut() = standing;
        Ok(())
    }

    /// The sanitizer, once the device is enrolled.
    pub(crate) fn sanitizer(&self) -> Option<RefMut<'_, Sanitizer>> {
        RefMut::filter_map(self.sanitizer.borrow_mut(), Option::as_mut).ok()
    }

    /// Journals an event, applies it and tells it to whoever follows.
    pub(crate) fn record(&self, change: &ChangeId, event: Event) -> Result<(), LedgerError> {
        let moment = self.moment();
        let mut ledger = self.ledger.borrow_mut();
        let before = ledger.find(change).map(|c| c.stage());
        if let Err(error) = ledger.record(change, event, &moment) {
            // A journal without room for more operations still takes what ends the change.
            self.failed.set(!matches!(error, LedgerError::Long));
            return Err(error);
        }
        let after = ledger.find(change).map(|c| c.stage());
        drop(ledger);
        if let Some(stage) = after.filter(|_| after != before) {
            self.reached(change, stage, &moment);
        }
        Ok(())
    }

    /// Tells whoever follows that the change reached a stage.
    pub(crate) fn reached(&self, change: &ChangeId, stage: Stage, moment: &Moment) {
        tracing::info!(%change, ?stage, "change reached a stage");
        self.watchers
            .borrow_mut()
            .tell(&aizen_protocol::control::ExecutorAnswer::Reached {
                change: change.clone(),
                stage,
                at: moment.at,
            });
    }

    /// Makes sure that an admitted package is remembered, durably: a crash may have come between journal and memory.
    /// Refuses what the replay memory has no room for.
    pub(crate) fn can_remember(&self, admission: &Admission) -> Result<(), Refused> {
        let mut replay = self.replay.borrow().clone();
        let (package, digest) = (&admission.package, admission.digest);
        replay
            .remember(package, digest, admission.issued_at, admission.expires)
            .map_err(|reason| {
                Refused::because(
                    reason,
                    "the memory of packages that ran is full until older ones expire",
                )
            })
    }

    /// Remembers what was rehearsed with which effect, so that no other effect can be approved for it.
    pub(crate) fn remember_rehearsal(&self, shown: Shown) {
        let mut rehearsed = self.rehearsed.borrow_mut();
        rehearsed.retain(|known| known.deed != shown.deed);
        rehearsed.push_back(shown);
        while rehearsed.len() > REHEARSALS {
            rehearsed.pop_front();
        }
        // Three digests each: a list that can't be written does not exist.
        let bytes = serde_json::to_vec(&*rehearsed).unwrap_or_default();
        if let Err(error) = self.store.write(REHEARSED, &bytes) {
            tracing::warn!(%error, "a rehearsal is remembered until this process ends");
        }
    }

    /// What was shown for this deed.
    pub(crate) fn rehearsed(&self, deed: &Digest) -> Option<Shown> {
        let rehearsed = self.rehearsed.borrow();
        rehearsed.iter().find(|known| known.deed == *deed).cloned()
    }

    pub(crate) fn remember_admission(&self, admission: &Admission) -> Result<(), ExecutorError> {
        let mut replay = self.replay.borrow().clone();
        replay
            .remember(
                &admission.package,
                admission.digest,
                admission.issued_at,
                admission.expires,
            )
            .map_err(ExecutorError::Replay)?;
        self.store
            .write("replay", &replay.to_bytes().map_err(ExecutorError::Replay)?)?;
        *self.replay.borrow_mut() = replay;
        Ok(())
    }

    /// Known addresses of the orchestrator.
    pub(crate) fn uplink(&self) -> Vec<IpAddr> {
        let standing = self.standing.borrow();
        standing
            .as_ref()
            .map(|s| s.uplink.clone())
            .unwrap_or_default()
    }

    /// The orchestrator's port.
    pub(crate) fn uplink_port(&self) -> u16 {
        self.standing
            .borrow()
            .as_ref()
            .map_or(443, |s| s.uplink_port)
    }

    /// True if a person paused changes.
    pub(crate) fn paused(&self) -> Result<bool, StoreError> {
        Ok(self.store.read(PAUSED, 1024)?.is_some())
    }

    /// Pauses or resumes, durably.
    pub(crate) fn set_paused(&self, paused: bool, uid: u32) -> Result<(), ExecutorError> {
        if paused {
            self.store.write(PAUSED, uid.to_string().as_bytes())?;
        } else {
            self.store.remove(PAUSED)?;
        }
        let moment = self.moment();
        Ok(self.ledger.borrow_mut().note(&Entry::Paused {
            paused,
            uid,
            moment,
        })?)
    }

    /// Runs `judge` with everything that a check needs to know.
    pub(crate) fn judge<T>(
        &self,
        judge: impl FnOnce(&Circumstances<'_>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let failed = |error: &dyn std::fmt::Display| {
            Refused::because(Reason::StorageFailed, error.to_string())
        };
        self.refresh_standing().map_err(|e| failed(&e))?;
        let policy = Policy::load(&self.settings.policy)
            .map_err(|e| Refused::because(Reason::PolicyDenied, e.to_string()))?;
        let paused = self.paused().map_err(|e| failed(&e))?;
        let standing = self.standing.borrow();
        let standing = standing.as_ref().ok_or(Reason::NotEnrolled)?;
        judge(&Circumstances {
            now: clock::now(),
            device: &standing.device,
            epoch: &standing.epoch,
            trust: Some(&standing.trust),
            policy: &policy,
            replay: &self.replay.borrow(),
            paused,
            isolation: &self.isolation.borrow(),
        })
    }

    /// Answers "how are you".
    pub(crate) fn status(&self) -> ExecutorStatus {
        if let Err(error) = self.refresh_standing() {
            tracing::warn!(%error, "the enrollment can't be read");
        }
        let standing = self.standing.borrow();
        let standing = standing.as_ref();
        let policy = Policy::load(&self.settings.policy).unwrap_or_else(|error| {
            tracing::warn!(%error, "the policy can't be used: no change is allowed");
            Policy::default()
        });
        ExecutorStatus {
            device: standing.map(|s| s.device.clone()),
            epoch: standing.map(|s| s.epoch.clone()),
            trust: standing.map_or(TrustState::NotEnrolled, |s| {
                s.state(clock::now(), &self.replay.borrow())
            }),
            trust_version: standing.map_or(0, |s| s.trust.version),
            isolation: self.isolation.borrow().clone(),
            changes_allowed: policy.allow_changes,
            // A state that can't be read must not look like "go on".
            paused: self.paused().unwrap_or(true),
            pending: self.ledger.borrow().open_change().map(summary),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aizen_protocol::package::manifest::Class;
    use jiff::Timestamp;

    use super::*;
    use crate::change::model::admission;
    use crate::clock::BootTime;

    #[test]
    fn a_snapshot_goes_with_its_change_and_that_of_an_open_change_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let mut ledger = Ledger::open(&store).unwrap();
        let open = Admission {
            change: "chg-2".parse().unwrap(),
            ..admission(Class::Repair)
        };
        let moment = Moment {
            at: Timestamp::UNIX_EPOCH,
            boot: "boot-a".parse().unwrap(),
            since_boot: BootTime(Duration::ZERO),
        };
        ledger.admit(open, &moment).unwrap();
        let snapshots = store.inside("snapshots").unwrap();
        for name in ["chg-1", "chg-2"] {
            snapshots.write(name, b"state").unwrap();
        }
        sweep(&store, &ledger).unwrap();
        assert_eq!(snapshots.names().unwrap(), ["chg-2"]);
    }
}
