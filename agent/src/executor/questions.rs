//! The read-only door's keeper: each question once at a time, and those that send something not too often.

use std::time::Duration;

use aizen_protocol::control::Question;

use crate::clock::BootTime;
use crate::door;

/// Questions that are being answered, and those that were asked lately.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    at: BootTime,
    running: bool,
}

/// Why a question isn't answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    /// The same question about the same link is being answered.
    #[error("this is being looked at already: wait for the answer")]
    Same,
    /// It would be sent too often.
    #[error("this was asked on that link less than {} s ago: other people share the network", PAUSE.as_secs())]
    TooSoon,
    /// Too many at once.
    #[error("too many questions at once: try again")]
    Many,
}

impl Keeper {
    /// Lets a question in, or says why not. What is let in must [`Keeper::leave`].
    pub(crate) fn enter(&mut self, question: &Question, now: BootTime) -> Result<(), Busy> {
        self.asked
            .retain(|asked| asked.running || now.0.saturating_sub(asked.at.0) < PAUSE);
        let mut same = self
            .asked
            .iter()
            .filter(|asked| is_same(&asked.question, question));
        if let Some(asked) = same.next() {
            if asked.running {
                return Err(Busy::Same);
            }
            if sends(question) {
                return Err(Busy::TooSoon);
            }
        }
        if self.running() >= AT_ONCE || self.asked.len() >= REMEMBERED {
            return Err(Busy::Many);
        }
        self.asked
            .retain(|asked| !is_same(&asked.question, question));
        self.asked.push(Asked {
            question: question.clone(),
            at: now,
            running: true,
        });
        Ok(())
    }

    /// The question was answered, or nobody waits for the answer any more.
    pub(crate) fn leave(&mut self, question: &Question) {
        for asked in &mut self.asked {
            if is_same(&asked.question, question) {
                asked.running = false;
            }
        }
    }

    /// Questions that are being answered.
    pub(crate) fn running(&self) -> usize {
        self.asked.iter().filter(|asked| asked.running).count()
    }
}

/// The same kind about the same link; an ARP probe also about the same address.
fn is_same(one: &Question, other: &Question) -> bool {
    match (one, other) {
        (Question::ArpProbe { .. }, Question::ArpProbe { .. }) => one == other,
        _ => {
            std::mem::discriminant(one) == std::mem::discriminant(other)
                && door::device(one) == door::device(other)
        }
    }
}

/// True if answering it puts frames on a network.
fn sends(question: &Question) -> bool {
    match question {
        Question::ArpProbe { .. }
        | Question::DhcpProbe { .. }
        | Question::PppoeProbe { .. }
        | Question::RouterProbe { .. } => true,
        Question::Filter
        | Question::WireGuard
        | Question::Modules
        | Question::KernelLog
        | Question::Lldp { .. } => false,
    }
}

const PAUSE: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 12;
const REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    fn dhcp(dev: &str) -> Question {
        Question::DhcpProbe {
            dev: dev.to_owned(),
        }
    }

    #[test]
    fn a_question_is_answered_once_at_a_time_for_each_link() {
        let mut keeper = Keeper::default();
        let listen = |wait_s| Question::Lldp {
            dev: "eth0".to_owned(),
            wait_s,
        };
        assert_eq!(keeper.enter(&listen(4), at(1)), Ok(()));
        assert_eq!(keeper.enter(&listen(31), at(1)), Err(Busy::Same));
        assert_eq!(keeper.enter(&dhcp("eth0"), at(1)), Ok(()));
        keeper.leave(&listen(4));
        assert_eq!(keeper.enter(&listen(31), at(2)), Ok(()));
    }

    #[test]
    fn a_probe_is_sent_no_more_often_than_every_ten_seconds_on_a_link() {
        let mut keeper = Keeper::default();
        keeper.enter(&dhcp("eth0"), at(1)).unwrap();
        keeper.leave(&dhcp("eth0"));
        assert_eq!(keeper.enter(&dhcp("eth0"), at(10)), Err(Busy::TooSoon));
        assert_eq!(keeper.enter(&dhcp("eth1"), at(10)), Ok(()));
        assert_eq!(keeper.enter(&dhcp("eth0"), at(11)), Ok(()));
    }

    #[test]
    fn what_sends_nothing_may_be_asked_again_at_once() {
        let mut keeper = Keeper::default();
        for _ in 0..3 {
            keeper.enter(&Question::Filter, at(1)).unwrap();
            keeper.leave(&Question::Filter);
        }
        assert_eq!(keeper.running(), 0);
    }

    #[test]
    fn a_flood_of_questions_is_refused_and_leaves_nothing_behind() {
        let mut keeper = Keeper::default();
        let let_in = (0..100).filter(|n| keeper.enter(&dhcp(&format!("e{n}")), at(1)).is_ok());
        assert_eq!(let_in.count(), AT_ONCE);
        for number in 0..100 {
            keeper.leave(&dhcp(&format!("e{number}")));
        }
        keeper.enter(&Question::Filter, at(60)).unwrap();
        assert_eq!(keeper.asked.len(), 1);
    }
}
