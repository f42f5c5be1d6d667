//! Loosening the reverse path filter.

use aizen_protocol::proposal::Proposal;
use aizen_protocol::record::Link;

use super::{interface, set_parameter};
use crate::case::View;

/// Sets `rp_filter` to 2 (RFC 3704, loose): a source needs a route, but not through this link.
pub(crate) fn loosen(view: &View<'_>, link: &Link) -> Option<Proposal> {
    let dev = interface(view, link.index)?;
    Some(set_parameter(
        view,
        format!("net/ipv4/conf/{dev}/rp_filter"),
        "2",
        "Accepts packets whose answers leave through another link.",
        format!("Set the reverse path filter of {dev} to loose"),
    ))
}
