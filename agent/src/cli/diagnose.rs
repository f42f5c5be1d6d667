//! `aizen diagnose`: collects everything twice, asks the built-in expert, prints the verdict.
//!
//! It needs no configuration, no server and no root; what it may not see, it names.

mod page;
mod progress;
pub(crate) mod recording;
mod verdict;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aizen_protocol::finding::{Health, Verdict};
use aizen_protocol::private::Text;
use aizen_protocol::record::{Gap, History, Record, Trigger};
use aizen_sanitizer::Observation;
use anyhow::Context as _;
use clap::Args;

pub(in crate::cli) use self::verdict::write_finding;
use self::verdict::write_verdict;
use super::screen::Screen;
use crate::collect::{Collector, Settings};
use crate::sanitize::{SanitizeError, Stage};
use crate::{analyze, clock};

/// What can be said on the command line.
#[derive(Debug, Default, Args)]
pub struct DiagnoseArgs {
    /// Send no evidence anywhere: the expert on this device judges alone, as it does while no other analyst is
    /// configured. Gateways, resolvers, anchors and time servers are still probed
    #[arg(long)]
    pub offline: bool,
    /// Write a page for any browser as well: one file, nothing is loaded from elsewhere
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the sanitized evidence as well, for --replay
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Judge recorded evidence instead of this device's
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,
}

/// What the daemon of this device knows of the time before, with real values.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Probes and changes of the last hours.
    pub history: Option<History>,
    /// Records of some of its rounds.
    pub rounds: Vec<Record>,
    /// Why a daemon that runs did not tell; none if it did.
    pub refused: Option<String>,
}

impl Remembered {
    /// Nothing, and why.
    pub(super) fn refused(why: String) -> Self {
        Self {
            refused: Some(why),
            ..Self::default()
        }
    }

    /// What the verdict says of a memory that it lacks.
    fn gap(&self) -> Option<Gap> {
        let why = self.refused.as_ref()?;
        Some(Gap {
            collector: "history".to_owned(),
            reason: Text(format!(
                "the daemon's memory: this verdict knows the last seconds only, because {why}"
            )),
        })
    }
}

/// Runs the command: `remembered` is what the daemon knows of the last hours, `stage` is opened only for a recording.
/// The exit code is the one of monitoring plugins: 0 healthy, 1 warning, 2 critical, 3 could not tell.
///
/// # Errors
/// When a file can't be read or written. When `out` can't be written the code is 3: that is never taken for a verdict.
pub async fn run(
    args: DiagnoseArgs,
    json: bool,
    settings: Settings,
    remembered: Option<Remembered>,
    stage: impl FnOnce() -> Result<Stage, SanitizeError>,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let (records, verdict) = match &args.replay {
        Some(file) => {
            let records = recording::read(file)?;
            let verdict = analyze::records(records.clone());
            (records, verdict)
        }
        None => judge(&args, settings, remembered, stage).await?,
    };
    if let Some(file) = &args.html {
        let page = page::page(&records, &verdict, &Screen::of_stdout().zone);
        std::fs::write(file, page)
            .with_context(|| format!("can't write the page {}", file.display()))?;
    }
    let written = if json {
        serde_json::to_writer_pretty(&mut *out, &verdict)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write_verdict(out, &verdict, &Screen::of_stdout())
    };
    if let Err(error) = written.and_then(|()| out.flush()) {
        // Who reads no more wants to hear nothing; with standard error closed there is nobody left to tell.
        if error.kind() != io::ErrorKind::BrokenPipe {
            writeln!(io::stderr(), "aizen: the verdict can't be written: {error}").ok();
        }
        return Ok(exit_code(Health::Unknown));
    }
    Ok(exit_code(verdict.health))
}

