//! Raising a bound of the kernel, or switching a guard on.

use aizen_protocol::package::manifest::{Operation, Sysctl, SysctlOperation};
use aizen_protocol::proposal::Proposal;

use super::{Draft, answering};
use crate::case::View;

/// Bytes of memory that one tracked connection takes, with room for its hash entry.
const ENTRY_BYTES: u64 = 320;
/// The share of memory that connection tracking may take.
const MEMORY_SHARE: u64 = 16;

/// Doubles the connection tracking table, within a sixteenth of the memory. None where that is no real gain.
pub(crate) fn raise_conntrack(view: &View<'_>, max: u32) -> Option<Proposal> {
    let memory = view.now().host.as_ref()?.value.memory_total_bytes;
    let fits = memory / MEMORY_SHARE / ENTRY_BYTES;
    let value = (u64::from(max) * 2).min(fits);
    if value < u64::from(max) + u64::from(max) / 4 {
        return None;
    }
    let intent = format!("Let the connection tracking table hold {value} instead of {max} entries");
    let why = "Lets the connection tracking table hold more entries.";
    set(
        view,
        "net.netfilter.nf_conntrack_max",
        &value.to_string(),
        intent,
        why,
    )
}

/// Lets the kernel answer a flood of SYN without keeping state.
pub(crate) fn switch_syncookies_on(view: &View<'_>) -> Option<Proposal> {
    let why = "Answers a flood of half-open connections without keeping state.";
    let intent = "Switch SYN cookies on".to_owned();
    set(view, "net.ipv4.tcp_syncookies", "1", intent, why)
}

/// Lets programs that listen ask for a longer queue of waiting connections.
pub(crate) fn raise_backlog(view: &View<'_>, backlog: u32) -> Option<Proposal> {
    let value = backlog.checked_mul(4)?;
    let intent = format!("Let {value} instead of {backlog} connections wait to be accepted");
    let why = "Lets programs that listen ask for a longer queue; it counts from their next start.";
    set(view, "net.core.somaxconn", &value.to_string(), intent, why)
}

/// None where nothing answers that could show that the change did no harm.
fn set(view: &View<'_>, key: &str, value: &str, intent: String, why: &str) -> Option<Proposal> {
    let mut draft = Draft::new();
    draft
        .operations
        .push(Operation::Sysctl(SysctlOperation::Set(Sysctl {
            key: key.to_owned(),
            value: value.to_owned(),
        })));
    draft.must_answer(answering(view)?);
    let script = format!("#!/bin/sh\n# {why}\nset -eu\nchange sysctl {key}={value}\n");
    Some(draft.propose(intent, script))
}
