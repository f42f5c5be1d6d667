//! What was known at the end of one pass: that pass, and those before it.

use std::net::IpAddr;

use aizen_protocol::record::{Address, Link, Profile, Route};
use jiff::{SignedDuration, Timestamp};

use super::{Pass, Seen};

/// The kernel's `main` and `local` routing tables.
const MAIN: u32 = 254;
const LOCAL: u32 = 255;
/// Between the start of a round and the time that its first reading bears.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// `IPv4` or `IPv6`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// What lies between the device and an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// Outgoing link; none if no route says.
    pub(crate) link: Option<u32>,
    /// The family of the default gateway's side, if the address isn't a neighbour.
    pub(crate) beyond: Option<Family>,
}

/// One pass and its past, in the same or earlier boots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    now: &'a Pass,
    earlier: &'a [Pass],
}

impl<'a> View<'a> {
    pub(super) fn new(now: &'a Pass, earlier: &'a [Pass]) -> Self {
        Self { now, earlier }
    }

    /// The present.
    pub(crate) fn now(self) -> &'a Pass {
        self.now
    }

    /// The past, the newest first.
    pub(crate) fn earlier(self) -> impl Iterator<Item = &'a Pass> {
        self.earlier.iter().rev()
    }

    /// The past of this boot, the newest first.
    pub(crate) fn this_boot(self) -> impl Iterator<Item = &'a Pass> {
        let boot = &self.now.boot;
        self.earlier().take_while(move |pass| pass.boot == *boot)
    }

    /// The present, then the past of this boot, the newest first.
    pub(crate) fn backwards(self) -> impl Iterator<Item = &'a Pass> {
        std::iter::once(self.now).chain(self.this_boot())
    }

    /// The present, then the past of this boot, the newest first, each with another reading: what a pass only
    /// tells again counts once.
    pub(crate) fn read_anew<T: 'a>(
        self,
        read: impl Fn(&'a Pass) -> Option<&'a Seen<T>>,
    ) -> impl Iterator<Item = &'a Pass> {
        let mut last = None;
        self.backwards().filter(move |pass| {
            read(pass).is_some_and(|seen| last.replace(seen.at) != Some(seen.at))
        })
    }

    /// A reading of this boot and the present one: the oldest that is at most `longest` older, else the one just before.
    /// Collectors that run rarely are told again with the time they ran: only another time is another reading.
    pub(crate) fn span<T: 'a>(
        self,
        longest: SignedDuration,
        read: impl Fn(&'a Pass) -> Option<&'a Seen<T>>,
    ) -> Option<(&'a Seen<T>, &'a Seen<T>)> {
        let now = read(self.now)?;
        let mut before = None;
        for older in self.this_boot().filter_map(&read) {
            if older.at == now.at {
                continue;
            }
            let age = now.at.duration_since(older.at);
            let is_near = age.is_positive() && age <= longest;
            if is_near || before.is_none() {
                before = Some(older);
            }
            if !is_near {
                break;
            }
        }
        before.map(|before| (before, now))
    }

    /// Each link that was there before too, as it was and as it is; and both times.
    pub(crate) fn links_over(self, longest: SignedDuration) -> Option<Over<'a>> {
        let (before, now) = self.span(longest, |pass| pass.links.as_ref())?;
        let pairs = now
            .value
            .iter()
            .enumerate()
            .filter_map(|(place, link)| Some((same_link(&before.value, link, place)?, link)));
        Some(Over {
            from: before.at,
            to: now.at,
            links: pairs.collect(),
        })
    }

    /// True if a reading was taken in this round. Collectors that run rarely are told again in every round with the time
    /// they ran: what they saw then is no sign of life at present.
    pub(crate) fn is_fresh(self, at: Timestamp) -> bool {
        let took = SignedDuration::from_millis(self.now.ended.value.took_ms.into()) + SLACK;
        self.now.ended.at.duration_since(at) <= took
    }

    /// What the operator says; an older statement holds until it is replaced.
    pub(crate) fn profile(self) -> Option<&'a Seen<Profile>> {
        self.now
            .profile
            .as_ref()
            .or_else(|| self.earlier().find_map(|pass| pass.profile.as_ref()))
    }

    pub(crate) fn links(self) -> &'a [Link] {
        self.now.links.as_ref().map_or(&[], |seen| &seen.value)
    }

    pub(crate) fn link(self, index: u32) -> Option<&'a Link> {
        self.links().iter().find(|link| link.index == index)
    }

    /// The link's name, or its number where links weren't seen.
    pub(crate) fn link_name(self, index: u32) -> String {
        self.link(index)
            .map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    pub(crate) fn routes(self) -> &'a [Route] {
        self.now.routes.as_ref().map_or(&[], |seen| &seen.value)
    }

    /// Addresses of all links but the loopback's, usable beyond the link.
    pub(crate) fn global_addresses(self) -> impl Iterator<Item = &'a Address> {
        let (view, seen) = (self, self.now.addresses.as_ref());
        let all: &'a [Address] = seen.map_or(&[], |seen| &seen.value);
        all.iter().filter(move |address| {
            address.scope == "global"
                && !address.address.address.is_loopback()
                && view.link(address.link).is_none_or(|link| !link.loopback)
        })
    }

    /// True if losing this family is felt: IPv6 beside IPv4 is used for the outside only from a global address (RFC 6724
    /// prefers IPv4 to unique local ones; RFC 4291: 2000::/3).
    pub(crate) fn uses(self, family: Family) -> bool {
        let is_global = |address: IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
        };
        family == Family::V4
            || !has_default(self.routes(), Family::V4)
            || self
                .global_addresses()
                .any(|ours| is_global(ours.address.address) && !ours.deprecated)
    }

    /// The link whose own prefix holds the address.
    pub(crate) fn connected(self, address: IpAddr) -> Option<u32> {
        self.global_addresses()
            .find(|ours| ours.address.length > 0 && ours.address.contains(address))
            .map(|ours| ours.link)
    }

    /// Which way packets to the address take, as far as the routes tell.
    pub(crate) fn way_to(self, address: IpAddr) -> Way {
        if address.is_loopback() {
            return Way::default();
        }
        let beyond = Some(Family::of(address));
        let Some(routes) = &self.now.routes else {
            let link = self.connected(address);
            return Way {
                link,
                beyond: beyond.filter(|_| link.is_none()),
            };
        };
        match best_route(&routes.value, address) {
            Some(route) => Way {
                link: route.link,
                beyond: beyond
                    .filter(|_| route.gateway.is_some() || route.destination.is_default()),
            },
            None => Way { link: None, beyond },
        }
    }
}

