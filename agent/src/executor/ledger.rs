//! The executor's journal as changes: what is appended is applied, what is read back is replayed.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;

use aizen_protocol::control::ChangeSummary;
use aizen_protocol::id::{ChangeId, Digest, PackageId};
use aizen_protocol::outcome::Stage;
use aizen_protocol::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::change::{Admission, Change, Event, IllegalTransition, Moment};
use crate::rollback::journal::{Journal, JournalError, ROOM};
use crate::store::{Store, StoreError};

/// Closed changes that are remembered for the list.
const REMEMBERED: usize = 64;
/// Length at which a journal with nothing open begins a fresh file, bytes.
const ROTATE: u64 = 4 << 20;
/// Archives that are kept.
const ARCHIVES: usize = 4;
/// Space for the records of one change besides the files that it replaces, bytes.
pub(crate) const RESERVE: u64 = 2 << 20;

/// One journal record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "entry")]
pub(crate) enum Entry {
    /// First in a file that continues another one.
    Continued,
    /// A change begins.
    Admitted {
        /// What was admitted.
        admission: Admission,
        /// When.
        moment: Moment,
    },
    /// A change goes on.
    Event {
        /// Which.
        change: ChangeId,
        /// How.
        event: Event,
        /// When.
        moment: Moment,
    },
    /// A package was refused.
    Refused {
        /// The package, if its payload was readable.
        package: Option<PackageId>,
        /// SHA-256 of its payload.
        digest: Option<Digest>,
        /// Why.
        reason: Reason,
        /// When.
        moment: Moment,
    },
    /// A person paused or resumed changes.
    Paused {
        /// True: no changes.
        paused: bool,
        /// Their user id.
        uid: u32,
        /// When.
        moment: Moment,
    },
    /// A person has the network put back to the rescue profile.
    Rescue {
        /// Their user id.
        uid: u32,
        /// When.
        moment: Moment,
    },
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is not on the disk.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The change can't do that.
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    /// A journal that talks about a change it never admitted.
    #[error("the journal names the change {0}, which it never admitted")]
    UnknownChange(ChangeId),
    /// A journal that admits a change while another one is open.
    #[error("the journal admits the change {0} while another one is open")]
    SecondChange(ChangeId),
    /// No more operations and notes: the rest of the journal is for what ends the change.
    #[error("the journal is long: what is left of it is kept for undoing")]
    Long,
    /// Its directory can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The journal and the changes that it tells of, oldest first.
#[derive(Debug)]
pub(crate) struct Ledger {
    journal: Journal,
    store: Store,
    changes: VecDeque<Change>,
}

impl Ledger {
    /// Opens the journal of a state directory and replays it.
    pub(crate) fn open(store: &Store) -> Result<Self, LedgerError> {
        let opened = Journal::open::<Entry>(&store.path("journal"))?;
        if opened.torn > 0 {
            tracing::warn!(
                bytes = opened.torn,
                "dropped a torn record at the journal's end"
            );
        }
        let mut ledger = Self {
            journal: opened.journal,
            store: store.clone(),
            changes: VecDeque::new(),
        };
        for entry in opened.records {
            ledger.replay(entry)?;
        }
        Ok(ledger)
    }

    fn replay(&mut self, entry: Entry) -> Result<(), LedgerError> {
        match entry {
            Entry::Admitted { admission, moment } => {
                if self.open_change().is_some() {
                    return Err(LedgerError::SecondChange(admission.change));
                }
                self.remember(Change::admitted(admission, moment.at));
                Ok(())
            }
            Entry::Event {
                change,
                event,
                moment,
            } => {
                let found = self
                    .find_mut(&change)
                    .ok_or(LedgerError::UnknownChange(change))?;
                Ok(found.apply(&event, moment.at)?)
            }
            Entry::Continued
            | Entry::Refused { .. }
            | Entry::Paused { .. }
            | Entry::Rescue { .. } => Ok(()),
        }
    }

    fn remember(&mut self, change: Change) {
        self.changes.push_back(change);
        // What still blocks or is open is never forgotten.
        let closed = |c: &Change| !c.is_open() && !c.blocks_others();
        if self.changes.len() > REMEMBERED
            && let Some(oldest) = self.changes.iter().position(closed)
        {
            self.changes.remove(oldest);
        }
    }

