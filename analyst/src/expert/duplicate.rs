//! Addresses of ours that somebody else uses too.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::private::Mac;
use aizen_protocol::record::{Address, Duplicate, DuplicateBy};

use super::draft::{Draft, Examined, Layer};
use super::unit::list;
use crate::case::View;

/// Virtual router MAC addresses: VRRP and CARP (RFC 9568), HSRP, GLBP. Routers share an address through them on purpose.
const VIRTUAL_ROUTERS: [&[u8]; 5] = [
    &[0x00, 0x00, 0x5e, 0x00, 0x01],
    &[0x00, 0x00, 0x5e, 0x00, 0x02],
    &[0x00, 0x00, 0x0c, 0x07, 0xac],
    &[0x00, 0x00, 0x0c, 0x9f],
    &[0x00, 0x07, 0xb4],
];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let now = view.now();
    for duplicate in now.duplicates.iter().flat_map(|seen| &seen.value) {
        let told = examined.drafts.iter().any(|draft: &Draft| {
            draft.is_about(&component(view, duplicate.link, duplicate.address))
        });
        if !told && is_ours(view, duplicate) {
            examined.drafts.extend(seen_twice(view, duplicate));
        }
    }
    let failed = now.addresses.iter().flat_map(|seen| &seen.value);
    for address in failed.filter(|address| address.dad_failed) {
        let component = component(view, address.link, address.address.address);
        if !examined
            .drafts
            .iter()
            .any(|draft| draft.is_about(&component))
        {
            examined.drafts.push(refused_by_kernel(view, address));
        }
    }
    // Without the right to ask, nobody was heard for another reason.
    let unasked = now
        .ended
        .value
        .gaps
        .iter()
        .any(|gap| gap.collector == "duplicates");
    if now.duplicates.is_some() && !unasked && examined.drafts.is_empty() {
        examined
            .well
            .push("Nobody else answers for an address of this device".into());
    }
    examined
}

fn component(view: &View<'_>, link: u32, address: IpAddr) -> String {
    format!("{address} on {}", view.link_name(link))
}

/// False only if the addresses were seen and this is none of them.
fn is_ours(view: &View<'_>, duplicate: &Duplicate) -> bool {
    view.now().addresses.as_ref().is_none_or(|seen| {
        seen.value
            .iter()
            .any(|ours| ours.address.address == duplicate.address)
    })
}

pub(super) fn is_virtual_router(mac: Mac) -> bool {
    VIRTUAL_ROUTERS
        .iter()
        .any(|prefix| mac.0.starts_with(prefix))
}

/// Somebody answered for it, and it isn't us and no virtual router.
fn seen_twice(view: &View<'_>, duplicate: &Duplicate) -> Option<Draft> {
    let seen = view.now().duplicates.as_ref()?;
    let ours = |mac: &Mac| view.links().iter().any(|link| link.mac == Some(*mac));
    let others: Vec<Mac> = duplicate
        .others
        .iter()
        .copied()
        .filter(|mac| !ours(mac) && !is_virtual_router(*mac))
        .collect();
    let known_to_be_harmless = !duplicate.others.is_empty() && others.is_empty();
    let silent_arp = duplicate.by == DuplicateBy::Arp && others.is_empty();
    if known_to_be_harmless || silent_arp {
        return None;
    }
    let address = duplicate.address;
    let mut draft = draft(view, duplicate.link, address);
    let fact = match duplicate.by {
        DuplicateBy::Arp => format!("ARP probe for {address} was answered by {}", list(&others)),
        DuplicateBy::Dad => format!("duplicate address detection failed for {address}"),
    };
    let witness = match duplicate.by {
        DuplicateBy::Arp => "arp",
        DuplicateBy::Dad => "dad",
    };
    draft.shown("duplicates", witness, seen.at, fact);
    if duplicate.by == DuplicateBy::Arp {
        // Detection by the kernel is this flag: it would be counted twice.
        kernel_flag(&mut draft, view, address);
    }
    other_sightings(&mut draft, view, duplicate, &others);
    Some(draft)
}

/// The kernel's own detection failed, though no collector reported who has it.
fn refused_by_kernel(view: &View<'_>, address: &Address) -> Draft {
    let mut draft = draft(view, address.link, address.address.address);
    kernel_flag(&mut draft, view, address.address.address);
    draft
}

