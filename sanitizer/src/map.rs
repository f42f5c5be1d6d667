//! The way back: which real value stands behind a pseudonym. Bounded; secrets are never in it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use aizen_protocol::private::{Mac, Prefix};

/// All values seen so far.
#[derive(Default)]
pub(crate) struct Map {
    pub(crate) addresses: Table<IpAddr>,
    pub(crate) prefixes: Table<Prefix>,
    pub(crate) macs: Table<Mac>,
    /// Forward keys are lower case.
    pub(crate) labels: Table<String>,
    pub(crate) tokens: Table<String>,
    /// One call of the sanitizer; entries of the current one are never evicted.
    generation: u32,
    /// Counts up with every value that was not there before.
    pub(crate) revision: u64,
}

/// One kind of value, both ways.
pub(crate) struct Table<K> {
    back: BTreeMap<K, Entry<K>>,
    forward: HashMap<K, K>,
}

struct Entry<K> {
    real: K,
    key: K,
    used: u32,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self {
            back: BTreeMap::new(),
            forward: HashMap::new(),
        }
    }
}

impl<K: Ord + Hash + Eq + Clone> Table<K> {
    /// The pseudonym of a key seen before.
    pub(crate) fn pseudonym<Q>(&self, key: &Q) -> Option<&K>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.forward.get(key)
    }

    /// The real value behind a pseudonym.
    pub(crate) fn real<Q>(&self, pseudonym: &Q) -> Option<&K>
    where
        K: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.back.get(pseudonym).map(|e| &e.real)
    }

    /// Each pair of pseudonym and real value, ordered.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&K, &K)> {
        self.back.iter().map(|(pseudonym, e)| (pseudonym, &e.real))
    }

    /// True if a pseudonym lies between these two, both included.
    pub(crate) fn has_between(&self, first: &K, last: &K) -> bool {
        self.back.range(first..=last).next().is_some()
    }

    /// True if nothing was learned.
    pub(crate) fn is_empty(&self) -> bool {
        self.back.is_empty()
    }

    /// Takes a pair, or marks it as used; true if it is new. The first spelling of a real value stays.
    fn learn(&mut self, key: K, real: K, pseudonym: K, generation: u32) -> bool {
        if let Some(entry) = self.back.get_mut(&pseudonym) {
            entry.used = generation;
            return false;
        }
        self.forward.insert(key.clone(), pseudonym.clone());
        let entry = Entry {
            real,
            key,
            used: generation,
        };
        self.back.insert(pseudonym, entry);
        true
    }

    fn evict(&mut self, before: u32) -> u64 {
        let forward = &mut self.forward;
        let count = self.back.len();
        self.back.retain(|_, entry| {
            let keep = entry.used >= before;
            if !keep {
                forward.remove(&entry.key);
            }
            keep
        });
        (count - self.back.len()) as u64
    }

    fn ages(&self) -> impl Iterator<Item = u32> {
        self.back.values().map(|e| e.used)
    }
}

impl Map {
    pub(crate) fn address(&mut self, real: IpAddr, pseudonym: IpAddr) {
        let new = self.addresses.learn(real, real, pseudonym, self.generation);
        self.revision += u64::from(new);
    }

    pub(crate) fn prefix(&mut self, real: Prefix, pseudonym: Prefix) {
        let new = self.prefixes.learn(real, real, pseudonym, self.generation);
        self.revision += u64::from(new);
    }

    pub(crate) fn mac(&mut self, real: Mac, pseudonym: Mac) {
        let new = self.macs.learn(real, real, pseudonym, self.generation);
        self.revision += u64::from(new);
    }

    pub(crate) fn label(&mut self, real: String, pseudonym: String) {
        if real.len() > LONGEST {
            return;
        }
        let key = real.to_lowercase();
        let new = self.labels.learn(key, real, pseudonym, self.generation);
        self.revision += u64::from(new);
    }

    pub(crate) fn token(&mut self, real: String, pseudonym: String) {
        if real.len() > LONGEST {
            return;
        }
        let new = self
            .tokens
            .learn(real.clone(), real, pseudonym, self.generation);
        self.revision += u64::from(new);
    }

    /// Values held.
    pub(crate) fn len(&self) -> usize {
        self.addresses.back.len()
            + self.prefixes.back.len()
            + self.macs.back.len()
            + self.labels.back.len()
            + self.tokens.back.len()
    }

    /// Begins a call, and makes room: of more than `bound` values the less recently used half goes. Gives their number.
    pub(crate) fn begin(&mut self, bound: usize) -> u64 {
        self.generation = self.generation.saturating_add(1);
        if self.len() <= bound {
            return 0;
        }
        let mut ages: Vec<u32> = self
            .addresses
            .ages()
            .chain(self.prefixes.ages())
            .chain(self.macs.ages())
            .chain(self.labels.ages())
            .chain(self.tokens.ages())
            .collect();
        let excess = self.len() - bound / 2;
        ages.sort_unstable();
        let before = ages
            .get(excess)
            .map_or(self.generation, |age| (*age).max(1));
        let mut evicted = self.evict(before);
        // Values of one age can't be told apart: rather forget them all than grow.
        if self.len() > bound {
            evicted += self.evict(self.generation);
        }
        evicted
    }

    fn evict(&mut self, before: u32) -> u64 {
        self.addresses.evict(before)
            + self.prefixes.evict(before)
            + self.macs.evict(before)
            + self.labels.evict(before)
            + self.tokens.evict(before)
    }
}

/// Bytes of a text that can be revealed; what is longer is no name, and would let a stranger fill the memory.
const LONGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> (String, String) {
        (format!("real{n}"), format!("pseudo{n}"))
    }

    #[test]
    fn the_map_stays_bounded_and_forgets_what_was_used_least_recently() {
        let mut map = Map::default();
        for n in 0..100 {
            map.begin(10);
            let (real, pseudonym) = name(n);
            map.label(real, pseudonym);
            map.label("often".into(), "p".into());
            assert!(map.len() <= 12, "{}", map.len());
        }
        assert_eq!(map.labels.real("p").map(String::as_str), Some("often"));
        assert_eq!(
            map.labels.real("pseudo99").map(String::as_str),
            Some("real99")
        );
        assert_eq!(map.labels.real("pseudo0"), None);
        assert_eq!(map.labels.pseudonym("real0"), None);
    }

    #[test]
    fn one_call_that_brings_more_than_the_bound_is_forgotten_at_the_next() {
        let mut map = Map::default();
        map.begin(10);
        for n in 0..50 {
            let (real, pseudonym) = name(n);
            map.label(real, pseudonym);
        }
        assert_eq!(
            map.len(),
            50,
            "values of the running call are never evicted"
        );
        assert_eq!(map.begin(10), 50);
        assert_eq!(map.len(), 0);
    }
}
