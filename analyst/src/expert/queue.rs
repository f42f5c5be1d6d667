//! Queues at the way out: too long, too full, or losing packets.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Load, LoadDirection, Queue};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::reach;
use super::trend::{self, Step, percent, wrapped};
use super::unit::{bytes, median, millis};
use crate::case::{Family, View, default_route};

/// Delay that a load may add, microseconds.
const ADDED_US: u32 = 100_000;
/// Echoes that make a median.
const ECHOES: usize = 5;
/// The parent of a root queue (`TC_H_ROOT`).
const ROOT: u32 = u32::MAX;
/// Kinds that send in the order of arrival and let their queue grow.
/// `tbf` is one as long as it has no child.
const FIFO: [&str; 5] = ["pfifo_fast", "pfifo", "bfifo", "pfifo_head_drop", "tbf"];
/// Kinds that drop on purpose, to keep the delay short.
const DROP_ON_PURPOSE: [&str; 10] = [
    "fq_codel", "codel", "cake", "red", "pie", "fq_pie", "sfb", "choke", "ingress", "clsact",
];
/// Kinds that sort packets into classes, or shape what a child orders.
const CLASSFUL: [&str; 10] = [
    "mq", "mqprio", "multiq", "prio", "htb", "hfsc", "drr", "qfq", "ets", "tbf",
];
/// Line rate in use that leaves no room, percent.
const SATURATED: u64 = 90;
/// Dropped packets in a step, and their share in percent of those that were sent.
const DROPS: u64 = 100;
const DROPS_PERCENT: u64 = 1;
/// Drops in a step from which on a queue may have lost a probe.
const FEW: u64 = 10;
/// The longest time that one measurement takes.
const MEASURING: SignedDuration = SignedDuration::from_secs(10);
/// A backlog that takes noticeable time on the way out of an ordinary line.
const BACKLOG_BYTES: u32 = 64 * 1024;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    if let Some(draft) = loaded(view).or_else(|| delayed(view)) {
        examined.drafts.push(draft);
    }
    let links: Vec<u32> = view.links().iter().map(|link| link.index).collect();
    for link in links {
        if let Some(draft) = saturated(view, link) {
            examined.drafts.push(draft);
        } else if let Some(draft) = dropping(view, link) {
            examined.drafts.push(draft);
        }
    }
    if examined.drafts.is_empty() && view.now().queues.is_some() {
        examined
            .well
            .push("No queue is too long or loses packets".into());
        examined.well.extend(unmoved(view));
    }
    examined
}

/// The link of the default route.
fn way_out(view: &View<'_>) -> Option<u32> {
    [Family::V4, Family::V6]
        .into_iter()
        .find_map(|family| default_route(view.routes(), family)?.link)
}

fn root(queues: &[Queue], link: u32) -> Option<&Queue> {
    queues
        .iter()
        .find(|queue| queue.link == link && queue.parent == ROOT)
}

/// What orders the packets of a link: a root that only sorts them into classes leaves that to its children.
fn discipline(queues: &[Queue], link: u32) -> Option<&str> {
    let root = root(queues, link)?;
    let child = queues.iter().find(|queue| {
        queue.link == link
            && queue.parent != ROOT
            && !CLASSFUL.contains(&queue.kind.as_str())
            && !["ingress", "clsact"].contains(&queue.kind.as_str())
    });
    let ordering = child.filter(|_| CLASSFUL.contains(&root.kind.as_str()));
    Some(&ordering.unwrap_or(root).kind)
}