    /// Journals that a change begins.
    pub(crate) fn admit(
        &mut self,
        admission: Admission,
        moment: &Moment,
    ) -> Result<(), LedgerError> {
        if self.open_change().is_some() {
            return Err(LedgerError::SecondChange(admission.change));
        }
        self.journal.append(&Entry::Admitted {
            admission: admission.clone(),
            moment: moment.clone(),
        })?;
        self.remember(Change::admitted(admission, moment.at));
        Ok(())
    }

    /// Journals an event, then applies it. An event that the change can't take is not journalled.
    pub(crate) fn record(
        &mut self,
        change: &ChangeId,
        event: Event,
        moment: &Moment,
    ) -> Result<(), LedgerError> {
        let position = self
            .changes
            .iter()
            .position(|c| c.admission().change == *change)
            .ok_or_else(|| LedgerError::UnknownChange(change.clone()))?;
        let mut next = self.changes[position].clone();
        next.apply(&event, moment.at)?;
        if matches!(event, Event::Acting { .. }) && self.journal.len() > ROOM {
            return Err(LedgerError::Long);
        }
        self.journal.append(&Entry::Event {
            change: change.clone(),
            event,
            moment: moment.clone(),
        })?;
        self.changes[position] = next;
        Ok(())
    }

    /// Journals something that belongs to no change.
    pub(crate) fn note(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        self.rotate_if_long()?;
        if self.journal.len() > ROOM {
            return Err(LedgerError::Long);
        }
        Ok(self.journal.append(entry)?)
    }

    /// Reserves space for one change's records, bytes.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), LedgerError> {
        Ok(self.journal.reserve(bytes)?)
    }

    /// Begins a fresh file when the journal is long and nothing depends on it.
    pub(crate) fn rotate_if_long(&mut self) -> Result<(), LedgerError> {
        let needed = self
            .changes
            .iter()
            .any(|c| c.is_open() || c.blocks_others());
        if needed || self.journal.len() < ROTATE {
            return Ok(());
        }
        let archive = format!("journal-{}", self.journal.head());
        self.journal
            .rotate(&self.store.path(&archive), &Entry::Continued)?;
        self.drop_old_archives(&archive)
    }

    fn drop_old_archives(&self, newest: &str) -> Result<(), LedgerError> {
        let mut archives = Vec::new();
        for name in self.store.names()? {
            if name.starts_with("journal-") && name != newest {
                let made = std::fs::metadata(self.store.path(&name)).and_then(|m| m.modified());
                archives.push((made.ok(), name));
            }
        }
        archives.sort_unstable();
        let surplus = (archives.len() + 1).saturating_sub(ARCHIVES);
        for (_, name) in archives.into_iter().take(surplus) {
            self.store.remove(&name)?;
        }
        Ok(())
    }

    /// The change whose outcome is not stored yet.
    pub(crate) fn open_change(&self) -> Option<&Change> {
        self.changes.iter().find(|c| c.is_open())
    }

    /// The change that was admitted last.
    pub(crate) fn newest(&self) -> Option<&Change> {
        self.changes.back()
    }

    /// The change whose incomplete rollback waits for a person.
    pub(crate) fn blocking(&self) -> Option<&Change> {
        self.changes.iter().find(|c| c.blocks_others())
    }

    /// A change by its name.
    pub(crate) fn find(&self, change: &ChangeId) -> Option<&Change> {
        self.changes
            .iter()
            .find(|c| c.admission().change == *change)
    }

    fn find_mut(&mut self, change: &ChangeId) -> Option<&mut Change> {
        self.changes
            .iter_mut()
            .find(|c| c.admission().change == *change)
    }

    /// True if nothing was ever journalled.
    pub(crate) fn is_fresh(&self) -> bool {
        self.journal.is_empty()
    }

    /// Hash of the journal's chain.
    pub(crate) fn head(&self) -> Digest {
        self.journal.head()
    }

    /// Newest first.
    pub(crate) fn summaries(&self) -> Vec<ChangeSummary> {
        self.changes.iter().rev().map(summary).collect()
    }
}

