//! What was admitted before: a package runs at most once, for ever, in bounded memory.
//!
//! A package is remembered until the floor of time has passed its end. The floor only moves to times that a trusted
//! key has signed, so a clock that is set back can't bring a forgotten package back: it is `expired` by the floor.

use std::collections::BTreeMap;

use aizen_protocol::id::{Digest, PackageId};
use aizen_protocol::package::Package;
use aizen_protocol::reason::Reason;
use aizen_protocol::strict;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Packages remembered at once; each lives at most a week.
pub const ENTRIES: usize = 4096;
/// Longest file, bytes.
pub const FILE: usize = 2 << 20;

/// The memory of admitted packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    floor: Timestamp,
    packages: BTreeMap<PackageId, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    digest: Digest,
    expires: Timestamp,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            floor: Timestamp::MIN,
            packages: BTreeMap::new(),
        }
    }
}

impl Replay {
    /// Reads what [`Replay::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Reason::StorageFailed`]: a memory that can't be read must not be taken for an empty one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reason> {
        strict::from_slice(bytes, FILE).map_err(|_| Reason::StorageFailed)
    }

    /// The form for the disk.
    ///
    /// # Errors
    /// [`Reason::StorageFailed`] if it can't be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Reason> {
        serde_json::to_vec(self).map_err(|_| Reason::StorageFailed)
    }

    /// The newest signed time that was believed.
    #[must_use]
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    /// True if this package was admitted before, under this id or with these bytes.
    #[must_use]
    pub fn contains(&self, id: &PackageId, digest: &Digest) -> bool {
        self.packages.contains_key(id)
            || self.packages.values().any(|entry| entry.digest == *digest)
    }

    /// Remembers a package and moves the floor to when it was composed.
    ///
    /// # Errors
    /// As [`Replay::remember`].
    pub fn admit(&mut self, package: &Package, digest: Digest) -> Result<(), Reason> {
        self.remember(&package.id, digest, package.issued_at, package.expires)
    }

    /// Remembers a package that was composed at `issued_at` and is valid until `expires`.
    ///
    /// # Errors
    /// [`Reason::StorageFailed`] when the memory is full: forgetting would be worse.
    pub fn remember(
        &mut self,
        id: &PackageId,
        digest: Digest,
        issued_at: Timestamp,
        expires: Timestamp,
    ) -> Result<(), Reason> {
        self.floor = self.floor.max(issued_at);
        let floor = self.floor;
        self.packages.retain(|_, entry| entry.expires > floor);
        if self.packages.len() >= ENTRIES && !self.packages.contains_key(id) {
            return Err(Reason::StorageFailed);
        }
        self.packages.insert(id.clone(), Entry { digest, expires });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;
    use crate::verify::fixture;

    #[test]
    fn a_package_is_known_by_its_id_and_by_its_bytes() {
        let mut replay = Replay::default();
        let package = fixture::package();
        let digest = Digest::of(b"payload");
        assert!(!replay.contains(&package.id, &digest));
        replay.admit(&package, digest).unwrap();
        let other = "pkg-other".parse().unwrap();
        assert!(replay.contains(&package.id, &Digest::of(b"re-encoded")));
        assert!(replay.contains(&other, &digest));
        assert!(!replay.contains(&other, &Digest::of(b"x")));
        let again = Replay::parse(&replay.to_bytes().unwrap()).unwrap();
        assert_eq!(again, replay);
    }

    #[test]
    fn what_is_forgotten_is_expired_by_the_floor() {
        let mut replay = Replay::default();
        let old = fixture::package();
        replay.admit(&old, Digest::of(b"old")).unwrap();
        let mut new = fixture::package();
        new.issued_at = old.expires + 1.second();
        new.expires = new.issued_at + 1.hour();
        replay.admit(&new, Digest::of(b"new")).unwrap();
        assert!(!replay.contains(&old.id, &Digest::of(b"old")));
        assert!(old.expires < replay.floor());
        assert!(replay.contains(&new.id, &Digest::of(b"new")));
    }

    #[test]
    fn a_full_memory_admits_nothing_and_forgets_nothing() {
        let mut replay = Replay::default();
        let first = fixture::package();
        replay.admit(&first, Digest::of(b"0")).unwrap();
        for n in 1..ENTRIES {
            let digest = Digest::of(&n.to_be_bytes());
            replay.admit(&fixture::package(), digest).unwrap();
        }
        assert_eq!(
            replay.admit(&fixture::package(), Digest::of(b"x")),
            Err(Reason::StorageFailed)
        );
        assert!(replay.contains(&first.id, &Digest::of(b"0")));
        assert!(replay.to_bytes().unwrap().len() <= FILE);
    }

    #[test]
    fn a_memory_that_can_not_be_read_is_not_an_empty_one() {
        assert_eq!(Replay::parse(b"{}"), Err(Reason::StorageFailed));
        assert_eq!(Replay::parse(b""), Err(Reason::StorageFailed));
    }
}
