//! A finding in the making, with what the layers above and below need to know about it.

use std::collections::BTreeSet;

use aizen_protocol::finding::{Cause, Confidence, Evidence, Finding, Severity};
use aizen_protocol::private::{Prefix, Text};
use aizen_protocol::proposal::Proposal;
use jiff::Timestamp;

use super::evidence;
use crate::case::{Family, Way};

/// Facts of one kind that a finding keeps.
const FACTS: usize = 16;
/// The collector whose facts can be forged.
const LOG: &str = "log";

/// From the cable upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Link,
    Address,
    Neighbour,
    Route,
    Upstream,
    Path,
    Names,
    Time,
    Resource,
}

/// What one family says.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// Faults.
    pub(super) drafts: Vec<Draft>,
    /// What was looked at and found well, one sentence each.
    pub(super) well: Vec<String>,
}

/// One fault.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) layer: Layer,
    /// The way on which the symptom was measured; none if no network is involved.
    pub(super) rests_on: Option<Way>,
    /// Links that it makes useless.
    pub(super) breaks_links: Vec<u32>,
    /// Families for which it cuts off everything beyond the gateway.
    pub(super) breaks_beyond: Vec<Family>,
    /// Worth saying only where nothing else is found.
    pub(super) last_resort: bool,
    /// Networks to which it lets nothing through.
    pub(super) breaks_prefixes: Vec<Prefix>,
    pub(super) summary: String,
    /// Causes that this one explains whatever their layer, of one component or of any.
    covered: Vec<(&'static str, Option<String>)>,
    cause: &'static str,
    component: String,
    severity: Severity,
    next_step: String,
    witnesses: BTreeSet<String>,
    first: Option<Timestamp>,
    evidence: Vec<Evidence>,
    contradictions: Vec<Evidence>,
    missing: Vec<String>,
    consequences: Vec<String>,
    proposal: Option<Proposal>,
}

impl Draft {
    pub(super) fn new(
        cause: &'static str,
        layer: Layer,
        component: impl Into<String>,
        severity: Severity,
        summary: String,
    ) -> Self {
        Self {
            layer,
            rests_on: None,
            breaks_links: Vec::new(),
            breaks_beyond: Vec::new(),
            last_resort: false,
            breaks_prefixes: Vec::new(),
            summary,
            covered: Vec::new(),
            cause,
            component: component.into(),
            severity,
            next_step: String::new(),
            witnesses: BTreeSet::new(),
            first: None,
            evidence: Vec::new(),
            contradictions: Vec::new(),
            missing: Vec::new(),
            consequences: Vec::new(),
            proposal: None,
        }
    }

    /// Adds a fact that shows the fault. Facts of one witness count once: a witness is a collector, or one thing that a
    /// collector asked and that answers (or not) by itself.
    pub(super) fn shown(&mut self, source: &str, witness: &str, at: Timestamp, fact: String) {
        self.held_since(at);
        self.backed(source, witness, at, fact);
    }

