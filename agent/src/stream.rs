//! From a sanitized record to the orchestrator's acknowledgement.
//!
//! [`spool`] keeps what waits on storage, [`session`] decides, [`uplink`] dials and carries. Only `Sanitized<Record>`
//! and [`attested::Attested`] enter the spool, and what comes out are opaque frames.

// From the inside out: what waits, what is decided, what goes over the wire.
pub mod attested;
pub mod frame;
pub mod spool;
mod lane;
mod segment;
mod ledger;
pub mod handle;
pub mod retell;
pub mod session;
pub mod backoff;
pub mod meter;
pub mod tls;
pub mod dial;
mod link;
mod talk;
pub mod uplink;

#[cfg(test)]
pub(crate) mod cloud;
#[cfg(test)]
mod evidence;
#[cfg(test)]
mod tests;

pub use lane::Class;
