//! Processor time of programs, and medians of turns.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// What one turn of a program cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    pub(super) processor: Duration,
}

impl Cost {
    /// The median of each figure.
    pub(super) fn median(turns: &[Self]) -> Self {
        Self {
            wall: median(turns.iter().map(|turn| turn.wall).collect()),
            processor: median(turns.iter().map(|turn| turn.processor).collect()),
        }
    }
}

/// Runs a program to its end, which must be good; gives what it printed, too.
pub(super) fn of(command: &mut Command) -> Result<(Cost, Vec<u8>)> {
    let (cost, output) = of_any(command)?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((cost, output.stdout))
}

/// Runs a program to whatever end.
pub(super) fn of_any(command: &mut Command) -> Result<(Cost, Output)> {
    let before = children()?;
    let began = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start {command:?}"))?;
    let wall = began.elapsed();
    let processor = children()?.saturating_sub(before);
    Ok((Cost { wall, processor }, output))
}

/// Processor time of a running program, ended threads included.
pub(super) fn of_process(pid: i32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid))
        .with_context(|| format!("process {pid} has no clock: did it end?"))?;
    Ok(clock_gettime(clock)?.into())
}

/// Processor time of this program.
pub(super) fn own() -> Result<Duration> {
    used(UsageWho::RUSAGE_SELF)
}

/// Processor time of all programs that this one started and that ended.
pub(super) fn children() -> Result<Duration> {
    used(UsageWho::RUSAGE_CHILDREN)
}

fn used(who: UsageWho) -> Result<Duration> {
    let usage = getrusage(who)?;
    let time = |t: TimeVal| -> Result<Duration> {
        let (s, us) = (u64::try_from(t.tv_sec())?, u64::try_from(t.tv_usec())?);
        Ok(Duration::from_secs(s) + Duration::from_micros(us))
    };
    Ok(time(usage.user_time())? + time(usage.system_time())?)
}

pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// How many times as much.
pub(super) fn ratio(own: Duration, peer: Duration) -> f64 {
    own.as_secs_f64() / peer.as_secs_f64()
}

/// Microseconds.
pub(super) fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
