//! All that runs on the device, in the order in which one record becomes one repaired network.
//!
//! | stage | takes | gives (only this stage can make it) | fails closed as |
//! | --- | --- | --- | --- |
//! | [`collect`] | kernel and host | `Observation` | a gap, never an invented value |
//! | [`sanitize`] | `Observation` | `Sanitized<Record>` | value replaced or record dropped, counted |
//! | [`stream`] | `Sanitized<Record>` | acknowledged frame | kept in the spool |
//! | [`analyze`] | `Case` | `Verdict` | "could not tell" |
//! | [`rehearse`] | `Verified<Rehearsal>` | `Effect` | not approvable |
//! | [`verify`] | `Envelope` | `Verified<Package>` | refused, with its reason |
//! | [`execute`] | `Verified<Package>` and a `Checkpoint` | `Attempt` | killed, then rolled back |
//! | [`confirm`] | `Attempt` and health | `Confirmed` | rolled back at the deadline |
//! | [`rollback`] | `Checkpoint` and journal | the state before | repeated at the next start until done |
//! | [`report`] | either end | signed `Outcome` | never dropped |
//!
//! Two processes share this crate and no file: the [`daemon`] talks to the world and can't change the device, the
//! [`executor`] changes the device and never talks to the world.

// In the order of the loop.
pub mod collect;
pub mod door;
pub mod sanitize;
pub mod stream;
pub mod analyze;
pub mod rehearse;
pub mod verify;
pub mod change;
pub mod execute;
pub mod broker;
pub mod confirm;
mod rescue;
pub mod rollback;
pub mod report;

// What the stages stand on.
pub mod clock;
pub mod config;
pub mod control;
pub mod enroll;
pub mod identity;
pub mod metrics;
pub mod notify;
pub mod probe;
pub mod store;

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;

// The programs.
pub mod cli;
pub mod daemon;
pub mod executor;
pub mod keeper;
pub mod recover;
