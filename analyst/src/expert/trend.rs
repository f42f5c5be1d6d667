//! Readings of one collector in one boot: what grew between them is evidence, a total alone is none.

use aizen_protocol::record::Protocols;
use jiff::Timestamp;

use crate::case::{Pass, Seen, View};

/// Seconds between two readings that are compared: over more, growth says nothing about the present.
const LONGEST_S: i64 = 900;

/// From one reading to the next.
#[derive(Debug)]
pub(super) struct Step<'a, T> {
    pub(super) before: &'a T,
    pub(super) after: &'a T,
    pub(super) from: Timestamp,
    pub(super) at: Timestamp,
}

impl<T> Step<'_, T> {
    /// Growth of a 64-bit total; none if it was reset.
    pub(super) fn grew(&self, read: impl Fn(&T) -> u64) -> Option<u64> {
        read(self.after).checked_sub(read(self.before))
    }

    /// At least 1.
    pub(super) fn seconds(&self) -> u64 {
        u64::try_from(self.at.duration_since(self.from).as_secs())
            .unwrap_or(1)
            .max(1)
    }
}

impl Step<'_, Protocols> {
    /// Growth of one of the kernel's protocol counters; none if it isn't counted or was reset.
    pub(super) fn counter(&self, name: &str) -> Option<u64> {
        let read = |protocols: &Protocols| protocols.counters.get(name).copied();
        read(self.after)?.checked_sub(read(self.before)?)
    }
}

/// What a collector read in this boot, the newest first, if it was read in the present pass. One that runs rarely is
/// told again with the time it ran: that is one reading.
pub(super) fn readings<'a, T: 'a>(
    view: &View<'a>,
    read: impl Fn(&'a Pass) -> Option<&'a Seen<T>>,
) -> impl Iterator<Item = &'a Seen<T>> {
    let is_present = read(view.now()).is_some();
    let mut last = None;
    view.backwards()
        .take_while(move |_| is_present)
        .filter_map(read)
        .filter(move |seen| last.replace(seen.at) != Some(seen.at))
}

/// The newest `count` steps, the newest first; none if there are fewer, or if one is too long. Readings less than a
/// second apart, as of two collectors side by side, count once.
pub(super) fn steps<'a, T: 'a>(
    view: &View<'a>,
    read: impl Fn(&'a Pass) -> Option<&'a Seen<T>>,
    count: usize,
) -> Option<Vec<Step<'a, T>>> {
    let mut newer: Option<Timestamp> = None;
    let seen: Vec<&Seen<T>> = readings(view, read)
        .filter(|seen| {
            let is_apart = newer.is_none_or(|newer| newer.duration_since(seen.at).as_secs() >= 1);
            if is_apart {
                newer = Some(seen.at);
            }
            is_apart
        })
        .take(count + 1)
        .collect();
    let steps: Vec<Step<'a, T>> = seen
        .windows(2)
        .map(|pair| Step {
            before: &*pair[1].value,
            after: &*pair[0].value,
            from: pair[1].at,
            at: pair[0].at,
        })
        .collect();
    let is_near = |step: &Step<'a, T>| {
        let seconds = step.at.duration_since(step.from).as_secs();
        (1..=LONGEST_S).contains(&seconds)
    };
    (steps.len() == count && steps.iter().all(is_near)).then_some(steps)
}

/// Growth of a 32-bit total that wraps; more than half the range is a reset.
pub(super) fn wrapped(before: u32, after: u32) -> Option<u32> {
    Some(after.wrapping_sub(before)).filter(|growth| *growth < u32::MAX / 2)
}

/// A share in percent; 0 of nothing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Case;
    use crate::fixture::{Evidence, healthy};

    #[test]
    fn a_reading_that_is_told_again_counts_once_and_another_boot_not_at_all() {
        let mut rounds: Vec<Evidence> = (1..=4).map(healthy).collect();
        rounds[0].boot = "boot-0";
        let mut records: Vec<_> = rounds.iter().flat_map(Evidence::records).collect();
        let told = records
            .iter()
            .find(|record| record.round.0 == 2 && record.body.collector() == "host")
            .map(|record| record.at);
        for record in records.iter_mut().filter(|r| r.body.collector() == "host") {
            if record.round.0 == 3 {
                record.at = told.unwrap();
            }
        }
        let case = Case::new(records);
        let view = case.view(3).unwrap();
        assert_eq!(readings(&view, |pass| pass.host.as_ref()).count(), 2);
        assert_eq!(readings(&view, |pass| pass.time.as_ref()).count(), 3);
        assert!(steps(&view, |pass| pass.host.as_ref(), 2).is_none());
        let steps = steps(&view, |pass| pass.host.as_ref(), 1).unwrap();
        assert_eq!(steps[0].seconds(), 20);
        assert_eq!(steps[0].grew(|host| host.uptime_s), Some(0));
    }

    #[test]
    fn readings_less_than_a_second_apart_count_once() {
        let rounds: Vec<Evidence> = (1..=4).map(healthy).collect();
        let mut records: Vec<_> = rounds.iter().flat_map(Evidence::records).collect();
        let third = records
            .iter()
            .find(|record| record.round.0 == 3 && record.body.collector() == "host")
            .map(|record| record.at);
        for record in records.iter_mut().filter(|r| r.body.collector() == "host") {
            if record.round.0 == 4 {
                record.at = third.unwrap() + jiff::SignedDuration::from_millis(500);
            }
        }
        let case = Case::new(records);
        let view = case.view(3).unwrap();
        assert_eq!(readings(&view, |pass| pass.host.as_ref()).count(), 4);
        let steps = steps(&view, |pass| pass.host.as_ref(), 2).unwrap();
        assert_eq!((steps[0].seconds(), steps[1].seconds()), (10, 10));
    }

    #[test]
    fn a_32_bit_total_wraps_and_one_that_fell_far_was_reset() {
        assert_eq!(wrapped(u32::MAX - 4, 5), Some(10));
        assert_eq!(wrapped(1_000_000, 3), None);
        assert_eq!(percent(1, 0), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }
}
