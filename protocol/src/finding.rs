//! What an analyst says: a verdict of findings, each with its evidence, and what was ruled out or not seen.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::private::{Text, private_fields};
use crate::proposal::Proposal;
use crate::record::Gap;

/// A fault's name, stable and machine-readable (`resolver_dead`, `no_default_route`, …).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cause(pub String);

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// Something doesn't work.
    Critical,
}

/// How sure: counted independent sources, not a feeling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// One source, or sources that can be forged.
    Suspected,
    /// Two independent sources.
    Likely,
    /// Three or more, and nothing contradicts.
    Certain,
}

/// The state of the whole device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No fault found.
    Healthy,
    /// At least one warning.
    Warning,
    /// At least one critical finding.
    Critical,
    /// Too little was seen to tell.
    Unknown,
}

/// One fact that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The collector that saw it.
    pub source: String,
    /// When.
    pub at: Timestamp,
    /// The fact, with its numbers.
    pub fact: Text,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Its name.
    pub cause: Cause,
    /// What is broken: an interface, a resolver, a file system.
    pub component: Text,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// One sentence for people.
    pub summary: Text,
    /// When it was first seen in the evidence at hand.
    pub since: Timestamp,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// What speaks against it.
    pub contradictions: Vec<Evidence>,
    /// What would make it surer, and the tool that shows it.
    pub missing: Vec<Text>,
    /// Later symptoms that this explains.
    pub consequences: Vec<Text>,
    /// What a person does next.
    pub next_step: Text,
    /// The repair that could be made, where one is safe.
    pub proposal: Option<Proposal>,
}

/// The answer to "what is wrong?".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The whole.
    pub health: Health,
    /// The newest evidence it rests on.
    pub at: Timestamp,
    /// Root causes, the worst first.
    pub findings: Vec<Finding>,
    /// What was looked at and found well, one sentence each.
    pub ruled_out: Vec<Text>,
    /// What couldn't be seen.
    pub unseen: Vec<Gap>,
}

private_fields! {
    Evidence { fact }
    Finding { component, summary, evidence, contradictions, missing, consequences, next_step, proposal }
    Verdict { findings, ruled_out, unseen }
}
