use aizen_protocol::finding::Confidence;
use aizen_protocol::record::{Body, Load, LoadDirection, Queue};

use crate::fixture::machine::{ethernet, history, load, queue};
use crate::fixture::{ANCHOR, Evidence, WAN, ip, only, verdict};

fn fifo(round: u64, change: impl Fn(&mut Queue)) -> Body {
    let mut queue = queue(round);
    queue.kind = "pfifo_fast".into();
    change(&mut queue);
    Body::Queues(vec![queue])
}

fn send(evidence: &mut Evidence, bytes: u64, dropped: u64) {
    let counters = evidence.link(WAN).counters.as_mut().unwrap();
    (counters.tx_bytes, counters.tx_dropped) = (bytes, dropped);
}

#[test]
fn a_load_that_adds_delay_over_a_fifo_is_bufferbloat() {
    let rounds = history(2, |round, evidence| {
        evidence.see(Body::Load(vec![load(12_000, 412_000)]));
        evidence.see(fifo(round, |_| {}));
    });
    let verdict = verdict(&rounds);
    let finding = only(&verdict);
    assert_eq!(
        (
            finding.cause.0.as_str(),
            finding.component.0.as_str(),
            finding.confidence
        ),
        ("bufferbloat", "wan", Confidence::Likely)
    );
}

#[test]
fn the_direction_whose_queue_is_long_is_named_and_the_other_is_not() {
    use LoadDirection::{Down, Up};
    let directed = |direction, loaded_us| Load {
        direction: Some(direction),
        ..load(12_000, loaded_us)
    };
    for (down_us, up_us, summary, step) in [
        (412_000, 14_000, "A download on wan adds 400 ms", "ifb"),
        (14_000, 312_000, "An upload on wan adds 300 ms", "dev wan"),
        (
            212_000,
            312_000,
            "A load either way on wan adds 300 ms",
            "dev wan",
        ),
    ] {
        let rounds = history(2, |round, evidence| {
            evidence.see(Body::Load(vec![
                directed(Down, down_us),
                directed(Up, up_us),
            ]));
            evidence.see(fifo(round, |_| {}));
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert!(finding.summary.0.starts_with(summary), "{finding:#?}");
        assert!(finding.next_step.0.contains(step), "{finding:#?}");
        // Its own queue is no witness for what comes in.
        let own = finding.evidence.iter().any(|fact| fact.source == "queues");
        assert_eq!(own, up_us > 100_000, "{finding:#?}");
    }
}

#[test]
fn late_echoes_with_a_long_queue_are_bufferbloat_without_a_test() {
    let rounds = history(4, |round, evidence| {
        let is_loaded = round > 2;
        if is_loaded {
            let far = evidence
                .reach
                .iter_mut()
                .find(|reach| reach.target == ip(ANCHOR));
            far.unwrap().rtt_us = vec![350_000; 5];
        }
        evidence.see(fifo(round, |queue| {
            queue.backlog_bytes = if is_loaded { 900_000 } else { 0 };
        }));
    });
    assert_eq!(only(&verdict(&rounds)).cause.0, "bufferbloat");
}

#[test]
fn a_shaper_is_a_fifo_unless_a_child_drops_on_purpose() {
    let rounds = |child: bool| {
        history(4, move |round, evidence| {
            let mut shaper = queue(round);
            shaper.kind = "tbf".into();
            shaper.drops = u32::try_from(round).unwrap() * 4_000;
            let mut fair = queue(round);
            fair.parent = 0x10001;
            let queues = [shaper, fair].into_iter();
            evidence.see(Body::Queues(
                queues.take(if child { 2 } else { 1 }).collect(),
            ));
        })
    };
    assert_eq!(only(&verdict(&rounds(false))).cause.0, "queue_drops");
    assert_eq!(verdict(&rounds(true)).findings, []);
}

#[test]
fn a_far_target_a_little_delay_and_a_queue_that_drops_on_purpose_do_not_alarm() {
    for (idle, loaded) in [(700_000, 760_000), (12_000, 90_000), (400_000, 12_000)] {
        let rounds = history(2, |round, evidence| {
            evidence.see(Body::Load(vec![load(idle, loaded)]));
            evidence.see(fifo(round, |_| {}));
        });
        assert_eq!(verdict(&rounds).findings, [], "{idle} {loaded}");
    }
    let on_purpose = history(4, |round, evidence| {
        let mut queue = queue(round);
        queue.drops = u32::try_from(round).unwrap() * 4_000;
        evidence.see(Body::Queues(vec![queue]));
    });
    assert_eq!(verdict(&on_purpose).findings, []);
}

#[test]
fn a_line_at_its_rate_that_drops_is_saturated_and_one_that_is_only_busy_is_not() {
    let sending = |share: u64, dropped: u64| {
        history(4, move |round, evidence| {
            send(evidence, round * share * 1_250_000, round * dropped);
            evidence.see(Body::Ethernet(vec![ethernet(WAN, 100)]));
        })
    };
    // A percent of 100 Mb/s over 10 s is 1.25 MB.
    let full = sending(97, 40);
    let finding = verdict(&full);
    assert_eq!(only(&finding).cause.0, "upstream_saturated");
    assert_eq!(verdict(&sending(97, 0)).findings, []);
    assert_eq!(verdict(&sending(60, 40)).findings, []);
}

#[test]
fn a_fifo_that_overflows_in_two_steps_is_told_and_one_burst_is_not() {
    let steady = history(4, |round, evidence| {
        evidence.see(fifo(round, |queue| {
            queue.drops = u32::try_from(round).unwrap() * 4_000
        }));
    });
    assert_eq!(only(&verdict(&steady)).cause.0, "queue_drops");
    // A root that only sorts into classes, with leaves that drop on purpose.
    let sorted = history(4, |round, evidence| {
        let mut root = queue(round);
        (root.kind, root.drops) = ("mq".into(), u32::try_from(round).unwrap() * 4_000);
        let mut leaf = queue(round);
        leaf.parent = 0x10001;
        evidence.see(Body::Queues(vec![root, leaf]));
    });
    assert_eq!(verdict(&sorted).findings, []);
    let burst = history(4, |round, evidence| {
        evidence.see(fifo(round, |queue| {
            queue.drops = if round == 4 { 90_000 } else { 0 }
        }));
    });
    assert_eq!(verdict(&burst).findings, []);
}
