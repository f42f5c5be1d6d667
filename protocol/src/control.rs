//! The local sockets: one JSON value a line, at most [`crate::limit::FRAME`] bytes.
//!
//! Two doors: the daemon's (`daemon.sock`, for people) and the executor's (`executor.sock`, for the daemon and for
//! people). Who may ask what is decided by peer credentials (`SO_PEERCRED`, unix(7)). Values here are real ones: they
//! stay on the device.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::envelope::Envelope;
use crate::finding::Health;
use crate::id::{ChangeId, DeviceId, Digest, Epoch, PackageId, Sequence};
use crate::outcome::{Isolation, Outcome, Stage, Step};
use crate::package::manifest::Risk;
use crate::private::Mac;
use crate::reason::Reason;
use crate::record::{Body, History, Record};
use crate::statement::Confirmation;

/// What may be asked of the executor. Reading is open to the daemon's group; the rest says who may.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum ExecutorRequest {
    /// Anybody: trust, isolation, pending change.
    Status,
    /// Anybody: every check but the durable ones; runs nothing, records nothing.
    Verify {
        /// The package.
        package: Envelope,
    },
    /// Daemon, root, operators: run a rehearsal package, or a package, in the shadow.
    Rehearse {
        /// The package.
        package: Envelope,
        /// Values for its pseudonyms.
        bindings: Bindings,
    },
    /// Daemon, root, operators: the life of a change begins. Answers follow until it ends.
    Execute {
        /// The package.
        package: Envelope,
        /// The orchestrator's delivery; none only on the spot.
        delivery: Option<Envelope>,
        /// Values for its pseudonyms.
        bindings: Bindings,
    },
    /// Daemon, root, operators: follow the pending change, if there is one. Answers follow until it ends.
    Watch,
    /// Daemon: hands in the orchestrator's confirmation.
    Confirm {
        /// The signed confirmation.
        statement: Envelope,
    },
    /// Root, operators: confirms a change on the spot.
    ConfirmOnSite {
        /// The change.
        change: ChangeId,
    },
    /// Root, operators: undoes the pending change.
    RollBack {
        /// The change.
        change: ChangeId,
    },
    /// Root, operators: says that a person dealt with an incomplete rollback.
    Clear {
        /// The change.
        change: ChangeId,
    },
    /// Root, operators: the rescue profile, and what differs from it.
    Rescue,
    /// Root, operators: keeps the network as it is as the rescue profile, if it is known good.
    RescueSave,
    /// Root, operators: puts the network back to the rescue profile.
    RescueApply,
    /// Anybody: the changes of this device, newest first.
    Changes,
    /// Daemon: signed outcomes that were not acknowledged yet.
    Outcomes,
    /// Daemon: the spool holds this outcome durably.
    Acknowledge {
        /// SHA-256 of the envelope's payload.
        outcome: Digest,
    },
    /// Root, operators: no changes until resumed.
    Pause,
    /// Root, operators: changes again.
    Resume,
    /// Daemon, root, operators: something that an unprivileged process can't see.
    See(Question),
}

/// Values for pseudonyms, by pseudonym.
pub type Bindings = BTreeMap<String, String>;

/// The executor's read-only door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "question")]
pub enum Question {
    /// Who else answers ARP for an address of ours (RFC 5227 probe)?
    ArpProbe {
        /// Interface.
        dev: String,
        /// Our address.
        address: IpAddr,
    },
    /// The packet filter: chains, rules and their counters.
    Filter,
    /// WireGuard interfaces and their peers.
    #[serde(rename = "wireguard")]
    WireGuard,
    /// Diagnostics of pluggable modules.
    Modules,
    /// The kernel's own messages of the last minutes.
    KernelLog,
    /// Who offers DHCP? A DISCOVER; no address is ever requested.
    DhcpProbe {
        /// Interface.
        dev: String,
    },
    /// Who answers PPPoE discovery? A PADI; no session is ever requested.
    PppoeProbe {
        /// Interface.
        dev: String,
    },
    /// Who says to be an IPv6 router? A router solicitation.
    RouterProbe {
        /// Interface.
        dev: String,
    },
    /// Which neighbours announce themselves by LLDP? Nothing is sent.
    Lldp {
        /// Interface.
        dev: String,
        /// Seconds to listen, at most 31: stations announce themselves every 30 s.
        wait_s: u8,
    },
}

