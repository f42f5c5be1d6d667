//! Who follows the pending change. A follower that comes late is told everything so far; one that does not read is
//! dropped, never waited for.

use aizen_protocol::control::ExecutorAnswer;
use tokio::sync::mpsc;

/// Answers that may wait for one follower; a change's whole life has fewer.
pub(crate) const QUEUE: usize = 64;
/// Followers at once.
const FOLLOWERS: usize = 16;

/// The followers of the pending change.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    followers: Vec<mpsc::Sender<ExecutorAnswer>>,
    told: Vec<ExecutorAnswer>,
}

impl Watchers {
    /// A change begins: nothing was told yet.
    pub(crate) fn begin(&mut self) {
        self.followers.clear();
        self.told.clear();
    }

    /// Adds a follower and tells it everything so far; false if there are too many.
    pub(crate) fn follow(&mut self, follower: mpsc::Sender<ExecutorAnswer>) -> bool {
        self.followers.retain(|f| !f.is_closed());
        if self.followers.len() >= FOLLOWERS {
            return false;
        }
        let kept_up = self
            .told
            .iter()
            .all(|answer| follower.try_send(answer.clone()).is_ok());
        if kept_up {
            self.followers.push(follower);
        }
        kept_up
    }

    /// Tells every follower.
    pub(crate) fn tell(&mut self, answer: &ExecutorAnswer) {
        self.followers
            .retain(|follower| follower.try_send(answer.clone()).is_ok());
        if self.told.len() < QUEUE / 2 {
            self.told.push(answer.clone());
        }
    }

    /// Tells the last thing; followers hear nothing more.
    pub(crate) fn end(&mut self, answer: &ExecutorAnswer) {
        self.tell(answer);
        self.begin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_follower_hears_everything_and_one_that_does_not_read_is_dropped() {
        let mut watchers = Watchers::default();
        let (early, mut early_rx) = mpsc::channel(QUEUE);
        let (deaf, _deaf_rx) = mpsc::channel(1);
        assert!(watchers.follow(early) && watchers.follow(deaf));
        watchers.tell(&ExecutorAnswer::Done);
        watchers.tell(&ExecutorAnswer::Done);
        assert_eq!(watchers.followers.len(), 1);
        let (late, mut late_rx) = mpsc::channel(QUEUE);
        assert!(watchers.follow(late));
        watchers.end(&ExecutorAnswer::Done);
        for receiver in [&mut early_rx, &mut late_rx] {
            let mut heard = 0;
            while receiver.try_recv().is_ok() {
                heard += 1;
            }
            assert_eq!(heard, 3);
            assert!(receiver.is_closed());
        }
    }
}
