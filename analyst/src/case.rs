//! A bounded bundle of evidence about one device.
//!
//! Records are grouped into passes (one round of one boot). Only a pass that ended is evidence: a half-sent one would
//! show gaps that aren't there. The newest is the present, the older ones tell what changed and since when.

use std::collections::BTreeMap;

use aizen_protocol::id::{BootId, RoundId};
use aizen_protocol::limit;
use aizen_protocol::record::{
    Address, Body, DnsProbe, Duplicate, Forwarding, Host, Link, Neighbour, PathMtu, Profile, Reach,
    Record, Resolvers, Round, Route, Rule, Time,
};
use jiff::Timestamp;

mod counter;
mod view;

pub(crate) use counter::growth;
pub(crate) use view::{Family, View, Way, default_route, has_default};

/// Passes that a case keeps, the newest: at one every 10 seconds, over 20 minutes.
pub const PASSES: usize = 128;

/// Evidence of one device, oldest pass first.
#[derive(Clone, Debug, Default)]
pub struct Case {
    passes: Vec<Pass>,
}

impl Case {
    /// Bundles records of one device, in any order.
    ///
    /// Passes without their end ([`Body::Round`]) are left out, as is all but the newest [`PASSES`]. Within a pass the
    /// newest record of a kind counts.
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        let mut groups: BTreeMap<(BootId, RoundId), Vec<Record>> = BTreeMap::new();
        for record in records {
            let key = (record.boot.clone(), record.round);
            groups.entry(key).or_default().push(record);
        }
        let mut passes: Vec<Pass> = groups
            .into_iter()
            .filter_map(|((boot, round), records)| Pass::assemble(boot, round, records))
            .collect();
        // A boot has no number: the one with the newest reading is the present one. Within a boot the round counts,
        // because the clock may have been set back.
        let mut newest: BTreeMap<BootId, Timestamp> = BTreeMap::new();
        for pass in &passes {
            let at = newest.entry(pass.boot.clone()).or_insert(pass.ended.at);
            *at = (*at).max(pass.ended.at);
        }
        passes.sort_by(|a, b| {
            let key = |pass: &Pass| (newest.get(&pass.boot).copied(), pass.boot.clone(), pass.id);
            key(a).cmp(&key(b))
        });
        let surplus = passes.len().saturating_sub(PASSES);
        passes.drain(..surplus);
        Self { passes }
    }

    /// Number of complete passes.
    #[must_use]
    pub fn passes(&self) -> usize {
        self.passes.len()
    }

    /// What was known when pass `index` ended (0 is the oldest).
    pub(crate) fn view(&self, index: usize) -> Option<View<'_>> {
        let (now, earlier) = self.passes.get(..=index)?.split_last()?;
        Some(View::new(now, earlier))
    }
}

/// A reading and its time.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    /// When it was read, by the device's clock.
    pub(crate) at: Timestamp,
    /// What was read.
    pub(crate) value: T,
}

/// One complete pass over the collectors; none where a collector gave nothing.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(crate) boot: BootId,
    pub(crate) id: RoundId,
    pub(crate) profile: Option<Seen<Profile>>,
    pub(crate) links: Option<Seen<Vec<Link>>>,
    pub(crate) addresses: Option<Seen<Vec<Address>>>,
    pub(crate) routes: Option<Seen<Vec<Route>>>,
    pub(crate) rules: Option<Seen<Vec<Rule>>>,
    pub(crate) neighbours: Option<Seen<Vec<Neighbour>>>,
    pub(crate) forwarding: Option<Seen<Forwarding>>,
    pub(crate) resolvers: Option<Seen<Resolvers>>,
    pub(crate) dns: Option<Seen<Vec<DnsProbe>>>,
    pub(crate) reach: Option<Seen<Vec<Reach>>>,
    pub(crate) path_mtu: Option<Seen<Vec<PathMtu>>>,
    pub(crate) duplicates: Option<Seen<Vec<Duplicate>>>,
    pub(crate) time: Option<Seen<Time>>,
    pub(crate) host: Option<Seen<Host>>,
    pub(crate) ended: Seen<Round>,
}

impl Pass {
    fn assemble(boot: BootId, id: RoundId, mut records: Vec<Record>) -> Option<Self> {
        // The newest record of a kind comes last and wins; equal times are told apart by content, not by arrival.
        records.sort_by_cached_key(|record| (record.at, format!("{:?}", record.body)));
        let ended = records.iter().rev().find_map(|record| match &record.body {
            Body::Round(round) => Some(Seen {
                at: record.at,
                value: round.clone(),
            }),
            _ => None,
        })?;
        let mut pass = Self {
            boot,
            id,
            profile: None,
            links: None,
            addresses: None,
            routes: None,
            rules: None,
            neighbours: None,
            forwarding: None,
            resolvers: None,
            dns: None,
            reach: None,
            path_mtu: None,
            duplicates: None,
            time: None,
            host: None,
            ended,
        };
        for record in records {
            pass.keep(record.at, record.body);
        }
        Some(pass)
    }

    fn keep(&mut self, at: Timestamp, body: Body) {
        fn one<T>(slot: &mut Option<Seen<T>>, at: Timestamp, value: T) {
            *slot = Some(Seen { at, value });
        }
        fn many<T>(slot: &mut Option<Seen<Vec<T>>>, at: Timestamp, mut value: Vec<T>) {
            value.truncate(limit::OBJECTS);
            *slot = Some(Seen { at, value });
        }
        match body {
            Body::Profile(value) => one(&mut self.profile, at, value),
            Body::Links(value) => many(&mut self.links, at, value),
            Body::Addresses(value) => many(&mut self.addresses, at, value),
            Body::Routes(value) => many(&mut self.routes, at, value),
            Body::Rules(value) => many(&mut self.rules, at, value),
            Body::Neighbours(value) => many(&mut self.neighbours, at, value),
            Body::Forwarding(value) => one(&mut self.forwarding, at, value),
            Body::Resolvers(value) => one(&mut self.resolvers, at, value),
            Body::Dns(value) => many(&mut self.dns, at, value),
            Body::Reach(value) => many(&mut self.reach, at, value),
            Body::PathMtu(value) => many(&mut self.path_mtu, at, value),
            Body::Duplicates(value) => many(&mut self.duplicates, at, value),
            Body::Time(value) => one(&mut self.time, at, value),
            Body::Host(value) => one(&mut self.host, at, value),
            // The end was taken when the pass was assembled.
            Body::Round(_) => {}
        }
    }

    /// True if this collector gave something in this pass.
    pub(crate) fn has(&self, collector: &str) -> bool {
        match collector {
            "profile" => self.profile.is_some(),
            "links" => self.links.is_some(),
            "addresses" => self.addresses.is_some(),
            "routes" => self.routes.is_some(),
            "rules" => self.rules.is_some(),
            "neighbours" => self.neighbours.is_some(),
            "forwarding" => self.forwarding.is_some(),
            "resolvers" => self.resolvers.is_some(),
            "dns" => self.dns.is_some(),
            "reach" => self.reach.is_some(),
            "path_mtu" => self.path_mtu.is_some(),
            "duplicates" => self.duplicates.is_some(),
            "time" => self.time.is_some(),
            "host" => self.host.is_some(),
            "round" => true,
            _ => false,
        }
    }
}