/// What the executor answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum ExecutorAnswer {
    /// To [`ExecutorRequest::Status`].
    Status(ExecutorStatus),
    /// To [`ExecutorRequest::Verify`]: every check passed.
    Verified {
        /// The package.
        package: PackageId,
        /// SHA-256 of its payload.
        digest: Digest,
        /// Its computed risk.
        risk: Risk,
        /// What it is to achieve.
        intent: String,
    },
    /// A check failed; nothing ran.
    Refused(Refusal),
    /// To [`ExecutorRequest::Rehearse`].
    Rehearsed {
        /// With real values, for the screen of this device.
        local: Effect,
        /// Sanitized and signed, for the orchestrator.
        signed: Envelope,
    },
    /// The change was admitted.
    Admitted {
        /// Its name.
        change: ChangeId,
    },
    /// The change reached a stage.
    Reached {
        /// The change.
        change: ChangeId,
        /// The stage.
        stage: Stage,
        /// When.
        at: Timestamp,
    },
    /// The change asks for its confirmation over a fresh connection.
    ConfirmWanted {
        /// What to have signed.
        confirmation: Confirmation,
    },
    /// The change asks for a person's confirmation.
    ConfirmOnSiteWanted {
        /// The change.
        change: ChangeId,
        /// Seconds left.
        within_s: u32,
    },
    /// The change ended; nothing follows.
    Ended {
        /// With real values, for the screen of this device.
        local: Box<Outcome>,
        /// Sanitized and signed, for the orchestrator.
        signed: Envelope,
    },
    /// To [`ExecutorRequest::Changes`].
    Changes {
        /// Newest first.
        changes: Vec<ChangeSummary>,
    },
    /// To [`ExecutorRequest::Outcomes`].
    Outcomes {
        /// Oldest first.
        outcomes: Vec<Envelope>,
    },
    /// To [`ExecutorRequest::Rescue`].
    Rescue {
        /// None if none was ever kept.
        profile: Option<RescueProfile>,
    },
    /// To [`ExecutorRequest::RescueApply`].
    Rescued(RescueEnd),
    /// To [`Question::ArpProbe`].
    Answering {
        /// Hardware addresses other than ours that answered.
        others: Vec<Mac>,
    },
    /// To every other question.
    Seen {
        /// The evidence, by the collector's name in [`Body::collector`].
        body: Box<Body>,
        /// What couldn't be seen of it, for people.
        gaps: Vec<String>,
    },
    /// Done, nothing to say.
    Done,
    /// It could not be done; a sentence for people.
    Failed {
        /// What failed, to what, and what to do next.
        message: String,
    },
}

/// The last network that was known good, beside the one that there is. Lists are bounded; the last line tells of the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescueProfile {
    /// Since when this network is known good.
    pub since: Timestamp,
    /// True if that was in this boot.
    pub this_boot: bool,
    /// Why it was kept, for people.
    pub source: String,
    /// Probes that held then.
    pub held: Vec<String>,
    /// Those of them that do not hold now.
    pub lost: Vec<String>,
    /// What is otherwise now and would be put back, one sentence an object.
    pub differs: Vec<String>,
    /// What is otherwise now and would be left alone, with the reason.
    pub left: Vec<String>,
}

/// How putting the rescue profile back ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescueEnd {
    /// What was put back, one sentence an object.
    pub put_back: Vec<String>,
    /// What could not be put back, with the reason.
    pub failed: Vec<String>,
    /// What was left alone, with the reason.
    pub left: Vec<String>,
    /// Probes that held in the profile and do not hold now.
    pub lost: Vec<String>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// What exactly, for people.
    pub detail: String,
    /// The signed outcome, if the refusal is one that is reported.
    pub signed: Option<Envelope>,
}

