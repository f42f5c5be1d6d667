//! Processors without time: packet work that fills one, programs that fill all, and a queue of work that only grows.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{CpuTimes, Softnet};

use super::draft::{Draft, Examined, Layer};
use super::trend::{self, Step, percent, wrapped};
use crate::case::View;

/// Share of one processor spent on packets, percent.
const PACKETS: u64 = 90;
/// Steps in a row that make it no peak.
const STEPS: usize = 2;
/// Seconds that programs may use all processors, and the steps in a row over them: at least some, however far apart
/// they are, and no more than are looked at.
const BUSY_S: i64 = 55;
const BUSY_STEPS: std::ops::RangeInclusive<usize> = 3..=60;
/// Share of all processors that programs use, percent.
const BUSY: u64 = 95;
/// Packets that a step drops; one burst drops some.
const DROPPED: u32 = 10;
/// Times the work ran out of its budget in a step.
const SQUEEZED: u32 = 100;
/// Load for each processor that is far above what it can do.
const LOAD: f32 = 6.0;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    examined
        .drafts
        .extend(packets(view).or_else(|| dropped(view)));
    examined.drafts.extend(programs(view));
    examined.drafts.extend(load(view));
    if examined.drafts.is_empty() && trend::steps(view, |pass| pass.cpu.as_ref(), 1).is_some() {
        examined
            .well
            .push("The processors keep up with packets and programs".into());
    }
    examined
}

/// What one processor did in one step, percent of the time it counted.
struct Use {
    cpu: u16,
    packets: u64,
    programs: u64,
}

/// Nice work gives way to all other: it takes no time from anybody.
fn uses(step: &Step<'_, Vec<CpuTimes>>) -> Vec<Use> {
    let one = |after: &CpuTimes| {
        let before = step.before.iter().find(|before| before.cpu == after.cpu)?;
        let grew = |read: fn(&CpuTimes) -> u64| read(after).checked_sub(read(before));
        // The kernel lets these two fall a little (proc_stat(5)).
        let (idle, iowait) = (
            grew(|t| t.idle_ms).unwrap_or(0),
            grew(|t| t.iowait_ms).unwrap_or(0),
        );
        let packets = grew(|t| t.softirq_ms)? + grew(|t| t.irq_ms)?;
        let programs = grew(|t| t.user_ms)? + grew(|t| t.system_ms)?;
        let rest = grew(|t| t.nice_ms)? + grew(|t| t.steal_ms)?;
        let whole = idle + iowait + packets + programs + rest;
        (whole > 0).then(|| Use {
            cpu: after.cpu,
            packets: percent(packets, whole),
            programs: percent(programs, whole),
        })
    };
    step.after.iter().filter_map(one).collect()
}

/// Growth of two of the backlog's counters, of all processors or of one.
fn backlog(step: &Step<'_, Vec<Softnet>>, cpu: Option<u16>) -> (u32, u32) {
    let grown = step
        .after
        .iter()
        .filter(|after| cpu.is_none_or(|cpu| cpu == after.cpu))
        .filter_map(|after| {
            let before = step.before.iter().find(|before| before.cpu == after.cpu)?;
            Some((
                wrapped(before.dropped, after.dropped)?,
                wrapped(before.squeezed, after.squeezed)?,
            ))
        });
    grown.fold((0, 0), |sum, one| {
        (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1))
    })
}