/// Round trips grow under a load that was made to find out, in one direction or in both.
fn loaded(view: &View<'_>) -> Option<Draft> {
    let seen = view.now().load.as_ref()?;
    let bloated: Vec<(&Load, u32, u32)> = seen
        .value
        .iter()
        .filter_map(|load| {
            let (idle, under) = medians(load)?;
            (under.saturating_sub(idle) >= ADDED_US).then_some((load, idle, under))
        })
        .collect();
    let (worst, idle, under) = *bloated.iter().max_by_key(|(_, idle, under)| under - idle)?;
    let link = view.way_to(worst.target).link.or_else(|| way_out(view));
    let mut directions: Vec<_> = bloated.iter().map(|(load, ..)| load.direction).collect();
    directions.sort_unstable();
    directions.dedup();
    let mut draft = bloat(view, link, under - idle, &directions);
    for (load, idle, under) in bloated {
        let fact = format!(
            "{} answered in {} idle and in {} under {} of {} Mb/s (medians of {} and {} echoes)",
            load.target,
            millis(idle),
            millis(under),
            of_direction(load.direction),
            load.bits_per_second / 1_000_000,
            load.idle_us.len(),
            load.loaded_us.len()
        );
        draft.shown("load", "rtt", seen.at, fact);
        loss(&mut draft, load, seen.at);
    }
    draft.misses(if directions.contains(&None) {
        "the same under load in each direction by itself (`aizen perf --load --to URL`)"
    } else {
        "the same with another server, as the long queue may be the server's (`aizen perf --load --to URL`)"
    });
    if directions == [Some(LoadDirection::Down)] {
        let fact = "what comes in waits before it reaches this device, at the other end of a line";
        draft.noted("load", seen.at, fact.to_owned());
    } else {
        kind(&mut draft, view, link);
    }
    Some(draft)
}

/// Round-trip times idle and under load, if there are enough of both.
fn medians(load: &Load) -> Option<(u32, u32)> {
    let enough = load.idle_us.len() >= ECHOES && load.loaded_us.len() >= ECHOES;
    Some((median(&load.idle_us)?, median(&load.loaded_us)?)).filter(|_| enough)
}

fn of_direction(direction: Option<LoadDirection>) -> &'static str {
    match direction {
        Some(LoadDirection::Down) => "a download",
        Some(LoadDirection::Up) => "an upload",
        None => "a load",
    }
}

/// What a load that was made to find out adds at most, where that is no fault.
fn unmoved(view: &View<'_>) -> Option<String> {
    let loads = &view.now().load.as_ref()?.value;
    let added = loads.iter().filter_map(|load| {
        let (idle, under) = medians(load)?;
        Some(under.saturating_sub(idle))
    });
    let most = added.max().filter(|added| *added < ADDED_US)?;
    Some(format!(
        "A load adds {} to round trips at most",
        millis(most)
    ))
}

/// Delay without loss is a queue; with much loss the line itself may be bad.
fn loss(draft: &mut Draft, load: &Load, at: Timestamp) {
    let sent = u64::from(load.lost) + u64::try_from(load.loaded_us.len()).unwrap_or(u64::MAX);
    let under = of_direction(load.direction);
    let fact = format!("{} of {sent} echoes were lost under {under}", load.lost);
    if percent(load.lost.into(), sent) >= 20 {
        draft.contradicted("load", at, fact);
    } else {
        draft.noted("load", at, fact);
    }
}

/// Without such a test: echoes are late in two readings, while packets wait in a queue that grows.
fn delayed(view: &View<'_>) -> Option<Draft> {
    let link = way_out(view)?;
    let queues: Vec<_> = trend::readings(view, |pass| pass.queues.as_ref())
        .take(2)
        .collect();
    let waits = |queues: &[Queue]| {
        let root = root(queues, link)?;
        let is_fifo = FIFO.contains(&discipline(queues, link)?);
        (is_fifo && root.backlog_bytes >= BACKLOG_BYTES).then_some(root.backlog_bytes)
    };
    let backlogs: Vec<u32> = queues
        .iter()
        .map(|seen| waits(&seen.value))
        .collect::<Option<_>>()?;
    if backlogs.len() < 2 {
        return None;
    }
    let targets = view.now().reach.iter().flat_map(|seen| &seen.value);
    let (target, late, best) = targets
        .filter(|reach| view.way_to(reach.target).beyond.is_some())
        .find_map(|reach| {
            let late = |pass| reach::ping(pass, reach.target)?.rtt_us;
            let earlier = || view.read_anew(|pass| pass.reach.as_ref()).skip(1);
            let best = earlier().filter_map(late).min()?;
            let (present, before) = (late(view.now())?, earlier().find_map(late)?);
            let is_late = present.min(before).saturating_sub(best) >= ADDED_US;
            is_late.then_some((reach.target, present, best))
        })?;
    let mut draft = bloat(view, Some(link), late - best, &[]);
    draft.misses("the same under load in each direction by itself (`aizen perf --load --to URL`)");
    for (seen, backlog) in queues.iter().zip(backlogs) {
        let fact = format!(
            "{} wait in the queue of {}",
            bytes(backlog.into()),
            view.link_name(link)
        );
        draft.shown("queues", "backlog", seen.at, fact);
    }
    let at = view
        .now()
        .reach
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    let fact = format!(
        "{target} answers in {} now and answered in {} before",
        millis(late),
        millis(best)
    );
    draft.shown("reach", &target.to_string(), at, fact);
    kind(&mut draft, view, Some(link));
    Some(draft)
}

