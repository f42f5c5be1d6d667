//! Room for more neighbours.

use aizen_protocol::proposal::Proposal;
use aizen_protocol::record::NeighbourTable;

use super::set_parameter;
use crate::case::View;

/// An entry takes about half a KiB: more than this would be a leak or an attack, not a network.
const MOST: u32 = 16_384;

/// Doubles `gc_thresh3`.
pub(crate) fn raise_limit(view: &View<'_>, table: &NeighbourTable) -> Option<Proposal> {
    let family = match table.family {
        4 => "ipv4",
        6 => "ipv6",
        _ => return None,
    };
    let limit = table.thresholds[2].checked_mul(2)?;
    if limit == 0 || limit > MOST {
        return None;
    }
    Some(set_parameter(
        view,
        format!("net.{family}.neigh.default.gc_thresh3"),
        &limit.to_string(),
        "Makes room for more neighbours.",
        format!("Raise the limit of the {family} neighbour table to {limit} entries"),
    ))
}
