//! Both ends of a trunk put untagged frames into different VLANs.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Link, Port};

use super::peer;
use crate::case::View;
use crate::expert::draft::{Draft, Layer};

/// Both ends of a trunk put untagged frames into different VLANs. On a port with a single VLAN the numbers are each
/// end's own affair.
pub(super) fn native(view: &View<'_>, link: &Link) -> Option<Draft> {
    let Some(Port::Bridge {
        pvid: Some(ours),
        vlans,
        ..
    }) = &link.port
    else {
        return None;
    };
    let (at, peer) = peer(view, link.index)?;
    let theirs = peer.pvid.filter(|pvid| *pvid != 0 && pvid != ours)?;
    if vlans.len() < 2 || peer.vlans.len() < 2 {
        return None;
    }
    let seen = view.now().links.as_ref()?;
    let name = &link.name;
    let mut draft = Draft::new(
        "native_vlan_mismatch",
        Layer::Link,
        name.as_str(),
        Severity::Warning,
        format!(
            "Untagged frames on {name} belong to VLAN {ours} here and to VLAN {theirs} at the other end"
        ),
    );
    let fact = format!(
        "{name} puts untagged frames into VLAN {ours} of {} VLANs",
        vlans.len()
    );
    draft.shown("links", "pvid", seen.at, fact);
    let fact = format!("the other end of {name} announces VLAN {theirs} for untagged frames");
    draft.shown("lldp", "pvid", at, fact);
    draft.explains(format!(
        "Hosts of VLAN {ours} and VLAN {theirs} see each other, and may get leases of the wrong pool"
    ));
    draft.misses(
        "which of the two numbers is meant (the plan of the network; the switch's own status)",
    );
    draft.next(format!(
        "Set the same untagged VLAN at both ends of {name}, in a maintenance window: who manages the switch through it \
         may lose it"
    ));
    Some(draft)
}
