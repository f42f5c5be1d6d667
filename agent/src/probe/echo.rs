//! ICMP echo to many targets over one socket for each address family.
//!
//! Requests leave in batches, and round-trip times are the difference of two kernel stamps: how busy this process is
//! does not show in them. An answer that this device's own socket had no room for is counted as not measured.

mod pace;
mod port;
mod run;
mod window;

use std::net::IpAddr;
use std::time::Duration;

pub use self::run::{Each, run};
pub use super::errors::Why;
use super::tally::Tally;

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// Interface that an IPv6 link-local address belongs to.
    pub link: Option<u32>,
}

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whom; at most [`MAX_TARGETS`].
    pub targets: Vec<Target>,
    /// Requests to each; none means until stopped.
    pub times: Option<u32>,
    /// Least time between two requests, whoever they are for.
    pub between: Duration,
    /// Least time between two requests to one target.
    pub each: Duration,
    /// How long an answer is waited for.
    pub wait: Duration,
    /// Bytes of payload; with less than 8 an answer is told by its number and sender alone.
    pub size: u16,
    /// Interface to send from.
    pub device: Option<String>,
    /// Ends the run, whatever is still to do.
    pub deadline: Option<Duration>,
}

/// Most targets of one plan.
pub const MAX_TARGETS: usize = 100_000;

/// What happened to one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Place of the target in the plan.
    pub target: usize,
    /// Which request to it, from 0.
    pub number: u32,
    /// What.
    pub kind: Kind,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answered in time.
    Reply(Duration),
    /// Answered once more.
    Duplicate(Duration),
    /// Answered after it was given up.
    Late(Duration),
    /// Somebody on the way says why there will be no answer.
    Error {
        /// Who.
        from: IpAddr,
        /// Why.
        why: Why,
    },
    /// Nobody answered in time.
    Lost,
    /// No answer was seen, but this device's socket overflowed meanwhile.
    NotMeasured,
    /// The kernel did not send it (errno(3)).
    Refused(i32),
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One for each target.
    pub tallies: Vec<Tally>,
    /// Messages that the sockets had no room for.
    pub dropped: u64,
    /// Why a family was not asked at all: its targets have nothing sent.
    pub unasked: Vec<String>,
}
