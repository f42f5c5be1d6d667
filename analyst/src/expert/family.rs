//! The families of faults, from the cable upwards: how each is asked, and which collectors it rests on.

use super::draft::Examined;
use super::{
    address, advertisement, bond, bridge, certificate, circle, clock, configuration, conntrack,
    delegation, disk, dual_stack, duplicate, firewall, forwarding, gateway, heat, hole, ipsec,
    lease, link, link_mtu, listen, memory, metric, mtu, names, neighbour, optic, policy, pool,
    port, portal, pppoe, processor, queue, reboot, resolver, reverse, route, service, transport,
    tunnel, upstream, vlan, wifi, wireguard,
};
use crate::case::View;

/// One family of faults.
pub(super) struct Family {
    /// What it is about, for people.
    pub(super) about: &'static str,
    /// The collectors whose records it reads.
    pub(super) rests_on: &'static [&'static str],
    pub(super) examine: fn(&View<'_>) -> Examined,
}

macro_rules! families {
    ($($module:ident: $about:literal from $($collector:ident)+;)*) => {
        /// All, in the order in which they are asked.
        pub(super) const FAMILIES: &[Family] = &[$(Family {
            about: $about,
            rests_on: &[$(stringify!($collector)),+],
            examine: $module::examine,
        }),*];
    };
}

families! {
    link: "cables and ports" from links routes addresses ethernet host;
    port: "speed, duplex and errors of ports" from links ethernet lldp log reach;
    optic: "light in optical modules" from links ethernet modules;
    bond: "bonds" from links lldp;
    bridge: "bridges and spanning tree" from links routes fdb log;
    vlan: "VLANs" from links routes neighbours lldp;
    pppoe: "PPPoE sessions" from links pppoe_probes log;
    link_mtu: "the MTU of links" from links addresses;
    duplicate: "addresses that two hosts use" from addresses neighbours duplicates links;
    address: "missing addresses" from links addresses routes dhcp pppoe_probes reach dns;
    lease: "DHCP leases of this device" from links addresses routes dhcp dhcp_probes;
    pool: "DHCP servers" from dhcp dhcp_probes fdb log neighbours addresses;
    advertisement: "IPv6 router advertisements" from links routes router_probes;
    delegation: "delegated IPv6 prefixes" from addresses routes router_probes links;
    neighbour: "neighbours and next hops" from links routes neighbours neighbour_tables log reach;
    gateway: "the gateway" from routes neighbours reach dns time links;
    route: "the default route" from routes addresses reach dns links;
    metric: "which default route counts" from routes neighbours reach;
    hole: "routes that swallow" from routes reach dns;
    policy: "policy rules and ways side by side" from rules routes neighbours;
    reverse: "the reverse path filter" from protocols links routes reach;
    circle: "routing loops" from traces routes;
    portal: "captive portals" from portal dns certificates;
    upstream: "what lies beyond the gateway" from reach dns time routes neighbours;
    forwarding: "forwarding" from forwarding addresses links;
    mtu: "the MTU of paths" from path_mtu links reach;
    resolver: "resolvers" from resolvers dns reach links routes;
    clock: "the clock" from time host;
    disk: "disks" from host log;
    queue: "queues and the line's load" from queues links load reach ethernet routes;
    firewall: "the packet filter" from filter connects dns reach forwarding;
    conntrack: "connection tracking" from conntrack filter connects protocols;
    listen: "half-open and waiting connections" from protocols;
    transport: "lost segments and datagrams" from protocols reach;
    dual_stack: "IPv6 that hides behind IPv4" from connects dns routes;
    names: "forged and blocked names" from dns portal reach log;
    certificate: "certificates" from certificates time portal;
    wireguard: "WireGuard" from wireguard links reach;
    tunnel: "tunnels" from links reach;
    ipsec: "IPsec" from log;
    wifi: "Wi-Fi" from wireless;
    processor: "processors" from cpu softnet pressure host links;
    memory: "memory" from host pressure services log;
    heat: "heat and voltage" from host;
    service: "services" from services;
    reboot: "reboots" from host;
    configuration: "changed configuration" from configuration connects;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use aizen_protocol::record::COLLECTORS;

    use super::*;

    /// Told with everything, and by no collector that could fail to see.
    const NOT_SEEN: [&str; 3] = ["profile", "history", "round"];

    /// The code of each family without its tests, and the name of its module.
    fn sources() -> Vec<(String, String)> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/expert");
        let own = fs::read_to_string(home.join("family.rs")).unwrap();
        let modules: Vec<String> = own
            .lines()
            .filter(|line| line.contains("\" from ") && line.ends_with(';'))
            .filter_map(|line| Some(line.trim().split_once(": \"")?.0.to_owned()))
            .collect();
        assert_eq!(modules.len(), FAMILIES.len());
        let read = |module: String| {
            let mut files = vec![home.join(format!("{module}.rs"))];
            if let Ok(folder) = fs::read_dir(home.join(&module)) {
                files.extend(folder.map(|entry| entry.unwrap().path()));
            }
            let code: String = files
                .iter()
                .map(|file| {
                    let text = fs::read_to_string(file).unwrap();
                    text.split("#[cfg(test)]").next().unwrap().to_owned()
                })
                .collect();
            (module, code)
        };
        modules.into_iter().map(read).collect()
    }

    /// Collectors that the code names as a field of a pass.
    fn read_by(code: &str) -> BTreeSet<&'static str> {
        let squeezed: String = code.split_whitespace().collect();
        let is_read = |collector: &str| {
            ["pass", "now()", "now", "before", "older", "then"]
                .iter()
                .any(|pass| {
                    let field = format!("{pass}.{collector}");
                    squeezed.match_indices(&field).any(|(at, _)| {
                        let next = squeezed[at + field.len()..].chars().next();
                        next.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '(')
                    })
                })
        };
        COLLECTORS
            .iter()
            .copied()
            .filter(|collector| !NOT_SEEN.contains(collector) && is_read(collector))
            .collect()
    }

    #[test]
    fn a_family_names_every_collector_whose_records_it_reads() {
        for (family, (module, code)) in FAMILIES.iter().zip(sources()) {
            let named: BTreeSet<&str> = family.rests_on.iter().copied().collect();
            assert_eq!(
                named.len(),
                family.rests_on.len(),
                "{module}: one is named twice"
            );
            let missing: Vec<&str> = read_by(&code).difference(&named).copied().collect();
            assert!(missing.is_empty(), "{module} reads {missing:?} as well");
            for collector in named {
                assert!(COLLECTORS.contains(&collector), "{module}: {collector}");
            }
        }
    }

    #[test]
    fn every_collector_serves_a_family() {
        for collector in COLLECTORS {
            let serves = FAMILIES
                .iter()
                .any(|family| family.rests_on.contains(collector));
            assert_eq!(serves, !NOT_SEEN.contains(collector), "{collector}");
        }
    }
}