fn kernel_flag(draft: &mut Draft, view: &View<'_>, address: IpAddr) {
    let Some(seen) = &view.now().addresses else {
        return;
    };
    let flagged = |ours: &Address| ours.address.address == address && ours.dad_failed;
    if seen.value.iter().any(flagged) {
        let fact = format!("the kernel marks {address} as a failed duplicate (IFA_F_DADFAILED)");
        draft.shown("addresses", "dad_failed", seen.at, fact);
    }
}

/// The other one's MAC in the neighbour table.
fn other_sightings(draft: &mut Draft, view: &View<'_>, duplicate: &Duplicate, others: &[Mac]) {
    if let Some(seen) = &view.now().neighbours {
        let also = seen.value.iter().find(|neighbour| {
            neighbour.link == duplicate.link
                && neighbour.mac.is_some_and(|mac| others.contains(&mac))
        });
        if let Some((neighbour, mac)) = also.and_then(|entry| Some((entry, entry.mac?))) {
            let fact = format!("{mac} is also the neighbour {}", neighbour.address);
            draft.backed("neighbours", "mac", seen.at, fact);
        }
    }
}

fn draft(view: &View<'_>, link: u32, address: IpAddr) -> Draft {
    let name = view.link_name(link);
    let mut draft = Draft::new(
        "duplicate_address",
        Layer::Address,
        component(view, link, address),
        Severity::Critical,
        format!("Somebody else on {name} uses {address} too"),
    );
    draft.misses(
        "the switch port behind the other MAC address: look it up in the switch's forwarding table (`aizen neighbours` \
         shows which addresses share it)",
    );
    draft.explains(format!(
        "Connections of {address} break at random while both hosts are on"
    ));
    draft.next(format!(
        "Find the other host by its MAC address and give one of the two another address; if {address} is in a DHCP \
         pool, exclude it there"
    ));
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use super::*;
    use crate::fixture::{Evidence, healthy, ip, only, share_address};

    fn with(others: &[&str]) -> Evidence {
        let mut evidence = healthy(1);
        share_address(&mut evidence);
        evidence.duplicates[0].others = others.iter().map(|mac| mac.parse().unwrap()).collect();
        evidence
    }

    #[test]
    fn a_stranger_that_answers_for_our_address_is_named_with_its_mac() {
        let verdict = with(&["02:00:5e:10:99:99"]).verdict();
        let finding = only(&verdict);
        assert_eq!(finding.component.0, "192.168.40.1 on lan");
        assert_eq!(finding.confidence, Confidence::Suspected);
        assert!(finding.evidence[0].fact.0.contains("02:00:5e:10:99:99"));
        assert_eq!(finding.proposal, None);
        let seen_twice = with(&["02:00:5e:10:40:20"]).verdict();
        assert_eq!(only(&seen_twice).confidence, Confidence::Likely);
    }

    #[test]
    fn virtual_routers_our_own_ports_and_addresses_we_gave_up_do_not_alarm() {
        for mac in [
            "00:00:5e:00:01:0a",
            "00:00:5e:00:02:0a",
            "00:00:0c:07:ac:01",
            "02:00:5e:10:00:02",
        ] {
            assert_eq!(with(&[mac]).verdict().health, Health::Healthy, "{mac}");
        }
        let mut gone = with(&["02:00:5e:10:99:99"]);
        gone.duplicates[0].address = ip("192.168.40.9");
        assert_eq!(gone.verdict().health, Health::Healthy);
        assert_eq!(with(&[]).verdict().health, Health::Healthy);
    }

    #[test]
    fn failed_detection_of_the_kernel_is_one_source_however_it_is_told() {
        let mut evidence = healthy(1);
        evidence.addresses[2].dad_failed = true;
        assert_eq!(only(&evidence.verdict()).confidence, Confidence::Suspected);
        share_address(&mut evidence);
        (evidence.duplicates[0].by, evidence.duplicates[0].others) = (DuplicateBy::Dad, vec![]);
        assert_eq!(only(&evidence.verdict()).confidence, Confidence::Suspected);
        share_address(&mut evidence);
        assert_eq!(only(&evidence.verdict()).confidence, Confidence::Certain);
    }

    #[test]
    fn an_address_whose_detection_still_runs_does_not_alarm() {
        let mut evidence = healthy(1);
        evidence.addresses[4].tentative = true;
        assert_eq!(evidence.verdict().health, Health::Healthy);
    }
}
