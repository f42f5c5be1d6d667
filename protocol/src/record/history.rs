//! What the device remembers of the last hours: probes minute by minute, and what changed when.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::private::{Text, private_fields};

/// What a series is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeriesKind {
    /// ICMP echo.
    Echo,
    /// DNS questions to a resolver.
    Dns,
}

/// One minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minute {
    /// Probes sent.
    pub sent: u16,
    /// Probes without answer.
    pub lost: u16,
    /// Median round trip.
    pub p50_us: u32,
    /// 95th percentile.
    pub p95_us: u32,
}

/// The probes of one target, minute by minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// What was probed.
    pub kind: SeriesKind,
    /// Target.
    pub target: IpAddr,
    /// Start of the first minute.
    pub start: Timestamp,
    /// Minutes without a gap between them; one without probes has `sent` 0.
    pub minutes: Vec<Minute>,
}

/// What changed, as the kernel told it at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A link lost its carrier.
    CarrierLost,
    /// A link has a carrier again.
    CarrierBack,
    /// A link was set down.
    LinkDown,
    /// A link was set up.
    LinkUp,
    /// A link came to be.
    LinkAdded,
    /// A link is gone.
    LinkRemoved,
    /// An address came.
    AddressAdded,
    /// An address went.
    AddressRemoved,
    /// A default route came.
    DefaultRouteAdded,
    /// A default route went.
    DefaultRouteRemoved,
    /// The clock was set.
    ClockStepped,
    /// The device started.
    Booted,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: ChangeKind,
    /// To what: an interface name, an address.
    pub component: Text,
}

/// The memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Probes.
    pub series: Vec<Series>,
    /// Changes, the oldest first; the newest 512.
    pub changes: Vec<Change>,
}

private_fields! {
    History { series, changes }
    Series { target }
    Change { component }
}
