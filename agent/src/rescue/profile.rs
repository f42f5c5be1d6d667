//! The profile at rest: sealed as a snapshot is, one file, replaced whole, bounded.

use std::time::Duration;

use aizen_protocol::id::ChangeId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::change::Moment;
use crate::rollback::seal::Seal;
use crate::rollback::{Checkpoint, SealError};
use crate::store::{Store, StoreError};

/// Its file in the executor's directory, and what it is sealed for.
pub(crate) const FILE: &str = "rescue";
/// Longest profile, bytes: a firewall of 20,000 elements has one.
const PROFILE: u64 = 8 << 20;
/// Bytes that stay free beside it for what a change needs.
const SPARE: u64 = 4 << 20;

/// Where a profile comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Source {
    /// Before a change, as its snapshot saw it.
    Before {
        /// The change.
        change: ChangeId,
    },
    /// After a change ended.
    After {
        /// The change.
        change: ChangeId,
    },
    /// Nothing was kept yet.
    First,
    /// A person said so.
    Asked {
        /// Their user id.
        uid: u32,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Before { change } => write!(f, "before the change {change}"),
            Self::After { change } => write!(f, "after the change {change}"),
            Self::First => f.write_str("at a start of the executor"),
            Self::Asked { uid } => write!(f, "asked for by user {uid}"),
        }
    }
}

/// A network that was known good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// When it was seen.
    pub(crate) moment: Moment,
    /// Why it was looked at.
    pub(crate) source: Source,
    /// The probes that held, by name.
    pub(crate) held: Vec<String>,
    /// Links, addresses, routes, rules, neighbours, parameters and tables; no file and no service.
    pub(crate) state: Checkpoint,
}

/// Why a profile can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is damaged, or of another device.
    #[error("the rescue profile: {0}")]
    Seal(#[from] SealError),
    /// It was opened and is none.
    #[error("the rescue profile can't be read: {0}")]
    Form(#[from] serde_json::Error),
    /// Larger than is kept.
    #[error("the network's state has {0} bytes, a rescue profile at most {PROFILE}")]
    TooLarge(u64),
}

impl Profile {
    /// Reads one that was opened.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// True if it is of this boot.
    pub(crate) fn is_of(&self, now: &Moment) -> bool {
        self.moment.boot == now.boot
    }

    /// Its state with what is left of each lease; nothing is left of one of another boot.
    pub(crate) fn state_at(&self, now: &Moment) -> Checkpoint {
        let passed = if self.is_of(now) {
            now.since_boot.0.saturating_sub(self.moment.since_boot.0)
        } else {
            Duration::MAX
        };
        let passed = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        let mut state = self.state.clone();
        if let Some(network) = &mut state.network {
            for (valid, preferred) in network
                .addresses
                .iter_mut()
                .filter_map(|a| a.lifetime.as_mut())
            {
                *valid = valid.saturating_sub(passed);
                *preferred = preferred.saturating_sub(passed);
            }
            for left in network
                .routes
                .iter_mut()
                .filter_map(|r| r.expires_s.as_mut())
            {
                *left = left.saturating_sub(passed);
            }
        }
        state
    }

    /// True if it says all that `other` says, of the same boot: then it stays, and with it since when that was good.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let (own, new) = (&self.state, &other.state);
        let mut same = new.clone();
        same.scope = own.scope.clone();
        // What only the richer one holds is no difference.
        let more = own
            .sysctls
            .iter()
            .filter(|(key, _)| !new.sysctls.contains_key(key));
        same.sysctls
            .extend(more.map(|(key, value)| (key.clone(), value.clone())));
        if new.tables.is_none() {
            same.tables = own.tables.clone();
        }
        let holds = other.held.iter().all(|probe| self.held.contains(probe));
        let richer = own.tables.is_some() || new.tables.is_none();
        holds && richer && self.moment.boot == other.moment.boot && own.difference(&same).is_empty()
    }
}

/// Where the profile lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    store: Store,
    seal: Seal,
}

impl Place {
    pub(crate) fn new(store: &Store, seal: &Seal) -> Self {
        Self {
            store: store.clone(),
            seal: seal.clone(),
        }
    }

    /// True if something lies there, readable or not.
    pub(crate) fn is_taken(&self) -> bool {
        self.store.path(FILE).exists()
    }

    /// Reads it; none if none was ever kept.
    pub(crate) fn load(&self) -> Result<Option<Profile>, ProfileError> {
        let Some(bytes) = self.store.read(FILE, PROFILE)? else {
            return Ok(None);
        };
        // Only snapshots of earlier versions lie unsealed.
        if bytes.first() == Some(&b'{') {
            return Err(SealError::Unopenable.into());
        }
        let opened = self.seal.unseal(FILE, &bytes)?;
        Ok(Some(Profile::parse(&opened)?))
    }

