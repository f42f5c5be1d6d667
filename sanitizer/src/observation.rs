//! What was seen, with the real values: it can be shown on this device and it can be sanitized, nothing else.

use std::fmt;
use std::ops::Deref;

use aizen_protocol::record::Record;

/// A raw record. It has no `Serialize`, and its `Debug` prints no value.
pub struct Observation(pub(crate) Record);

impl Observation {
    /// Wraps what a collector saw.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self(record)
    }

    /// The real values, for this device's screen and its own expert.
    #[must_use]
    pub fn local(&self) -> Local<'_, Record> {
        Local(&self.0)
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observation({})", self.0.body.collector())
    }
}

/// A loan of real values to something that stays on this device.
#[derive(Clone, Copy)]
pub struct Local<'a, T>(&'a T);

impl<T> Deref for Local<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0
    }
}

impl<T> fmt::Debug for Local<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local(..)")
    }
}
