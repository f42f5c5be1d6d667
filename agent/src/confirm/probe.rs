//! What is probed before and after a change, and how: the manifest's probes, and the device's own.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aizen_protocol::package::manifest::{Confirm, LinkOperation, Operation, Probe, Value};
use aizen_protocol::reason::Reason;
use aizen_protocol::record::{DnsAnswer, Reach, ReachRole};
use futures_util::future::join_all;

use super::health::{Sample, Wanted};
use crate::collect::{self, reach, resolve};
use crate::execute::binding::Values;
use crate::verify::Refused;

/// For one echo reply: a satellite link answers in less.
const PING: Duration = Duration::from_millis(1500);
/// For one DNS answer of one resolver.
const ASK: Duration = Duration::from_millis(2000);

/// One thing to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// The address answers ICMP echo.
    Ping(IpAddr),
    /// The name resolves through the device's own resolver configuration.
    Dns(String),
    /// There is an IPv4 (or IPv6) default route and one of its gateways answers.
    Gateway { ipv4: bool },
    /// The link has a carrier.
    Carrier(String),
}

/// What one of the device's own probes found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    /// Its name.
    pub(crate) name: String,
    /// It asks something beyond this device.
    pub(crate) reaches: bool,
    /// It held.
    pub(crate) holds: bool,
    /// There was nothing to ask: that is no failure.
    pub(crate) nothing: bool,
}

/// A family without a gateway.
const NO_GATEWAY: &str = "no default route with a gateway";

/// The probes of one change, in a fixed order.
#[derive(Clone, Debug)]
pub struct Probes {
    targets: Vec<(Target, Wanted)>,
    root: PathBuf,
}

impl Probes {
    /// The manifest's probes with values; the uplink's is the confirmation itself and none of these.
    ///
    /// # Errors
    /// [`Reason::PolicyDenied`] for a probe of something that is no address or name.
    pub fn declared(confirm: &Confirm, values: &Values, root: PathBuf) -> Result<Self, Refused> {
        let mut targets = Vec::new();
        for probe in &confirm.probes {
            let target = match probe {
                Probe::Uplink(_) => continue,
                Probe::Ping(value) => {
                    let text = value_of(value, values)?;
                    let address = text.parse().map_err(|_| {
                        Refused::because(
                            Reason::PolicyDenied,
                            format!("a ping probe of '{}'", value.0),
                        )
                    })?;
                    Target::Ping(address)
                }
                Probe::Dns(value) => Target::Dns(value_of(value, values)?),
            };
            targets.push((target, Wanted::Declared));
        }
        Ok(Self { targets, root })
    }

    /// The device's own alone, as it is now.
    pub(crate) async fn own(root: PathBuf, name: Option<&str>) -> Self {
        let none = Self {
            targets: Vec::new(),
            root,
        };
        none.with_ambient(&[], name).await
    }

    /// What `samples` of [`Self::sample`] say of the device's own probes.
    pub(crate) fn owns(&self, samples: &[Sample]) -> Vec<Own> {
        let probes = self.targets.iter().zip(samples);
        let own = probes.filter(|((_, wanted), _)| *wanted == Wanted::Ambient);
        own.map(|((target, _), sample)| Own {
            name: describe(target),
            reaches: !matches!(target, Target::Carrier(_)),
            holds: sample.holds,
            nothing: sample.detail == NO_GATEWAY,
        })
        .collect()
    }

    /// Adds the device's own: carriers, default gateways and a name, whatever of it is there. Links that the change
    /// takes down on purpose are left out.
    pub async fn with_ambient(mut self, grants: &[Operation], name: Option<&str>) -> Self {
        let lowered = |dev: &str| {
            grants.iter().any(|grant| {
                matches!(grant, Operation::Link(LinkOperation::Set(link)) if link.dev == dev && link.up == Some(false))
            })
        };
        if let Ok(links) = collect::link::collect().await {
            for link in links.value.into_iter().filter(|l| l.carrier == Some(true)) {
                if !lowered(&link.name) && link.name != "lo" {
                    self.targets
                        .push((Target::Carrier(link.name), Wanted::Ambient));
                }
            }
        }
        for ipv4 in [true, false] {
            self.targets
                .push((Target::Gateway { ipv4 }, Wanted::Ambient));
        }
        if let Some(name) = name {
            self.targets
                .push((Target::Dns(name.to_owned()), Wanted::Ambient));
        }
        self
    }

