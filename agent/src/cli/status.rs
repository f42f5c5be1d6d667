//! `aizen status`, `uplink connect`, `pause` and `resume`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use aizen_protocol::control::{
    DaemonAnswer, DaemonRequest, DaemonStatus, ExecutorAnswer, ExecutorRequest, ExecutorStatus,
    TrustState, UplinkState,
};
use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::diagnose::Remembered;
use super::{apply, exit, show};
use crate::config::Config;
use crate::control::{Connection, ControlError};

#[derive(Debug, Subcommand)]
pub(super) enum UplinkCommand {
    /// Dial now, not after the backoff
    Connect,
}

/// Half a status is a status: each program that does not answer is named.
pub(super) async fn status(config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    let daemon = daemon_status(config).await;
    let executor = executor_status(config).await;
    let mut out = io::stdout().lock();
    if as_json {
        let told = |e: &anyhow::Error| json!({"error": exit::told(e)});
        let daemon = daemon.as_ref().map_or_else(told, |s| json!(s));
        let executor = executor.as_ref().map_or_else(told, |s| json!(s));
        show::json(&mut out, &json!({"daemon": daemon, "executor": executor}))?;
    } else {
        match &daemon {
            Ok(status) => show_daemon(&mut out, status)?,
            Err(error) => writeln!(out, "Daemon:     {}", exit::told(error))?,
        }
        match &executor {
            Ok(status) => show_executor(&mut out, status)?,
            Err(error) => writeln!(out, "Executor:   {}", exit::told(error))?,
        }
    }
    Ok(if daemon.is_ok() && executor.is_ok() {
        ExitCode::SUCCESS
    } else {
        exit::FAILED.into()
    })
}

pub(super) async fn uplink(command: &UplinkCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let UplinkCommand::Connect = command;
    match Connection::connect(&config.paths.daemon_socket())
        .await?
        .ask(&DaemonRequest::Connect)
        .await?
    {
        DaemonAnswer::Done => Ok(ExitCode::SUCCESS),
        DaemonAnswer::Failed { message } => bail!(message),
        DaemonAnswer::Status(_)
        | DaemonAnswer::Metrics { .. }
        | DaemonAnswer::Remembered { .. }
        | DaemonAnswer::Values { .. } => {
            bail!("the daemon answered another question")
        }
    }
}

/// What the daemon remembers; none without a daemon. One that runs and does not tell is worth a word.
pub(super) async fn remembered(config: &Config) -> Option<Remembered> {
    // A daemon that hangs must not cost the diagnosis its time.
    const PATIENCE: Duration = Duration::from_millis(500);
    match tokio::time::timeout(PATIENCE, ask_memory(config)).await {
        Ok(answered) => lent(answered),
        Err(_) => Some(Remembered::refused(format!(
            "the daemon did not answer within {} ms",
            PATIENCE.as_millis()
        ))),
    }
}

fn lent(answered: Result<DaemonAnswer, ControlError>) -> Option<Remembered> {
    Some(match answered {
        Ok(DaemonAnswer::Remembered { history, rounds }) => Remembered {
            history,
            rounds,
            refused: None,
        },
        Ok(DaemonAnswer::Failed { message }) => Remembered::refused(message),
        Ok(_) => Remembered::refused("the daemon answered another question".to_owned()),
        Err(ControlError::Unreachable { source, .. }) if is_nobody(&source) => return None,
        Err(error) => Remembered::refused(error.to_string()),
    })
}

async fn ask_memory(config: &Config) -> Result<DaemonAnswer, ControlError> {
    Connection::connect(&config.paths.daemon_socket())
        .await?
        .ask(&DaemonRequest::Remembered)
        .await
}

/// No socket, or one that a daemon left behind.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

pub(super) async fn pause(config: &Config) -> anyhow::Result<ExitCode> {
    tell(
        config,
        &ExecutorRequest::Pause,
        "Changes are paused: nothing changes this device until 'aizen resume'",
    )
    .await
}

pub(super) async fn resume(config: &Config) -> anyhow::Result<ExitCode> {
    tell(
        config,
        &ExecutorRequest::Resume,
        "Changes are possible again, as far as the policy allows",
    )
    .await
}

async fn tell(config: &Config, request: &ExecutorRequest, done: &str) -> anyhow::Result<ExitCode> {
    match Connection::to_executor(&config.paths.executor_socket())
        .await?
        .ask(request)
        .await?
    {
        ExecutorAnswer::Done => {
            tell_standing(config).await;
            writeln!(io::stdout(), "{done}")?;
            Ok(ExitCode::SUCCESS)
        }
        other => apply::unexpected(other, false),
    }
}

/// Lets the daemon tell the orchestrator at once. One that does not answer asks the executor by itself, later.
async fn tell_standing(config: &Config) {
    let told = async {
        Connection::connect(&config.paths.daemon_socket())
            .await?
            .ask::<_, DaemonAnswer>(&DaemonRequest::Standing)
            .await
    };
    if let Ok(Err(error)) = tokio::time::timeout(Duration::from_millis(500), told).await {
        tracing::debug!(%error, "the daemon was not told");
    }
}

