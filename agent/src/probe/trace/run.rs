//! One trace: sends to each hop in turn, round after round, hears who answers.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use super::channel::{Channel, Heard, NUMBERS};
use super::path::Path;
use super::{Method, Plan, TraceError};
use crate::clock;
use crate::probe::wait::{Stop, wait};

/// Traces a path to the plan's end, or until `stop`; `each` sees the path after every change and can end the trace.
///
/// # Errors
/// [`TraceError`], when there is no socket or nothing at all can be sent.
pub fn run(
    plan: &Plan,
    stop: Stop<'_>,
    each: &mut dyn FnMut(&Path) -> ControlFlow<()>,
) -> Result<Path, TraceError> {
    let mut trace = Trace::new(plan)?;
    loop {
        trace.send_due()?;
        let heard = trace.channel.hear(plan.target)?;
        let mut changed = !heard.is_empty();
        for heard in heard {
            trace.hear(heard);
        }
        changed |= trace.give_up();
        if changed && each(&trace.path).is_break() {
            break;
        }
        let Some(sleep) = trace.sleep() else {
            break;
        };
        if wait(&trace.channel.sockets(), stop, sleep)?.stop {
            break;
        }
    }
    Ok(trace.end())
}

/// One probe under way.
struct Flight {
    number: u16,
    ttl: u8,
    sent: Duration,
    sent_wall: u64,
}

struct Trace<'p> {
    plan: &'p Plan,
    channel: Channel,
    path: Path,
    began: Duration,
    wait: Duration,
    flights: VecDeque<Flight>,
    number: u16,
    /// The next probe, if one is still to come.
    round: u32,
    ttl: u8,
    due: Duration,
    round_began: Duration,
    /// Something left.
    sent: bool,
}

impl<'p> Trace<'p> {
    fn new(plan: &'p Plan) -> Result<Self, TraceError> {
        let began = clock::since_boot().0;
        let wait = match plan.method {
            Method::Tcp(_) => plan.wait.min(TCP_WAIT),
            Method::Udp | Method::Icmp => plan.wait,
        };
        Ok(Self {
            plan,
            channel: Channel::open(plan)?,
            path: Path::default(),
            began,
            wait,
            flights: VecDeque::new(),
            number: 0,
            round: 0,
            ttl: 1,
            due: began,
            round_began: began,
            sent: false,
        })
    }

    /// The farthest hop worth asking now.
    fn farthest(&self) -> u8 {
        let most = self.plan.max_hops.max(1);
        if let Some(end) = self.path.end() {
            return end;
        }
        // A first round looks everywhere; then silence behind the last answer is not asked again and again.
        match self.path.last_answered() {
            Some(last) if self.round > 0 => most.min(last.saturating_add(BEYOND)),
            _ => most,
        }
    }

    fn is_sending(&self) -> bool {
        self.plan.rounds.is_none_or(|rounds| self.round < rounds)
    }

    fn send_due(&mut self) -> Result<(), TraceError> {
        if self.is_sending() && self.ttl > self.farthest() {
            self.next_round();
        }
        let now = clock::since_boot().0;
        if !self.is_sending() || now < self.due || self.flights.len() >= usize::from(NUMBERS) {
            return Ok(());
        }
        let sent_wall = clock::wall_ns();
        let (target, number, ttl) = (self.plan.target, self.number, self.ttl);
        match self.channel.send(target, number, ttl) {
            Ok(()) => {
                self.path.sent(ttl);
                self.flights.push_back(Flight {
                    number,
                    ttl,
                    sent: now,
                    sent_wall,
                });
                self.sent = true;
            }
            Err(source) if !self.sent && is_no_way(&source) => {
                return Err(TraceError::Send {
                    target: target.address,
                    source,
                });
            }
            // A full buffer, or a route that went away meanwhile: this probe was never sent.
            Err(_) => {}
        }
        self.number = (number + 1) % NUMBERS;
        self.due = now + self.plan.gap;
        self.ttl += 1;
        Ok(())
    }

    fn next_round(&mut self) {
        self.round = self.round.saturating_add(1);
        self.ttl = 1;
        self.due = self.due.max(self.round_began + self.plan.every);
        self.round_began = self.due;
    }

    fn hear(&mut self, heard: Heard) {
        let place = self.flights.iter().position(|f| f.number == heard.number);
        let Some(flight) = place.and_then(|place| self.flights.remove(place)) else {
            return;
        };
        self.channel.forget(heard.number);
        let elapsed = clock::since_boot().0.saturating_sub(flight.sent);
        // Kernel stamp, unless somebody set the clock meanwhile.
        let rtt = heard
            .at_ns
            .and_then(|at| at.checked_sub(flight.sent_wall))
            .map(Duration::from_nanos)
            .filter(|rtt| *rtt <= elapsed + CLOCK_ERROR)
            .unwrap_or(elapsed);
        self.path
            .answered(flight.ttl, heard.from, heard.answer, rtt);
    }

    fn give_up(&mut self) -> bool {
        let now = clock::since_boot().0;
        let mut any = false;
        while let Some(flight) = self.flights.front()
            && now >= flight.sent + self.wait
        {
            self.path.lost(flight.ttl);
            self.channel.forget(flight.number);
            self.flights.pop_front();
            any = true;
        }
        any
    }

    /// How long nothing is to do; none when all is done.
    fn sleep(&self) -> Option<Duration> {
        let now = clock::since_boot().0;
        let late = self.plan.deadline.map(|deadline| self.began + deadline);
        if late.is_some_and(|late| now >= late) || (!self.is_sending() && self.flights.is_empty()) {
            return None;
        }
        let mut until = now + LONGEST_SLEEP;
        if let Some(flight) = self.flights.front() {
            until = until.min(flight.sent + self.wait);
        }
        if self.is_sending() {
            until = until.min(self.due);
        }
        Some(
            late.map_or(until, |late| until.min(late))
                .saturating_sub(now),
        )
    }

    /// What is still under way doesn't count, nor what was asked behind the end.
    fn end(mut self) -> Path {
        for flight in &self.flights {
            self.path.unsent(flight.ttl);
        }
        self.path.trim();
        self.path
    }
}

fn is_no_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::InvalidInput
    )
}

/// Silent hops asked behind the last one that answered.
const BEYOND: u8 = 5;
/// The kernel repeats a SYN after a second.
const TCP_WAIT: Duration = Duration::from_millis(950);
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
const CLOCK_ERROR: Duration = Duration::from_millis(1);
