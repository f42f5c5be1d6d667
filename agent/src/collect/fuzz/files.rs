//! Entries of [`crate::fuzz`]: files of other programs, and answers from the network to what is collected.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::collect::log::journal::{Journal, Wanted};
use crate::collect::log::syslog as lines;
use crate::collect::{arp as claims, dhcp, disk, resolvers as nameservers, sntp as time};
use crate::fuzz::{in_file, survives};

/// A moment in 2026.
fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// ARP.
pub fn arp(bytes: &[u8]) {
    for address in [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::UNSPECIFIED] {
        claims::claims(bytes, address);
    }
}

/// SNTP.
pub fn sntp(bytes: &[u8]) {
    let cookie = bytes.get(24..32).and_then(|c| c.first_chunk());
    let cookie = cookie.copied().unwrap_or_default();
    for sent in [now(), Timestamp::MIN, Timestamp::MAX] {
        time::judge(bytes, cookie, sent, Duration::from_millis(20));
    }
}

/// Files of the systemd journal.
pub fn journal(bytes: &[u8]) {
    in_file(bytes, |path| {
        let wanted = Wanted {
            since: Timestamp::UNIX_EPOCH,
            until: Instant::now() + Duration::from_secs(2),
            most: 100,
        };
        let Ok(mut journal) = Journal::open(path) else {
            return;
        };
        if let Ok(tail) = journal.tail(&wanted, &|_, _| true) {
            assert!(tail.entries.len() <= wanted.most);
        }
    });
}

/// Lines of syslog.
pub fn syslog(bytes: &[u8]) {
    in_file(bytes, |path| {
        let text = lines::tail(path).unwrap_or_default();
        for line in text.lines() {
            if let Some(line) = lines::line(line, now(), &TimeZone::UTC) {
                assert!(line.severity <= 7);
            }
        }
    });
}

/// The packets that dhcpcd keeps.
pub fn dhcp_packet(bytes: &[u8]) {
    dhcp::packet::read(bytes);
    let written = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    for written in [Some(written), None] {
        if let Some(lease) = dhcp::lease::kept("eth0", "dhcpcd", bytes, written) {
            survives(&lease);
        }
    }
}

/// Leases of systemd-networkd and NetworkManager.
pub fn lease_assigned(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(lease) = dhcp::lease::assigned("eth0", "systemd-networkd", &text) {
        survives(&lease);
    }
}

/// Leases of dhclient.
pub fn dhclient(bytes: &[u8]) {
    survives(&dhcp::lease::blocks(&String::from_utf8_lossy(bytes)));
}

/// What dnsmasq and ISC's server are told to give, and what they gave.
pub fn dnsmasq(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let ranges: Vec<_> = dhcp::pool::settings(&text, "dhcp-range")
        .filter_map(dhcp::pool::range)
        .collect();
    let mut held = dhcp::pool::held(&text, now());
    held.extend(dhcp::pool::active(&text));
    survives(&dhcp::pool::pools("dnsmasq", &ranges, &held));
}

/// Which links are to use DHCP.
pub fn dhcp_wanted(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    dhcp::wanted::ifupdown(&text);
    dhcp::wanted::openwrt(&text);
    for pattern in dhcp::wanted::networkd(&text) {
        dhcp::wanted::matches(&pattern, "enp0s31f6");
        assert!(!pattern.bytes().all(|b| b == b'*') || dhcp::wanted::matches(&pattern, "eth0"));
    }
}

/// `resolv.conf`.
pub fn resolvers(bytes: &[u8]) {
    survives(&nameservers::parse(bytes).value);
}

/// mountinfo and fstab.
pub fn mountinfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    disk::data_mounts(&text);
    disk::wanted_writable(&text, Path::new("/"));
}
