//! Who answers: echo replies and other answers, pooled so that one lost packet is never a fault.

use std::net::IpAddr;

use jiff::Timestamp;

use super::question::{self, Tally};
use super::unit::{median, millis};
use crate::case::{Family, Pass, View};

/// Echo requests without any reply that make a target silent.
const SILENT_AFTER: u32 = 3;

/// The echo requests of one pass to one target.
#[derive(Debug)]
pub(super) struct Ping {
    pub(super) sent: u32,
    pub(super) received: u32,
    /// The kernel refused to send, for want of a route or because the neighbour didn't show up.
    pub(super) refused: bool,
    pub(super) at: Timestamp,
    /// Median round trip of the replies.
    pub(super) rtt_us: Option<u32>,
}

impl Ping {
    /// `10.0.0.1 answered 3 of 3 echo requests (0.4 ms)`.
    pub(super) fn fact(&self, target: IpAddr) -> String {
        let detail = match self.rtt_us {
            Some(rtt) => format!(" ({})", millis(rtt)),
            None if self.refused => " (the kernel found no way to the host)".into(),
            None => String::new(),
        };
        format!(
            "{target} answered {} of {} echo requests{detail}",
            self.received, self.sent
        )
    }
}

/// The echo requests of a pass to a target; none if it wasn't tried. A target with two roles stands there twice with the
/// same requests: the better entry counts.
pub(super) fn ping(pass: &Pass, target: IpAddr) -> Option<Ping> {
    let seen = pass.reach.as_ref()?;
    let entries = seen.value.iter().filter(|reach| reach.target == target);
    let best = entries.max_by_key(|reach| (reach.received, reach.sent, reach.no_route))?;
    Some(Ping {
        sent: best.sent.into(),
        received: best.received.into(),
        refused: best.no_route,
        at: seen.at,
        rtt_us: median(&best.rtt_us),
    })
}

/// True if the target was tried in this pass and nothing came back: enough requests in a row without a reply, or the
/// kernel itself gave the host up although a route leads there.
pub(super) fn is_silent(view: &View<'_>, target: IpAddr) -> bool {
    let Some(present) = ping(view.now(), target).filter(|ping| ping.received == 0) else {
        return false;
    };
    if present.refused && view.way_to(target).link.is_some() {
        return true;
    }
    let in_a_row: u32 = view
        .read_anew(|pass| pass.reach.as_ref())
        .filter_map(|pass| ping(pass, target))
        .take_while(|ping| ping.received == 0)
        .map(|ping| ping.sent)
        .sum();
    present.sent > 0 && in_a_row >= SILENT_AFTER
}

/// Something beyond the default gateway that was asked for an answer.
#[derive(Debug)]
pub(super) struct Far {
    pub(super) address: IpAddr,
    pub(super) answered: bool,
    pub(super) silent: bool,
    /// The collector.
    pub(super) source: &'static str,
    pub(super) at: Timestamp,
    pub(super) fact: String,
}

/// Everything of a family beyond the gateway that was asked in this pass, in the order of the evidence.
pub(super) fn far(view: &View<'_>, family: Family, gateway: Option<IpAddr>) -> Vec<Far> {
    let now = view.now();
    let is_far =
        |address: IpAddr| Some(address) != gateway && view.way_to(address).beyond == Some(family);
    let mut all: Vec<Far> = Vec::new();
    for reach in now.reach.iter().flat_map(|seen| &seen.value) {
        let Some(ping) = ping(now, reach.target) else {
            continue;
        };
        if is_far(reach.target) && !all.iter().any(|far| far.address == reach.target) {
            all.push(Far {
                address: reach.target,
                answered: ping.received > 0,
                silent: is_silent(view, reach.target),
                source: "reach",
                at: ping.at,
                fact: ping.fact(reach.target),
            });
        }
    }
    for tally in question::tallies(now)
        .into_iter()
        .filter(|tally| is_far(tally.resolver))
    {
        all.push(Far {
            address: tally.resolver,
            answered: tally.is_alive(),
            silent: !tally.is_alive() && question::unanswered(view, tally.resolver) >= SILENT_AFTER,
            source: "dns",
            at: tally.at,
            fact: Tally::fact(&tally),
        });
    }
    let fresh = now.time.iter().filter(|seen| view.is_fresh(seen.at));
    let servers = fresh.flat_map(|seen| {
        seen.value
            .servers
            .iter()
            .map(move |server| (seen.at, server))
    });
    for (at, server) in servers.filter(|(_, server)| is_far(server.server)) {
        all.push(Far {
            address: server.server,
            answered: server.offset_ms.is_some() || server.stratum.is_some(),
            // One exchange without an answer proves nothing.
            silent: false,
            source: "time",
            at,
            fact: format!("time server {} was asked once", server.server),
        });
    }
    all
}

/// The distinct addresses that are silent, if nothing beyond the gateway answered at all.
pub(super) fn all_silent(far: &[Far]) -> Vec<IpAddr> {
    if far.iter().any(|far| far.answered) {
        return Vec::new();
    }
    let mut silent: Vec<IpAddr> = Vec::new();
    for far in far.iter().filter(|far| far.silent) {
        if !silent.contains(&far.address) {
            silent.push(far.address);
        }
    }
    silent
}
