//! DNS questions of one pass, counted by resolver.

use std::net::IpAddr;

use aizen_protocol::record::{DnsAnswer, DnsPurpose, DnsTransport};
use jiff::Timestamp;

use super::unit::{median, millis};
use crate::case::{Pass, View};

/// RCODEs (RFC 1035) that serve a program: NOERROR and NXDOMAIN.
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

/// What became of the questions to one resolver in one pass.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) resolver: IpAddr,
    pub(super) configured: bool,
    pub(super) at: Timestamp,
    pub(super) asked: u32,
    /// NOERROR or NXDOMAIN.
    pub(super) served: u32,
    /// Any other RCODE: it lives and can't or won't resolve.
    pub(super) errors: u32,
    pub(super) timeouts: u32,
    pub(super) refused: u32,
    pub(super) unreachable: u32,
    pub(super) garbage: u32,
    pub(super) rtt_us: Vec<u32>,
    /// Names that were asked.
    pub(super) names: Vec<String>,
    /// Names that it resolved, NOERROR.
    pub(super) resolved: Vec<String>,
}

impl Tally {
    fn new(resolver: IpAddr, at: Timestamp) -> Self {
        Self {
            resolver,
            configured: false,
            at,
            asked: 0,
            served: 0,
            errors: 0,
            timeouts: 0,
            refused: 0,
            unreachable: 0,
            garbage: 0,
            rtt_us: Vec::new(),
            names: Vec::new(),
            resolved: Vec::new(),
        }
    }

    fn count(&mut self, answer: DnsAnswer) {
        self.asked += 1;
        match answer {
            DnsAnswer::Rcode(NOERROR | NXDOMAIN) => self.served += 1,
            DnsAnswer::Rcode(_) => self.errors += 1,
            DnsAnswer::Timeout => self.timeouts += 1,
            DnsAnswer::PortUnreachable => self.refused += 1,
            DnsAnswer::Unreachable => self.unreachable += 1,
            DnsAnswer::Garbage | DnsAnswer::Tls => self.garbage += 1,
        }
    }

    /// True if the host there showed that it lives, whether or not it resolves.
    pub(super) fn is_alive(&self) -> bool {
        self.served + self.errors + self.refused + self.garbage > 0
    }

    /// True if it was asked and nothing that it said serves a program.
    pub(super) fn is_useless(&self) -> bool {
        self.asked > 0 && self.served == 0
    }

    /// `10.0.0.53 served 0 of 3 questions (3 timed out)`.
    pub(super) fn fact(&self) -> String {
        let parts = [
            (self.errors, "answered with an error code"),
            (self.timeouts, "timed out"),
            (self.refused, "met a closed port"),
            (self.unreachable, "found no way there"),
            (self.garbage, "got bytes that are no answer"),
        ];
        let mut details: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if let Some(rtt) = median(&self.rtt_us) {
            details.push(format!("median {}", millis(rtt)));
        }
        let details = if details.is_empty() {
            String::new()
        } else {
            format!(" ({})", details.join(", "))
        };
        format!(
            "{} served {} of {} questions{details}",
            self.resolver, self.served, self.asked
        )
    }
}

/// Every resolver that was asked in this pass, in the order of the evidence.
pub(super) fn tallies(pass: &Pass) -> Vec<Tally> {
    let Some(seen) = &pass.dns else {
        return Vec::new();
    };
    let mut all: Vec<Tally> = Vec::new();
    // What else is asked has rules of its own.
    let lookups = seen.value.iter().filter(|probe| {
        (probe.transport, probe.purpose) == (DnsTransport::Udp, DnsPurpose::Lookup)
    });
    for probe in lookups {
        let place = all
            .iter()
            .position(|tally| tally.resolver == probe.resolver);
        let place = place.unwrap_or_else(|| {
            all.push(Tally::new(probe.resolver, seen.at));
            all.len() - 1
        });
        let tally = &mut all[place];
        tally.configured |= probe.configured;
        probe.answers.iter().for_each(|&answer| tally.count(answer));
        tally.rtt_us.extend_from_slice(&probe.rtt_us);
        if !tally.names.contains(&probe.name.0) {
            tally.names.push(probe.name.0.clone());
        }
        let resolved = probe.answers.contains(&DnsAnswer::Rcode(NOERROR));
        if resolved && !tally.resolved.contains(&probe.name.0) {
            tally.resolved.push(probe.name.0.clone());
        }
    }
    all.retain(|tally| tally.asked > 0);
    all
}

/// The questions of one pass to one resolver; none if it wasn't asked.
pub(super) fn tally(pass: &Pass, resolver: IpAddr) -> Option<Tally> {
    tallies(pass)
        .into_iter()
        .find(|tally| tally.resolver == resolver)
}

/// Questions in a row, up to the present, that no answer served.
pub(super) fn unanswered(view: &View<'_>, resolver: IpAddr) -> u32 {
    view.read_anew(|pass| pass.dns.as_ref())
        .filter_map(|pass| tally(pass, resolver))
        .take_while(Tally::is_useless)
        .map(|tally| tally.asked)
        .sum()
}
