//! Letting a resolver that answers be asked first.

use std::net::IpAddr;

use aizen_protocol::package::manifest::{FileOperation, Operation};
use aizen_protocol::proposal::Proposal;

use super::Draft;
use crate::case::View;

const FILE: &str = "/etc/resolv.conf";
/// Pure POSIX sh: the sandbox's root may hold nothing but the interpreter.
const SCRIPT: &str = include_str!("resolver_first.sh");

/// The first resolver is dead: another one comes before it.
pub(crate) fn prefer_for_dead(
    view: &View<'_>,
    dead: IpAddr,
    best: IpAddr,
    name: &str,
) -> Option<Proposal> {
    let intent = format!("Ask {best} before {dead}, which does not answer");
    prefer(view, dead, best, name, intent)
}

/// The first resolver is slow: a fast one comes before it.
pub(crate) fn prefer_for_slow(
    view: &View<'_>,
    slow: IpAddr,
    best: IpAddr,
    name: &str,
) -> Option<Proposal> {
    let intent = format!("Ask {best} before {slow}, which is slow");
    prefer(view, slow, best, name, intent)
}

/// None where `/etc/resolv.conf` is no regular file: then a service owns it and would write it again.
fn prefer(
    view: &View<'_>,
    unwanted: IpAddr,
    best: IpAddr,
    name: &str,
    intent: String,
) -> Option<Proposal> {
    if !view.now().resolvers.as_ref()?.value.regular_file {
        return None;
    }
    let mut draft = Draft::new();
    let unwanted = draft.address(unwanted);
    let wanted = draft.address(best);
    draft
        .operations
        .push(Operation::File(FileOperation::Write(FILE.to_owned())));
    draft.read.push(FILE.to_owned());
    draft.must_resolve(name);
    let head = format!("#!/bin/sh\nset -eu\nunwanted=\"{unwanted}\"\nwanted=\"{wanted}\"\n");
    Some(draft.propose(intent, head + SCRIPT))
}
