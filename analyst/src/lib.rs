//! Names the cause of a fault and proposes the change that mends it.
//!
//! Everything here is pure: records in, verdict out; no clock, no file, no network. The same evidence gives the same
//! verdict, in whatever order its records arrive, and pseudonyms serve as well as real values because only equality
//! and prefix relations of addresses are used.

pub mod case;
pub mod expert;
mod repair;

#[cfg(test)]
mod fixture;
