//! The loop from end to end: real programs, real sockets, real network namespaces.

#![expect(
    clippy::unwrap_used,
    reason = "where a test can't go on, it has failed"
)]

mod approval;
mod bad_input;
mod collect_to_report;
mod executor_killed;
mod faults;
mod orchestrator_down;
mod refusals;
mod rollback_on_lost_uplink;
mod tools;
