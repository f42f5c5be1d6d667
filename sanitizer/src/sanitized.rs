//! What may leave the device.

use serde::{Serialize, Serializer};

/// A value that passed the sanitizer. It can be written out; there is no `Deserialize`, and only this crate makes one,
/// so that bytes read from anywhere never count as sanitized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sanitized<T>(pub(crate) T);

impl<T> Sanitized<T> {
    /// Looks at it.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Takes it out: its values are pseudonyms and safe to own.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: Serialize> Serialize for Sanitized<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
