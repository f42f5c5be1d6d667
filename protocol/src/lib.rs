//! What the device and the cloud must agree on: messages, the signed package, identifiers and every bound.
//!
//! Nothing here opens a socket, reads a clock or touches a file. Bytes of strangers enter through
//! [`strict::from_slice`] alone, which bounds size and depth and refuses duplicate keys before a type sees them.

pub mod control;
pub mod effect;
pub mod envelope;
pub mod finding;
pub mod frame;
pub mod id;
pub mod key;
pub mod limit;
pub mod outcome;
pub mod package;
pub mod private;
pub mod proposal;
pub mod reason;
pub mod record;
pub mod statement;
pub mod strict;
pub mod trust;
