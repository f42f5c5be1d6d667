//! The rescue profile: the last network that was known good, kept at rest, put back when undoing a change did not bring
//! back what held.

pub(crate) mod decide;
pub(crate) mod plan;
pub(crate) mod profile;
