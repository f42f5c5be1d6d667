//! The way to a target, hop by hop: probes whose time to live ends on the way, and who says so.
//!
//! No privilege is needed: the answers come from the error queue of ordinary sockets (`IP_RECVERR`). All hops are asked
//! side by side, round after round.

mod channel;
pub mod path;
mod run;
mod tcp;
mod udp;

use std::time::Duration;

pub use self::path::{Hop, Note, Path};
pub use self::run::run;
use super::echo::Target;
use super::socket::OpenError;

/// What the probes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// UDP to ports that nobody should listen on, from 33434 upwards.
    Udp,
    /// ICMP echo.
    Icmp,
    /// TCP connects to this port. The kernel repeats a SYN after a second, so answers that take longer don't count.
    Tcp(u16),
}

/// Whom to trace, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Target.
    pub target: Target,
    /// What the probes are.
    pub method: Method,
    /// Probes to each hop; none means until stopped.
    pub rounds: Option<u32>,
    /// Farthest hop, from 1.
    pub max_hops: u8,
    /// Between two probes: routers answer only so many in a second.
    pub gap: Duration,
    /// Between the starts of two rounds, at least.
    pub every: Duration,
    /// How long an answer is waited for.
    pub wait: Duration,
    /// Interface to send from.
    pub device: Option<String>,
    /// Ends the run, whatever is still to do.
    pub deadline: Option<Duration>,
}

/// Why a path can't be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No ICMP socket.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The kernel refuses to send.
    #[error("can't send to {target}: {source}")]
    Send {
        /// The target.
        target: std::net::IpAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A socket failed.
    #[error("the socket of the trace failed")]
    Socket(#[from] std::io::Error),
}
