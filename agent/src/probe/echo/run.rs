//! One run of a plan: sends what is due, hears what comes, sleeps in between.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::pace::Pace;
use super::port::Port;
use super::window::{Slot, State};
use super::{Event, Kind, MAX_TARGETS, Outcome, Plan, Why};
use crate::clock;
use crate::probe::errors::{Entry, IcmpError};
use crate::probe::packet::Mark;
use crate::probe::socket::{BATCH, Reply};
use crate::probe::tally::Tally;
use crate::probe::wait::{Stop, wait};

/// Who hears of each event, and can end the run.
pub type Each<'e> = dyn FnMut(Event) -> ControlFlow<()> + 'e;

/// Runs a plan to its end, or until `stop`, and gives each event to `each` as it happens. Requests that are under way
/// when it is stopped are not counted: nobody knows about them.
///
/// # Errors
/// A socket that the kernel takes away; a family that can't be asked at all is told in [`Outcome::unasked`].
pub fn run<'e>(plan: &'e Plan, stop: Stop<'_>, each: &'e mut Each<'e>) -> io::Result<Outcome> {
    let mut run = Run::new(plan, each)?;
    if run.ports.is_empty() {
        return Ok(run.outcome());
    }
    loop {
        run.send_due()?;
        let drained = run.hear()?;
        if drained {
            run.give_up();
        }
        if run.is_done() {
            break;
        }
        let sleep = run.sleep(drained);
        let sockets: Vec<_> = run
            .ports
            .iter()
            .map(|port| (port.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        if wait(&sockets, stop, sleep)?.stop {
            break;
        }
    }
    Ok(run.outcome())
}

struct Run<'p> {
    plan: &'p Plan,
    each: &'p mut Each<'p>,
    /// Whoever hears the events has heard enough.
    ended: bool,
    began: Duration,
    wait: u64,
    pace: Pace,
    ports: Vec<Port>,
    tallies: Vec<Tally>,
    unasked: Vec<String>,
}

/// A reply, taken out of the receive buffer.
#[derive(Clone, Copy)]
struct Taken {
    from: IpAddr,
    number: u16,
    mark: Option<Mark>,
    at_ns: Option<u64>,
}

