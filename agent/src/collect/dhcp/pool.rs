//! Pools of the servers that keep ranges and leases in files: dnsmasq(8), dhcpd.conf(5).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aizen_protocol::record::Pool;
use jiff::Timestamp;

use crate::collect::file;

/// The pools of servers that are set up here.
pub(super) fn read(root: &Path, now: Timestamp, gaps: &mut Vec<String>) -> Vec<Pool> {
    let mut pools = dnsmasq(root, now, gaps);
    pools.extend(isc(root, gaps));
    pools.truncate(MAX_POOLS);
    pools
}

fn dnsmasq(root: &Path, now: Timestamp, gaps: &mut Vec<String>) -> Vec<Pool> {
    let mut files = vec![root.join("etc/dnsmasq.conf")];
    files.extend(file::entries(&root.join("etc/dnsmasq.d"), MAX_FILES));
    // OpenWrt writes what it starts dnsmasq with.
    let generated = file::entries(&root.join("var/etc"), MAX_FILES);
    files.extend(
        generated
            .into_iter()
            .filter(|path| file::name(path).starts_with("dnsmasq.conf")),
    );
    let text: Vec<String> = files
        .iter()
        .filter_map(|path| file::text(path, MAX_BYTES).ok())
        .collect();
    let text = text.join("\n");
    let ranges: Vec<_> = settings(&text, "dhcp-range").filter_map(range).collect();
    if ranges.is_empty() {
        return Vec::new();
    }
    let named = settings(&text, "dhcp-leasefile").last();
    let named = named.map(|path| root.join(path.trim_start_matches('/')));
    let Some(leases) = leases(root, named, gaps) else {
        return Vec::new();
    };
    let held = held(&leases, now);
    pools("dnsmasq", &ranges, &held)
}

/// The values of a setting, comments removed.
pub(crate) fn settings<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line.strip_prefix(name)?.trim_start().strip_prefix('=')?;
        Some(rest.trim())
    })
}

/// `[tag:…,]FIRST,LAST,…`; ranges without an end serve fixed hosts or advertise only.
pub(crate) fn range(value: &str) -> Option<(IpAddr, IpAddr)> {
    let mut words = value.split(',').map(str::trim);
    let first = words.find_map(|word| word.parse::<IpAddr>().ok())?;
    let last: IpAddr = words.next()?.parse().ok()?;
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last))
}

/// The file of leases; none if it isn't ours to read. A server that never gave one has none.
fn leases(root: &Path, named: Option<PathBuf>, gaps: &mut Vec<String>) -> Option<String> {
    let usual = ["var/lib/misc/dnsmasq.leases", "tmp/dhcp.leases"].map(|path| root.join(path));
    for path in named.into_iter().chain(usual) {
        match file::text(&path, MAX_LEASE_FILE) {
            Ok(text) => return Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                gaps.push(format!(
                    "the leases that dnsmasq gave can't be read: {error}"
                ));
                return None;
            }
        }
    }
    Some(String::new())
}

/// `EXPIRY MAC ADDRESS NAME ID`, the expiry in seconds since 1970, 0 for never.
pub(crate) fn held(leases: &str, now: Timestamp) -> Vec<IpAddr> {
    leases
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let expiry: i64 = words.next()?.parse().ok()?;
            let address = words.nth(1)?.parse().ok()?;
            (expiry == 0 || expiry > now.as_second()).then_some(address)
        })
        .collect()
}

fn isc(root: &Path, gaps: &mut Vec<String>) -> Vec<Pool> {
    let Ok(text) = file::text(&root.join("etc/dhcp/dhcpd.conf"), MAX_BYTES) else {
        return Vec::new();
    };
    let plain: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| [line, " "])
        .collect();
    let ranges: Vec<_> = plain
        .split([';', '{', '}'])
        .filter_map(|statement| {
            let mut words = statement.trim().strip_prefix("range ")?.split_whitespace();
            let mut next = || words.find(|word| *word != "dynamic-bootp")?.parse().ok();
            let first: IpAddr = next()?;
            Some((first, next().unwrap_or(first)))
        })
        .filter(|(first, last)| first <= last)
        .collect();
    if ranges.is_empty() {
        return Vec::new();
    }
    let path = root.join("var/lib/dhcp/dhcpd.leases");
    match file::text(&path, MAX_LEASE_FILE) {
        Ok(leases) => pools("isc-dhcp-server", &ranges, &active(&leases)),
        Err(error) => {
            gaps.push(format!("/var/lib/dhcp/dhcpd.leases can't be read: {error}"));
            Vec::new()
        }
    }
}

