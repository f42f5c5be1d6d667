//! How often what was replaced: kinds and numbers, never a value.

use std::collections::BTreeMap;

/// Counters since the sanitizer was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Replacements by kind (`address`, `mac`, `name`, `password`, …).
    pub replaced: BTreeMap<&'static str, u64>,
    /// Records and lines withheld, by what the second scan caught: each is a bug of the first pass.
    pub withheld: BTreeMap<&'static str, u64>,
    /// Values that the map dropped for want of room.
    pub evicted: u64,
}

impl Counts {
    pub(crate) fn replaced(&mut self, kind: &'static str) {
        add(&mut self.replaced, kind);
    }

    pub(crate) fn withheld(&mut self, kind: &'static str) {
        add(&mut self.withheld, kind);
    }
}

fn add(counts: &mut BTreeMap<&'static str, u64>, kind: &'static str) {
    let count = counts.entry(kind).or_default();
    *count = count.saturating_add(1);
}
