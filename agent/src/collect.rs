//! Evidence from the kernel and the host, native and bounded: one call is one round.
//!
//! Every collector has its own deadline. One that hangs, fails or panics becomes a gap with its reason, and costs no
//! other anything; a value that wasn't seen is never invented.

mod address;
pub mod arp;
mod aside;
mod connect;
mod datagram;
mod disk;
mod duplicate;
mod forwarding;
mod host;
pub(crate) mod link;
mod neighbour;
mod netlink;
pub(crate) mod path_mtu;
pub mod reach;
pub mod resolve;
pub(crate) mod resolvers;
mod round;
pub(crate) mod route;
mod rule;
pub mod schedule;
mod sntp;
mod trace;
pub mod watch;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aizen_protocol::record::Role;

pub use self::duplicate::Candidate;
pub use self::netlink::NetlinkError;
use self::reach::Pinging;
use self::resolve::Asking;
pub use self::round::Collector;
use self::schedule::Budgets;
pub use self::watch::{Changed, NetEvent, watch};

/// What to look at, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the device is for.
    pub role: Role,
    /// Interfaces towards the provider.
    pub wan: Vec<String>,
    /// Interfaces that must have a carrier.
    pub expected_up: Vec<String>,
    /// The default gateway that the operator expects.
    pub gateway: Option<IpAddr>,
    /// Far targets for echo and path MTU.
    pub anchors: Vec<IpAddr>,
    /// Names that every resolver must know; with none the root's name servers are asked for.
    pub names: Vec<String>,
    /// Resolvers to compare the configured ones with.
    pub alternates: Vec<IpAddr>,
    /// Time servers.
    pub ntp: Vec<IpAddr>,
    /// What stands before `/proc`, `/sys` and `/etc`.
    pub root: PathBuf,
    /// How long each part may take.
    pub budgets: Budgets,
    /// Echo requests.
    pub pinging: Pinging,
    /// DNS questions.
    pub asking: Asking,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            role: Role::Unknown,
            wan: Vec::new(),
            expected_up: Vec::new(),
            gateway: None,
            anchors: Vec::new(),
            names: Vec::new(),
            alternates: Vec::new(),
            ntp: Vec::new(),
            root: PathBuf::from("/"),
            budgets: Budgets::default(),
            pinging: Pinging::default(),
            asking: Asking::default(),
        }
    }
}

/// Why a collector brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The work ended without a result.
    #[error("reading failed: {0}")]
    Read(#[from] io::Error),
    /// It took too long.
    #[error("no result within {} ms", .0.as_millis())]
    DeadlinePassed(Duration),
    /// A defect of this program.
    #[error("the collector panicked")]
    Panicked,
    /// What it builds on wasn't seen.
    #[error("the {0} it needs were not seen")]
    Blind(&'static str),
}

/// What a collector brought, and what it couldn't see of it, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen<T> {
    pub(crate) value: T,
    pub(crate) gaps: Vec<String>,
}

/// A time as the records have it.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
