//! What the kernel's tables of addresses, routes and neighbours hold, counted: an entry each would be too many labels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aizen_protocol::record::{
    Address, Duplicate, Fdb, Forwarding, Neighbour, Resolvers, Route, Rule,
};

use super::{Labels, Made, count};

impl Made {
    pub(super) fn addresses(&mut self, addresses: &[Address]) {
        let mut all: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
        for address in addresses {
            let [held, unusable] = all.entry(address.link).or_default();
            *held += 1;
            *unusable += u32::from(address.dad_failed || address.tentative);
        }
        let pick = |which: usize| {
            let of =
                |(link, counts): (&u32, &[u32; 2])| (self.link(*link), f64::from(counts[which]));
            all.iter().map(of).collect::<Vec<_>>()
        };
        let (held, unusable) = (pick(0), pick(1));
        self.gauge("aizen_addresses", "Addresses of a link.", held);
        self.gauge(
            "aizen_addresses_unusable",
            "Addresses that duplicate address detection refused or has not passed (RFC 4862 section 5.4).",
            unusable,
        );
    }

    pub(super) fn routes(&mut self, routes: &[Route]) {
        let mut all: BTreeMap<(u8, u32), [u32; 2]> = BTreeMap::new();
        for route in routes {
            let key = (version(route.destination.address), route.table);
            let [held, dead] = all.entry(key).or_default();
            *held += 1;
            *dead += u32::from(route.dead);
        }
        let of = |(family, table): &(u8, u32)| -> Labels {
            vec![
                ("family", family.to_string().into()),
                ("table", table.to_string().into()),
            ]
        };
        let held = all
            .iter()
            .map(|(key, counts)| (of(key), f64::from(counts[0])));
        self.gauge("aizen_routes", "Routes of a table.", held);
        let dead = all
            .iter()
            .map(|(key, counts)| (of(key), f64::from(counts[1])));
        self.gauge(
            "aizen_routes_dead",
            "Routes whose next hop the kernel calls dead (RTNH_F_DEAD).",
            dead,
        );
    }

    pub(super) fn rules(&mut self, rules: &[Rule]) {
        let families = count(rules.iter().map(|rule| rule.family));
        let samples = families
            .into_iter()
            .map(|(family, rules)| (vec![("family", family.to_string().into())], rules));
        self.gauge("aizen_policy_rules", "Policy routing rules.", samples);
    }

    pub(super) fn neighbours(&mut self, neighbours: &[Neighbour]) {
        let states = count(
            neighbours
                .iter()
                .map(|one| (one.link, format!("{:?}", one.state))),
        );
        let samples: Vec<_> = states
            .into_iter()
            .map(|((link, state), neighbours)| {
                let mut labels = self.link(link);
                labels.push(("state", state.to_lowercase().into()));
                (labels, neighbours)
            })
            .collect();
        self.gauge(
            "aizen_neighbours",
            "Neighbours of a link by state.",
            samples,
        );
    }

    pub(super) fn fdb(&mut self, fdb: &Fdb) {
        self.gauge(
            "aizen_fdb_entries",
            "Entries of the bridges' forwarding databases.",
            [(Labels::new(), f64::from(fdb.total))],
        );
        let moves: u64 = fdb.moves.iter().map(|one| u64::from(one.moves)).sum();
        self.gauge(
            "aizen_fdb_moves",
            "Times that addresses moved from one bridge port to another, as far as they are remembered.",
            [(Labels::new(), super::float(moves))],
        );
    }

    pub(super) fn duplicates(&mut self, duplicates: &[Duplicate]) {
        let links = count(duplicates.iter().map(|one| one.link));
        let samples: Vec<_> = links
            .into_iter()
            .map(|(link, found)| (self.link(link), found))
            .collect();
        self.gauge(
            "aizen_addresses_duplicate",
            "Addresses of a link that somebody else answers for.",
            samples,
        );
    }

    pub(super) fn forwarding(&mut self, forwarding: &Forwarding) {
        let families = [("4", forwarding.ipv4), ("6", forwarding.ipv6)];
        let samples = families.into_iter().filter_map(|(family, on)| {
            Some((vec![("family", family.into())], f64::from(u8::from(on?))))
        });
        self.gauge("aizen_forwarding", "1 if packets are forwarded.", samples);
    }

    pub(super) fn resolvers(&mut self, resolvers: &Resolvers) {
        let configured = u32::try_from(resolvers.configured.len()).unwrap_or(u32::MAX);
        self.gauge(
            "aizen_resolvers_configured",
            "Resolvers that programs of this device use.",
            [(Labels::new(), f64::from(configured))],
        );
    }
}

fn version(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}
