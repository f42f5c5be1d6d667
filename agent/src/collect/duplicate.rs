//! Addresses of ours that somebody else has: failed IPv6 detection, and what an ARP probe may be sent for.

use std::net::{IpAddr, Ipv4Addr};

use aizen_protocol::record::{Address, Duplicate, DuplicateBy, Link};

/// An IPv4 address of ours that can be probed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Index of the interface.
    pub(crate) link: u32,
    /// Its name.
    pub(crate) dev: String,
    /// The address.
    pub(crate) address: Ipv4Addr,
}

/// The IPv4 addresses on links that have an Ethernet address and a carrier.
pub(crate) fn candidates(links: &[Link], addresses: &[Address]) -> Vec<Candidate> {
    addresses
        .iter()
        .filter_map(|address| {
            let IpAddr::V4(ours) = address.address.address else {
                return None;
            };
            let link = links.iter().find(|l| l.index == address.link)?;
            let speaks_arp = link.admin_up
                && !link.loopback
                && link.mac.is_some()
                && link.carrier != Some(false);
            speaks_arp.then(|| Candidate {
                link: link.index,
                dev: link.name.clone(),
                address: ours,
            })
        })
        .take(MAX_CANDIDATES)
        .collect()
}

/// Failed detections (RFC 4862).
pub(crate) fn detected(addresses: &[Address]) -> Vec<Duplicate> {
    let failed = addresses.iter().filter(|a| a.dad_failed);
    failed
        .map(|a| Duplicate {
            link: a.link,
            address: a.address.address,
            others: Vec::new(),
            by: DuplicateBy::Dad,
        })
        .collect()
}

const MAX_CANDIDATES: usize = 16;
