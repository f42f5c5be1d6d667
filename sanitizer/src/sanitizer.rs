//! The one function that everything passes before it leaves.

use aizen_protocol::package::BindingKind;
use aizen_protocol::private::{Private, Text};
use aizen_protocol::record::Record;
use serde::Serialize;

use crate::count::Counts;
use crate::exchange::{Backward, Forward};
use crate::key::SanitizerKey;
use crate::map::Map;
use crate::observation::Observation;
use crate::policy::Policy;
use crate::pseudonym::Pseudonyms;
use crate::sanitized::Sanitized;
use crate::seal::{self, SealError, Sealing};
use crate::walk::{Learn, Replace, ReplaceWords, Reveal};
use crate::{leak, text, word};

/// Why something does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The second scan found a value that should not be there: a bug of the first pass.
    #[error("withheld: the second scan found a private value ({kind})")]
    Leak {
        /// What kind: `address`, `mac`, `name`, `email`, `password`, …
        kind: &'static str,
    },
    /// It can't be written as JSON, so it could not be scanned.
    #[error("withheld: it can't be written out")]
    Unwritable,
}

/// Replaces private values under one key and policy, and remembers what it replaced.
pub struct Sanitizer {
    keyed: Pseudonyms,
    sealing: Sealing,
    map: Map,
    counts: Counts,
}

impl Sanitizer {
    /// A sanitizer that has seen nothing.
    #[must_use]
    pub fn new(key: SanitizerKey, policy: Policy) -> Self {
        Self {
            sealing: Sealing::new(&key, &policy),
            keyed: Pseudonyms::new(&key, policy),
            map: Map::default(),
            counts: Counts::default(),
        }
    }

    /// Sanitizes an observation.
    ///
    /// # Errors
    /// [`Withheld`]: the record is gone, and counted.
    pub fn sanitize(&mut self, observation: Observation) -> Result<Sanitized<Record>, Withheld> {
        self.sanitize_value(observation.0)
    }

    /// Sanitizes anything that lists its private fields.
    ///
    /// # Errors
    /// [`Withheld`]: the value is gone, and counted.
    pub fn sanitize_value<T: Private + Serialize>(
        &mut self,
        mut value: T,
    ) -> Result<Sanitized<T>, Withheld> {
        let mut forward = self.forward();
        let mut learned = Counts::default();
        value.visit_private(&mut Learn(&mut Forward {
            keyed: forward.keyed,
            map: &mut *forward.map,
            // Nothing is replaced yet.
            counts: &mut learned,
        }));
        value.visit_private(&mut Replace(&mut forward));
        value.visit_private(&mut ReplaceWords(&mut forward));
        let scanned = self.scan(&mut value);
        match scanned {
            Ok(()) => Ok(Sanitized(value)),
            Err(withheld) => {
                self.counts.withheld(match withheld {
                    Withheld::Leak { kind } => kind,
                    Withheld::Unwritable => "unwritable",
                });
                Err(withheld)
            }
        }
    }

    /// Sanitizes plain text. A line in which the second scan finds something is withheld alone: `[withheld:kind]`
    /// stands in its place.
    pub fn sanitize_text(&mut self, text: &str) -> Sanitized<Text> {
        let mut forward = self.forward();
        let first = text::sanitize(text, &mut forward);
        let out = word::sanitize(&first, &mut forward);
        let known = self.backward();
        if leak::in_text(&out, known).is_none() {
            return Sanitized(Text(out));
        }
        let mut lines = Vec::new();
        let mut caught = Vec::new();
        for line in out.split_inclusive('\n') {
            match leak::in_text(line, known) {
                None => lines.push(line.to_owned()),
                Some(kind) => {
                    let end = if line.ends_with('\n') { "\n" } else { "" };
                    lines.push(format!("[withheld:{kind}]{end}"));
                    caught.push(kind);
                }
            }
        }
        let out = lines.concat();
        // What is only visible across lines has no line to withhold.
        let rest = leak::in_text(&out, known);
        for kind in caught.iter().copied().chain(rest) {
            self.counts.withheld(kind);
        }
        Sanitized(Text(match rest {
            None => out,
            Some(kind) => format!("[withheld:{kind}]"),
        }))
    }

    /// What a real value becomes, from key and policy alone; none if the text is not of that kind.
    #[must_use]
    pub fn pseudonym_of(&self, kind: BindingKind, real: &str) -> Option<String> {
        self.keyed.of(kind, real)
    }

    /// The real value behind a pseudonym that was given out, or one that stays.
    #[must_use]
    pub fn reveal(&self, kind: BindingKind, pseudonym: &str) -> Option<String> {
        let known = self.backward();
        match kind {
            BindingKind::Address => Some(known.real_address(pseudonym.parse().ok()?)?.to_string()),
            BindingKind::Prefix => Some(known.real_prefix(pseudonym.parse().ok()?)?.to_string()),
            BindingKind::Mac => Some(known.real_mac(pseudonym.parse().ok()?)?.to_string()),
            BindingKind::Name => known.real_name(pseudonym),
        }
    }

    /// Puts real values back into a value, also inside its texts, for the screen of this device. What is not known
    /// stays a pseudonym.
    #[must_use]
    pub fn reveal_value<T: Private>(&self, mut value: T) -> T {
        value.visit_private(&mut Reveal(self.backward()));
        value
    }

    /// Puts real values back into plain text.
    #[must_use]
    pub fn reveal_text(&self, text: &str) -> String {
        text::reveal(text, self.backward())
    }

    /// How often what was replaced or withheld.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Values in the map.
    #[must_use]
    pub fn known(&self) -> usize {
        self.map.len()
    }

    /// Counts up with every value that is new to the map: unchanged means nothing to seal.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.map.revision
    }

    /// The map, encrypted, for storage on this device.
    ///
    /// # Errors
    /// [`SealError::Random`], [`SealError::Unsealable`].
    pub fn seal_map(&self) -> Result<Vec<u8>, SealError> {
        seal::seal(&self.map, &self.sealing)
    }

    /// Takes a map that was sealed under the same key and policy in place of the one at hand. Gives its size.
    ///
    /// # Errors
    /// [`SealError::Unopenable`]; the map at hand stays.
    pub fn open_map(&mut self, sealed: &[u8]) -> Result<usize, SealError> {
        self.map = seal::open(sealed, &self.sealing, self.keyed.policy.map_entries)?;
        Ok(self.map.len())
    }

    fn forward(&mut self) -> Forward<'_> {
        let evicted = self.map.begin(self.keyed.policy.map_entries);
        self.counts.evicted = self.counts.evicted.saturating_add(evicted);
        Forward {
            keyed: &self.keyed,
            map: &mut self.map,
            counts: &mut self.counts,
        }
    }

    fn backward(&self) -> Backward<'_> {
        Backward {
            keyed: &self.keyed,
            map: &self.map,
        }
    }

    fn scan<T: Private + Serialize>(&self, value: &mut T) -> Result<(), Withheld> {
        let known = self.backward();
        let mut fields = leak::Fields {
            known,
            caught: None,
        };
        value.visit_private(&mut fields);
        let written = serde_json::to_string(value).map_err(|_| Withheld::Unwritable)?;
        match fields
            .caught
            .or_else(|| leak::in_serialised(&written, known))
        {
            Some(kind) => Err(Withheld::Leak { kind }),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Sanitizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sanitizer({} values)", self.map.len())
    }
}
