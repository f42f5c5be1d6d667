//! DHCP on this device, as its clients and servers leave it in files.

pub(crate) mod lease;
pub(crate) mod packet;
pub(crate) mod pool;
pub(crate) mod wanted;

use std::path::Path;

use aizen_protocol::record::Dhcp;
use jiff::Timestamp;

use super::Seen;

/// Reads leases, pools and what is set to be configured by DHCP.
pub(crate) fn collect(root: &Path, now: Timestamp) -> Seen<Dhcp> {
    let mut gaps = Vec::new();
    let value = Dhcp {
        leases: lease::read(root, &mut gaps),
        pools: pool::read(root, now, &mut gaps),
        wanted: wanted::read(root),
    };
    Seen { value, gaps }
}