    /// Says that it was so in an earlier round too, where a fault needs two rounds to be one.
    pub(super) fn held_since(&mut self, at: Timestamp) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
    }

    /// Adds a fact that makes it a fault, such as what the operator expects or what was so before: a witness, but not
    /// a time at which the fault was seen.
    pub(super) fn backed(&mut self, source: &str, witness: &str, at: Timestamp, fact: String) {
        self.witnesses.insert(format!("{source}/{witness}"));
        self.noted(source, at, fact);
    }

    /// Adds a fact that belongs to the picture but is no witness.
    pub(super) fn noted(&mut self, source: &str, at: Timestamp, fact: String) {
        self.evidence.push(evidence(source, at, fact));
    }

    /// Adds a fact that speaks against it.
    pub(super) fn contradicted(&mut self, source: &str, at: Timestamp, fact: String) {
        self.contradictions.push(evidence(source, at, fact));
    }

    /// Says what would make it surer and which tool shows it.
    pub(super) fn misses(&mut self, what: impl Into<String>) {
        self.missing.push(what.into());
    }

    /// Says that where this fault is, that cause follows from it: of one component, or of any.
    pub(super) fn covers(&mut self, cause: &'static str, component: Option<String>) {
        self.covered.push((cause, component));
    }

    /// True if this fault says that the other follows from it.
    pub(super) fn is_cover_for(&self, other: &Self) -> bool {
        self.covered.iter().any(|(cause, component)| {
            *cause == other.cause
                && component
                    .as_ref()
                    .is_none_or(|component| *component == other.component)
        })
    }

    pub(super) fn explains(&mut self, consequence: impl Into<String>) {
        let consequence = consequence.into();
        if !self.consequences.contains(&consequence) {
            self.consequences.push(consequence);
        }
    }

    pub(super) fn next(&mut self, step: impl Into<String>) {
        self.next_step = step.into();
    }

    pub(super) fn propose(&mut self, proposal: Option<Proposal>) {
        self.proposal = proposal;
    }

    pub(super) fn has_proposal(&self) -> bool {
        self.proposal.is_some()
    }

    /// True if both name the same fault of the same thing.
    pub(super) fn is_same_fault(&self, other: &Self) -> bool {
        self.cause == other.cause && self.component == other.component
    }

    pub(super) fn cause(&self) -> &'static str {
        self.cause
    }

    pub(super) fn component(&self) -> &str {
        &self.component
    }

    /// True if this is the broken thing.
    pub(super) fn is_about(&self, component: &str) -> bool {
        self.component == component
    }

    /// The collectors whose facts show it.
    pub(super) fn sources(&self) -> impl Iterator<Item = &str> {
        self.witnesses
            .iter()
            .filter_map(|witness| witness.split('/').next())
    }

    /// The oldest reading among the facts that show it.
    pub(super) fn first_reading(&self) -> Option<Timestamp> {
        self.first
    }

    /// Takes a symptom of a higher layer: it is a consequence, and what it saw bears this fault out.
    pub(super) fn absorb(&mut self, symptom: Self) {
        self.explains(symptom.summary);
        self.witnesses.extend(symptom.witnesses);
        for fact in symptom.evidence {
            if !self.evidence.contains(&fact) {
                self.evidence.push(fact);
            }
        }
    }

    /// Witnesses that nobody can forge: anybody may write a line of log.
    fn measured(&self) -> usize {
        self.sources().filter(|source| *source != LOG).count()
    }

    /// Counts witnesses, all lines of log as one; what speaks against it costs one step. Lines of log alone never make it
    /// surer.
    fn confidence(&self) -> Confidence {
        let measured = self.measured();
        if measured == 0 {
            return Confidence::Suspected;
        }
        let against = usize::from(!self.contradictions.is_empty());
        let logged = usize::from(measured < self.witnesses.len());
        let steps = (measured + logged).min(3).saturating_sub(against);
        match steps {
            0 | 1 => Confidence::Suspected,
            2 => Confidence::Likely,
            _ => Confidence::Certain,
        }
    }

    pub(super) fn into_finding(self, since: Timestamp) -> Finding {
        let confidence = self.confidence();
        let measured = self.measured() > 0;
        let bounded = |mut facts: Vec<Evidence>| {
            facts.truncate(FACTS);
            facts
        };
        let texts = |texts: Vec<String>| texts.into_iter().take(FACTS).map(Text).collect();
        Finding {
            cause: Cause(self.cause.to_owned()),
            component: Text(self.component),
            severity: self.severity,
            confidence,
            summary: Text(self.summary),
            since,
            evidence: bounded(self.evidence),
            contradictions: bounded(self.contradictions),
            missing: texts(self.missing),
            consequences: texts(self.consequences),
            next_step: Text(self.next_step),
            proposal: self.proposal.filter(|_| measured),
        }
    }
}