/// `directions` are those in which a load was made, in order; empty if none was.
fn bloat(
    view: &View<'_>,
    link: Option<u32>,
    added_us: u32,
    directions: &[Option<LoadDirection>],
) -> Draft {
    let name = link.map_or_else(|| "the way out".into(), |link| view.link_name(link));
    let (load, comes_in) = match directions {
        [Some(LoadDirection::Down)] => ("A download", true),
        [Some(LoadDirection::Up)] => ("An upload", false),
        [Some(LoadDirection::Down), Some(LoadDirection::Up)] => ("A load either way", false),
        _ => ("A load", false),
    };
    let mut draft = Draft::new(
        "bufferbloat",
        Layer::Path,
        name.as_str(),
        Severity::Warning,
        format!(
            "{load} on {name} adds {} to every round trip",
            millis(added_us)
        ),
    );
    draft.covers("queue_drops", Some(name.clone()));
    draft.explains("Calls, games and remote shells stutter while somebody uploads or downloads");
    draft.next(if comes_in {
        format!(
            "Shape what comes in over {name} slightly below the line's rate: CAKE on an ifb device \
             behind its ingress (`tc qdisc replace dev ifb0 root cake bandwidth … ingress`)"
        )
    } else {
        format!(
            "Shape {name} slightly below the line's rate with CAKE or fq_codel (`tc qdisc replace \
             dev {name} root cake bandwidth …`)"
        )
    });
    draft
}

/// What the queue of that link is: a FIFO bears it out, a fair one says that the long queue is farther away.
fn kind(draft: &mut Draft, view: &View<'_>, link: Option<u32>) {
    let found = link.and_then(|link| {
        let seen = view.now().queues.as_ref()?;
        Some((seen.at, discipline(&seen.value, link)?))
    });
    match found {
        Some((at, kind)) if FIFO.contains(&kind) => {
            let fact = format!("its queue is {kind}, which lets one flow fill it");
            draft.backed("queues", "kind", at, fact);
        }
        Some((at, kind)) => {
            let fact = format!(
                "its queue is {kind}: the long one is farther away, in the modem or at the provider"
            );
            draft.noted("queues", at, fact);
        }
        None => draft.misses("the kind of its queue (`tc -s qdisc`)"),
    }
}

/// Speed of a link, bits a second.
fn line_rate(view: &View<'_>, link: u32) -> Option<u64> {
    let seen = view.now().ethernet.as_ref()?;
    let port = seen.value.iter().find(|port| port.link == link)?;
    Some(u64::from(port.speed_mbps?) * 1_000_000)
}

/// What a link sent and dropped in one step.
struct Sent {
    at: Timestamp,
    bits_per_second: u64,
    dropped: u64,
}

fn saturated(view: &View<'_>, link: u32) -> Option<Draft> {
    // A copy within the network may well fill its line.
    let is_wan = view
        .profile()
        .is_some_and(|profile| profile.value.wan.contains(&view.link_name(link)));
    if !is_wan && way_out(view) != Some(link) {
        return None;
    }
    let rate = line_rate(view, link).filter(|rate| *rate > 0)?;
    let steps = trend::steps(view, |pass| pass.links.as_ref(), 2)?;
    let sent: Vec<Sent> = steps
        .iter()
        .map(|step| {
            let of = |links: &[aizen_protocol::record::Link]| {
                links.iter().find(|other| other.index == link)?.counters
            };
            let (before, after) = (of(step.before)?, of(step.after)?);
            Some(Sent {
                at: step.at,
                bits_per_second: after
                    .tx_bytes
                    .checked_sub(before.tx_bytes)?
                    .saturating_mul(8)
                    / step.seconds(),
                dropped: after.tx_dropped.checked_sub(before.tx_dropped)?,
            })
        })
        .collect::<Option<_>>()?;
    let queue_drops = trend::steps(view, |pass| pass.queues.as_ref(), 1)
        .and_then(|steps| drops(steps.first()?, link).map(|drops| drops.dropped))
        .unwrap_or(0);
    let is_full = sent
        .iter()
        .all(|sent| percent(sent.bits_per_second, rate) >= SATURATED);
    let loses = sent.iter().all(|sent| sent.dropped > 0) || queue_drops > 0;
    if !is_full || !loses {
        return None;
    }
    let name = view.link_name(link);
    let mut draft = Draft::new(
        "upstream_saturated",
        Layer::Path,
        name.as_str(),
        Severity::Warning,
        format!("{name} sends at the rate of its line and drops what does not fit"),
    );
    for sent in &sent {
        let fact = format!(
            "{name} sent {} of {} Mb/s",
            sent.bits_per_second / 1_000_000,
            rate / 1_000_000
        );
        draft.shown("links", "rate", sent.at, fact);
    }
    let dropped: u64 = sent.iter().map(|sent| sent.dropped).sum();
    let at = view.now().ended.at;
    if dropped > 0 {
        draft.backed(
            "links",
            "drops",
            at,
            format!("{name} dropped {dropped} packets meanwhile"),
        );
    }
    if queue_drops > 0 {
        draft.backed(
            "queues",
            "drops",
            at,
            format!("the queue of {name} dropped {queue_drops} packets meanwhile"),
        );
    }
    draft.explains("Everything that shares the line is slow");
    draft.misses("which host sends most of it (`iftop`, `conntrack -L` with accounting)");
    draft.next(format!(
        "Find the host that sends most over {name} and shape it, or share the line fairly (`tc \
         qdisc replace dev {name} root cake`)"
    ));
    Some(draft)
}

