//! What is known of a path, and what it means. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::probe::errors::Why;
use crate::probe::tally::Tally;

/// One hop.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Time to live of its probes.
    pub ttl: u8,
    /// Who answered, in the order first seen; at most 8.
    pub addresses: Vec<IpAddr>,
    /// Probes and answers.
    pub tally: Tally,
    /// Round-trip times in the order of answers, the first 64.
    pub rtts: Vec<Duration>,
    /// Next-hop MTU that it reported.
    pub mtu: Option<u16>,
    /// It refuses to forward to the target (unreachable, prohibited).
    pub refuses: Option<Why>,
    /// The target itself answered here.
    pub target: bool,
}

/// The path to one target.
#[derive(Clone, Debug, Default)]
pub struct Path {
    /// Hops, the nearest first.
    pub hops: Vec<Hop>,
}

/// What a path shows, for people and for the expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Answers are missing here, but not farther on: this router answers only so often. No fault.
    RateLimited {
        /// The hop.
        ttl: u8,
    },
    /// It never answers, but forwards. No fault.
    Silent {
        /// The hop.
        ttl: u8,
    },
    /// From here on packets get lost, up to the target.
    LossFrom {
        /// The first hop with the loss.
        ttl: u8,
    },
    /// Packets go in circles.
    Loop {
        /// Where the circle begins.
        from: u8,
        /// Where the first address comes back.
        again: u8,
        /// That address.
        address: IpAddr,
    },
    /// Nobody answers behind this hop (0: not even the first one), and the target was not reached.
    EndsAfter {
        /// The last hop that answered.
        ttl: u8,
    },
    /// A router says that there is no way.
    Refused {
        /// Where.
        ttl: u8,
        /// Who.
        address: IpAddr,
        /// Why.
        why: Why,
    },
}

/// Who answered a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A router on the way.
    Router(Why),
    /// The target.
    Target,
}

impl Path {
    /// Notes a probe that left.
    pub(super) fn sent(&mut self, ttl: u8) {
        self.hop(ttl).tally.sent += 1;
    }

    /// Notes an answer in time.
    pub(super) fn answered(&mut self, ttl: u8, from: IpAddr, answer: Answer, rtt: Duration) {
        let hop = self.hop(ttl);
        hop.tally.answer(rtt);
        if hop.rtts.len() < MAX_TIMES {
            hop.rtts.push(rtt);
        }
        if !hop.addresses.contains(&from) && hop.addresses.len() < MAX_ADDRESSES {
            hop.addresses.push(from);
        }
        match answer {
            Answer::Target => hop.target = true,
            Answer::Router(why @ (Why::Unreachable | Why::Prohibited | Why::PortUnreachable)) => {
                hop.refuses = Some(why);
            }
            Answer::Router(Why::TooBig(mtu)) => hop.mtu = Some(mtu),
            Answer::Router(Why::TimeExceeded | Why::Other) => {}
        }
    }

    /// Notes a probe that nobody answered.
    pub(super) fn lost(&mut self, ttl: u8) {
        self.hop(ttl).tally.lost += 1;
    }

    /// A probe whose fate nobody will know.
    pub(super) fn unsent(&mut self, ttl: u8) {
        let tally = &mut self.hop(ttl).tally;
        tally.sent = tally.sent.saturating_sub(1);
    }

    /// Notes the next-hop MTU that a router reported.
    pub fn report_mtu(&mut self, from: IpAddr, mtu: u16) {
        let hop = self.hops.iter_mut().find(|h| h.addresses.contains(&from));
        if let Some(hop) = hop {
            hop.mtu = Some(mtu);
        }
    }

    /// The hop at which the target answered.
    #[must_use]
    pub fn reached(&self) -> Option<u8> {
        self.hops.iter().find(|h| h.target).map(|h| h.ttl)
    }

    /// The farthest hop that answered.
    #[must_use]
    pub fn last_answered(&self) -> Option<u8> {
        let last = self.hops.iter().rev().find(|h| h.tally.received > 0)?;
        Some(last.ttl)
    }

    /// The hop behind which there is nothing to ask.
    pub(super) fn end(&self) -> Option<u8> {
        let end = self.hops.iter().find(|h| h.target || h.refuses.is_some())?;
        Some(end.ttl)
    }

    /// Forgets what lies behind the end: more hops were asked before it was known.
    pub(super) fn trim(&mut self) {
        if let Some(end) = self.end() {
            self.hops.retain(|hop| hop.ttl <= end);
        }
    }

