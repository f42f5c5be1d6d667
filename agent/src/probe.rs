//! Trying the network: echo, paths, connects, names and what stands before the web. The rounds and the command line both use it.
//!
//! A probe runs on the thread that calls it and sleeps in `ppoll`; who has a runtime hands it a thread of its own.
//! What this device itself lost is told as not measured, never as lost by the network.

pub mod connect;
mod drops;
pub mod dns;
pub mod echo;
mod errors;
pub mod name;
mod packet;
pub mod roots;
mod socket;
mod tally;
pub mod tls;
pub mod trace;
mod wait;
pub mod web;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;

pub use self::errors::Why;
pub(crate) use self::errors::{Entry, next as next_error};
pub(crate) use self::packet::{Judged, judge, request};
pub use self::socket::OpenError;
pub use self::tally::{Summary, Tally};
pub use self::wait::Stop;
