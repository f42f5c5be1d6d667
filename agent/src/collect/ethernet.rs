//! What the drivers of Ethernet ports say (ethtool netlink, Documentation/networking/ethtool-netlink.rst).
//!
//! Only ports with hardware are told of: what a veth or a tunnel answers is made up. Statistics are those of the
//! standard groups (zero or not), and beside them what the driver itself counts of trouble.

pub(crate) mod decode;
mod driver;
mod mode;
mod statistic;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aizen_protocol::record::{Ethernet, Link};

use self::decode::{Modes, State, Statistics};
use super::netlink::attribute::{NESTED, put};
use super::netlink::generic::{self, Family};
use super::netlink::{self, Part, Question};
use super::{CollectError, Seen, aside};

/// The ports with hardware among `links`; `root` stands before `/sys`.
pub(crate) async fn collect(
    root: &Path,
    links: &[Link],
) -> Result<Seen<Vec<Ethernet>>, CollectError> {
    let ports: Vec<_> = links.iter().filter(|link| has_hardware(link)).collect();
    let mut seen = Seen {
        value: Vec::new(),
        gaps: Vec::new(),
    };
    if ports.is_empty() {
        return Ok(seen);
    }
    let mut found: BTreeMap<u32, Ethernet> =
        ports.iter().map(|port| (port.index, about(port))).collect();
    let names: Vec<_> = ports
        .iter()
        .map(|port| (port.index, port.name.clone()))
        .collect();
    for (link, driver) in drivers(root, names.clone()).await? {
        if let Some(port) = found.get_mut(&link) {
            port.driver = Some(driver);
        }
    }
    match generic::family("ethtool").await? {
        Some(family) => ask(&family, &mut found, &mut seen.gaps).await,
        None => seen
            .gaps
            .push("this kernel has no ethtool netlink (Linux 5.6 and later)".to_owned()),
    }
    for (link, name, counted) in driver::read(names).await? {
        match (counted, found.get_mut(&link)) {
            (Ok(counters), Some(port)) => {
                if counters.more > 0 {
                    seen.gaps.push(format!(
                        "{name}: {} more counters of its driver were left out",
                        counters.more
                    ));
                }
                for (name, total) in counters.told {
                    // A name of the standard stays the standard's.
                    port.statistics.entry(name).or_insert(total);
                }
            }
            (Err(error), _) => seen
                .gaps
                .push(format!("driver counters of {name}: {error}")),
            (Ok(_), None) => {}
        }
    }
    seen.value = found.into_values().collect();
    Ok(seen)
}

/// A link that no software made. Ports of a switch chip are `dsa`.
fn has_hardware(link: &Link) -> bool {
    let made = link
        .driver_kind
        .as_deref()
        .is_some_and(|kind| kind != "dsa");
    !made && !link.loopback && link.mac.is_some()
}

fn about(port: &Link) -> Ethernet {
    Ethernet {
        link: port.index,
        ..Ethernet::default()
    }
}

/// The driver behind each link, where sysfs knows one.
async fn drivers(
    root: &Path,
    names: Vec<(u32, String)>,
) -> Result<Vec<(u32, String)>, CollectError> {
    let class = root.join("sys/class/net");
    let read = move || {
        let driver = |name: &str| {
            let target = fs::read_link(class.join(name).join("device/driver")).ok()?;
            Some(target.file_name()?.to_string_lossy().into_owned())
        };
        let found = names
            .into_iter()
            .filter_map(|(link, name)| Some((link, driver(&name)?)));
        found.collect()
    };
    Ok(aside::run("aizen-drivers", read).await?)
}