    /// What the path shows.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let circle = self.circle();
        let last = self.last_answered().unwrap_or(0);
        for (place, hop) in self.hops.iter().enumerate() {
            if hop.ttl >= last || hop.tally.lost == 0 {
                continue;
            }
            // In percent: of the answering hops behind this one the best.
            let behind = self.hops[place + 1..]
                .iter()
                .filter(|h| h.tally.received > 0)
                .map(|h| h.tally.loss_percent())
                .fold(100.0, f64::min);
            if hop.tally.received == 0 {
                notes.push(Note::Silent { ttl: hop.ttl });
            } else if behind < hop.tally.loss_percent() {
                notes.push(Note::RateLimited { ttl: hop.ttl });
            }
        }
        notes.extend(self.loss_from());
        if let Some((from, again, address)) = circle {
            notes.push(Note::Loop {
                from,
                again,
                address,
            });
        } else if let Some((hop, why)) = self.hops.iter().find_map(|h| Some((h, h.refuses?))) {
            notes.extend(hop.addresses.first().map(|address| Note::Refused {
                ttl: hop.ttl,
                address: *address,
                why,
            }));
        } else if self.reached().is_none() {
            notes.push(Note::EndsAfter { ttl: last });
        }
        notes
    }

    /// The first hop from which on every answering hop loses, the target included.
    fn loss_from(&self) -> Option<Note> {
        self.reached()?;
        let mut from = None;
        for hop in self.hops.iter().rev().filter(|h| h.tally.received > 0) {
            if hop.tally.lost == 0 {
                break;
            }
            from = Some(hop.ttl);
        }
        from.map(|ttl| Note::LossFrom { ttl })
    }

    /// An address that comes back with another one in between. One that stands twice in a row is a router that passes
    /// packets on without counting, not a circle.
    fn circle(&self) -> Option<(u8, u8, IpAddr)> {
        let mut seen: Vec<(u8, IpAddr)> = Vec::new();
        for hop in self.hops.iter().filter(|h| !h.target) {
            let here: BTreeSet<IpAddr> = hop.addresses.iter().copied().collect();
            let back = seen.iter().find(|(ttl, address)| {
                here.contains(address)
                    && self.hops.iter().any(|between| {
                        (*ttl + 1..hop.ttl).contains(&between.ttl)
                            && between.addresses.iter().any(|a| a != address)
                    })
            });
            if let Some((ttl, address)) = back {
                return Some((*ttl, hop.ttl, *address));
            }
            seen.extend(here.into_iter().map(|address| (hop.ttl, address)));
        }
        None
    }

    fn hop(&mut self, ttl: u8) -> &mut Hop {
        let place = usize::from(ttl.saturating_sub(1));
        while self.hops.len() <= place {
            let ttl = u8::try_from(self.hops.len() + 1).unwrap_or(u8::MAX);
            self.hops.push(Hop {
                ttl,
                addresses: Vec::new(),
                tally: Tally::new(MAX_SAMPLES),
                rtts: Vec::new(),
                mtu: None,
                refuses: None,
                target: false,
            });
        }
        &mut self.hops[place]
    }
}

const MAX_ADDRESSES: usize = 8;
const MAX_TIMES: usize = 64;
const MAX_SAMPLES: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// Hops as (address or silence, answers of 4); the last one is the target if `reached`.
    fn path(hops: &[(u8, u64)], reached: bool) -> Path {
        let mut path = Path::default();
        for (place, (address, answers)) in hops.iter().enumerate() {
            let ttl = u8::try_from(place + 1).unwrap();
            for n in 0..4 {
                path.sent(ttl);
                let answer = if reached && place + 1 == hops.len() {
                    Answer::Target
                } else {
                    Answer::Router(Why::TimeExceeded)
                };
                if n < *answers {
                    path.answered(ttl, ip(*address), answer, Duration::from_millis(1));
                } else {
                    path.lost(ttl);
                }
            }
        }
        path
    }

    #[test]
    fn a_clean_path_has_no_notes() {
        assert_eq!(path(&[(1, 4), (2, 4), (3, 4)], true).notes(), []);
    }

    #[test]
    fn loss_at_one_hop_that_does_not_persist_is_rate_limiting() {
        let path = path(&[(1, 4), (2, 1), (3, 4)], true);
        assert_eq!(path.notes(), [Note::RateLimited { ttl: 2 }]);
    }

    #[test]
    fn a_silent_router_that_forwards_is_no_fault() {
        let path = path(&[(1, 4), (2, 0), (3, 4)], true);
        assert_eq!(path.notes(), [Note::Silent { ttl: 2 }]);
    }

    #[test]
    fn loss_that_persists_up_to_the_target_begins_where_it_begins() {
        let path = path(&[(1, 4), (2, 2), (3, 2), (4, 2)], true);
        assert_eq!(path.notes(), [Note::LossFrom { ttl: 2 }]);
    }

    #[test]
    fn two_routers_that_point_at_each_other_are_a_loop() {
        let path = path(&[(1, 4), (2, 4), (1, 4), (2, 4)], false);
        assert_eq!(
            path.notes(),
            [Note::Loop {
                from: 1,
                again: 3,
                address: ip(1)
            }]
        );
    }

    #[test]
    fn an_address_twice_in_a_row_is_no_loop() {
        assert_eq!(path(&[(1, 4), (1, 4), (2, 4)], true).notes(), []);
    }

    #[test]
    fn a_path_that_ends_on_the_way_says_where() {
        let silent = path(&[(1, 4), (2, 4), (3, 0), (4, 0)], false);
        assert_eq!(silent.notes(), [Note::EndsAfter { ttl: 2 }]);
        let dead = path(&[(1, 0), (2, 0)], false);
        assert_eq!(dead.notes(), [Note::EndsAfter { ttl: 0 }]);
    }

    #[test]
    fn a_router_that_refuses_ends_the_path() {
        let mut path = path(&[(1, 4), (2, 4), (3, 0)], false);
        path.answered(
            2,
            ip(2),
            Answer::Router(Why::Prohibited),
            Duration::from_millis(1),
        );
        path.trim();
        assert_eq!(path.hops.len(), 2);
        assert_eq!(
            path.notes(),
            [Note::Refused {
                ttl: 2,
                address: ip(2),
                why: Why::Prohibited
            }]
        );
    }

    proptest! {
        #[test]
        fn any_path_is_judged_without_panic(
            hops in prop::collection::vec((0_u8..5, 0_u64..=4), 0..30), reached: bool,
        ) {
            let path = path(&hops, reached);
            let notes = path.notes();
            prop_assert!(notes.len() <= hops.len() + 3);
        }
    }
}
