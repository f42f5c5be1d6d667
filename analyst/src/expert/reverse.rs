//! Answers that the reverse path filter throws away (RFC 3704).

use std::collections::BTreeSet;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Link, Protocols};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::reach::{self, Ping};
use super::unit::list;
use crate::case::{Family, Seen, View, Way, default_route, grown};
use crate::repair;

/// How far back drops are counted.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// The kernel's counter (`/proc/net/netstat`).
const COUNTER: &str = "TcpExt.IPReversePathFilter";
/// Drops in the window, and the seconds for each, that are more than the noise of forged addresses.
const DROPS: u64 = 10;
const SECONDS_EACH: u64 = 5;
/// `rp_filter`: only from where the answer would go.
const STRICT: u8 = 1;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some((before, now)) = view.span(WINDOW, |pass| pass.protocols.as_ref()) else {
        return examined;
    };
    let counters = (
        before.value.counters.get(COUNTER),
        now.value.counters.get(COUNTER),
    );
    let (Some(&older), Some(&newer)) = counters else {
        return examined;
    };
    let drops = grown(older, newer).unwrap_or(0);
    let age = now.at.duration_since(before.at).as_secs();
    let seconds = u64::try_from(age).unwrap_or(0).max(1);
    let swallowed = swallowed(view);
    let is_noise = drops < DROPS || drops * SECONDS_EACH < seconds;
    if is_noise && swallowed.is_none() {
        examined.well.push(format!(
            "The reverse path filter dropped {drops} packets in {seconds} s"
        ));
        return examined;
    }
    let strict = strict(view);
    if strict.is_empty() {
        return examined;
    }
    let names = list(strict.iter().map(|link| &link.name));
    let severity = if swallowed.is_some() {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut draft = Draft::new(
        "reverse_path_drop",
        Layer::Route,
        names.as_str(),
        severity,
        format!(
            "Packets that arrive on {names} are dropped because answers would leave another way"
        ),
    );
    let fact = format!("the reverse path filter dropped {drops} packets in {seconds} s");
    draft.shown("protocols", "dropped", now.at, fact);
    if let Some(links) = &view.now().links {
        let fact = format!("rp_filter is 1 (strict) on {names}, and other links lead outside too");
        draft.backed("links", "strict", links.at, fact);
    }
    if let Some((at, fact)) = swallowed {
        draft.shown("reach", "swallowed", at, fact);
        draft.breaks_beyond.push(Family::V4);
    }
    for link in &strict {
        silent_through(&mut draft, view, link);
    }
    if let [link] = strict.as_slice() {
        draft.rests_on = Some(Way {
            link: Some(link.index),
            beyond: None,
        });
        draft.propose(repair::reverse::loosen(view, link));
    }
    draft.misses(format!(
        "which requests come in and are not answered (`tcpdump -n -i {}`, `nstat -az TcpExtIPReversePathFilter`)",
        strict[0].name
    ));
    draft.next(format!(
        "Set rp_filter to 2 (loose) on {names}, or add a policy rule that sends answers back the way the requests came"
    ));
    examined.drafts.push(draft);
    examined
}

/// Nothing outside answers while the filter drops at least as many packets as requests stay unanswered: it throws the
/// answers away. Forged packets beside an outage are far fewer.
fn swallowed(view: &View<'_>) -> Option<(Timestamp, String)> {
    let now = view.now().protocols.as_ref()?;
    let before = view
        .this_boot()
        .filter_map(|pass| pass.protocols.as_ref())
        .find(|seen| seen.at != now.at)?;
    let count = |seen: &Seen<Protocols>| seen.value.counters.get(COUNTER).copied();
    let drops = grown(count(before)?, count(now)?)?;
    let silent = reach::all_silent(&reach::far(view, Family::V4, None));
    let pings: Vec<Ping> = silent
        .iter()
        .filter_map(|target| reach::ping(view.now(), *target))
        .collect();
    let unanswered: u32 = pings.iter().map(|ping| ping.sent).sum();
    let at = pings.first()?.at;
    let fact = format!(
        "{unanswered} echo requests to {} stayed unanswered, and at least as many packets were dropped",
        list(&silent)
    );
    (unanswered > 0 && drops >= u64::from(unanswered)).then_some((at, fact))
}