async fn daemon_status(config: &Config) -> anyhow::Result<DaemonStatus> {
    match Connection::connect(&config.paths.daemon_socket())
        .await?
        .ask(&DaemonRequest::Status)
        .await?
    {
        DaemonAnswer::Status(status) => Ok(status),
        DaemonAnswer::Failed { message } => bail!(message),
        DaemonAnswer::Done
        | DaemonAnswer::Metrics { .. }
        | DaemonAnswer::Remembered { .. }
        | DaemonAnswer::Values { .. } => bail!(ControlError::Closed),
    }
}

async fn executor_status(config: &Config) -> anyhow::Result<ExecutorStatus> {
    match Connection::to_executor(&config.paths.executor_socket())
        .await?
        .ask(&ExecutorRequest::Status)
        .await?
    {
        ExecutorAnswer::Status(status) => Ok(status),
        ExecutorAnswer::Failed { message } => bail!(message),
        other => bail!("the executor answered another question: {other:?}"),
    }
}

fn show_daemon(out: &mut impl Write, status: &DaemonStatus) -> io::Result<()> {
    let device = status
        .device
        .as_ref()
        .map_or("not enrolled", |d| d.as_str());
    writeln!(out, "Device:     {device} (agent {})", status.agent)?;
    let uplink = match &status.uplink {
        UplinkState::NotEnrolled => "not enrolled: see 'aizen enroll --help'".to_owned(),
        UplinkState::Connected { since, address } => {
            format!("connected to {address} since {}", show::time(*since))
        }
        UplinkState::Connecting => "connecting".to_owned(),
        UplinkState::Waiting {
            attempts,
            next_ms,
            last_error,
        } => {
            format!(
                "not connected, attempt {attempts} failed ({last_error}), next in {:.1} s",
                *next_ms as f64 / 1000.0
            )
        }
    };
    writeln!(out, "Uplink:     {uplink}")?;
    writeln!(
        out,
        "Spool:      {} waiting ({} bytes), {} made, {} acknowledged, {} dropped",
        status.spooled,
        status.spooled_bytes,
        status.newest.0,
        status.acknowledged.0,
        status.dropped
    )?;
    let sent: Vec<String> = status
        .sent_bytes
        .iter()
        .map(|(purpose, bytes)| format!("{purpose} {bytes}"))
        .collect();
    writeln!(
        out,
        "Sent bytes: {}",
        if sent.is_empty() {
            "none".to_owned()
        } else {
            sent.join(", ")
        }
    )?;
    if let (Some(health), Some(at)) = (status.health, status.health_at) {
        let health = serde_json::to_value(health)?;
        writeln!(
            out,
            "Verdict:    {} at {}",
            health.as_str().unwrap_or_default(),
            show::time(at)
        )?;
    }
    status
        .findings
        .iter()
        .try_for_each(|finding| writeln!(out, "            {finding}"))
}

fn show_executor(out: &mut impl Write, status: &ExecutorStatus) -> io::Result<()> {
    let trust = match status.trust {
        TrustState::Full => "full",
        TrustState::Expired => "trust document expired: diagnosis only",
        TrustState::ClockUntrusted => "clock never synchronised: changes on the spot only",
        TrustState::Revoked => "revoked: reports only",
        TrustState::NotEnrolled => "none: not enrolled",
    };
    writeln!(
        out,
        "Trust:      {trust} (document version {})",
        status.trust_version
    )?;
    let changes = match (status.changes_allowed, status.paused) {
        (_, true) => "paused: see 'aizen resume'",
        (true, false) => "allowed by policy",
        (false, false) => "observe-only: 'allow_changes = true' in the policy file allows them",
    };
    writeln!(out, "Changes:    {changes}")?;
    writeln!(
        out,
        "Isolation:  level {} of 4 (see 'aizen sandbox check')",
        status.isolation.level
    )?;
    match &status.pending {
        Some(change) => writeln!(
            out,
            "Pending:    {} {} ({})",
            change.change,
            show::stage(change.stage),
            change.intent
        ),
        None => writeln!(out, "Pending:    none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_does_not_lend_its_memory_is_told_and_none_at_all_is_not() {
        let unreachable = |kind: io::ErrorKind| {
            lent(Err(ControlError::Unreachable {
                path: "/run/aizen/daemon.sock".into(),
                source: kind.into(),
            }))
        };
        assert!(unreachable(io::ErrorKind::NotFound).is_none());
        assert!(unreachable(io::ErrorKind::ConnectionRefused).is_none());
        let why = |told: Option<Remembered>| told.and_then(|told| told.refused).unwrap();
        assert!(why(unreachable(io::ErrorKind::PermissionDenied)).contains("aizen-operators"));
        assert!(why(lent(Err(ControlError::Closed))).contains("closed"));
        let message = "not for you".to_owned();
        assert_eq!(
            why(lent(Ok(DaemonAnswer::Failed { message }))),
            "not for you"
        );
        let told = lent(Ok(DaemonAnswer::Remembered {
            history: None,
            rounds: Vec::new(),
        }));
        assert_eq!(told.unwrap().refused, None);
    }
}
