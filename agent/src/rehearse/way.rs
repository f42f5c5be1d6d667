//! The management path: how packets for the orchestrator leave, and whether a change touches that.

use std::net::IpAddr;

use aizen_protocol::effect::{ObjectChange, ObjectKind};

use crate::rollback::checkpoint::Network;
use crate::rollback::kernel::{Kernel, KernelError};
use crate::rollback::route::{Hop, way_to};
use crate::rollback::sysctl::SysctlKey;

/// Where packets for each address of the orchestrator leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ways {
    hops: Vec<Option<Hop>>,
    devices: Vec<String>,
}

impl Ways {
    pub(crate) async fn read(
        kernel: &Kernel,
        network: &Network,
        uplink: &[IpAddr],
    ) -> Result<Self, KernelError> {
        let names = network.names();
        let mut hops = Vec::new();
        for address in uplink {
            hops.push(way_to(kernel, &names, *address).await?);
        }
        let mut devices: Vec<String> = hops
            .iter()
            .flatten()
            .filter_map(|hop| hop.dev.clone())
            .collect();
        if uplink.is_empty() {
            let defaults = network
                .routes
                .iter()
                .filter(|route| route.key.destination.is_default());
            devices.extend(
                defaults
                    .flat_map(|route| &route.hops)
                    .filter_map(|hop| hop.dev.clone()),
            );
        }
        devices.sort();
        devices.dedup();
        Ok(Self { hops, devices })
    }
}

/// `via 192.0.2.1 dev wan`.
pub(super) fn shown(hop: &Hop) -> String {
    let via = hop.via.map(|via| format!("via {via}"));
    let dev = hop.dev.as_ref().map(|dev| format!("dev {dev}"));
    let parts: Vec<String> = via.into_iter().chain(dev).collect();
    parts.join(" ")
}

/// True if the way to the orchestrator is another one afterwards, or something that it stands on was changed.
pub(crate) fn touched(before: &Ways, after: &Ways, changes: &[ObjectChange]) -> bool {
    before.hops != after.hops
        || changes
            .iter()
            .any(|change| stands_on(&before.devices, change))
}

fn stands_on(devices: &[String], change: &ObjectChange) -> bool {
    let object = change.object.0.as_str();
    let ours = |dev: &str| devices.iter().any(|d| d == dev);
    match change.kind {
        ObjectKind::Link => ours(object),
        ObjectKind::Wireguard => object.split(' ').next().is_some_and(ours),
        ObjectKind::Address | ObjectKind::Neighbour => object
            .rsplit_once(" dev ")
            .is_some_and(|(_, dev)| ours(dev)),
        // Whatever the way is just now: traffic comes back to a default route.
        ObjectKind::Route => object.starts_with("default"),
        ObjectKind::Sysctl => SysctlKey::parse(object).is_ok_and(|key| {
            let whole = object.contains(".all.") && object.ends_with("disable_ipv6");
            whole || key.dev().is_some_and(ours)
        }),
        // A rule or a filter may send any packet another way.
        ObjectKind::Rule | ObjectKind::Nft => true,
        // Nobody knows what a service does when it reads what it is to do.
        ObjectKind::Service => true,
        ObjectKind::File | ObjectKind::Uci => false,
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::effect::Lasts;

    use super::*;

    fn change(kind: ObjectKind, object: &str) -> ObjectChange {
        ObjectChange {
            kind,
            object: object.into(),
            diff: "".into(),
            inverse: "".into(),
            owner: "static".into(),
            lasts: Lasts::UntilReboot,
        }
    }

    #[test]
    fn what_the_way_to_the_orchestrator_stands_on_is_part_of_it() {
        let wan = ["wan".to_owned()];
        for (kind, object, expected) in [
            (ObjectKind::Link, "wan", true),
            (ObjectKind::Link, "lan", false),
            (ObjectKind::Address, "192.0.2.2/24 dev wan", true),
            (ObjectKind::Address, "192.0.2.2/24 dev wan2", false),
            (ObjectKind::Route, "default metric 100", true),
            (ObjectKind::Route, "default6", true),
            (ObjectKind::Route, "10.0.0.0/8", false),
            (ObjectKind::Sysctl, "net.ipv6.conf.wan.disable_ipv6", true),
            (ObjectKind::Sysctl, "net.ipv6.conf.all.disable_ipv6", true),
            (ObjectKind::Sysctl, "net.ipv4.ip_forward", false),
            (ObjectKind::File, "/etc/wan", false),
        ] {
            assert_eq!(stands_on(&wan, &change(kind, object)), expected, "{object}");
        }
    }

    #[test]
    fn another_way_is_a_touched_way_whatever_was_changed() {
        let hop = |via: &str| {
            Some(Hop {
                via: via.parse().ok(),
                dev: Some("wan".into()),
                weight: 0,
                onlink: false,
                other: Vec::new(),
            })
        };
        let ways = |hop: Option<Hop>| Ways {
            hops: vec![hop],
            devices: vec!["wan".into()],
        };
        assert!(touched(
            &ways(hop("192.0.2.1")),
            &ways(hop("192.0.2.9")),
            &[]
        ));
        assert!(touched(&ways(hop("192.0.2.1")), &ways(None), &[]));
        assert!(!touched(
            &ways(hop("192.0.2.1")),
            &ways(hop("192.0.2.1")),
            &[]
        ));
    }
}