/// One processor does nothing but packets, and its backlog overflows.
fn packets(view: &View<'_>) -> Option<Draft> {
    let cpu = trend::steps(view, |pass| pass.cpu.as_ref(), STEPS)?;
    let net = trend::steps(view, |pass| pass.softnet.as_ref(), STEPS)?;
    let shares: Vec<Vec<Use>> = cpu.iter().map(uses).collect();
    let full = shares.first()?.iter().find(|first| {
        shares.iter().all(|step| {
            step.iter()
                .any(|other| other.cpu == first.cpu && other.packets >= PACKETS)
        })
    })?;
    let grown: Vec<(u32, u32)> = net
        .iter()
        .map(|step| backlog(step, Some(full.cpu)))
        .collect();
    if grown
        .iter()
        .any(|(dropped, squeezed)| *dropped == 0 && *squeezed < SQUEEZED)
    {
        return None;
    }
    let drops = grown.iter().any(|(dropped, _)| *dropped > 0);
    let severity = if drops {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let component = format!("processor {}", full.cpu);
    let mut draft = Draft::new(
        "softirq_saturation",
        Layer::Path,
        component.as_str(),
        severity,
        format!("The {component} does nothing but handle packets and can not keep up"),
    );
    for (step, shares) in cpu.iter().zip(&shares) {
        let share = shares
            .iter()
            .find(|other| other.cpu == full.cpu)
            .map_or(0, |share| share.packets);
        draft.shown(
            "cpu",
            "softirq",
            step.at,
            format!(
                "the {component} spent {share} % of {} s on packets",
                step.seconds()
            ),
        );
    }
    for (step, (dropped, squeezed)) in net.iter().zip(&grown) {
        let fact = format!(
            "its backlog dropped {dropped} packets and ran out of time {squeezed} times within \
             {} s",
            step.seconds()
        );
        draft.shown("softnet", "backlog", step.at, fact);
    }
    missed(&mut draft, view);
    for cause in ["softnet_drops", "load_high"] {
        draft.covers(cause, None);
    }
    draft.explains("Forwarding is slower than the line, and packets of every host are lost");
    draft.misses("which queue of which port interrupts it (`/proc/interrupts`, `ethtool -l`)");
    draft.next(
        "Spread the packets over the other processors (receive packet steering or interrupt \
         affinity) or switch flow offload on",
    );
    Some(draft)
}

/// Packets that ports lost because nobody fetched them.
fn missed(draft: &mut Draft, view: &View<'_>) {
    let Some(step) =
        trend::steps(view, |pass| pass.links.as_ref(), 1).and_then(|mut steps| steps.pop())
    else {
        return;
    };
    for after in step.after {
        let before = step
            .before
            .iter()
            .find(|before| before.index == after.index)
            .and_then(|link| link.counters);
        let Some((before, after_counters)) = before.zip(after.counters) else {
            continue;
        };
        let lost = (after_counters.rx_missed_errors + after_counters.rx_fifo_errors)
            .saturating_sub(before.rx_missed_errors + before.rx_fifo_errors);
        if lost > 0 {
            draft.backed(
                "links",
                "missed",
                step.at,
                format!("{} missed {lost} packets meanwhile", after.name),
            );
        }
    }
}

fn dropped(view: &View<'_>) -> Option<Draft> {
    let steps = trend::steps(view, |pass| pass.softnet.as_ref(), STEPS)?;
    let grown: Vec<u32> = steps.iter().map(|step| backlog(step, None).0).collect();
    if grown.iter().any(|dropped| *dropped < DROPPED) {
        return None;
    }
    let mut draft = Draft::new(
        "softnet_drops",
        Layer::Path,
        "backlog",
        Severity::Warning,
        "Packets are lost on this device before anything looks at them: a processor's backlog \
         overflows"
            .into(),
    );
    for (step, dropped) in steps.iter().zip(&grown) {
        draft.shown(
            "softnet",
            "dropped",
            step.at,
            format!(
                "backlogs dropped {dropped} packets within {} s",
                step.seconds()
            ),
        );
    }
    draft.explains("Bursts lose packets in both directions");
    draft.misses("which processor drops (`/proc/net/softnet_stat`) and what else it does (`top`)");
    draft.next("Raise net.core.netdev_max_backlog, or spread the packets over the processors");
    Some(draft)
}

/// Programs take all processors for a minute.
fn programs(view: &View<'_>) -> Option<Draft> {
    let steps = minute(view)?;
    let mean = |step: &Step<'_, Vec<CpuTimes>>| {
        let uses = uses(step);
        let count = u64::try_from(uses.len()).ok().filter(|count| *count > 0)?;
        Some(uses.iter().map(|one| one.programs).sum::<u64>() / count)
    };
    let shares: Vec<u64> = steps.iter().map(mean).collect::<Option<_>>()?;
    if shares.iter().any(|share| *share < BUSY) {
        return None;
    }
    let mut draft = Draft::new(
        "cpu_saturated",
        Layer::Resource,
        "processors",
        Severity::Warning,
        "Programs use all processors and leave no time for anything else".into(),
    );
    let oldest = steps.last()?;
    let least = shares.iter().min()?;
    draft.shown(
        "cpu",
        "programs",
        oldest.at,
        format!(
            "programs used at least {least} % of all processors in each of the last {} readings",
            steps.len()
        ),
    );
    let waits = view
        .now()
        .pressure
        .as_ref()
        .and_then(|seen| Some((seen.at, seen.value.cpu?)));
    if let Some((at, stall)) = waits.filter(|(_, stall)| stall.avg60 >= 40.0) {
        draft.backed(
            "pressure",
            "cpu",
            at,
            format!(
                "programs waited for a processor for {:.0} % of the last minute",
                stall.avg60
            ),
        );
    }
    draft.covers("load_high", None);
    draft.explains("Services answer late");
    draft.misses("which program it is (`top -b -n 1`)");
    draft.next(
        "Find the program that uses the processors (`top`), then stop or restrain it (`renice`, \
         `CPUQuota=`)",
    );
    Some(draft)
}

/// The newest steps that together last about a minute.
fn minute<'a>(view: &View<'a>) -> Option<Vec<Step<'a, Vec<CpuTimes>>>> {
    BUSY_STEPS
        .map_while(|count| trend::steps(view, |pass| pass.cpu.as_ref(), count))
        .find(|steps| {
            let ends = steps.first().zip(steps.last());
            ends.is_some_and(|(newest, oldest)| {
                newest.at.duration_since(oldest.from).as_secs() >= BUSY_S
            })
        })
}

