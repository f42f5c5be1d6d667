//! The keeper's own process: waits on three descriptors, reads the journal, kills and recovers. What it does when is
//! `watch`'s.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, setsid};

use super::watch::{Act, Attempt, End, Found, Sight, Watch};
use super::{Order, WORD, Word};
use crate::clock::{self, BootTime};
use crate::executor::ledger;
use crate::recover;

/// Who starts a keeper speaks at once.
const FIRST_WORD: Duration = Duration::from_secs(60);
/// Longest recovery; one of early boot has two minutes.
const RECOVERY: Duration = Duration::from_secs(600);

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The kernel refused something that it needs.
    #[error("a deadline can't be kept beside the executor: {0}")]
    Kernel(#[from] io::Error),
    /// Standard input is not the executor.
    #[error("this program is started by the executor, which said nothing that it understands")]
    NoOrder,
}

impl From<nix::Error> for KeeperError {
    fn from(error: nix::Error) -> Self {
        Self::Kernel(error.into())
    }
}

impl From<rustix::io::Errno> for KeeperError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Kernel(error.into())
    }
}

/// The hidden subcommand: orders on standard input, a socket of packets.
///
/// # Errors
/// [`KeeperError`]; the executor then keeps its deadline alone.
pub fn main() -> Result<End, KeeperError> {
    // A terminal's signals are for its own session. It fails for a leader of processes, which no child is.
    setsid().ok();
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    let timer = TimerFd::new(
        ClockId::CLOCK_BOOTTIME,
        TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
    )?;
    let mut senses = Senses {
        socket: Some(socket),
        executor: None,
        gone: false,
        timer,
    };
    let until = BootTime(clock::since_boot().0.saturating_add(FIRST_WORD));
    let order = match senses.wait(until)? {
        Heard::Word(Word::Begin(order)) => order,
        // Gone before it could say anything: nothing was touched.
        Heard::Silent => return Ok(End::Untouched),
        Heard::Word(_) | Heard::Died | Heard::Time => return Err(KeeperError::NoOrder),
    };
    senses.executor = parent(order.executor)?;
    // It may have said more before it went.
    senses.gone = senses.executor.is_none();
    keep(&order, &mut senses)
}

/// The executor's process, certainly: it is still this one's parent after its number was looked up. None if it is gone.
fn parent(executor: i32) -> Result<Option<OwnedFd>, KeeperError> {
    let pid = Pid::from_raw(executor).ok_or(KeeperError::NoOrder)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok((getppid() == Some(pid)).then_some(process)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn keep(order: &Order, senses: &mut Senses<'_>) -> Result<End, KeeperError> {
    let mut watch = Watch::new(order.settings, clock::since_boot());
    let mut sight = Sight::Time;
    loop {
        sight = match watch.next(sight, clock::since_boot()) {
            Act::Wait(until) => match senses.wait(until)? {
                Heard::Word(Word::Armed { until }) => Sight::Armed(until),
                Heard::Word(Word::Ended) => Sight::Ended,
                Heard::Word(Word::Begin(_)) | Heard::Time => Sight::Time,
                Heard::Silent => Sight::Silent,
                Heard::Died => {
                    let change = &order.change;
                    tracing::warn!(%change, "the executor died with a change that has not ended");
                    Sight::Died
                }
            },
            Act::Look => Sight::Found(look(order)),
            Act::Kill => {
                let change = &order.change;
                tracing::error!(%change, "the executor hangs beyond the deadline: it is killed");
                if let Some(executor) = &senses.executor {
                    // It may have ended meanwhile, which is told by the same descriptor.
                    pidfd_send_signal(executor, Signal::KILL).ok();
                }
                Sight::Time
            }
            Act::Recover => Sight::Attempted(recover(order)),
            Act::End(end) => return Ok(end),
        };
    }
}

fn look(order: &Order) -> Found {
    match ledger::look_up(&order.state.join("journal"), &order.change) {
        Ok(change) => Found::of(change.as_ref()),
        Err(error) => {
            tracing::warn!(%error, "the journal can't be read");
            Found::Unreadable
        }
    }
}

/// As `aizen recover` does.
fn recover(order: &Order) -> Attempt {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "nothing can be recovered");
            return Attempt::Failed;
        }
    };
    let bounded = async { tokio::time::timeout(RECOVERY, recover::run(order.recovery())).await };
    let recovered = runtime.block_on(bounded);
    // What still hangs in a thread ends with this process.
    runtime.shutdown_background();
    match recovered {
        Ok(Ok(recovered)) => {
            tracing::warn!(?recovered, "recovered in the executor's stead");
            Attempt::Done
        }
        Ok(Err(error)) if error.is_in_use() => Attempt::InUse,
        Ok(Err(error)) => {
            tracing::error!(%error, "not recovered");
            Attempt::Failed
        }
        Err(_) => {
            tracing::error!("a recovery takes too long");
            Attempt::Failed
        }
    }
}

/// What came of a wait.
#[derive(Debug)]
enum Heard {
    Word(Word),
    Silent,
    Died,
    Time,
}

/// What a keeper listens to.
struct Senses<'a> {
    /// Until the executor closes its end.
    socket: Option<BorrowedFd<'a>>,
    /// Until it is dead.
    executor: Option<OwnedFd>,
    /// It was dead before this process could look: to be told once its last words are heard.
    gone: bool,
    timer: TimerFd,
}

impl Senses<'_> {
    /// Waits for a word, a death or a moment, in this order if several are there.
    fn wait(&mut self, until: BootTime) -> Result<Heard, KeeperError> {
        // A zero would switch the timer off.
        let moment = TimeSpec::from(until.0.max(Duration::from_nanos(1)));
        self.timer.set(
            Expiration::OneShot(moment),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        )?;
        loop {
            if self.gone && self.socket.is_none() {
                self.gone = false;
                return Ok(Heard::Died);
            }
            let [spoke, died, time] = self.poll()?;
            if spoke && let Some(heard) = self.hear()? {
                return Ok(heard);
            }
            if died && !spoke {
                self.executor = None;
                return Ok(Heard::Died);
            }
            if time && !spoke {
                return Ok(Heard::Time);
            }
        }
    }

    fn poll(&self) -> Result<[bool; 3], KeeperError> {
        let socket = self.socket;
        let executor = self.executor.as_ref().map(AsFd::as_fd);
        let all = [socket, executor, Some(self.timer.as_fd())];
        let mut fds: Vec<PollFd<'_>> = all
            .iter()
            .flatten()
            .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        let mut happened = fds.iter().map(|fd| fd.any().unwrap_or(true));
        Ok(all.map(|fd| fd.is_some() && happened.next().unwrap_or(false)))
    }

    /// One packet; none for one that says nothing.
    fn hear(&mut self) -> Result<Option<Heard>, KeeperError> {
        let Some(socket) = self.socket else {
            return Ok(None);
        };
        let mut packet = vec![0; WORD];
        match recv(socket, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => {
                self.socket = None;
                Ok(Some(Heard::Silent))
            }
            Ok((length, _)) => match serde_json::from_slice(&packet[..length]) {
                Ok(word) => Ok(Some(Heard::Word(word))),
                Err(error) => {
                    tracing::warn!(%error, "a word of the executor is not understood");
                    Ok(None)
                }
            },
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