    /// The probes' names and who wants them, in the order of [`Probes::sample`].
    pub fn names(&self) -> impl Iterator<Item = (String, Wanted)> + '_ {
        self.targets
            .iter()
            .map(|(target, wanted)| (describe(target), *wanted))
    }

    /// Measures all of them once, side by side; ends within a few seconds whatever is broken.
    pub async fn sample(&self) -> Vec<Sample> {
        join_all(self.targets.iter().map(|(target, _)| self.measure(target))).await
    }

    async fn measure(&self, target: &Target) -> Sample {
        match target {
            Target::Ping(address) => ping(*address, None).await,
            Target::Dns(name) => self.ask(name).await,
            Target::Gateway { ipv4 } => gateway(*ipv4).await,
            Target::Carrier(dev) => carrier(dev).await,
        }
    }

    async fn ask(&self, name: &str) -> Sample {
        let configured = collect::resolvers::collect(&self.root, &[])
            .value
            .configured;
        if configured.is_empty() {
            return failed("no resolver is configured");
        }
        // As the C library does (resolv.conf(5)): the first answer counts, whichever of them gives it.
        let asked = join_all(
            configured
                .iter()
                .map(|resolver| resolve::ask(*resolver, name, ASK)),
        )
        .await;
        let holds = asked.iter().any(|a| a.answer == DnsAnswer::Rcode(0));
        let detail = configured
            .iter()
            .zip(&asked)
            .map(|(resolver, a)| format!("{resolver}: {:?}", a.answer))
            .collect::<Vec<_>>()
            .join(", ");
        Sample { holds, detail }
    }
}

fn value_of(value: &Value, values: &Values) -> Result<String, Refused> {
    match value.variable() {
        Some(name) => values
            .get(name)
            .cloned()
            .ok_or_else(|| Refused::because(Reason::UnknownBinding, name)),
        None => Ok(value.0.clone()),
    }
}

fn describe(target: &Target) -> String {
    match target {
        Target::Ping(address) => format!("ping {address}"),
        Target::Dns(name) => format!("dns {name}"),
        Target::Gateway { ipv4: true } => "default gateway (IPv4)".to_owned(),
        Target::Gateway { ipv4: false } => "default gateway (IPv6)".to_owned(),
        Target::Carrier(dev) => format!("carrier of {dev}"),
    }
}

fn failed(detail: &str) -> Sample {
    Sample {
        holds: false,
        detail: detail.to_owned(),
    }
}

async fn ping(address: IpAddr, link: Option<u32>) -> Sample {
    let target = reach::Target { address, link };
    let once = reach::Pinging {
        times: 1,
        pause: Duration::ZERO,
        deadline: PING,
    };
    let seen = reach::ping(&[(target, ReachRole::Anchor)], once).await;
    match seen.value.first() {
        Some(Reach {
            received, rtt_us, ..
        }) if *received > 0 => Sample {
            holds: true,
            detail: format!("{} µs", rtt_us.first().copied().unwrap_or_default()),
        },
        Some(Reach { no_route: true, .. }) => failed("no route"),
        Some(_) => failed("no answer"),
        None => failed("could not be sent"),
    }
}

async fn gateway(ipv4: bool) -> Sample {
    let Ok(routes) = collect::route::collect().await else {
        return failed("the routes can't be read");
    };
    let gateways: Vec<(IpAddr, Option<u32>)> = routes
        .value
        .iter()
        .filter(|r| r.destination.is_default() && r.destination.address.is_ipv4() == ipv4)
        .filter(|r| r.table == collect::route::MAIN && r.kind == "unicast")
        .filter_map(|r| Some((r.gateway?, r.link)))
        .collect();
    if gateways.is_empty() {
        return failed(NO_GATEWAY);
    }
    let samples = join_all(gateways.iter().map(|(address, link)| {
        let scoped = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        ping(*address, link.filter(|_| scoped))
    }))
    .await;
    let answered = samples.into_iter().find(|sample| sample.holds);
    answered.unwrap_or_else(|| failed("no gateway answers"))
}

async fn carrier(dev: &str) -> Sample {
    match collect::link::collect().await {
        Ok(links) => match links.value.iter().find(|link| link.name == dev) {
            Some(link) if link.carrier == Some(true) => Sample {
                holds: true,
                detail: "carrier".to_owned(),
            },
            Some(_) => failed("no carrier"),
            None => failed("the link is gone"),
        },
        Err(_) => failed("the links can't be read"),
    }
}
