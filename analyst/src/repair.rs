//! Repairs as proposals: a script of typed operations, the exact grants for them, and what must hold afterwards.
//!
//! A script never holds a private value: it names the variable of a binding. It never holds a name from the evidence
//! that a shell could take for syntax either: where an interface is named oddly there is no proposal.

use std::net::IpAddr;

use aizen_protocol::limit;
use aizen_protocol::package::manifest::{
    Class, Confirm, Limits, Manifest, Operation, Probe, Sysctl, SysctlOperation, Value,
};
use aizen_protocol::package::{Binding, BindingKind};
use aizen_protocol::private::{Prefix, Text};
use aizen_protocol::proposal::Proposal;

use crate::case::View;

pub(crate) mod advertisement;
pub(crate) mod forwarding;
pub(crate) mod link;
pub(crate) mod parameter;
pub(crate) mod neighbour;
pub(crate) mod resolver;
pub(crate) mod reverse;
pub(crate) mod route;

/// The least isolation that a repair runs at.
const MIN_ISOLATION: u8 = 2;
/// Seconds that a repair script may take.
const TIMEOUT_S: u32 = 30;
/// The longest interface name (`IFNAMSIZ` less the final zero).
const NAME: usize = 15;

/// A repair in the making.
struct Draft {
    bindings: Vec<Binding>,
    operations: Vec<Operation>,
    read: Vec<String>,
    probes: Vec<Probe>,
}

impl Draft {
    /// The device must find back to the orchestrator, whatever else is asked.
    fn new() -> Self {
        Self {
            bindings: Vec::new(),
            operations: Vec::new(),
            read: Vec::new(),
            probes: vec![Probe::Uplink(true)],
        }
    }

    /// Binds a pseudonym and gives the reference to its variable (`$IP_10_83_7_1`).
    fn bind(&mut self, kind: BindingKind, pseudonym: String) -> String {
        let binding = Binding { kind, pseudonym };
        let reference = format!("${}", binding.variable());
        if !self.bindings.contains(&binding) {
            self.bindings.push(binding);
        }
        reference
    }

    fn address(&mut self, address: IpAddr) -> String {
        self.bind(BindingKind::Address, address.to_string())
    }

    fn prefix(&mut self, prefix: Prefix) -> String {
        self.bind(BindingKind::Prefix, prefix.to_string())
    }

    fn must_answer(&mut self, address: IpAddr) {
        let value = Value(self.address(address));
        self.probe(Probe::Ping(value));
    }

    fn must_resolve(&mut self, name: &str) {
        // A final dot names the same, but no binding takes an empty label; the root is nothing but its dot.
        let name = name
            .strip_suffix('.')
            .filter(|bare| !bare.is_empty())
            .unwrap_or(name);
        let value = if is_pseudonym(name) {
            self.bind(BindingKind::Name, name.to_owned())
        } else {
            name.to_owned()
        };
        self.probe(Probe::Dns(Value(value)));
    }

    fn probe(&mut self, probe: Probe) {
        if self.probes.len() < limit::PROBES && !self.probes.contains(&probe) {
            self.probes.push(probe);
        }
    }

    fn propose(self, intent: String, script: String) -> Proposal {
        Proposal {
            intent: Text(intent),
            script,
            manifest: Manifest {
                class: Class::Repair,
                min_isolation: MIN_ISOLATION,
                timeout_s: TIMEOUT_S,
                risk: None,
                operations: self.operations,
                capabilities: Vec::new(),
                read: self.read,
                limits: Limits::default(),
                confirm: Confirm {
                    probes: self.probes,
                    ..Confirm::default()
                },
            },
            bindings: self.bindings,
        }
    }
}

/// True for a name of the sanitizer's making (`host-…` labels): only those have a way back on the device.
fn is_pseudonym(name: &str) -> bool {
    name.split('.').any(|label| label.starts_with("host-"))
}

/// The interface's name, if it is known and safe in a script without quoting.
fn interface<'a>(view: &View<'a>, index: u32) -> Option<&'a str> {
    let name = view.link(index)?.name.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    let is_safe = (1..=NAME).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    is_safe.then_some(name)
}

/// Sets one kernel parameter; `key` is slashed, as an interface's name may hold dots.
fn set_parameter(view: &View<'_>, key: String, value: &str, why: &str, intent: String) -> Proposal {
    let mut draft = Draft::new();
    let script = format!(
        "#!/bin/sh\n\
         # {why}\n\
         set -eu\n\
         change sysctl {key}={value}\n"
    );
    draft
        .operations
        .push(Operation::Sysctl(SysctlOperation::Set(Sysctl {
            key,
            value: value.to_owned(),
        })));
    if let Some(target) = answering(view) {
        draft.must_answer(target);
    }
    draft.propose(intent, script)
}

/// A target beyond this link that answers, for which a repair must not make things worse.
fn answering(view: &View<'_>) -> Option<IpAddr> {
    let reach = view.now().reach.as_ref()?;
    let answered = reach.value.iter().filter(|reach| reach.received > 0);
    answered
        .max_by_key(|reach| view.way_to(reach.target).beyond.is_some())
        .map(|reach| reach.target)
}

#[cfg(test)]
mod tests;
