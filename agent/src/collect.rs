//! Evidence from the kernel and the host, native and bounded: one call is one round.
//!
//! Every collector has its own deadline. One that hangs, fails or panics becomes a gap with its reason, and costs no
//! other anything; a value that wasn't seen is never invented.

mod address;
pub mod arp;
pub(crate) mod aside;
mod certificate;
mod configuration;
mod connect;
mod conntrack;
mod cpu;
pub(crate) mod datagram;
pub(crate) mod dbus;
mod dhcp;
mod disk;
mod door;
mod duplicate;
mod ethernet;
mod fdb;
mod file;
mod forwarding;
mod history;
mod host;
pub(crate) mod link;
pub mod load;
mod log;
mod neighbour;
mod neighbour_table;
pub(crate) mod netlink;
pub(crate) mod path_mtu;
pub mod portal;
mod pressure;
mod protocols;
mod queue;
pub mod reach;
pub mod resolve;
pub(crate) mod resolvers;
mod round;
pub(crate) mod route;
mod rule;
pub mod schedule;
mod services;
mod sntp;
mod softnet;
mod trace;
pub(crate) mod ubus;
pub mod watch;
mod wireless;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aizen_protocol::record::Role;

pub use self::door::Door;
pub use self::netlink::NetlinkError;
use self::reach::Pinging;
use self::resolve::Asking;
pub use self::round::Collector;
pub(crate) use self::schedule::Budgets;
pub use self::watch::{Changed, NetEvent, watch};
use crate::probe::{dns, web};

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
    /// Ask the kernel whether its clock is synchronised.
    pub kernel_clock: bool,
    /// Resolvers that are asked over TLS.
    pub dot: Vec<dns::Server>,
    /// Hosts whose certificates are looked at.
    pub certificates: Vec<web::Url>,
    /// A question over plain HTTP with a known answer; with none no captive portal is looked for.
    pub portal: Option<portal::Known>,
    /// Where the enrollment is, if the orchestrator's certificate is to be looked at.
    pub state: Option<PathBuf>,
    /// What stands before `/proc`, `/sys` and `/etc`.
    /// What stands before `/proc`, `/sys`, `/etc`, `/run` and `/var`.
    pub root: PathBuf,
    /// How long each part may take.
    pub budgets: Budgets,
    /// Echo requests.
    pub pinging: Pinging,
    /// DNS questions.
    pub asking: Asking,
    /// Who looks at what needs a capability.
    pub door: Door,
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
            kernel_clock: true,
            dot: Vec::new(),
            certificates: Vec::new(),
            portal: None,
            state: None,
            root: PathBuf::from("/"),
            budgets: Budgets::default(),
            pinging: Pinging::default(),
            asking: Asking::default(),
            door: Door::default(),
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
    /// The same work of an earlier round hasn't come back.
    #[error("it still hasn't ended in an earlier round")]
    StillHangs,
    /// Nobody on this device can tell, in a sentence for people.
    #[error("{0}")]
    Untold(String),
    /// What it builds on wasn't seen.
    #[error("the {0} it needs were not seen")]
    Blind(&'static str),
    /// Nobody answers behind the read-only door.
    #[error(
        "only the executor may, and it does not run (start it with systemctl start aizen-executor.socket), or run this as root"
    )]
    Closed,
    /// Who answers behind the door says why it can't.
    #[error("{0}")]
    Unseen(String),
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
