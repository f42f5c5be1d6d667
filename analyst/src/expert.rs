//! The built-in expert: rules without a model, the same answer for the same evidence.
//!
//! The families are asked from the cable upwards. A fault in a lower layer explains the symptoms above it that rest on
//! the same link or the same way out; those become its consequences instead of findings of their own.

use aizen_protocol::finding::{Evidence, Finding, Health, Severity, Verdict};
use aizen_protocol::private::Text;
use aizen_protocol::record::Gap;
use jiff::Timestamp;

use crate::case::{Case, View};

mod address;
mod advertisement;
mod bond;
mod bridge;
mod certificate;
mod circle;
mod clock;
mod configuration;
mod conntrack;
mod delegation;
mod disk;
mod draft;
mod dual_stack;
mod duplicate;
mod firewall;
mod family;
mod forwarding;
mod gateway;
mod heat;
mod hole;
mod ipsec;
mod layer;
mod lease;
mod link;
mod link_mtu;
mod listen;
mod log;
mod memory;
mod metric;
mod mtu;
mod names;
mod neighbour;
mod optic;
mod policy;
mod pool;
mod port;
mod portal;
mod pppoe;
mod processor;
mod question;
mod queue;
mod reach;
mod reboot;
mod resolver;
mod reverse;
mod route;
mod service;
mod since;
mod transport;
mod trend;
mod tunnel;
mod unit;
mod unseen;
mod upstream;
mod vlan;
mod wifi;
mod wireguard;

use draft::Draft;
use family::FAMILIES;

/// Names the faults of a device, or says that none was found.
#[must_use]
pub fn analyze(case: &Case) -> Verdict {
    let Some(view) = case
        .passes()
        .checked_sub(1)
        .and_then(|last| case.view(last))
    else {
        return Verdict {
            health: Health::Unknown,
            at: Timestamp::UNIX_EPOCH,
            findings: Vec::new(),
            ruled_out: Vec::new(),
            unseen: vec![Gap {
                collector: "round".into(),
                reason: "no complete round of evidence".into(),
            }],
        };
    };
    let (roots, well) = judge(&view);
    let since = since::beginnings(case, &view, &roots);
    let mut findings: Vec<Finding> = roots
        .into_iter()
        .zip(since)
        .map(|(mut draft, since)| {
            configuration::attach(&view, &mut draft, since);
            draft.into_finding(since)
        })
        .collect();
    // Stable: within one severity the lower layer stays first.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Verdict {
        health: health(&view, &findings),
        at: newest(&view),
        findings,
        ruled_out: well.into_iter().map(Text).collect(),
        unseen: unseen::gaps(&view),
    }
}

/// Root causes at the end of one pass, the lowest layer first, and what was found well.
fn judge(view: &View<'_>) -> (Vec<Draft>, Vec<String>) {
    let mut drafts = Vec::new();
    let mut well = Vec::new();
    for family in FAMILIES {
        let examined = (family.examine)(view);
        drafts.extend(examined.drafts);
        well.extend(examined.well);
    }
    (layer::roots(drafts), well)
}

fn newest(view: &View<'_>) -> Timestamp {
    view.now().ended.at
}

/// Healthy is said only if enough was seen to say it: the kernel's own state, and something that was tried.
fn health(view: &View<'_>, findings: &[Finding]) -> Health {
    let now = view.now();
    let kernel = now.links.is_some() && now.addresses.is_some() && now.routes.is_some();
    let tried = now.reach.is_some() || now.dns.is_some();
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Critical) => Health::Critical,
        Some(Severity::Warning) => Health::Warning,
        None if kernel && tried => Health::Healthy,
        None => Health::Unknown,
    }
}

/// A fact for a list of evidence.
fn evidence(source: &str, at: Timestamp, fact: String) -> Evidence {
    Evidence {
        source: source.to_owned(),
        at,
        fact: Text(fact),
    }
}

#[cfg(test)]
mod combined;
#[cfg(test)]
mod tests;