    /// Keeps it, durably, unless what is kept says the same; true if it was written. One that a disk has no room for is
    /// not kept: what is there stays, and so does the room that a change needs.
    pub(crate) fn keep(&self, profile: &Profile) -> Result<bool, ProfileError> {
        // One that can't be read is replaced.
        if let Ok(Some(kept)) = self.load()
            && kept.covers(profile)
        {
            return Ok(false);
        }
        let plain = Zeroizing::new(serde_json::to_vec(profile)?);
        let sealed = self.seal.seal(FILE, &plain)?;
        let length = sealed.len() as u64;
        if length > PROFILE {
            return Err(ProfileError::TooLarge(length));
        }
        self.store.require_space(length + SPARE)?;
        self.store.write(FILE, &sealed)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::BootTime;
    use crate::rescue::plan::fixture::{address, link, network, route};
    use crate::rollback::checkpoint::Scope;
    use crate::rollback::sysctl::SysctlKey;

    fn moment(boot: &str, seconds: u64) -> Moment {
        Moment {
            at: Timestamp::UNIX_EPOCH,
            boot: boot.parse().unwrap(),
            since_boot: BootTime(Duration::from_secs(seconds)),
        }
    }

    fn profile() -> Profile {
        let mut lease = address("wan", "192.0.2.2/24");
        lease.lifetime = Some((100, 50));
        let mut given = route("default", "192.0.2.1", "wan");
        given.expires_s = Some(100);
        Profile {
            moment: moment("boot-a", 1000),
            source: Source::First,
            held: vec!["default gateway (IPv4)".into()],
            state: Checkpoint {
                scope: Scope::of_network(true, std::iter::empty()),
                network: Some(network(&[link("wan")], &[lease], &[given])),
                tables: Some(BTreeMap::new()),
                services: BTreeMap::new(),
                peers: BTreeMap::new(),
                sysctls: BTreeMap::from([(key("ip_forward"), "1".into())]),
                beyond: None,
                files: BTreeMap::new(),
            },
        }
    }

    fn key(name: &str) -> SysctlKey {
        SysctlKey::parse(&format!("net.ipv4.{name}")).unwrap()
    }

    fn place() -> (tempfile::TempDir, Place, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s")).unwrap();
        let place = Place::new(&store, &Seal::open(&store).unwrap());
        (folder, place, store)
    }

    #[test]
    fn it_is_sealed_and_comes_back_and_the_same_again_writes_nothing() {
        let (_folder, place, store) = place();
        assert!(place.load().unwrap().is_none() && !place.is_taken());
        assert!(place.keep(&profile()).unwrap());
        assert_eq!(place.load().unwrap(), Some(profile()));
        let stored = store.read(FILE, PROFILE).unwrap().unwrap();
        assert!(!stored.windows(7).any(|w| w == b"gateway"));
        let later = Profile {
            moment: moment("boot-a", 2000),
            ..profile()
        };
        assert!(!place.keep(&later).unwrap(), "since when it was good stays");
        assert_eq!(place.load().unwrap(), Some(profile()));
    }

    #[test]
    fn a_poorer_look_at_the_same_network_replaces_nothing_and_another_network_does() {
        let poorer = {
            let mut poorer = profile();
            poorer.state.tables = None;
            poorer.state.sysctls.clear();
            poorer
        };
        assert!(profile().covers(&poorer) && !poorer.covers(&profile()));
        let mut other = poorer.clone();
        other.state.network.as_mut().unwrap().routes.clear();
        assert!(!profile().covers(&other));
        let mut other = poorer.clone();
        other.state.sysctls.insert(key("ip_forward"), "0".into());
        assert!(!profile().covers(&other));
        let mut other = poorer.clone();
        other.held.push("dns example.org".into());
        assert!(!profile().covers(&other));
        let other = Profile {
            moment: moment("boot-b", 1),
            ..poorer
        };
        assert!(!profile().covers(&other), "leases are of one boot");
    }

    #[test]
    fn of_a_lease_there_is_what_is_left_of_it_and_nothing_in_another_boot() {
        let left = |now: &Moment| {
            let network = profile().state_at(now).network.unwrap();
            (network.addresses[0].lifetime, network.routes[0].expires_s)
        };
        assert_eq!(left(&moment("boot-a", 1060)), (Some((40, 0)), Some(40)));
        assert_eq!(left(&moment("boot-a", 9000)), (Some((0, 0)), Some(0)));
        assert_eq!(left(&moment("boot-b", 1060)), (Some((0, 0)), Some(0)));
    }

    #[test]
    fn what_is_damaged_unsealed_or_of_something_else_is_said_and_replaced_by_the_next() {
        let (_folder, place, store) = place();
        place.keep(&profile()).unwrap();
        let stored = store.read(FILE, PROFILE).unwrap().unwrap();
        let mut flipped = stored.clone();
        flipped[stored.len() / 2] ^= 1;
        let snapshot = place.seal.seal("chg-1", b"{}").unwrap();
        let plain = serde_json::to_vec(&profile()).unwrap();
        let empty = place.seal.seal(FILE, b"{}").unwrap();
        for bytes in [&flipped, &stored[..40].to_vec(), &snapshot, &plain, &empty] {
            store.write(FILE, bytes).unwrap();
            assert!(place.load().is_err());
        }
        assert!(place.keep(&profile()).unwrap());
        assert_eq!(place.load().unwrap(), Some(profile()));
    }
}
