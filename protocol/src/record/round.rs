//! What the device is for, and one pass over all collectors.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::id::RoundId;
use crate::private::{Text, private_fields};

/// What the device is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Forwards for others: forwarding that is off is a fault.
    Router,
    /// Forwards nothing.
    Host,
    /// Nobody said.
    #[default]
    Unknown,
}

/// What the operator says about the device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Router or host.
    pub role: Role,
    /// Interfaces towards the provider.
    pub wan: Vec<String>,
    /// Interfaces that must have a carrier.
    pub expected_up: Vec<String>,
    /// The default gateway that the operator expects, for putting a lost default route back.
    pub gateway: Option<IpAddr>,
    /// The agent's version.
    pub agent: String,
}

/// Why a round began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The cadence.
    Tick,
    /// A netlink event.
    Event,
    /// Somebody asked.
    Asked,
    /// A change ended.
    Change,
}

/// Something that couldn't be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The collector.
    pub collector: String,
    /// Why, for people.
    pub reason: Text,
}

/// The record of an earlier round of the same boot, in place of an equal one of this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Again {
    /// The round that has the record itself, never another mention of it.
    pub round: RoundId,
    /// When the same was seen again. None if nobody looked since: then the record's own time holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl Again {
    /// What was told longer ago than this, by the device's clock, is not taken for the present. A device tells
    /// everything anew at least twice as often.
    pub const LONGEST: SignedDuration = SignedDuration::from_hours(2);
}

/// The end of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Why it began.
    pub trigger: Trigger,
    /// How long it took, milliseconds.
    pub took_ms: u32,
    /// What couldn't be seen.
    pub gaps: Vec<Gap>,
    /// Records that were dropped before they were sent, since the device enrolled.
    pub dropped: u64,
    /// By collector: what was told before and holds in this round, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub again: BTreeMap<String, Again>,
}

private_fields! {
    Profile { gateway }
    Round { gaps }
    Gap { reason }
}
