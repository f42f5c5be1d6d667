//! DHCP on this device, as its clients and servers leave it in files; netifd is asked.

pub(crate) mod lease;
pub(crate) mod netifd;
pub(crate) mod packet;
pub(crate) mod pool;
pub(crate) mod wanted;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use aizen_protocol::record::Dhcp;
use jiff::Timestamp;

use super::Seen;

/// Reads leases, pools and what is set to be configured by DHCP; netifd gets `deadline`.
pub(crate) fn collect(root: &Path, now: Timestamp, deadline: Duration) -> Seen<Dhcp> {
    let mut gaps = Vec::new();
    let netifd = netifd::read(root, deadline, &mut gaps);
    let mut leases = lease::read(root, &mut gaps);
    // What a running program says beats a file of another one.
    leases.retain(|lease| netifd.leases.iter().all(|newer| newer.link != lease.link));
    leases.extend(netifd.leases);
    let mut wanted: BTreeSet<String> = wanted::read(root).into_iter().collect();
    wanted.extend(netifd.wanted);
    let value = Dhcp {
        leases,
        pools: pool::read(root, now, &mut gaps),
        wanted: wanted.into_iter().collect(),
    };
    Seen { value, gaps }
}
