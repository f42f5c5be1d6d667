//! A resolver that answers, but takes its time.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;

use super::{SLOW_US, best_control, controls, way};
use crate::case::View;
use crate::expert::draft::{Draft, Layer};
use crate::expert::question::{self, Tally};
use crate::expert::reach;
use crate::expert::unit::{median, millis, quantile};
use crate::repair;

/// Fast, microseconds: what a resolver that is preferred must keep.
const FAST_US: u32 = 100_000;
/// One slow answer is no trend: so many answers are looked at, or fewer if every one of them is slow.
const TREND: usize = 20;
const ALL_SLOW: usize = 5;

/// Round trips of the newest answers, the present pass first, and over how many passes they spread.
#[derive(Debug)]
struct Recent {
    rtt_us: Vec<u32>,
    passes: usize,
}

impl Recent {
    fn of(view: &View<'_>, resolver: IpAddr, answers: usize, passes: usize) -> Self {
        let mut recent = Self {
            rtt_us: Vec::new(),
            passes: 0,
        };
        let tallies = view
            .read_anew(|pass| pass.dns.as_ref())
            .filter_map(|pass| question::tally(pass, resolver));
        for tally in tallies {
            recent.rtt_us.extend_from_slice(&tally.rtt_us);
            recent.passes += 1;
            if recent.rtt_us.len() >= answers && recent.passes >= passes {
                break;
            }
        }
        recent
    }

    /// A quarter of many is slow: now and then even a healthy resolver has to ask the world.
    fn is_trend(&self) -> bool {
        let many = self.rtt_us.len() >= TREND && self.passes >= 2;
        many && quantile(&self.rtt_us, 75).is_some_and(|rtt| rtt > SLOW_US)
    }

    /// Every one of a few is slow. Questions of one pass may all wait for the same answer from the world, each a little
    /// shorter than the one before: then they count as one, unless a second pass shows the same.
    fn is_slow_throughout(&self) -> bool {
        let all = self.rtt_us.len() >= ALL_SLOW && self.rtt_us.iter().all(|&rtt| rtt > SLOW_US);
        let steady = || {
            let (least, most) = (self.rtt_us.iter().min(), self.rtt_us.iter().max());
            least
                .zip(most)
                .is_some_and(|(least, most)| (most - least) <= most / 5)
        };
        all && (self.passes >= 2 || steady())
    }

    /// The largest of the windows that shows it.
    fn slow(view: &View<'_>, resolver: IpAddr) -> Option<Self> {
        let trend = Self::of(view, resolver, TREND, 2);
        if trend.is_trend() {
            return Some(trend);
        }
        let two = Self::of(view, resolver, ALL_SLOW, 2);
        if two.is_slow_throughout() {
            return Some(two);
        }
        Some(Self::of(view, resolver, ALL_SLOW, 1)).filter(Self::is_slow_throughout)
    }
}

