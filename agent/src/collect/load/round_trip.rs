//! Round trips to one target, ten a second: by ICMP echo, or by TCP handshakes with a host that answers no echo.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::Plan;
use crate::clock;
use crate::collect::aside;
use crate::probe::connect;
use crate::probe::echo::{self, Kind, Target};

/// How round trips are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// ICMP echo, by the kernel's stamps.
    Icmp,
    /// From SYN to the answer, by this process's clock.
    Tcp,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Round trips in the order of the answers.
    pub rtt: Vec<Duration>,
    /// Requests that nobody answered within [`WAITS`].
    pub lost: u16,
}

impl Times {
    /// Requests that were answered or lost.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.rtt.len() + usize::from(self.lost)
    }

    /// The smallest round trip that at least `percent` of all do not exceed.
    #[must_use]
    pub fn quantile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.rtt.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// The one in the middle.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        self.quantile(50)
    }

    fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }
}

/// When to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// After so many requests; none goes on until it is over.
    pub(super) times: Option<u32>,
    /// In any case.
    pub(super) longest: Duration,
}

/// Says to a thread that it is over; dropping it says so as well.
#[derive(Debug, Default)]
pub(super) struct Over(Arc<AtomicBool>);

impl Over {
    pub(super) fn end(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.end();
    }
}

/// Measures on a thread of its own. What can't be asked at all, for want of permission, gives no times.
pub(super) async fn measure(plan: &Plan, by: By, run: Run, over: &Over) -> io::Result<Times> {
    let (target, port, over) = (plan.target, plan.port, Arc::clone(&over.0));
    aside::run("aizen-round-trips", move || match by {
        By::Icmp => icmp(target, run, &over),
        By::Tcp => tcp(target, port, run, &over),
    })
    .await?
}

fn icmp(target: Target, run: Run, over: &AtomicBool) -> io::Result<Times> {
    let plan = echo::Plan {
        targets: vec![target],
        times: run.times,
        between: Duration::ZERO,
        each: EACH,
        wait: WAITS,
        size: PAYLOAD,
        device: None,
        deadline: Some(run.longest),
    };
    let mut times = Times::default();
    let mut each = |event: echo::Event| {
        if over.load(Ordering::Acquire) {
            return ControlFlow::Break(());
        }
        match event.kind {
            Kind::Reply(rtt) => times.rtt.push(rtt),
            Kind::Lost | Kind::Error { .. } => times.lose(),
            Kind::Duplicate(_) | Kind::Late(_) | Kind::NotMeasured | Kind::Refused(_) => {}
        }
        ControlFlow::Continue(())
    };
    echo::run(&plan, None, &mut each)?;
    Ok(times)
}

fn tcp(target: Target, port: u16, run: Run, over: &AtomicBool) -> io::Result<Times> {
    let began = clock::monotonic();
    let mut times = Times::default();
    for _ in 0..run.times.unwrap_or(u32::MAX) {
        let sent = clock::monotonic();
        let left = (began + run.longest).saturating_sub(sent);
        if left.is_zero() || over.load(Ordering::Acquire) {
            break;
        }
        let plan = connect::Plan {
            to: vec![(target, port)],
            wait: WAITS,
            at_once: 1,
            deadline: Some(left),
        };
        let done = connect::run(&plan, None)?;
        if over.load(Ordering::Acquire) {
            break;
        }
        match done.first() {
            Some(done) => match done.rtt {
                Some(rtt) => times.rtt.push(rtt),
                None => times.lose(),
            },
            None => break,
        }
        thread::sleep((sent + EACH).saturating_sub(clock::monotonic()));
    }
    Ok(times)
}

const EACH: Duration = Duration::from_millis(100);
/// Longer than any queue that people put up with.
const WAITS: Duration = Duration::from_secs(4);
/// As ping(8).
const PAYLOAD: u16 = 56;
