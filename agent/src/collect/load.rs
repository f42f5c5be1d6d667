//! Round-trip times while the line is idle and while a transfer fills it, one direction after the other (bufferbloat).
//!
//! Nothing does this by itself: it costs traffic, so a person asks for it and names the server. What is moved is bounded
//! in bytes and in time.

mod round_trip;
mod transfer;

use std::net::SocketAddr;
use std::time::Duration;

use aizen_protocol::record::{Load, LoadDirection};
use tokio::time::{Instant, sleep, timeout};

pub use self::round_trip::{By, Times};
use self::round_trip::{Over, Run};
use self::transfer::{Meter, TransferError};
use super::{CollectError, micros};
use crate::probe::echo::Target;
use crate::probe::roots::Roots;
use crate::probe::web::Url;

/// Where a transfer goes.
#[derive(Clone, Debug)]
pub struct Server {
    /// What is fetched, or sent to.
    pub url: Url,
    /// Where its host is.
    pub address: SocketAddr,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose round trips are measured.
    pub target: Target,
    /// A port there that takes connects, for hosts that answer no echo.
    pub port: u16,
    /// The transfers, one after the other.
    pub transfers: Vec<(LoadDirection, Server)>,
    /// Connections of one transfer at once.
    pub streams: u16,
    /// The longest that one transfer takes.
    pub time: Duration,
    /// The most that one transfer moves.
    pub bytes: u64,
    /// Who is believed to sign certificates; none is an error for HTTPS alone.
    pub roots: Option<Roots>,
}

/// One direction.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Which.
    pub direction: LoadDirection,
    /// Round trips from [`SETTLES`] after the start to the end of the transfer.
    pub times: Times,
    /// Bytes that were moved, payload alone.
    pub bytes: u64,
    /// How long that took.
    pub took: Duration,
    /// Rate of the payload while round trips were measured.
    pub bits_per_second: u64,
    /// Why nothing of it counts, or why it ended early.
    pub fault: Option<String>,
}

/// What came out so far.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How round trips were measured, and those without a load.
    pub idle: Option<(By, Times)>,
    /// The directions that are through.
    pub phases: Vec<Phase>,
}

impl Outcome {
    /// As evidence.
    #[must_use]
    pub fn records(&self, target: &Target) -> Vec<Load> {
        let Some((_, idle)) = &self.idle else {
            return Vec::new();
        };
        let through = self.phases.iter().filter(|phase| phase.times.sent() > 0);
        through
            .map(|phase| Load {
                target: target.address,
                direction: Some(phase.direction),
                idle_us: idle.rtt.iter().copied().map(micros).collect(),
                loaded_us: phase.times.rtt.iter().copied().map(micros).collect(),
                lost: phase.times.lost,
                bits_per_second: phase.bits_per_second,
            })
            .collect()
    }
}

/// Measures into `outcome`: what is in it when the future is dropped is whole.
///
/// # Errors
/// [`CollectError::Untold`] if the target answers nothing that a round trip could be measured by.
pub async fn measure(plan: &Plan, outcome: &mut Outcome) -> Result<(), CollectError> {
    let (by, idle) = idle(plan).await?;
    let usual = idle.median();
    outcome.idle = Some((by, idle));
    for (place, (direction, server)) in plan.transfers.iter().enumerate() {
        if place > 0 {
            drained(plan, by, usual).await?;
        }
        outcome
            .phases
            .push(phase(plan, by, *direction, server).await?);
    }
    Ok(())
}

/// By ICMP echo where that is answered and allowed, else by the handshakes of TCP.
async fn idle(plan: &Plan) -> Result<(By, Times), CollectError> {
    for by in [By::Icmp, By::Tcp] {
        let run = Run {
            times: Some(IDLE_TIMES),
            longest: IDLE_LONGEST,
        };
        let times = round_trip::measure(plan, by, run, &Over::default()).await?;
        if times.rtt.len() >= ENOUGH {
            return Ok((by, times));
        }
    }
    Err(CollectError::Untold(format!(
        "{} answers neither ICMP echo nor connects to port {}, so no round trip can be measured (see 'aizen trace {}')",
        plan.target.address, plan.port, plan.target.address
    )))
}

/// Waits until what the transfer before left in the queues is gone, but not for ever.
async fn drained(plan: &Plan, by: By, usual: Option<Duration>) -> Result<(), CollectError> {
    let until = Instant::now() + DRAINS;
    while Instant::now() < until {
        let run = Run {
            times: Some(3),
            longest: DRAINS,
        };
        let times = round_trip::measure(plan, by, run, &Over::default()).await?;
        if let (Some(now), Some(usual)) = (times.median(), usual)
            && now <= usual + AS_BEFORE
        {
            return Ok(());
        }
    }
    Ok(())
}

async fn phase(
    plan: &Plan,
    by: By,
    direction: LoadDirection,
    server: &Server,
) -> Result<Phase, CollectError> {
    let (meter, over) = (Meter::new(plan.bytes), Over::default());
    let began = Instant::now();
    let moving = async {
        let filled = timeout(plan.time, transfer::fill(plan, direction, server, &meter)).await;
        over.end();
        (filled, began.elapsed())
    };
    let watching = async {
        sleep(SETTLES).await;
        let settled = (meter.moved(), began.elapsed());
        if over.has_come() {
            return Ok((settled, Times::default()));
        }
        let run = Run {
            times: None,
            longest: plan.time,
        };
        let times = round_trip::measure(plan, by, run, &over).await?;
        Ok::<_, CollectError>((settled, times))
    };
    let ((filled, took), watched) = tokio::join!(moving, watching);
    let ((bytes_before, time_before), mut times) = watched?;
    let fault = match filled {
        Ok(Err(error)) => {
            // The line was not loaded, or nobody knows how long.
            times = Times::default();
            Some(error.to_string())
        }
        Err(_) if meter.moved() == 0 => {
            times = Times::default();
            Some(TransferError::Silent.to_string())
        }
        Ok(Ok(())) if times.rtt.len() < ENOUGH => Some(format!(
            "the transfer was over after {} ms, too soon to measure: allow more bytes, or name a larger file",
            took.as_millis()
        )),
        Ok(Ok(())) | Err(_) => None,
    };
    Ok(Phase {
        direction,
        bits_per_second: if took > time_before {
            rate(meter.moved() - bytes_before, took - time_before)
        } else {
            rate(meter.moved(), took)
        },
        bytes: meter.moved(),
        times,
        took,
        fault,
    })
}

/// Bits a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let bits = u128::from(bytes) * 8 * 1_000_000;
    u64::try_from(bits / time.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// Answers that make a median.
pub const ENOUGH: usize = 5;
/// A transfer fills the line and its queue in that time: its start is not measured.
pub const SETTLES: Duration = Duration::from_secs(2);
const IDLE_TIMES: u32 = 20;
const IDLE_LONGEST: Duration = Duration::from_secs(8);
const DRAINS: Duration = Duration::from_secs(5);
/// A round trip that is no longer than before.
const AS_BEFORE: Duration = Duration::from_millis(20);
