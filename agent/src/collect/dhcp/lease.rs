//! Leases of the clients that keep them in files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use aizen_protocol::record::Lease;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::packet;
use crate::collect::file;

/// The newest lease of each link.
pub(super) fn read(root: &Path, gaps: &mut Vec<String>) -> Vec<Lease> {
    let mut newest = BTreeMap::new();
    let mut add = |written: Option<SystemTime>, lease: Lease| {
        let known: Option<&(Option<SystemTime>, Lease)> = newest.get(&lease.link);
        if known.is_none_or(|(before, _)| *before <= written) {
            newest.insert(lease.link.clone(), (written, lease));
        }
    };
    for (folder, client) in FOLDERS {
        let folder = root.join(folder);
        if let Err(error) = fs::read_dir(&folder) {
            if error.kind() == io::ErrorKind::PermissionDenied {
                gaps.push(format!("leases of {client} are not ours to read"));
            }
            continue;
        }
        for path in file::entries(&folder, MAX_FILES) {
            let written = fs::metadata(&path).and_then(|m| m.modified()).ok();
            let Ok(bytes) = file::bytes(&path, MAX_BYTES) else {
                continue;
            };
            for lease in leases(root, client, file::name(&path), &bytes, written) {
                add(written, lease);
            }
        }
    }
    newest
        .into_values()
        .map(|(_, lease)| lease)
        .take(MAX_LEASES)
        .collect()
}

fn leases(
    root: &Path,
    client: &str,
    name: &str,
    bytes: &[u8],
    written: Option<SystemTime>,
) -> Vec<Lease> {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    match client {
        NETWORKD => link_name(root, name)
            .and_then(|link| assigned(&link, client, &text()))
            .into_iter()
            .collect(),
        NETWORK_MANAGER => {
            // internal-UUID-LINK.lease
            let link = name
                .strip_prefix("internal-")
                .and_then(|rest| rest.strip_suffix(".lease"))
                .and_then(|rest| rest.get(UUID..)?.strip_prefix('-'));
            link.and_then(|link| assigned(link, client, &text()))
                .into_iter()
                .collect()
        }
        DHCLIENT => blocks(&text()),
        _ => name
            .strip_suffix(".lease")
            .and_then(|rest| {
                let link = rest.strip_prefix("dhcpcd-").unwrap_or(rest);
                kept(link, client, bytes, written)
            })
            .into_iter()
            .collect(),
    }
}

/// The interface with this index.
fn link_name(root: &Path, index: &str) -> Option<String> {
    file::entries(&root.join("sys/class/net"), MAX_LINKS)
        .iter()
        .find(|link| file::word::<String>(&link.join("ifindex")).as_deref() == Some(index))
        .map(|link| file::name(link).to_owned())
}

/// `NAME=VALUE` lines of systemd's client, which NetworkManager took over. Times in it count from its last writing, which
/// is not when the lease was obtained.
pub(crate) fn assigned(link: &str, client: &str, text: &str) -> Option<Lease> {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let list = |name: &str| addresses(value(name).unwrap_or_default());
    Some(Lease {
        link: link.to_owned(),
        client: client.to_owned(),
        address: value("ADDRESS")?.trim().parse().ok()?,
        server: list("SERVER_ADDRESS").first().copied(),
        routers: list("ROUTER"),
        resolvers: list("DNS"),
        obtained: None,
        expires: None,
    })
}

/// `lease { … }` blocks (dhclient.leases(5)), the last of each link last.
pub(crate) fn blocks(text: &str) -> Vec<Lease> {
    let mut leases: BTreeMap<String, Lease> = BTreeMap::new();
    for block in text.split("lease {").skip(1) {
        let block = block.split('}').next().unwrap_or_default();
        let value = |name: &str| {
            block
                .split(';')
                .find_map(|statement| statement.trim_start().strip_prefix(name)?.strip_prefix(' '))
        };
        let list = |name: &str| addresses(value(name).unwrap_or_default());
        let link = value("interface").map(|link| link.trim().trim_matches('"').to_owned());
        let address = value("fixed-address").and_then(|a| a.trim().parse().ok());
        if let (Some(link), Some(address)) = (link, address) {
            let lease = Lease {
                link: link.clone(),
                client: DHCLIENT.to_owned(),
                address,
                server: list("option dhcp-server-identifier").first().copied(),
                routers: list("option routers"),
                resolvers: list("option domain-name-servers"),
                obtained: None,
                expires: value("expire").and_then(date),
            };
            leases.insert(link, lease);
        }
        if leases.len() == MAX_LEASES {
            break;
        }
    }
    leases.into_values().collect()
}

