//! A bounded bundle of evidence about one device.
//!
//! Records are grouped into passes (one round of one boot). Only a pass that ended is evidence: a half-sent one would
//! show gaps that aren't there. The newest is the present, the older ones tell what changed and since when.
//!
//! A device does not tell twice what did not change: the end of a round names the round that has the record
//! ([`Again`]). Such a pass has it as if it had been told, with the time that it was seen; where that record did not
//! arrive, or is too old, the pass has a gap that says so.

use std::collections::BTreeMap;

use aizen_protocol::id::{BootId, RoundId};
use aizen_protocol::limit;
use aizen_protocol::private::Text;
use aizen_protocol::record::{
    Address, Again, Body, COLLECTORS, Certificate, ConfigFile, Connect, Conntrack, CpuTimes, Dhcp,
    DhcpProbe, DnsProbe, Duplicate, Ethernet, Fdb, FilterChain, Forwarding, Gap, History, Host,
    Link, Lldp, Load, LogLine, Module, Neighbour, NeighbourTable, PathMtu, Portal, PppoeProbe,
    Pressure, Profile, Protocols, Queue, Radio, Reach, Record, Resolvers, Round, Route,
    RouterProbe, Rule, Service, Softnet, Time, Trace, WireGuard,
};
use jiff::Timestamp;

mod counter;
mod shared;
#[cfg(test)]
mod tests;
mod view;

use shared::Shared;

pub(crate) use counter::{counted, grown, growth};
pub(crate) use view::{Family, Over, View, Way, default_route, has_default, same_link};

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
        let told: BTreeMap<(BootId, RoundId), Told> = groups
            .into_iter()
            .map(|(key, records)| (key, Told::of(records)))
            .collect();
        let mut passes: Vec<Pass> = told
            .iter()
            .filter_map(|((boot, round), own)| {
                let mut pass = own.ended(boot, *round)?;
                pass.inherit(|from| told.get(&(boot.clone(), from)));
                Some(pass)
            })
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
    pub(crate) value: Shared<T>,
}

/// Takes a value as it is.
fn whole<T>(at: Timestamp, value: T) -> Seen<T> {
    let value = Shared::new(value);
    Seen { at, value }
}

/// Takes a list, bounded.
fn bounded<T>(at: Timestamp, mut value: Vec<T>) -> Seen<Vec<T>> {
    value.truncate(limit::OBJECTS);
    whole(at, value)
}

macro_rules! pass {
    ($($field:ident: $body:ident($value:ty) by $take:ident,)*) => {
        /// One complete pass over the collectors; none where a collector gave nothing.
        #[derive(Clone, Debug)]
        pub(crate) struct Pass {
            pub(crate) boot: BootId,
            pub(crate) id: RoundId,
            $(pub(crate) $field: Option<Seen<$value>>,)*
            pub(crate) ended: Seen<Round>,
        }

        /// What came of one round itself, whether its end did or not.
        #[derive(Debug, Default)]
        struct Told {
            $($field: Option<Seen<$value>>,)*
            end: Option<Seen<Round>>,
        }

        impl Told {
            fn keep(&mut self, at: Timestamp, body: Body) {
                match body {
                    $(Body::$body(value) => self.$field = Some($take(at, value)),)*
                    Body::Round(value) => self.end = Some(whole(at, value)),
                }
            }

            /// The pass, if the round ended.
            fn ended(&self, boot: &BootId, id: RoundId) -> Option<Pass> {
                Some(Pass {
                    boot: boot.clone(),
                    id,
                    $($field: self.$field.clone(),)*
                    ended: self.end.clone()?,
                })
            }
        }

        impl Pass {
            /// True if this collector gave something in this pass.
            pub(crate) fn has(&self, collector: &str) -> bool {
                match collector {
                    $(stringify!($field) => self.$field.is_some(),)*
                    "round" => true,
                    _ => false,
                }
            }

            /// Takes over what one collector told in another round; false if there is nothing.
            fn take_over(&mut self, collector: &str, told: &Told, at: Option<Timestamp>) -> bool {
                match collector {
                    $(stringify!($field) => {
                        self.$field = told.$field.clone().map(|seen| Seen {
                            at: at.unwrap_or(seen.at),
                            ..seen
                        });
                        self.$field.is_some()
                    })*
                    _ => false,
                }
            }
        }
    };
}