/// Slow in the present too, over enough answers, and not because the way there is long.
pub(super) fn examine(view: &View<'_>, tally: &Tally, tallies: &[Tally]) -> Option<Draft> {
    let resolver = tally.resolver;
    if tally.served == 0 || median(&tally.rtt_us)? <= SLOW_US {
        return None;
    }
    let recent = Recent::slow(view, resolver)?;
    let typical = median(&recent.rtt_us)?;
    let ping = reach::ping(view.now(), resolver).and_then(|ping| Some((ping.at, ping.rtt_us?)));
    let fast = controls(tally, tallies)
        .filter_map(|other| Some((other, median(&other.rtt_us)?)))
        .find(|(_, rtt)| *rtt <= FAST_US);
    let outside = outside_rtt(view, resolver);
    // What the way itself costs: to the resolver, else to another one, else to the outside.
    let base = ping
        .map(|(_, rtt)| rtt)
        .or(fast.map(|(_, rtt)| rtt))
        .or(outside.map(|(_, rtt)| rtt))?;
    if typical.saturating_sub(base) <= SLOW_US - FAST_US / 2 {
        return None;
    }
    let mut draft = Draft::new(
        "resolver_slow",
        Layer::Names,
        resolver.to_string(),
        Severity::Warning,
        format!(
            "The resolver {resolver} takes {} for an answer",
            millis(typical)
        ),
    );
    draft.rests_on = Some(way(view, tally));
    let fact = format!(
        "{resolver} answered {} questions of the last {} rounds in {} (median), {} (95 %)",
        recent.rtt_us.len(),
        recent.passes,
        millis(typical),
        millis(quantile(&recent.rtt_us, 95).unwrap_or(typical))
    );
    draft.shown("dns", &resolver.to_string(), tally.at, fact);
    if let Some((at, rtt)) = ping {
        let fact = format!(
            "{resolver} answers echo requests in {}: the way is not slow",
            millis(rtt)
        );
        draft.backed("reach", &resolver.to_string(), at, fact);
    } else {
        draft.misses(format!(
            "the round trip to {resolver} without DNS (`aizen ping {resolver}`)"
        ));
    }
    if let Some((other, _)) = fast {
        draft.backed("dns", &other.resolver.to_string(), other.at, other.fact());
    } else {
        draft.misses(
            "the speed of another resolver (`aizen dns NAME` with a second resolver named)",
        );
    }
    if recent.rtt_us.len() < TREND {
        draft.misses(format!(
            "more answers: {} of {TREND} seen (`aizen dns NAME` repeats)",
            recent.rtt_us.len()
        ));
    }
    draft.misses("whether it is slow for every name (`aizen dns` with several names)");
    draft.explains("Pages and connections start late; what is already connected is not slower");
    let best = best_control(view, tally, tallies)
        .filter(|best| median(&best.rtt_us).is_some_and(|rtt| rtt <= FAST_US));
    draft.propose(best.and_then(|best| {
        let name = best.resolved.first()?;
        repair::resolver::prefer_for_slow(view, resolver, best.resolver, name)
    }));
    draft.next(format!(
        "Check the load of {resolver} and its own upstream; let a faster resolver be asked first meanwhile"
    ));
    Some(draft)
}

/// The fastest echo round trip beyond the gateway.
fn outside_rtt(view: &View<'_>, resolver: IpAddr) -> Option<(IpAddr, u32)> {
    let now = view.now();
    let all = now.reach.iter().flat_map(|seen| &seen.value);
    all.filter(|reach| reach.target != resolver && view.way_to(reach.target).beyond.is_some())
        .filter_map(|reach| Some((reach.target, reach::ping(now, reach.target)?.rtt_us?)))
        .min_by_key(|(_, rtt)| *rtt)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Severity};
    use aizen_protocol::record::DnsAnswer;

    use crate::fixture::{Evidence, RESOLVER, SECOND, dns, healthy, only, slow_resolver, verdict};

    #[test]
    fn a_slow_first_resolver_gives_way_to_a_fast_one() {
        let mut broken = healthy(1);
        slow_resolver(&mut broken);
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.severity),
            ("resolver_slow", Severity::Warning)
        );
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(
            finding.proposal.as_ref().unwrap().bindings[1].pseudonym,
            SECOND
        );
    }

    #[test]
    fn slowness_of_the_way_of_the_past_or_of_a_few_questions_does_not_alarm() {
        // A satellite link: echo takes as long.
        let mut far = healthy(1);
        slow_resolver(&mut far);
        far.reach[1].rtt_us = vec![700_000; 5];
        assert_eq!(far.verdict().findings, []);
        // Nothing to compare with.
        let mut blind = healthy(1);
        slow_resolver(&mut blind);
        blind.reach.clear();
        blind.dns.truncate(1);
        assert_eq!(blind.verdict().findings, []);
        // Slow before, fast at present; and four slow ones among many fast.
        let mut rounds: Vec<Evidence> = (1..=5).map(healthy).collect();
        rounds[..4].iter_mut().for_each(slow_resolver);
        assert_eq!(verdict(&rounds).findings, []);
        let mut rounds: Vec<Evidence> = (1..=5).map(healthy).collect();
        *rounds[4].dns_of(RESOLVER) = dns(RESOLVER, true, &[DnsAnswer::Rcode(0); 4], 900_000);
        assert_eq!(verdict(&rounds).findings, []);
        // All questions of one pass waited for the same answer from the world.
        let mut shared = healthy(1);
        shared.dns_of(RESOLVER).rtt_us = vec![900_000, 780_000, 660_000, 540_000, 420_000];
        assert_eq!(shared.verdict().findings, []);
        // The spare is slow: nobody waits for it.
        let mut spare = healthy(1);
        *spare.dns_of(SECOND) = dns(SECOND, true, &[DnsAnswer::Rcode(0); 5], 900_000);
        assert_eq!(spare.verdict().findings, []);
    }
}
