//! Switching IPv4 forwarding on.

use aizen_protocol::package::manifest::{Operation, Sysctl, SysctlOperation};
use aizen_protocol::proposal::Proposal;

use super::{Draft, answering};
use crate::case::View;

const KEY: &str = "net.ipv4.ip_forward";

/// Switches forwarding on for a device that the operator calls a router.
pub(crate) fn switch_on(view: &View<'_>) -> Proposal {
    let mut draft = Draft::new();
    draft
        .operations
        .push(Operation::Sysctl(SysctlOperation::Set(Sysctl {
            key: KEY.to_owned(),
            value: "1".to_owned(),
        })));
    if let Some(target) = answering(view) {
        draft.must_answer(target);
    }
    let script = format!(
        "#!/bin/sh\n\
         # Lets this router forward IPv4 packets again.\n\
         set -eu\n\
         change sysctl {KEY}=1\n"
    );
    draft.propose("Switch IPv4 forwarding on".into(), script)
}