/// Looks at this device, with real values; what is recorded is sanitized first.
async fn judge(
    args: &DiagnoseArgs,
    settings: Settings,
    remembered: Option<Remembered>,
    stage: impl FnOnce() -> Result<Stage, SanitizeError>,
) -> anyhow::Result<(Vec<Record>, Verdict)> {
    let gap = remembered.as_ref().and_then(Remembered::gap);
    let observations = progress::shown(observe(settings, remembered)).await;
    let mut verdict = analyze::local(&observations);
    verdict.unseen.extend(gap);
    let records = observations
        .iter()
        .map(|observation| Record::clone(&observation.local()))
        .collect();
    if let Some(file) = &args.record {
        let sanitized = stage()?.round(observations);
        recording::write(file, &sanitized)?;
    }
    Ok((records, verdict))
}

/// Two rounds where time allows: counters speak by their difference, and one lost answer is no fault. Where it does not,
/// as everything is silent and each probe waits its time out, what counts is read again.
async fn observe(settings: Settings, remembered: Option<Remembered>) -> Vec<Observation> {
    let began = clock::since_boot();
    let rest = || LONGEST.saturating_sub(clock::since_boot().0.saturating_sub(began.0));
    let mut collector = Collector::new(settings);
    let mut observations = Vec::new();
    if let Some(Remembered {
        history, rounds, ..
    }) = remembered
    {
        observations.extend(rounds.into_iter().map(Observation::new));
        if let Some(history) = history {
            collector.inherit(history);
        }
    }
    observations.extend(collector.round(Trigger::Asked, 0).await);
    // A second round tries the same again, but listens to nobody who speaks rarely.
    let second = rest().saturating_sub(LOOKS);
    if collector.tried() <= second
        && let Ok(more) = tokio::time::timeout(second, collector.round(Trigger::Asked, 0)).await
    {
        observations.extend(more);
    } else if let Ok(more) = tokio::time::timeout(rest(), collector.look_again(began)).await {
        observations.extend(more);
    }
    observations
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
/// What reading the kernel's tables once more may take of that.
const LOOKS: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_memory_that_was_refused_is_a_gap_with_its_reason() {
        let gap = Remembered::refused("it is paused".to_owned())
            .gap()
            .unwrap();
        assert!(gap.reason.0.starts_with("the daemon's memory: "));
        assert!(gap.reason.0.ends_with("because it is paused"));
        assert_eq!(Remembered::default().gap(), None);
    }

    fn stage() -> Result<Stage, SanitizeError> {
        Stage::open(&Config::load(None).unwrap())
    }

    #[tokio::test]
    async fn this_machine_gets_a_verdict_in_time_without_configuration() {
        let began = clock::since_boot();
        let mut out = Vec::new();
        run(
            DiagnoseArgs::default(),
            true,
            Settings::default(),
            None,
            stage,
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
            DiagnoseArgs::default(),
            false,
            Settings::default(),
            None,
            stage,
            &mut Full,
        )
        .await
        .unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(3)));
    }

    #[tokio::test]
    async fn a_recording_gives_the_same_verdict_every_time_and_holds_no_value_of_this_device() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recording");
        let recorded = DiagnoseArgs {
            record: Some(file.clone()),
            ..DiagnoseArgs::default()
        };
        run(
            recorded,
            true,
            Settings::default(),
            None,
            stage,
            &mut io::sink(),
        )
        .await
        .unwrap();
        let mut verdicts = Vec::new();
        for _ in 0..2 {
            let replayed = DiagnoseArgs {
                replay: Some(file.clone()),
                html: Some(folder.path().join("page.html")),
                ..DiagnoseArgs::default()
            };
            let mut out = Vec::new();
            run(replayed, true, Settings::default(), None, stage, &mut out)
                .await
                .unwrap();
            verdicts.push((out, std::fs::read(folder.path().join("page.html")).unwrap()));
        }
        assert_eq!(verdicts[0], verdicts[1]);
        let text = std::fs::read_to_string(&file).unwrap();
        for record in recording::read(&file).unwrap() {
            if let aizen_protocol::record::Body::Links(links) = record.body {
                assert!(links.iter().any(|link| link.name == "lo"));
            }
        }
        let mac = std::fs::read_to_string("/sys/class/net/eth0/address").unwrap_or_default();
        let mac = mac.trim();
        assert!(mac.is_empty() || mac == "00:00:00:00:00:00" || !text.contains(mac));
    }
}