/// Three questions; one that is refused costs the others nothing.
async fn ask(family: &Family, found: &mut BTreeMap<u32, Ethernet>, gaps: &mut Vec<String>) {
    let modes = question(family, ETHTOOL_MSG_LINKMODES_GET, HEADER);
    for told in answers(&modes, Modes::decode, "link modes", gaps).await {
        if let Some(port) = found.get_mut(&told.link) {
            told.tell(port);
        }
    }
    let states = question(family, ETHTOOL_MSG_LINKSTATE_GET, HEADER);
    for told in answers(&states, State::decode, "link states", gaps).await {
        if let Some(port) = found.get_mut(&told.link) {
            port.down_reason = told.reason;
        }
    }
    let statistics = question(family, ETHTOOL_MSG_STATS_GET, STATS_HEADER);
    for told in answers(&statistics, Statistics::decode, "standard statistics", gaps).await {
        if let Some(port) = found.get_mut(&told.link) {
            port.statistics = told.totals;
        }
    }
}

async fn answers<T>(
    question: &Question,
    decode: impl Fn(&[u8]) -> Option<T>,
    what: &str,
    gaps: &mut Vec<String>,
) -> Vec<T> {
    let decode = |part: &Part<'_>| decode(part.payload).map(Some);
    match netlink::dump_parts(question, decode, |_| false).await {
        Ok(dump) => {
            let seen = dump.seen(what);
            gaps.extend(seen.gaps);
            seen.value
        }
        Err(error) => {
            gaps.push(format!("{what}: {error}"));
            Vec::new()
        }
    }
}

fn question(family: &Family, command: u8, header: u16) -> Question {
    let (mut flags, mut body) = (Vec::new(), Vec::new());
    put(
        &mut flags,
        ETHTOOL_A_HEADER_FLAGS,
        &ETHTOOL_FLAG_COMPACT_BITSETS.to_ne_bytes(),
    );
    put(&mut body, header | NESTED, &flags);
    if command == ETHTOOL_MSG_STATS_GET {
        put(
            &mut body,
            ETHTOOL_A_STATS_GROUPS | NESTED,
            &decode::every_group(),
        );
    }
    generic::question(family.id, command, &body)
}

const ETHTOOL_MSG_LINKMODES_GET: u8 = 4;
const ETHTOOL_MSG_LINKSTATE_GET: u8 = 6;
const ETHTOOL_MSG_STATS_GET: u8 = 32;
/// The number of the header in most messages, and in those of statistics.
const HEADER: u16 = 1;
const STATS_HEADER: u16 = 2;
const ETHTOOL_A_STATS_GROUPS: u16 = 3;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_COMPACT_BITSETS: u32 = 1;

#[cfg(test)]
mod tests {
    use aizen_protocol::private::Mac;

    use super::*;

    #[test]
    fn only_links_with_hardware_are_asked_about() {
        let link = |kind: Option<&str>| Link {
            driver_kind: kind.map(str::to_owned),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            ..Link::default()
        };
        assert!(has_hardware(&link(None)) && has_hardware(&link(Some("dsa"))));
        assert!(!has_hardware(&link(Some("veth"))));
        let tunnel = Link {
            mac: None,
            ..link(None)
        };
        assert!(!has_hardware(&tunnel));
    }

    #[tokio::test]
    async fn the_kernel_of_this_machine_answers_about_each_port_or_says_that_it_cannot() {
        let links = crate::collect::link::collect().await.unwrap().value;
        let seen = collect(Path::new("/"), &links).await.unwrap();
        let ports = links.iter().filter(|link| has_hardware(link)).count();
        assert_eq!(seen.value.len(), ports);
        let unable = |gap: &String| gap.contains("ethtool netlink") || gap.contains("refused");
        assert!(seen.gaps.iter().all(unable), "{:?}", seen.gaps);
    }

    #[tokio::test]
    async fn the_driver_is_the_name_that_sysfs_links_to() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/class/net/eth0/device");
        fs::create_dir_all(&device).unwrap();
        std::os::unix::fs::symlink("../../bus/pci/drivers/igb", device.join("driver")).unwrap();
        let names = vec![(2, "eth0".to_owned()), (3, "odd\u{fffd}".to_owned())];
        let found = drivers(root.path(), names).await.unwrap();
        assert_eq!(found, [(2, "igb".to_owned())]);
    }
}