/// `4 2026/11/21 17:00:00`, in UTC, or `epoch SECONDS`; `never` is none.
fn date(text: &str) -> Option<Timestamp> {
    let mut words = text.split_ascii_whitespace();
    let (first, second) = (words.next()?, words.next()?);
    if first == "epoch" {
        return Timestamp::from_second(second.parse().ok()?).ok();
    }
    let time = format!("{}T{}", second.replace('/', "-"), words.next()?);
    let time: DateTime = time.parse().ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// The packet that dhcpcd keeps; the file's time is when it came.
pub(crate) fn kept(
    link: &str,
    client: &str,
    bytes: &[u8],
    written: Option<SystemTime>,
) -> Option<Lease> {
    let given = packet::read(bytes)?;
    let obtained = written.and_then(|time| Timestamp::try_from(time).ok());
    let expires = obtained
        .zip(given.life.filter(|life| *life != FOR_EVER))
        .and_then(|(at, life)| at.checked_add(SignedDuration::from_secs(life.into())).ok());
    Some(Lease {
        link: link.to_owned(),
        client: client.to_owned(),
        address: given.address.into(),
        server: given.server,
        routers: given.routers,
        resolvers: given.resolvers,
        obtained,
        expires,
    })
}

fn addresses(text: &str) -> Vec<IpAddr> {
    text.split([' ', ','])
        .filter_map(|word| word.trim().parse().ok())
        .take(MAX_ADDRESSES)
        .collect()
}

const NETWORKD: &str = "systemd-networkd";
const NETWORK_MANAGER: &str = "NetworkManager";
const DHCLIENT: &str = "dhclient";
const FOLDERS: &[(&str, &str)] = &[
    ("run/systemd/netif/leases", NETWORKD),
    ("var/lib/dhcp", DHCLIENT),
    ("var/lib/dhclient", DHCLIENT),
    ("var/lib/dhcpcd", "dhcpcd"),
    ("var/lib/dhcpcd5", "dhcpcd"),
    ("var/lib/NetworkManager", NETWORK_MANAGER),
];
pub(super) const MAX_ADDRESSES: usize = 8;
/// RFC 2131, 3.3.
const FOR_EVER: u32 = u32::MAX;
const UUID: usize = 36;
const MAX_LEASES: usize = 64;
const MAX_LINKS: usize = 2000;
const MAX_FILES: usize = 128;
/// dhclient only ever appends, until it starts anew.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::tests::acknowledgement;
    use super::*;

    fn put(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn leases_of_every_client_are_read() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(root, "sys/class/net/lan0/ifindex", b"1\n");
        put(root, "sys/class/net/wan0/ifindex", b"7\n");
        put(
            root,
            "run/systemd/netif/leases/7",
            b"# This is private data. Do not parse.\nADDRESS=192.0.2.5\nNETMASK=255.255.255.0\nROUTER=192.0.2.1\nSERVER_ADDRESS=192.0.2.1\nDNS=192.0.2.2 192.0.2.3\nLIFETIME=3600\n",
        );
        put(
            root,
            "var/lib/dhcp/dhclient.eth1.leases",
            b"lease {\n  interface \"eth1\";\n  fixed-address 198.51.100.2;\n  expire 4 2026/01/01 00:00:00;\n}\n\
              lease {\n  interface \"eth1\";\n  fixed-address 198.51.100.9;\n  option routers 198.51.100.1;\n  option domain-name-servers 198.51.100.1,9.9.9.9;\n  option dhcp-server-identifier 198.51.100.1;\n  renew 4 2026/01/01 12:00:00;\n  expire 4 2026/01/02 03:04:05;\n}\n",
        );
        put(root, "var/lib/dhcpcd/wlan0.lease", &acknowledgement());
        put(
            root,
            "var/lib/NetworkManager/internal-3f1c2b5e-0000-4000-8000-000000000001-eth2.lease",
            b"ADDRESS=203.0.113.4\n",
        );
        let mut gaps = Vec::new();
        let leases = read(root, &mut gaps);
        let seen: Vec<_> = leases
            .iter()
            .map(|l| (l.link.as_str(), l.client.as_str(), l.address.to_string()))
            .collect();
        assert_eq!(
            seen,
            [
                ("eth1", "dhclient", "198.51.100.9".to_owned()),
                ("eth2", "NetworkManager", "203.0.113.4".to_owned()),
                ("wan0", "systemd-networkd", "192.0.2.5".to_owned()),
                ("wlan0", "dhcpcd", "192.0.2.7".to_owned()),
            ]
        );
        let [dhclient, _, networkd, dhcpcd] = &leases[..] else {
            panic!("{leases:?}")
        };
        assert_eq!(
            dhclient.expires.unwrap().to_string(),
            "2026-01-02T03:04:05Z"
        );
        assert_eq!((dhclient.routers.len(), dhclient.resolvers.len()), (1, 2));
        assert_eq!(
            (networkd.resolvers.len(), networkd.server.is_some()),
            (2, true)
        );
        let life = dhcpcd
            .expires
            .unwrap()
            .duration_since(dhcpcd.obtained.unwrap());
        assert_eq!((life.as_secs(), gaps.len()), (3600, 0));
    }

    #[test]
    fn dates_of_dhclient_are_read_in_each_of_its_forms() {
        assert_eq!(date("epoch 60; # x").map(|t| t.as_second()), None);
        assert_eq!(date("epoch 60").map(|t| t.as_second()), Some(60));
        assert_eq!(date("never"), None);
        assert_eq!(date("4 2026/13/01 00:00:00"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}", value in "[ -~]{0,60}") {
            drop(blocks(&text));
            drop(blocks(&format!("lease {{ interface \"a\"; fixed-address 192.0.2.1; expire {value};")));
            drop(assigned("a", "b", &format!("ADDRESS=192.0.2.1\nDNS={text}")));
        }
    }
}