/// A change as a journal tells it at this moment, read without the journal's lock; none if neither is there.
pub(crate) fn look_up(journal: &Path, wanted: &ChangeId) -> Result<Option<Change>, LedgerError> {
    let entries = match Journal::peek::<Entry>(journal) {
        Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        entries => entries?,
    };
    let mut found: Option<Change> = None;
    for entry in entries {
        match entry {
            Entry::Admitted { admission, moment } if admission.change == *wanted => {
                found = Some(Change::admitted(admission, moment.at));
            }
            Entry::Event {
                change,
                event,
                moment,
            } if change == *wanted => {
                let known = found.as_mut().ok_or(LedgerError::UnknownChange(change))?;
                known.apply(&event, moment.at)?;
            }
            Entry::Continued
            | Entry::Admitted { .. }
            | Entry::Event { .. }
            | Entry::Refused { .. }
            | Entry::Paused { .. }
            | Entry::Rescue { .. } => {}
        }
    }
    Ok(found)
}

/// A change as it stands in lists: one that is reported is named by how it ended.
pub(crate) fn summary(change: &Change) -> ChangeSummary {
    let stage = change
        .steps()
        .iter()
        .rev()
        .map(|step| step.stage)
        .find(|stage| *stage != Stage::Reported)
        .unwrap_or(change.stage());
    ChangeSummary {
        change: change.admission().change.clone(),
        package: change.admission().package.clone(),
        intent: change.admission().intent.clone(),
        stage,
        steps: change.steps().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aizen_protocol::package::manifest::Class;
    use jiff::Timestamp;

    use super::*;
    use crate::change::Cause;
    use crate::change::model::admission;
    use crate::clock::BootTime;

    fn moment() -> Moment {
        Moment {
            at: Timestamp::UNIX_EPOCH,
            boot: "boot-a".parse().unwrap(),
            since_boot: BootTime(Duration::ZERO),
        }
    }

    fn named(change: &str) -> Admission {
        Admission {
            change: change.parse().unwrap(),
            ..admission(Class::Repair)
        }
    }

    fn close(ledger: &mut Ledger, change: &str) {
        let change: ChangeId = change.parse().unwrap();
        let interrupted = Event::Interrupted {
            cause: Cause::Deviation,
        };
        ledger.record(&change, interrupted, &moment()).unwrap();
        let reported = Event::Reported {
            outcome: Digest::of(b"outcome"),
        };
        ledger.record(&change, reported, &moment()).unwrap();
    }

    #[test]
    fn what_was_recorded_is_replayed_and_an_impossible_event_is_not_journalled() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let mut ledger = Ledger::open(&store).unwrap();
        ledger.admit(named("chg-1"), &moment()).unwrap();
        let before = ledger.head();
        let impossible = ledger.record(&"chg-1".parse().unwrap(), Event::Started, &moment());
        assert!(matches!(impossible, Err(LedgerError::Transition(_))));
        assert_eq!(ledger.head(), before);
        assert!(matches!(
            ledger.admit(named("chg-2"), &moment()),
            Err(LedgerError::SecondChange(_))
        ));
        close(&mut ledger, "chg-1");
        ledger.admit(named("chg-2"), &moment()).unwrap();
        let seen = |change: &str| look_up(&store.path("journal"), &change.parse().unwrap());
        assert!(!seen("chg-1").unwrap().unwrap().is_open());
        assert!(seen("chg-2").unwrap().unwrap().is_open());
        assert_eq!(seen("chg-3").unwrap(), None);
        let summaries = ledger.summaries();
        drop(ledger);
        let again = Ledger::open(&store).unwrap();
        assert_eq!(again.summaries(), summaries);
        assert_eq!(again.open_change().unwrap().admission(), &named("chg-2"));
    }

    #[test]
    fn closed_changes_are_forgotten_in_order_and_open_ones_never() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let mut ledger = Ledger::open(&store).unwrap();
        for n in 0..REMEMBERED + 3 {
            ledger.admit(named(&format!("chg-{n}")), &moment()).unwrap();
            close(&mut ledger, &format!("chg-{n}"));
        }
        assert_eq!(ledger.summaries().len(), REMEMBERED);
        assert!(ledger.find(&"chg-0".parse().unwrap()).is_none());
        assert!(ledger.find(&"chg-3".parse().unwrap()).is_some());
    }
}
