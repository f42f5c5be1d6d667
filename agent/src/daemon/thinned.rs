//! The newest rounds, and fewer and fewer of the older ones: what was well an hour ago is evidence, too.

use std::collections::VecDeque;

/// Rounds by age. Of those between 2ⁿ and 2ⁿ⁺¹ rounds old at most two are kept, up to [`OLDEST`].
#[derive(Clone, Debug)]
pub(super) struct Thinned<T> {
    pushed: u64,
    kept: VecDeque<(u64, T)>,
}

impl<T> Default for Thinned<T> {
    fn default() -> Self {
        Self {
            pushed: 0,
            kept: VecDeque::new(),
        }
    }
}

impl<T> Thinned<T> {
    /// Takes the newest round.
    pub(super) fn push(&mut self, round: T) {
        self.pushed += 1;
        self.kept.push_back((self.pushed, round));
        let newest = self.pushed;
        self.kept.retain(|(number, _)| stays(*number, newest));
    }

    /// The oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.kept.iter().map(|(_, round)| round)
    }

    /// The oldest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.kept.iter_mut().map(|(_, round)| round)
    }

    /// The newest.
    pub(super) fn newest(&self) -> Option<&T> {
        self.kept.back().map(|(_, round)| round)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

/// A round that goes never comes back: a number that is no multiple at one age is none at any later one.
fn stays(number: u64, newest: u64) -> bool {
    let age = newest.saturating_sub(number);
    if age > OLDEST {
        return false;
    }
    let step = match age {
        0..4 => 1,
        _ => (age.next_power_of_two() / 4).max(1),
    };
    number.is_multiple_of(step)
}

/// At one round every ten seconds, over forty minutes.
const OLDEST: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_four_are_whole_and_the_oldest_are_few() {
        let mut rounds = Thinned::default();
        for number in 1..=1000_u64 {
            rounds.push(number);
            let kept: Vec<u64> = rounds.iter().copied().collect();
            assert!(kept.len() <= 24, "{kept:?}");
            assert!(
                kept.iter()
                    .rev()
                    .zip((1..=number).rev().take(4))
                    .all(|(a, b)| *a == b)
            );
            if number > OLDEST {
                assert!(number - kept[0] >= OLDEST / 2, "{kept:?}");
            }
        }
    }
}
