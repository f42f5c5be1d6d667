//! The decoders of foreign bytes, one entry each: for the targets in `fuzz/`, and for an ordinary test with bytes of
//! its own. No entry panics for any bytes, and what a decoder gives survives being written and read again.

mod own;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use aizen_protocol::{limit, strict};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::own::*;
pub use crate::broker::fuzz::*;
pub use crate::collect::fuzz::*;
pub use crate::door::fuzz::*;
pub use crate::probe::fuzz::*;
pub use crate::rollback::fuzz::*;

/// A decoder under test; the name is also the target's in `fuzz/targets` and the folder's in `fuzz/seeds`.
pub type Entry = (&'static str, fn(&[u8]));

/// All of them.
pub const ENTRIES: &[Entry] = &[
    ("arp", arp),
    ("attributes", attributes),
    ("broker", broker),
    ("certificate", certificate),
    ("change_journal", change_journal),
    ("checkpoint", checkpoint),
    ("configuration", configuration),
    ("conntrack", conntrack),
    ("dbus", dbus),
    ("dhclient", dhclient),
    ("dhcp_offer", dhcp_offer),
    ("dhcp_packet", dhcp_packet),
    ("dhcp_wanted", dhcp_wanted),
    ("dns_message", dns_message),
    ("dns_name", dns_name),
    ("dnsmasq", dnsmasq),
    ("envelope", envelope),
    ("ethernet", ethernet),
    ("fdb", fdb),
    ("filter", filter),
    ("frame", frame),
    ("http", http),
    ("icmp", icmp),
    ("journal", journal),
    ("kernel_log", kernel_log),
    ("lease_assigned", lease_assigned),
    ("link", link),
    ("lldp", lldp),
    ("manifest", manifest),
    ("mountinfo", mountinfo),
    ("neighbour", neighbour),
    ("nft_listing", nft_listing),
    ("package", package),
    ("pppoe", pppoe),
    ("pressure", pressure),
    ("protocols", protocols),
    ("queue", queue),
    ("record", record),
    ("recording", recording),
    ("resolvers", resolvers),
    ("route", route),
    ("router_advertisement", router_advertisement),
    ("sanitizer", sanitizer),
    ("sealed", sealed),
    ("sfp", sfp),
    ("sntp", sntp),
    ("sock_diag", sock_diag),
    ("socket_table", socket_table),
    ("softnet", softnet),
    ("stat", stat),
    ("syslog", syslog),
    ("trust", trust),
    ("ubus", ubus),
    ("uci", uci),
    ("url", url),
    ("wireguard", wireguard),
    ("wireless", wireless),
];

/// What is not the same after being written and read back would be lost on its way to the cloud, or in a recording.
pub(crate) fn survives<T: Serialize + DeserializeOwned>(value: &T) {
    let written = match serde_json::to_vec(value) {
        Ok(written) => written,
        Err(error) => panic!("can't be written: {error}"),
    };
    if written.len() <= limit::FRAME
        && let Err(error) = strict::from_slice::<T>(&written, limit::FRAME)
    {
        panic!(
            "can't be read back: {error}: {}",
            String::from_utf8_lossy(&written)
        );
    }
}

/// Lets `read` have the bytes as a file.
pub(crate) fn in_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    let Ok(memory) = memfd_create("aizen-fuzz", MemfdFlags::CLOEXEC) else {
        return;
    };
    let mut file = File::from(memory);
    if file.write_all(bytes).is_ok() {
        read(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
    }
}
