//! Letting a forwarding link take router advertisements.

use aizen_protocol::proposal::Proposal;
use aizen_protocol::record::Link;

use super::{interface, set_parameter};
use crate::case::View;

/// Sets `accept_ra` to 2: also while it forwards.
pub(crate) fn accept(view: &View<'_>, link: &Link) -> Option<Proposal> {
    let dev = interface(view, link.index)?;
    Some(set_parameter(
        view,
        format!("net/ipv6/conf/{dev}/accept_ra"),
        "2",
        "Takes IPv6 router advertisements although this link forwards.",
        format!("Let {dev} take IPv6 router advertisements"),
    ))
}