impl<'p> Run<'p> {
    fn new(plan: &'p Plan, each: &'p mut Each<'p>) -> io::Result<Self> {
        if plan.targets.len() > MAX_TARGETS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("more than {MAX_TARGETS} targets"),
            ));
        }
        let (mut ports, mut unasked) = (Vec::new(), Vec::new());
        for ipv4 in [true, false] {
            if plan.targets.iter().any(|t| t.address.is_ipv4() == ipv4) {
                match Port::open(plan, ipv4) {
                    Ok(port) => ports.push(port),
                    Err(error) => unasked.push(error.to_string()),
                }
            }
        }
        let room = (SAMPLES / plan.targets.len().max(1)).clamp(16, 4096);
        Ok(Self {
            plan,
            each,
            ended: false,
            began: clock::since_boot().0,
            wait: nanos(plan.wait),
            pace: Pace::new(
                plan.targets.len(),
                plan.times,
                nanos(plan.between),
                nanos(plan.each),
            ),
            ports,
            tallies: vec![Tally::new(room); plan.targets.len()],
            unasked,
        })
    }

    fn now(&self) -> u64 {
        nanos(clock::since_boot().0.saturating_sub(self.began))
    }

    fn is_done(&self) -> bool {
        let late = self
            .plan
            .deadline
            .is_some_and(|deadline| self.now() >= nanos(deadline));
        let idle = |port: &Port| port.pending.is_empty() && !port.window.is_open();
        late || self.ended || (self.pace.next().is_none() && self.ports.iter().all(idle))
    }

    /// Sends at most one batch of each family.
    fn send_due(&mut self) -> io::Result<()> {
        let now = self.now();
        while let Some((target, number, due)) = self.pace.next()
            && due <= now
        {
            let ipv4 = self.plan.targets[target].address.is_ipv4();
            if let Some(port) = self.ports.iter_mut().find(|p| p.socket.ipv4 == ipv4) {
                if port.pending.len() >= port.room || port.window.is_full() {
                    break;
                }
                let target = u32::try_from(target).unwrap_or(u32::MAX);
                port.pending.push((target, number));
            }
            self.pace.take(now);
        }
        for place in 0..self.ports.len() {
            self.flush(place)?;
        }
        Ok(())
    }

    fn flush(&mut self, place: usize) -> io::Result<()> {
        let mut tries = 0;
        loop {
            let now = self.now();
            let port = &mut self.ports[place];
            if port.pending.is_empty() || now < port.blocked {
                return Ok(());
            }
            let error = match port.send(self.plan, now) {
                Ok(left) => {
                    for (target, _) in port.pending.drain(..left) {
                        self.tallies[target as usize].sent += 1;
                    }
                    continue;
                }
                Err(error) => error,
            };
            // What the network said of an earlier packet ends the next call, whomever that one is for.
            self.hear_errors(place)?;
            let port = &mut self.ports[place];
            port.socket.clear_error();
            port.start_stamps();
            if matches!(error, Errno::EAGAIN | Errno::ENOBUFS) {
                port.blocked = now + FULL_BUFFER;
                return Ok(());
            }
            tries += 1;
            if tries >= TRIES {
                let (target, number) = port.pending.remove(0);
                self.tallies[target as usize].refused += 1;
                self.tell(target, number, Kind::Refused(error as i32));
                tries = 0;
            }
        }
    }

    /// Hears what came; true if nothing is left to hear.
    fn hear(&mut self) -> io::Result<bool> {
        let mut drained = true;
        for place in 0..self.ports.len() {
            let mut taken = Vec::new();
            let port = &mut self.ports[place];
            let (messages, drops) = port
                .socket
                .receive(|reply| taken.push(Taken::from(reply)))?;
            if let Some(drops) = drops {
                port.drops = drops;
            }
            drained &= messages < BATCH;
            // Behind the replies: the stamp of a request was there before its reply.
            self.hear_errors(place)?;
            for reply in taken {
                self.reply(place, reply);
            }
        }
        Ok(drained)
    }

    fn reply(&mut self, place: usize, reply: Taken) {
        let now = self.now();
        let long_enough = usize::from(self.plan.size) >= Mark::LENGTH;
        let port = &mut self.ports[place];
        let Some(slot) = port.window.find(reply.number).copied() else {
            return;
        };
        let ours = if long_enough {
            reply.mark
                == Some(Mark {
                    run: port.run,
                    serial: slot.serial,
                })
        } else {
            reply.from == self.plan.targets[slot.target as usize].address
        };
        if !ours {
            return;
        }
        let rtt = round_trip(&slot, reply.at_ns, now);
        let rtt_told = Duration::from_nanos(rtt);
        let tally = &mut self.tallies[slot.target as usize];
        let kind = match slot.state {
            State::Open if rtt <= self.wait => {
                port.window.settle(reply.number, State::Answered);
                tally.answer(rtt_told);
                Kind::Reply(rtt_told)
            }
            State::Open => {
                // It came in time to be heard, but not in time.
                port.window.settle(reply.number, State::GivenUp);
                tally.lost += 1;
                tally.late += 1;
                self.tell(slot.target, slot.number, Kind::Lost);
                Kind::Late(rtt_told)
            }
            State::Answered => {
                tally.duplicates += 1;
                Kind::Duplicate(rtt_told)
            }
            State::GivenUp => {
                tally.late += 1;
                Kind::Late(rtt_told)
            }
        };
        self.tell(slot.target, slot.number, kind);
    }

    fn hear_errors(&mut self, place: usize) -> io::Result<()> {
        for _ in 0..ERRORS_AT_ONCE / BATCH {
            let port = &mut self.ports[place];
            // A stamp for each packet that left, and something more to see whether more is there.
            let room = (std::mem::take(&mut port.unstamped) + 2).min(BATCH);
            let entries = port.socket.take_errors(room)?;
            let all = entries.len() < room;
            for entry in entries {
                match entry {
                    Entry::Sent { key, at_ns } => self.ports[place].stamp(key, at_ns),
                    Entry::Error(error) => self.error(place, &error),
                    Entry::Noise => {}
                }
            }
            if all {
                break;
            }
            self.ports[place].unstamped = BATCH;
        }
        Ok(())
    }

    fn error(&mut self, place: usize, error: &IcmpError) {
        let port = &mut self.ports[place];
        let Some(number) = port.socket.number_of(&error.quote) else {
            return;
        };
        let Some(slot) = port.window.find(number).copied() else {
            return;
        };
        let for_target = error
            .to
            .is_none_or(|to| to.ip() == self.plan.targets[slot.target as usize].address);
        if error.why == Why::Other || !for_target || !port.window.settle(number, State::GivenUp) {
            return;
        }
        let tally = &mut self.tallies[slot.target as usize];
        tally.errors += 1;
        tally.lost += 1;
        let (from, why) = (error.from, error.why);
        self.tell(slot.target, slot.number, Kind::Error { from, why });
    }

    /// Gives up what was waited for long enough. Only when all that came was heard.
    fn give_up(&mut self) {
        let now = self.now();
        let before = now.saturating_sub(self.wait);
        for place in 0..self.ports.len() {
            let port = &mut self.ports[place];
            if port.window.oldest_open().is_some_and(|sent| sent < before) {
                port.read_drops(now);
            }
            while let Some(slot) = self.ports[place].window.expire(before) {
                let tally = &mut self.tallies[slot.target as usize];
                let kind = if self.ports[place].drops == slot.drops {
                    tally.lost += 1;
                    Kind::Lost
                } else {
                    tally.not_measured += 1;
                    Kind::NotMeasured
                };
                self.tell(slot.target, slot.number, kind);
            }
            let keep = self.wait.saturating_add(LATE);
            self.ports[place].window.forget(now.saturating_sub(keep));
        }
    }

    /// How long nothing is to do.
    fn sleep(&mut self, drained: bool) -> Duration {
        let now = self.now();
        let deadline = self.plan.deadline.map(nanos);
        let mut until = deadline.unwrap_or(u64::MAX).min(now + LONGEST_SLEEP);
        let mut full = false;
        for port in &mut self.ports {
            if let Some(sent) = port.window.oldest_open() {
                until = until.min(sent.saturating_add(self.wait) + 1);
            }
            if !port.pending.is_empty() {
                until = until.min(port.blocked);
            }
            full |= port.window.is_full() || port.pending.len() >= port.room;
        }
        if let Some((.., due)) = self.pace.next()
            && !full
        {
            until = until.min(due);
        }
        if drained {
            Duration::from_nanos(until.saturating_sub(now))
        } else {
            Duration::ZERO
        }
    }

    fn tell(&mut self, target: u32, number: u32, kind: Kind) {
        let event = Event {
            target: target as usize,
            number,
            kind,
        };
        self.ended |= (self.each)(event).is_break();
    }

    fn outcome(mut self) -> Outcome {
        for port in &mut self.ports {
            while let Some(slot) = port.window.expire(u64::MAX) {
                self.tallies[slot.target as usize].sent -= 1;
            }
            port.read_drops(u64::MAX);
        }
        Outcome {
            tallies: self.tallies,
            dropped: self.ports.iter().map(|p| u64::from(p.drops)).sum(),
            unasked: self.unasked,
        }
    }
}

impl From<Reply<'_>> for Taken {
    fn from(reply: Reply<'_>) -> Self {
        Self {
            from: reply.from,
            number: reply.number,
            mark: Mark::read(reply.payload),
            at_ns: reply.at_ns,
        }
    }
}

/// The time between the two stamps, unless somebody set the clock meanwhile.
fn round_trip(slot: &Slot, at_ns: Option<u64>, now: u64) -> u64 {
    let elapsed = now.saturating_sub(slot.sent);
    at_ns
        .and_then(|at| at.checked_sub(slot.sent_wall))
        .filter(|rtt| *rtt <= elapsed.saturating_add(CLOCK_ERROR))
        .unwrap_or(elapsed)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Round-trip times kept for percentiles, all targets together.
const SAMPLES: usize = 1 << 20;
const ERRORS_AT_ONCE: usize = 1024;
const TRIES: u32 = 3;
const FULL_BUFFER: u64 = 500_000;
const LONGEST_SLEEP: u64 = 1_000_000_000;
const CLOCK_ERROR: u64 = 1_000_000;
/// How long after its deadline an answer is still recognised.
const LATE: u64 = 5_000_000_000;