fn load(view: &View<'_>) -> Option<Draft> {
    let seen = view
        .now()
        .host
        .as_ref()
        .filter(|seen| seen.value.cpus > 0)?;
    let [one, five, _] = seen.value.load;
    let bound = LOAD * f32::from(seen.value.cpus);
    if one < bound || five < bound {
        return None;
    }
    let mut draft = Draft::new(
        "load_high",
        Layer::Resource,
        "processors",
        Severity::Warning,
        format!(
            "Far more work waits than {} processors can do",
            seen.value.cpus
        ),
    );
    draft.shown(
        "host",
        "load",
        seen.at,
        format!(
            "the load was {one:.1} over a minute and {five:.1} over five, on {} processors",
            seen.value.cpus
        ),
    );
    draft.explains("Services answer late");
    draft.misses("whether the work waits for processors or for disks (`top`, column S)");
    draft.next(
        "Look what runs and what waits (`top`, state D waits for disks) and stop what is not \
         wanted",
    );
    Some(draft)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Severity;
    use aizen_protocol::record::{Body, CpuTimes, Softnet};

    use crate::fixture::machine::{cpu, history, pressure, softnet};
    use crate::fixture::{Evidence, only, verdict};

    fn with(
        rounds: u64,
        times: impl Fn(u64) -> Vec<CpuTimes>,
        net: impl Fn(u64) -> Vec<Softnet>,
    ) -> Vec<Evidence> {
        history(rounds, |round, evidence| {
            evidence.see(Body::Cpu(times(round)));
            evidence.see(Body::Softnet(net(round)));
        })
    }

    fn packets(round: u64) -> Vec<CpuTimes> {
        let mut times = cpu(round, 10);
        times[0] = CpuTimes {
            cpu: 0,
            softirq_ms: round * 9_800,
            idle_ms: round * 200,
            ..CpuTimes::default()
        };
        times
    }

    fn losing(round: u64) -> Vec<Softnet> {
        let mut net = softnet(round);
        // Wraps between the second and the third round.
        net[0].dropped = (u32::MAX - 1_500).wrapping_add(u32::try_from(round).unwrap() * 700);
        net
    }

    #[test]
    fn one_processor_full_of_packets_that_drops_is_saturated() {
        let verdict = verdict(&with(4, packets, losing));
        let finding = only(&verdict);
        assert_eq!(
            (
                finding.cause.0.as_str(),
                finding.component.0.as_str(),
                finding.severity
            ),
            ("softirq_saturation", "processor 0", Severity::Critical)
        );
    }

    #[test]
    fn a_backlog_that_overflows_again_and_again_is_told_by_itself() {
        let rounds = with(4, |round| cpu(round, 20), losing);
        assert_eq!(only(&verdict(&rounds)).cause.0, "softnet_drops");
        // Only in the last step.
        let burst = |round| {
            let mut net = softnet(round);
            net[0].dropped = if round == 4 { 9_000 } else { 4 };
            net
        };
        assert_eq!(
            verdict(&with(4, |round| cpu(round, 20), burst)).findings,
            []
        );
    }

    #[test]
    fn programs_that_use_everything_for_a_minute_are_told_and_a_peak_is_not() {
        let mut long = with(8, |round| cpu(round, 99), softnet);
        for evidence in &mut long {
            evidence.see(Body::Pressure(pressure(55.0)));
            evidence.see(Body::Pressure(aizen_protocol::record::Pressure {
                memory_full: None,
                memory_some: None,
                io_full: None,
                io_some: None,
                ..pressure(55.0)
            }));
            evidence.host.load = [20.0, 18.0, 9.0];
        }
        let verdict_long = verdict(&long);
        let finding = only(&verdict_long);
        assert_eq!(finding.cause.0, "cpu_saturated");
        let peak = with(8, |round| cpu(round.max(5) - 5, 99), softnet);
        assert_eq!(verdict(&peak).findings, []);
        let nice = with(
            8,
            |round| {
                let mut times = cpu(round, 0);
                for one in &mut times {
                    (one.nice_ms, one.idle_ms) = (round * 9_900, round * 100);
                }
                times
            },
            softnet,
        );
        assert_eq!(verdict(&nice).findings, []);
    }

    #[test]
    fn only_a_load_far_above_the_processors_warns() {
        for (load, alarms) in [
            ([3.9, 2.0, 1.0], false),
            ([30.0, 4.0, 2.0], false),
            ([30.0, 25.0, 9.0], true),
        ] {
            let rounds = history(1, |_, evidence| evidence.host.load = load);
            assert_eq!(
                verdict(&rounds).findings.len(),
                usize::from(alarms),
                "{load:?}"
            );
        }
        // Packets without a backlog that suffers: a busy router at work.
        assert_eq!(verdict(&with(4, packets, softnet)).findings, []);
    }
}
