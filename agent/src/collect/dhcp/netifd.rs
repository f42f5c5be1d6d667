//! What OpenWrt's netifd configured by DHCP (`network.interface dump` over ubus): its client keeps no lease in a file.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use aizen_protocol::record::Lease;
use serde_json::Value;

use crate::collect::ubus::{self, Ubus};

/// Leases, and links that are set to be configured by DHCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Netifd {
    pub(super) leases: Vec<Lease>,
    pub(super) wanted: Vec<String>,
}

/// Asks netifd where there is a ubus; nothing elsewhere.
pub(super) fn read(root: &Path, deadline: Duration, gaps: &mut Vec<String>) -> Netifd {
    let Some(socket) = ubus::socket(root) else {
        return Netifd::default();
    };
    let asked = Ubus::connect(&socket, Instant::now() + deadline)
        .and_then(|mut ubus| ubus.call("network.interface", "dump", &[]));
    match asked {
        Ok(dump) => decode(&dump),
        Err(error) => {
            gaps.push(format!("leases of netifd: {error}"));
            Netifd::default()
        }
    }
}

pub(crate) fn decode(dump: &Value) -> Netifd {
    let interfaces = dump.get("interface").and_then(Value::as_array);
    let mut found = Netifd::default();
    for interface in interfaces.into_iter().flatten().take(MAX_INTERFACES) {
        let Some(link) = text(interface, "l3_device").or_else(|| text(interface, "device")) else {
            continue;
        };
        if text(interface, "proto") != Some("dhcp") || !is_name(link) {
            continue;
        }
        if is_set(interface, "autostart") {
            found.wanted.push(link.to_owned());
        }
        if is_set(interface, "up") {
            found.leases.extend(lease(link, interface));
        }
    }
    found
}

fn lease(link: &str, interface: &Value) -> Option<Lease> {
    let list = |key: &str| {
        let all = interface.get(key).and_then(Value::as_array);
        all.into_iter().flatten().take(MAX_ADDRESSES)
    };
    let default = |route: &&Value| route.get("mask").and_then(Value::as_i64) == Some(0);
    Some(Lease {
        link: link.to_owned(),
        client: "netifd".to_owned(),
        address: list("ipv4-address").find_map(|one| address(one, "address"))?,
        server: interface
            .get("data")
            .and_then(|data| address(data, "dhcpserver")),
        routers: list("route")
            .filter(default)
            .filter_map(|route| address(route, "nexthop"))
            .filter(|router| !router.is_unspecified())
            .collect(),
        resolvers: list("dns-server")
            .filter_map(|resolver| resolver.as_str()?.parse().ok())
            .collect(),
        // `uptime` counts from the first lease, not from the last renewal.
        obtained: None,
        expires: None,
    })
}

fn text<'a>(table: &'a Value, key: &str) -> Option<&'a str> {
    table.get(key).and_then(Value::as_str)
}

fn is_set(table: &Value, key: &str) -> bool {
    table.get(key).and_then(Value::as_bool) == Some(true)
}

fn address(table: &Value, key: &str) -> Option<IpAddr> {
    text(table, key)?.parse().ok()
}

/// As the kernel takes them for interfaces.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() < libc::IFNAMSIZ && name.chars().all(|c| c.is_ascii_graphic())
}

const MAX_INTERFACES: usize = 200;
const MAX_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::ubus::serve::serve;

    #[test]
    fn a_lease_of_netifd_has_its_server_its_router_and_its_resolvers() {
        let root = tempfile::tempdir().unwrap();
        serve(root.path(), |object, _, _| {
            let dump = json!({ "interface": [
                { "interface": "lan", "up": true, "autostart": true, "proto": "static", "l3_device": "br-lan" },
                {
                    "interface": "wan", "up": true, "autostart": true, "proto": "dhcp", "l3_device": "eth1",
                    "ipv4-address": [{ "address": "192.0.2.7", "mask": 24 }],
                    "route": [
                        { "target": "192.0.2.0", "mask": 24, "nexthop": "0.0.0.0" },
                        { "target": "0.0.0.0", "mask": 0, "nexthop": "192.0.2.1" },
                    ],
                    "dns-server": ["192.0.2.53", "nonsense"],
                    "data": { "dhcpserver": "192.0.2.2", "leasetime": 3600 },
                },
                { "interface": "wwan", "up": false, "pending": true, "autostart": true, "proto": "dhcp", "device": "wwan0" },
                { "interface": "odd", "up": true, "autostart": true, "proto": "dhcp", "device": "far too long a name" },
            ] });
            (object == "network.interface").then_some(dump)
        });
        let mut gaps = Vec::new();
        let found = read(root.path(), Duration::from_secs(60), &mut gaps);
        assert_eq!(
            (found.wanted, gaps),
            (vec!["eth1".to_owned(), "wwan0".to_owned()], vec![])
        );
        let lease = Lease {
            link: "eth1".into(),
            client: "netifd".into(),
            address: "192.0.2.7".parse().unwrap(),
            server: "192.0.2.2".parse().ok(),
            routers: vec!["192.0.2.1".parse().unwrap()],
            resolvers: vec!["192.0.2.53".parse().unwrap()],
            obtained: None,
            expires: None,
        };
        assert_eq!(found.leases, [lease]);
    }

    #[test]
    fn a_device_without_ubus_has_nothing_to_tell_and_one_that_hides_it_a_gap() {
        let root = tempfile::tempdir().unwrap();
        let mut gaps = Vec::new();
        let long = Duration::from_secs(60);
        assert_eq!(read(root.path(), long, &mut gaps), Netifd::default());
        assert!(gaps.is_empty());
        serve(root.path(), |_, _, _| None);
        read(root.path(), long, &mut gaps);
        assert!(gaps[0].contains("network.interface"), "{gaps:?}");
    }
}