/// True if a link's own queue lost a share that matters while something was measured that was told at `at`. Packets
/// that get lost say more about the queue then: it loses large ones first.
pub(super) fn overflowed(view: &View<'_>, link: u32, at: Timestamp) -> bool {
    let readings: Vec<_> = trend::readings(view, |pass| pass.queues.as_ref()).collect();
    readings
        .windows(2)
        .map(|pair| Step {
            before: &*pair[1].value,
            after: &*pair[0].value,
            from: pair[1].at,
            at: pair[0].at,
        })
        .filter(|step| step.from <= at && step.at >= at - MEASURING)
        .filter_map(|step| drops(&step, link))
        .any(|drops| {
            let share = percent(drops.dropped, drops.dropped + drops.sent);
            drops.dropped >= FEW && share >= DROPS_PERCENT
        })
}

/// Drops of a root queue in one step.
struct Drops {
    dropped: u64,
    sent: u64,
    kind: String,
}

fn drops(step: &Step<'_, Vec<Queue>>, link: u32) -> Option<Drops> {
    let (before, after) = (root(step.before, link)?, root(step.after, link)?);
    if (before.handle, &before.kind) != (after.handle, &after.kind) {
        return None;
    }
    Some(Drops {
        dropped: wrapped(before.drops, after.drops)?.into(),
        sent: wrapped(before.packets, after.packets)?.into(),
        kind: discipline(step.after, link)?.to_owned(),
    })
}

fn dropping(view: &View<'_>, link: u32) -> Option<Draft> {
    let steps = trend::steps(view, |pass| pass.queues.as_ref(), 2)?;
    let all: Vec<Drops> = steps
        .iter()
        .map(|step| drops(step, link))
        .collect::<Option<_>>()?;
    let is_bad = |drops: &Drops| {
        drops.dropped >= DROPS
            && percent(drops.dropped, drops.dropped + drops.sent) >= DROPS_PERCENT
            && !DROP_ON_PURPOSE.contains(&drops.kind.as_str())
    };
    if !all.iter().all(is_bad) {
        return None;
    }
    let name = view.link_name(link);
    let mut draft = Draft::new(
        "queue_drops",
        Layer::Path,
        name.as_str(),
        Severity::Warning,
        format!("The queue of {name} overflows"),
    );
    for (step, drops) in steps.iter().zip(&all) {
        let fact = format!(
            "the {} of {name} dropped {} and sent {} packets within {} s",
            drops.kind,
            drops.dropped,
            drops.sent,
            step.seconds()
        );
        draft.shown("queues", "drops", step.at, fact);
    }
    draft.explains("Packets that leave there are lost and sent again");
    draft.misses("whether the line is at its rate (`ethtool`, `tc -s qdisc`)");
    draft.next(format!(
        "Compare the traffic of {name} with its line's rate, then shape it or lengthen its queue \
         (`tc -s qdisc show dev {name}`)"
    ));
    Some(draft)
}

#[cfg(test)]
mod tests;