/// Links with the strict filter that lead outside beside the one of the default route: only there answers take another
/// way. A device with a single way out drops nothing but forged packets.
fn strict<'a>(view: &View<'a>) -> Vec<&'a Link> {
    let primary = default_route(view.routes(), Family::V4).and_then(|route| route.link);
    let mut outside: BTreeSet<u32> = BTreeSet::new();
    for route in view.routes() {
        if route.kind != "unicast" || !route.destination.address.is_ipv4() {
            continue;
        }
        if route.gateway.is_some() || route.destination.is_default() {
            outside.extend(route.link);
        }
        outside.extend(route.next_hops.iter().map(|hop| hop.link));
    }
    let Some(primary) = primary.filter(|_| outside.len() > 1) else {
        return Vec::new();
    };
    let is_strict = |link: &&Link| {
        link.index != primary
            && outside.contains(&link.index)
            && link
                .ipv4
                .is_some_and(|settings| settings.rp_filter == STRICT)
    };
    view.links().iter().filter(is_strict).collect()
}

fn silent_through(draft: &mut Draft, view: &View<'_>, link: &Link) {
    let targets = view.now().reach.iter().flat_map(|seen| &seen.value);
    let mut silent = targets.map(|reach| reach.target).filter(|&target| {
        view.way_to(target).link == Some(link.index) && reach::is_silent(view, target)
    });
    if let Some(target) = silent.next()
        && let Some(ping) = reach::ping(view.now(), target)
    {
        draft.backed("reach", "silent", ping.at, ping.fact(target));
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, Ipv4Settings, Protocols};

    use super::*;
    use crate::fixture::{Evidence, LAN, WAN, healthy, only, route, verdict};

    fn counted(round: u64, drops: u64) -> Evidence {
        let mut evidence = healthy(round);
        evidence.extra.push(Body::Protocols(Protocols {
            counters: [(COUNTER.to_owned(), drops)].into(),
            ..Protocols::default()
        }));
        for index in [WAN, LAN] {
            evidence.link(index).ipv4 = Some(Ipv4Settings {
                forwarding: true,
                rp_filter: STRICT,
                arp_ignore: 0,
            });
        }
        evidence
    }

    fn two_ways_out(round: u64, drops: u64) -> Evidence {
        let mut evidence = counted(round, drops);
        let mut second = route("0.0.0.0/0", Some("192.168.40.254"), LAN);
        second.metric = Some(500);
        evidence.routes.push(second);
        evidence
    }

    #[test]
    fn drops_on_the_second_way_out_loosen_its_filter() {
        let told = verdict(&[two_ways_out(1, 100), two_ways_out(2, 160)]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("reverse_path_drop", "lan")
        );
        assert_eq!(finding.confidence, Confidence::Likely);
        assert!(finding.evidence[0].fact.0.contains("60 packets in 10 s"));
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change sysctl net/ipv4/conf/lan/rp_filter=2\n"),
            "{script}"
        );
    }

    #[test]
    fn answers_that_it_drops_explain_the_silence_outside() {
        let silent = |drops| {
            let mut after = two_ways_out(2, drops);
            after.silence_outside();
            verdict(&[two_ways_out(1, 100), after])
        };
        let told = silent(160);
        let finding = only(&told);
        assert_eq!(finding.cause.0, "reverse_path_drop");
        assert_eq!(finding.severity, Severity::Critical);
        // Forged packets beside an outage.
        let causes = silent(112).findings.into_iter().map(|f| f.cause.0);
        assert_eq!(
            causes.collect::<Vec<_>>(),
            ["upstream_dead", "reverse_path_drop"]
        );
    }

    #[test]
    fn a_counter_that_stands_still_a_single_way_out_and_a_loose_filter_do_not_alarm() {
        let mut loose = [two_ways_out(1, 100), two_ways_out(2, 160)];
        for evidence in &mut loose {
            evidence.link(LAN).ipv4 = Some(Ipv4Settings {
                rp_filter: 2,
                ..Ipv4Settings::default()
            });
        }
        let mut rebooted = [two_ways_out(1, 100), two_ways_out(2, 160)];
        rebooted[0].boot = "boot-0";
        for rounds in [
            [two_ways_out(1, 9_000), two_ways_out(2, 9_000)],
            [two_ways_out(1, 9_000), two_ways_out(2, 9_004)],
            [counted(1, 100), counted(2, 900)],
            loose,
            rebooted,
        ] {
            assert_eq!(verdict(&rounds).health, Health::Healthy);
        }
    }
}