pass! {
    profile: Profile(Profile) by whole,
    links: Links(Vec<Link>) by bounded,
    ethernet: Ethernet(Vec<Ethernet>) by bounded,
    fdb: Fdb(Fdb) by whole,
    queues: Queues(Vec<Queue>) by bounded,
    modules: Modules(Vec<Module>) by bounded,
    wireless: Wireless(Radio) by whole,
    addresses: Addresses(Vec<Address>) by bounded,
    routes: Routes(Vec<Route>) by bounded,
    rules: Rules(Vec<Rule>) by bounded,
    neighbours: Neighbours(Vec<Neighbour>) by bounded,
    neighbour_tables: NeighbourTables(Vec<NeighbourTable>) by bounded,
    forwarding: Forwarding(Forwarding) by whole,
    resolvers: Resolvers(Resolvers) by whole,
    dns: Dns(Vec<DnsProbe>) by bounded,
    reach: Reach(Vec<Reach>) by bounded,
    path_mtu: PathMtu(Vec<PathMtu>) by bounded,
    connects: Connects(Vec<Connect>) by bounded,
    traces: Traces(Vec<Trace>) by bounded,
    load: Load(Vec<Load>) by bounded,
    certificates: Certificates(Vec<Certificate>) by bounded,
    portal: Portal(Portal) by whole,
    duplicates: Duplicates(Vec<Duplicate>) by bounded,
    dhcp: Dhcp(Dhcp) by whole,
    dhcp_probes: DhcpProbes(Vec<DhcpProbe>) by bounded,
    pppoe_probes: PppoeProbes(Vec<PppoeProbe>) by bounded,
    router_probes: RouterProbes(Vec<RouterProbe>) by bounded,
    lldp: Lldp(Vec<Lldp>) by bounded,
    protocols: Protocols(Protocols) by whole,
    softnet: Softnet(Vec<Softnet>) by bounded,
    conntrack: Conntrack(Conntrack) by whole,
    filter: Filter(Vec<FilterChain>) by bounded,
    wireguard: WireGuard(Vec<WireGuard>) by bounded,
    time: Time(Time) by whole,
    host: Host(Host) by whole,
    cpu: Cpu(Vec<CpuTimes>) by bounded,
    pressure: Pressure(Pressure) by whole,
    services: Services(Vec<Service>) by bounded,
    log: Log(Vec<LogLine>) by bounded,
    configuration: Configuration(Vec<ConfigFile>) by bounded,
    history: History(History) by whole,
}

impl Told {
    fn of(mut records: Vec<Record>) -> Self {
        // The newest record of a kind comes last and wins; equal times are told apart by content, not by arrival.
        // Written out only for those: a full case has thousands of records.
        records.sort_by(|a, b| {
            (a.at, a.body.collector())
                .cmp(&(b.at, b.body.collector()))
                .then_with(|| format!("{:?}", a.body).cmp(&format!("{:?}", b.body)))
        });
        let mut told = Self::default();
        for record in records {
            told.keep(record.at, record.body);
        }
        told
    }
}

impl Pass {
    /// Adds what its end says was told before. What the pass has itself counts more.
    fn inherit<'a>(&mut self, told: impl Fn(RoundId) -> Option<&'a Told>) {
        let mut lost = Vec::new();
        let end = self.ended.value.clone();
        for (collector, again) in &end.again {
            if self.has(collector) || !COLLECTORS.contains(&collector.as_str()) {
                continue;
            }
            let source = told(again.round).filter(|_| is_recent(again.round, self.id));
            if !source.is_some_and(|told| self.take_over(collector, told, again.at)) {
                lost.push(Gap {
                    collector: collector.clone(),
                    reason: Text(LOST.to_owned()),
                });
            }
        }
        if !lost.is_empty() {
            self.ended.value.make_mut().gaps.extend(lost);
        }
    }
}

/// Rounds are numbered by milliseconds since the boot, whatever the clock was set to.
fn is_recent(told: RoundId, now: RoundId) -> bool {
    let longest = u64::try_from(Again::LONGEST.as_millis()).unwrap_or(u64::MAX);
    told <= now && now.0 - told.0 <= longest
}

const LOST: &str =
    "it did not change since an earlier round, whose record of it did not arrive or is too old";
