//! Links that are set to be configured by DHCP: ifupdown (interfaces(5)), systemd.network(5), OpenWrt's
//! `/etc/config/network`. Netplan writes files of systemd.network or of NetworkManager.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::collect::file;

/// Names of links, sorted.
pub(super) fn read(root: &Path) -> Vec<String> {
    let mut wanted = BTreeSet::new();
    let mut files = vec![root.join("etc/network/interfaces")];
    files.extend(file::entries(
        &root.join("etc/network/interfaces.d"),
        MAX_FILES,
    ));
    for text in texts(&files) {
        wanted.extend(ifupdown(&text));
    }
    let networks = ["etc/systemd/network", "run/systemd/network"];
    let files: Vec<PathBuf> = networks
        .iter()
        .flat_map(|folder| file::entries(&root.join(folder), MAX_FILES))
        .filter(|path| file::name(path).ends_with(".network"))
        .collect();
    let links: Vec<PathBuf> = file::entries(&root.join("sys/class/net"), MAX_LINKS);
    for text in texts(&files) {
        let patterns = networkd(&text);
        let of_here = links.iter().map(|link| file::name(link));
        let matching = of_here.filter(|link| patterns.iter().any(|p| matches(p, link)));
        wanted.extend(matching.map(ToOwned::to_owned));
    }
    for text in texts(&[root.join("etc/config/network")]) {
        wanted.extend(openwrt(&text));
    }
    wanted.into_iter().take(MAX_LINKS).collect()
}

fn texts(files: &[PathBuf]) -> Vec<String> {
    files
        .iter()
        .filter_map(|path| file::text(path, MAX_BYTES).ok())
        .collect()
}

/// `iface NAME inet dhcp`.
pub(crate) fn ifupdown(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let is_iface = words.next() == Some("iface");
            let (name, family, method) = (words.next()?, words.next()?, words.next()?);
            let is_dhcp = is_iface && matches!(family, "inet" | "inet6") && method == "dhcp";
            is_dhcp.then(|| name.to_owned())
        })
        .collect()
}

/// The patterns of `[Match] Name=` if `[Network] DHCP=` is on.
pub(crate) fn networkd(text: &str) -> Vec<String> {
    let (mut section, mut patterns, mut dhcp) = ("", Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some((key, value)) = line.split_once('=') {
            match (section, key.trim()) {
                ("[Match]", "Name") => patterns.extend(
                    value
                        .split_ascii_whitespace()
                        .take(MAX_FILES)
                        .map(ToOwned::to_owned),
                ),
                ("[Network]", "DHCP") => {
                    let off = ["no", "false", "off", "0", "none", ""];
                    dhcp = !off.contains(&value.trim());
                }
                _ => {}
            }
        }
    }
    if dhcp { patterns } else { Vec::new() }
}

/// `config interface` with `option proto 'dhcp'`: its device, or its name.
pub(crate) fn openwrt(text: &str) -> Vec<String> {
    text.split("\nconfig ")
        .filter_map(|section| {
            let section = section.strip_prefix("config ").unwrap_or(section);
            let name = section.lines().next()?.strip_prefix("interface")?;
            let option = |wanted: &str| {
                section.lines().find_map(|line| {
                    let rest = line.trim_start().strip_prefix("option ")?;
                    let (key, value) = rest.trim_start().split_once([' ', '\t'])?;
                    (key == wanted).then(|| bare(value))
                })
            };
            let is_dhcp = matches!(option("proto")?, "dhcp" | "dhcpv6");
            let link = option("device").or_else(|| option("ifname"));
            // An alias (`@wan`) stands for another of these.
            let link = link.unwrap_or(bare(name)).trim_start_matches('@');
            is_dhcp.then(|| link.to_owned())
        })
        .collect()
}

fn bare(value: &str) -> &str {
    value.trim().trim_matches(['\'', '"'])
}

/// Shell patterns with `*` and `?`; a leading `!` turns the meaning, which selects nothing by itself.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut star) = ((0, 0), None);
    while let Some(c) = name.get(at.1) {
        match pattern.get(at.0) {
            Some('*') => {
                star = Some(at);
                at.0 += 1;
            }
            Some(p) if *p == '?' || p == c => at = (at.0 + 1, at.1 + 1),
            _ => match star {
                // The star takes one more character.
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    at = (place + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at.0).all(|p| *p == '*')
}

const MAX_FILES: usize = 64;
const MAX_LINKS: usize = 256;
const MAX_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_that_any_of_the_configurations_wants_are_told_once() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(
            "etc/network/interfaces",
            "auto eth0\niface eth0 inet dhcp\niface eth1 inet static\n# iface eth9 inet dhcp\n",
        );
        put("etc/network/interfaces.d/x", "iface eth0 inet6 dhcp\n");
        put(
            "etc/systemd/network/10-a.network",
            "[Match]\nName=en* wl?\n\n[Network]\nDHCP=yes\n",
        );
        put(
            "etc/systemd/network/20-b.network",
            "[Match]\nName=br0\n[Network]\nDHCP=no\n",
        );
        for link in ["enp1s0", "wl0", "wlan0", "br0"] {
            put(&format!("sys/class/net/{link}/ifindex"), "1");
        }
        put(
            "etc/config/network",
            "config interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n\nconfig interface 'wan'\n\toption device 'eth3'\n\toption proto 'dhcp'\n\nconfig interface 'wan6'\n\toption device '@wan'\n\toption proto 'dhcpv6'\n",
        );
        assert_eq!(read(root.path()), ["enp1s0", "eth0", "eth3", "wan", "wl0"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}", pattern in "[a-c*?]{0,12}", name in "[a-c]{0,12}") {
            drop(ifupdown(&text));
            drop(networkd(&format!("[Match]\nName={text}\n[Network]\nDHCP={text}")));
            drop(openwrt(&format!("config interface {text}\n\toption proto dhcp")));
            matches(&pattern, &name);
            prop_assert!(matches("*", &name) && matches(&name, &name));
        }
    }
}
