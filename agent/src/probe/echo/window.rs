//! The requests under way on one socket, told apart by their 16-bit numbers. Pure: times are parameters, nanoseconds.

use std::collections::VecDeque;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) target: u32,
    /// Which request to that target.
    pub(super) number: u32,
    /// Which request of this socket.
    pub(super) serial: u32,
    /// When it left, since the run began.
    pub(super) sent: u64,
    /// When it left, since 1970.
    pub(super) sent_wall: u64,
    /// The drop counter when it left.
    pub(super) drops: u32,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Answered,
    GivenUp,
}

/// All of them, in the order sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// Serial of the first slot; the number on the wire is its low half.
    first: u32,
    /// Slots before this place are settled.
    settled: usize,
    open: usize,
}

impl Window {
    /// True if one more request would reuse a number that still counts.
    pub(super) fn is_full(&self) -> bool {
        self.slots.len() >= MOST
    }

    /// The serial of the next request.
    pub(super) fn next_serial(&self) -> u32 {
        self.first
            .wrapping_add(u32::try_from(self.slots.len()).unwrap_or_default())
    }

    /// Notes a request that left; its serial must be [`Self::next_serial`].
    pub(super) fn push(&mut self, slot: Slot) {
        debug_assert_eq!(slot.serial, self.next_serial());
        self.open += 1;
        self.slots.push_back(slot);
    }

    /// The request with this number, whatever became of it.
    pub(super) fn find(&mut self, number: u16) -> Option<&mut Slot> {
        let offset = number.wrapping_sub(low(self.first));
        self.slots.get_mut(usize::from(offset))
    }

    /// The request with this serial.
    pub(super) fn by_serial(&mut self, serial: u32) -> Option<&mut Slot> {
        let offset = usize::try_from(serial.wrapping_sub(self.first)).ok()?;
        self.slots.get_mut(offset)
    }

    /// Settles an open request; false if it was settled before.
    pub(super) fn settle(&mut self, number: u16, state: State) -> bool {
        let Some(slot) = self.find(number).filter(|s| s.state == State::Open) else {
            return false;
        };
        slot.state = state;
        self.open -= 1;
        true
    }

    /// True if something is still waited for.
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// When the oldest open request left.
    pub(super) fn oldest_open(&mut self) -> Option<u64> {
        while self
            .slots
            .get(self.settled)
            .is_some_and(|slot| slot.state != State::Open)
        {
            self.settled += 1;
        }
        self.slots.get(self.settled).map(|slot| slot.sent)
    }

    /// Gives up the oldest open request if it left before `before`.
    pub(super) fn expire(&mut self, before: u64) -> Option<Slot> {
        let sent = self.oldest_open()?;
        if sent >= before {
            return None;
        }
        let slot = self.slots.get_mut(self.settled)?;
        slot.state = State::GivenUp;
        self.open -= 1;
        Some(*slot)
    }

    /// Forgets settled requests that left before `before`; with many under way, all that are settled.
    pub(super) fn forget(&mut self, before: u64) {
        while let Some(slot) = self.slots.front()
            && slot.state != State::Open
            && (slot.sent < before || self.slots.len() > CROWDED)
        {
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
            self.settled = self.settled.saturating_sub(1);
        }
    }
}

/// The number on the wire.
pub(super) fn low(serial: u32) -> u16 {
    u16::try_from(serial & 0xffff).unwrap_or_default()
}

const MOST: usize = 60_000;
const CROWDED: usize = 40_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(window: &Window, sent: u64) -> Slot {
        Slot {
            target: 0,
            number: 0,
            serial: window.next_serial(),
            sent,
            sent_wall: sent,
            drops: 0,
            state: State::Open,
        }
    }

    fn send(window: &mut Window, sent: u64) -> u16 {
        let slot = slot(window, sent);
        window.push(slot);
        low(slot.serial)
    }

    #[test]
    fn a_number_is_found_until_it_is_forgotten() {
        let mut window = Window::default();
        let (a, b) = (send(&mut window, 10), send(&mut window, 20));
        assert!(window.settle(a, State::Answered));
        assert!(!window.settle(a, State::Answered));
        window.forget(15);
        assert!(window.find(a).is_none());
        assert_eq!(window.find(b).map(|s| s.sent), Some(20));
    }

    #[test]
    fn only_what_left_too_long_ago_is_given_up() {
        let mut window = Window::default();
        let first = send(&mut window, 10);
        send(&mut window, 20);
        assert_eq!(window.expire(11).map(|s| low(s.serial)), Some(first));
        assert_eq!(window.expire(11), None);
        assert!(window.is_open());
    }

    #[test]
    fn numbers_wrap_and_a_full_window_says_so() {
        let mut window = Window::default();
        for n in 0..200_000_u64 {
            assert!(!window.is_full());
            let number = send(&mut window, n);
            assert!(window.settle(number, State::Answered));
            window.forget(0);
        }
        for n in 0..60_000 {
            send(&mut window, n);
            window.forget(u64::MAX);
        }
        assert!(window.is_full());
    }

    proptest! {
        #[test]
        fn open_requests_are_counted_right(steps in prop::collection::vec((0_u8..4, any::<u16>()), 1..300)) {
            let mut window = Window::default();
            for (now, (step, number)) in steps.into_iter().enumerate() {
                let now = now as u64;
                match step {
                    0 => { send(&mut window, now); }
                    1 => { window.settle(number % 64, State::Answered); }
                    2 => { window.expire(now.saturating_sub(5)); }
                    _ => window.forget(now.saturating_sub(9)),
                }
                let open = window.slots.iter().filter(|s| s.state == State::Open).count();
                prop_assert_eq!(open, window.open);
                prop_assert_eq!(window.oldest_open().is_some(), open > 0);
            }
        }
    }
}