/// The executor's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorStatus {
    /// The device, once enrolled.
    pub device: Option<DeviceId>,
    /// Its state generation.
    pub epoch: Option<Epoch>,
    /// What it may do, and why not more.
    pub trust: TrustState,
    /// Version of the trust document; 0 without one.
    pub trust_version: u64,
    /// What the sandbox gives here.
    pub isolation: Isolation,
    /// Policy allows changes.
    pub changes_allowed: bool,
    /// A person paused changes.
    pub paused: bool,
    /// The pending change.
    pub pending: Option<ChangeSummary>,
}

/// Trust degrades, it does not break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustState {
    /// Changes by uplink and on the spot.
    Full,
    /// The trust document expired: diagnosis only.
    Expired,
    /// The clock was never synchronised: changes on the spot only.
    ClockUntrusted,
    /// Device revoked: reports only.
    Revoked,
    /// No trust document.
    NotEnrolled,
}

/// One change in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeSummary {
    /// Its name.
    pub change: ChangeId,
    /// The package.
    pub package: PackageId,
    /// What it is to achieve.
    pub intent: String,
    /// Where it is.
    pub stage: Stage,
    /// Its way there.
    pub steps: Vec<Step>,
}

/// What may be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum DaemonRequest {
    /// Anybody of the group.
    Status,
    /// Root, operators: dial now, not after the backoff.
    Connect,
    /// Root, operators: ask the executor again what this device may do, and tell the orchestrator if that changed.
    Standing,
    /// Root, operators: one round of collection now.
    Collect,
    /// Root, operators: the newest numbers.
    Metrics,
    /// Root, operators: what the daemon remembers of the last hours.
    Remembered,
    /// Root, operators: real values for pseudonyms (for `aizen apply` and for revealing a verdict).
    Reveal {
        /// The pseudonyms.
        pseudonyms: Vec<String>,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum DaemonAnswer {
    /// To [`DaemonRequest::Status`].
    Status(DaemonStatus),
    /// To [`DaemonRequest::Metrics`].
    Metrics {
        /// Prometheus text (exposition format 0.0.4), with real values.
        text: String,
    },
    /// To [`DaemonRequest::Remembered`].
    Remembered {
        /// Probes and changes of the last hours, with real values; none before the first round.
        history: Option<History>,
        /// Records of earlier rounds, with real values: as many whole rounds as one answer holds.
        rounds: Vec<Record>,
    },
    /// To [`DaemonRequest::Reveal`]: what is known.
    Values {
        /// By pseudonym.
        values: Bindings,
    },
    /// Done, nothing to say.
    Done,
    /// It could not be done; a sentence for people.
    Failed {
        /// What failed, to what, and what to do next.
        message: String,
    },
}

/// The uplink's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum UplinkState {
    /// No enrollment.
    NotEnrolled,
    /// Connected and welcomed.
    Connected {
        /// Since when.
        since: Timestamp,
        /// The address that answered.
        address: String,
    },
    /// Dialling.
    Connecting,
    /// Waiting for the next attempt.
    Waiting {
        /// Attempts since the last connection.
        attempts: u32,
        /// Milliseconds until the next one.
        next_ms: u64,
        /// What went wrong last.
        last_error: String,
    },
}

/// The daemon's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonStatus {
    /// The device, once enrolled.
    pub device: Option<DeviceId>,
    /// The agent's version.
    pub agent: String,
    /// The uplink.
    pub uplink: UplinkState,
    /// Highest number made.
    pub newest: Sequence,
    /// Highest number acknowledged.
    pub acknowledged: Sequence,
    /// Frames in the spool.
    pub spooled: u64,
    /// Bytes in the spool.
    pub spooled_bytes: u64,
    /// Records dropped for want of space, since enrollment.
    pub dropped: u64,
    /// Bytes sent since start, by purpose (`telemetry`, `results`, `overhead`).
    pub sent_bytes: BTreeMap<String, u64>,
    /// The last round's verdict.
    pub health: Option<Health>,
    /// When it was reached.
    pub health_at: Option<Timestamp>,
    /// Its findings, one sentence each.
    pub findings: Vec<String>,
}
