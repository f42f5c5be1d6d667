//! Addresses of ours that somebody else has: failed IPv6 detection, and an ARP probe where that is permitted.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use aizen_protocol::record::{Address, Duplicate, DuplicateBy, Link};
use futures_util::future::join_all;

use super::{Seen, arp};

/// An IPv4 address of ours that can be probed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Index of the interface.
    pub link: u32,
    /// Its name.
    pub dev: String,
    /// The address.
    pub address: Ipv4Addr,
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

/// Probes for all candidates, side by side.
pub(crate) async fn probe(candidates: &[Candidate], deadline: Duration) -> Seen<Vec<Duplicate>> {
    let answers = join_all(
        candidates
            .iter()
            .map(|c| arp::probe(&c.dev, c.address, deadline)),
    )
    .await;
    let mut seen = Seen {
        value: Vec::new(),
        gaps: Vec::new(),
    };
    for (candidate, answer) in candidates.iter().zip(answers) {
        match answer {
            Ok(others) if others.is_empty() => {}
            Ok(others) => seen.value.push(Duplicate {
                link: candidate.link,
                address: candidate.address.into(),
                others,
                by: DuplicateBy::Arp,
            }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                seen.gaps = vec!["IPv4 duplicates: an ARP probe needs CAP_NET_RAW".to_owned()];
                return seen;
            }
            Err(error) => seen
                .gaps
                .push(format!("ARP probe on {}: {error}", candidate.dev)),
        }
    }
    seen
}

const MAX_CANDIDATES: usize = 16;
