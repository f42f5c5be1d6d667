//! What the cloud runs, in the order in which evidence becomes a settled case.
//!
//! | stage | takes | gives | fails closed as |
//! | --- | --- | --- | --- |
//! | `ingest` | frames of an authenticated device | stored record, then its acknowledgement | no acknowledgement |
//! | `analyze` | the newest rounds | cases, with a proposal where one is safe | a case without proposal |
//! | `rehearse` | a proposal | the effect, signed by the device | not approvable |
//! | `compose` | proposal and effect | payload bytes | nothing shown |
//! | `approve` | payload bytes and a person's signature | an envelope | expires |
//! | `dispatch` | an envelope | a delivery that the device received | queued until its deadline |
//! | `confirm` | a device on a fresh connection | a signed confirmation | no word: the device rolls back |
//! | `report` | a signed outcome | a settled case | not believed, recorded |
//!
//! The orchestrator's own key signs rehearsals, deliveries and confirmations (`sign`), never a package: who steals it
//! changes no device. Only [`app`] knows all the parts.

// In the order of the loop.
mod ingest;
mod analyze;
mod rehearse;
mod compose;
mod approve;
mod dispatch;
mod confirm;
mod report;

// What the stages stand on.
mod audit;
mod clock;
pub mod config;
pub mod data;
mod enroll;
mod sign;
mod store;
mod tls;

// The program.
mod api;
pub mod app;
pub mod cli;
