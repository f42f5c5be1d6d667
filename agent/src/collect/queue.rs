//! Queueing disciplines and what they dropped (tc(8), linux/pkt_sched.h).

use aizen_protocol::record::Queue;

use super::netlink::attribute::{Attribute, attributes, find, u32_at, u64_at};
use super::netlink::{self, Question};
use super::{CollectError, Seen};

/// All queueing disciplines but `noqueue`, which holds and counts nothing.
pub(crate) async fn collect() -> Result<Seen<Vec<Queue>>, CollectError> {
    let question = Question::route(RTM_GETQDISC, vec![0; HEADER]);
    let decode = |part: &netlink::Part<'_>| {
        let queue = decode(part.payload)?;
        Some((queue.kind != "noqueue").then_some(queue))
    };
    let dump = netlink::dump_parts(&question, decode, |queue: &Queue| queue.drops > 0).await?;
    Ok(dump.seen("queues"))
}

/// Reads one `RTM_NEWQDISC`: `struct tcmsg` and attributes.
pub(crate) fn decode(message: &[u8]) -> Option<Queue> {
    let mut queue = Queue {
        link: u32_at(message, 4)?,
        handle: u32_at(message, 8)?,
        parent: u32_at(message, 12)?,
        ..Queue::default()
    };
    for attribute in attributes(message.get(HEADER..)?) {
        match attribute.kind {
            TCA_KIND => queue.kind = attribute.text(),
            TCA_STATS2 => count(attribute, &mut queue),
            _ => {}
        }
    }
    Some(queue)
}

fn count(stats: Attribute<'_>, queue: &mut Queue) {
    // `struct gnet_stats_basic`: bytes, packets.
    if let Some(basic) = find(stats.value, TCA_STATS_BASIC) {
        queue.bytes = u64_at(basic.value, 0).unwrap_or_default();
        queue.packets = u32_at(basic.value, 8).unwrap_or_default();
    }
    // `struct gnet_stats_queue`: length, backlog, drops, requeues, overlimits.
    if let Some(held) = find(stats.value, TCA_STATS_QUEUE) {
        let at = |place: usize| u32_at(held.value, place * 4).unwrap_or_default();
        queue.backlog_packets = at(0);
        queue.backlog_bytes = at(1);
        queue.drops = at(2);
        queue.requeues = at(3);
        queue.overlimits = at(4);
    }
}

const RTM_GETQDISC: u16 = 38;
/// `struct tcmsg`: family, padding, index, handle, parent, info.
const HEADER: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    #[test]
    fn what_waits_and_what_was_dropped_are_told_apart() {
        let words =
            |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_ne_bytes()).collect() };
        let mut stats = Vec::new();
        let basic = [1000_u64.to_ne_bytes().to_vec(), words(&[10, 0])].concat();
        put(&mut stats, TCA_STATS_BASIC, &basic);
        put(&mut stats, TCA_STATS_QUEUE, &words(&[1, 2, 3, 4, 5]));
        let mut message = words(&[0, 7, 0x8001_0000, u32::MAX, 1]);
        put(&mut message, TCA_KIND, b"tbf\0");
        put(&mut message, TCA_STATS2, &stats);
        let expected = Queue {
            link: 7,
            kind: "tbf".to_owned(),
            handle: 0x8001_0000,
            parent: u32::MAX,
            bytes: 1000,
            packets: 10,
            drops: 3,
            overlimits: 5,
            requeues: 4,
            backlog_bytes: 2,
            backlog_packets: 1,
        };
        assert_eq!(decode(&message), Some(expected));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_queue_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(decode(&bytes));
        }
    }
}