/// Links between two readings of one boot.
#[derive(Debug)]
pub(crate) struct Over<'a> {
    /// When the older was taken.
    pub(crate) from: Timestamp,
    /// When the newer was taken.
    pub(crate) to: Timestamp,
    /// The same link then and now.
    pub(crate) links: Vec<(&'a Link, &'a Link)>,
}

impl Over<'_> {
    /// Seconds between both, at least one.
    pub(crate) fn seconds(&self) -> u64 {
        let seconds = self.to.duration_since(self.from).as_secs();
        u64::try_from(seconds).unwrap_or(0).max(1)
    }
}

/// This link in another reading. The kernel lists links in one order, so it mostly stands at the same place.
pub(crate) fn same_link<'a>(links: &'a [Link], link: &Link, place: usize) -> Option<&'a Link> {
    let is_same = |other: &&Link| other.index == link.index && other.name == link.name;
    links
        .get(place)
        .filter(is_same)
        .or_else(|| links.iter().find(is_same))
}

/// The default route that counts: of `main` if it has one, else of another table; the lowest metric.
pub(crate) fn default_route(routes: &[Route], family: Family) -> Option<&Route> {
    let wanted = |route: &&Route| {
        route.destination.is_default()
            && Family::of(route.destination.address) == family
            && route.kind == "unicast"
            && route.table != LOCAL
    };
    routes
        .iter()
        .filter(wanted)
        .min_by_key(|route| (route.table != MAIN, route.metric.unwrap_or(0)))
}

/// True if packets to anywhere have a way: a default route, or the two halves that VPN clients set over it.
pub(crate) fn has_default(routes: &[Route], family: Family) -> bool {
    let halves = routes
        .iter()
        .filter(|route| {
            route.destination.length == 1
                && Family::of(route.destination.address) == family
                && route.kind == "unicast"
        })
        .count();
    default_route(routes, family).is_some() || halves >= 2
}

/// The longest prefix that holds the address; `main` before other tables, then the lowest metric.
fn best_route(routes: &[Route], address: IpAddr) -> Option<&Route> {
    routes
        .iter()
        .filter(|route| {
            route.table != LOCAL && route.kind == "unicast" && route.destination.contains(address)
        })
        .min_by_key(|route| {
            (
                route.table != MAIN,
                u8::MAX - route.destination.length,
                route.metric.unwrap_or(0),
            )
        })
}