/// `lease ADDRESS { … binding state active; … }` (dhcpd.leases(5)); the last of an address counts.
pub(crate) fn active(text: &str) -> Vec<IpAddr> {
    let mut last = BTreeMap::new();
    for block in text.split("\nlease ") {
        let Some((address, rest)) = block.split_once('{') else {
            continue;
        };
        let rest = rest.split('}').next().unwrap_or_default();
        if let Ok(address) = address
            .trim()
            .trim_start_matches("lease ")
            .parse::<IpAddr>()
        {
            // Not `next binding state`, which stands on a line of its own, too.
            let active = rest.lines().any(|l| l.trim() == "binding state active;");
            last.insert(address, active);
        }
    }
    last.into_iter()
        .filter_map(|(address, active)| active.then_some(address))
        .collect()
}

pub(crate) fn pools(server: &str, ranges: &[(IpAddr, IpAddr)], held: &[IpAddr]) -> Vec<Pool> {
    ranges
        .iter()
        .take(MAX_POOLS)
        .map(|&(first, last)| {
            let leased = held.iter().filter(|a| first <= **a && **a <= last).count();
            Pool {
                server: server.to_owned(),
                first,
                last,
                size: size(first, last),
                leased: u32::try_from(leased).unwrap_or(u32::MAX),
            }
        })
        .collect()
}

fn size(first: IpAddr, last: IpAddr) -> u32 {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let between = number(last).saturating_sub(number(first));
    u32::try_from(between.saturating_add(1)).unwrap_or(u32::MAX)
}

const MAX_POOLS: usize = 64;
const MAX_FILES: usize = 64;
const MAX_BYTES: u64 = 256 << 10;
const MAX_LEASE_FILE: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn told(root: &Path) -> (Vec<(String, u32, u32)>, usize) {
        let mut gaps = Vec::new();
        let pools = read(root, Timestamp::from_second(1000).unwrap(), &mut gaps);
        let told = pools.into_iter().map(|p| (p.server, p.size, p.leased));
        (told.collect(), gaps.len())
    }

    #[test]
    fn leases_of_dnsmasq_that_have_not_ended_fill_its_pools() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(
            root,
            "etc/dnsmasq.conf",
            "#dhcp-range=192.0.2.1,192.0.2.2\ndhcp-range=set:lan,192.0.2.10,192.0.2.19,255.255.255.0,12h\n",
        );
        put(
            root,
            "etc/dnsmasq.d/more",
            "dhcp-range = ::f,::ff,constructor:lan0\ndhcp-range=198.51.100.0,static\ndhcp-leasefile=/srv/leases\n",
        );
        assert_eq!(
            told(root),
            (
                vec![("dnsmasq".into(), 10, 0), ("dnsmasq".into(), 241, 0)],
                0
            )
        );
        put(
            root,
            "srv/leases",
            "2000 02:00:00:00:00:01 192.0.2.10 a *\n0 02:00:00:00:00:02 192.0.2.19 b *\n\
             999 02:00:00:00:00:03 192.0.2.11 c *\n2000 02:00:00:00:00:04 192.0.2.20 d *\nduid 00:01\n",
        );
        assert_eq!(told(root).0[0], ("dnsmasq".into(), 10, 2));
    }

    #[test]
    fn the_last_state_of_an_address_counts_with_isc() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(
            root,
            "etc/dhcp/dhcpd.conf",
            "subnet 192.0.2.0 netmask 255.255.255.0 {\n  # range 192.0.2.1 192.0.2.2;\n  range 192.0.2.10 192.0.2.12;\n}\n",
        );
        assert_eq!(told(root), (Vec::new(), 1));
        put(
            root,
            "var/lib/dhcp/dhcpd.leases",
            "lease 192.0.2.10 {\n  binding state active;\n  next binding state free;\n}\nlease 192.0.2.11 {\n  binding state active;\n}\nlease 192.0.2.11 {\n  binding state free;\n}\n",
        );
        assert_eq!(told(root), (vec![("isc-dhcp-server".into(), 3, 1)], 0));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}", a in any::<IpAddr>(), b in any::<IpAddr>()) {
            prop_assert!(range(&text).is_none_or(|(first, last)| first <= last));
            drop(held(&text, Timestamp::UNIX_EPOCH));
            drop(active(&text));
            let range = range(&format!("{a},{b}"));
            prop_assert!(range.is_none_or(|(first, last)| size(first, last) >= 1));
        }
    }
}
