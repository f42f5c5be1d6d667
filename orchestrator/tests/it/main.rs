//! A real server on loopback with real TLS; devices and people that do what they are told.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod approvals;
mod bad_input;
mod command_line;
mod device;
mod enrollment;
mod evidence;
mod fleet;
mod record;
mod restart;
mod story;
mod uplink;
