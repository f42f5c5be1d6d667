//! `aizen diagnose`: collects everything twice, asks the built-in expert, prints the verdict.
//!
//! It needs no configuration, no server and no root; what it may not see, it names.

mod verdict;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use aizen_protocol::finding::{Health, Verdict};
use aizen_protocol::record::Trigger;
use clap::Args;
use jiff::tz::TimeZone;

use self::verdict::{Screen, write_verdict};
use crate::collect::{Collector, Settings};
use crate::{analyze, clock};

/// What can be said on the command line.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// Send no evidence anywhere: the expert on this device judges alone, as it does while no other analyst is
    /// configured. Gateways, resolvers, anchors and time servers are still probed
    #[arg(long)]
    pub offline: bool,
}

/// Runs the command. The exit code is the one of monitoring plugins: 0 healthy, 1 warning, 2 critical, 3 could not
/// tell.
///
/// # Errors
/// None that would be taken for a verdict: when `out` can't be written the code is 3.
pub async fn run(
    args: DiagnoseArgs,
    json: bool,
    settings: Settings,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    // The one analyst there is works on the device.
    let DiagnoseArgs { offline: _ } = args;
    let verdict = judge(settings).await;
    let written = if json {
        serde_json::to_writer_pretty(&mut *out, &verdict)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        let colour =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        write_verdict(
            out,
            &verdict,
            &Screen {
                colour,
                zone: TimeZone::system(),
            },
        )
    };
    if let Err(error) = written.and_then(|()| out.flush()) {
        // With standard error closed there is nobody left to tell.
        writeln!(io::stderr(), "aizen: the verdict can't be written: {error}").ok();
        return Ok(exit_code(Health::Unknown));
    }
    Ok(exit_code(verdict.health))
}

/// Two rounds where time allows: counters speak by their difference, and one lost answer is no fault.
async fn judge(settings: Settings) -> Verdict {
    let began = clock::since_boot();
    let mut collector = Collector::new(settings);
    let mut observations = collector.round(Trigger::Asked, 0).await;
    let took = clock::since_boot().0.saturating_sub(began.0);
    let rest = LONGEST.saturating_sub(took);
    // A second round takes about as long as the first, or less.
    if took <= rest
        && let Ok(more) = tokio::time::timeout(rest, collector.round(Trigger::Asked, 0)).await
    {
        observations.extend(more);
    }
    analyze::local(&observations)
}

fn exit_code(health: Health) -> ExitCode {
    ExitCode::from(match health {
        Health::Healthy => 0,
        Health::Warning => 1,
        Health::Critical => 2,
        Health::Unknown => 3,
    })
}

/// The command promises 10 s; the expert and the screen need their part.
const LONGEST: Duration = Duration::from_millis(9500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_gets_a_verdict_in_time_without_configuration() {
        let began = clock::since_boot();
        let mut out = Vec::new();
        run(
            DiagnoseArgs { offline: true },
            true,
            Settings::default(),
            &mut out,
        )
        .await
        .unwrap();
        assert!(clock::since_boot().0 - began.0 < Duration::from_secs(10));
        let verdict: Verdict = serde_json::from_slice(&out).unwrap();
        assert!(verdict.ruled_out.len() + verdict.findings.len() + verdict.unseen.len() > 0);
    }

    #[tokio::test]
    async fn a_screen_that_cant_be_written_is_could_not_tell_and_no_verdict() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let code = run(
            DiagnoseArgs { offline: true },
            false,
            Settings::default(),
            &mut Full,
        )
        .await
        .unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(3)));
    }
}
