//! `aizen changes`: the life of each change.

use std::io::{self, Write as _};
use std::process::ExitCode;

use aizen_protocol::control::{ChangeSummary, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::id::ChangeId;
use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::{apply, show};
use crate::config::Config;
use crate::control::Connection;

#[derive(Debug, Subcommand)]
pub(super) enum ChangesCommand {
    /// All, newest first
    List,
    /// One, with its steps
    Show {
        /// The change
        change: ChangeId,
    },
    /// Keep a change that waits for a person: from a new login, within its time
    Confirm {
        /// The change
        change: ChangeId,
    },
    /// Undo the pending change at once
    Rollback {
        /// The change
        change: ChangeId,
    },
    /// Say that you dealt with an incomplete rollback: changes are possible again
    Clear {
        /// The change
        change: ChangeId,
    },
    /// Follow the pending change to its end
    Watch,
}

pub(super) async fn run(
    command: ChangesCommand,
    config: &Config,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut executor = Connection::to_executor(&config.paths.executor_socket()).await?;
    let request = match command {
        ChangesCommand::List => return list(&all(&mut executor).await?, as_json),
        ChangesCommand::Show { change } => {
            return show_one(&all(&mut executor).await?, &change, as_json);
        }
        ChangesCommand::Watch => {
            executor.send(&ExecutorRequest::Watch).await?;
            return apply::follow(&mut executor, as_json).await;
        }
        ChangesCommand::Confirm { change } => ExecutorRequest::ConfirmOnSite { change },
        ChangesCommand::Rollback { change } => ExecutorRequest::RollBack { change },
        ChangesCommand::Clear { change } => ExecutorRequest::Clear { change },
    };
    match executor.ask(&request).await? {
        ExecutorAnswer::Done => Ok(ExitCode::SUCCESS),
        other => apply::unexpected(other, as_json),
    }
}

async fn all(executor: &mut Connection) -> anyhow::Result<Vec<ChangeSummary>> {
    match executor.ask(&ExecutorRequest::Changes).await? {
        ExecutorAnswer::Changes { changes } => Ok(changes),
        ExecutorAnswer::Failed { message } => bail!(message),
        other => bail!("the executor answered another question: {other:?}"),
    }
}

fn list(changes: &[ChangeSummary], as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if as_json {
        show::json(&mut out, &json!({"changes": changes}))?
    } else {
        show::changes(&mut out, changes)?
    }
    Ok(ExitCode::SUCCESS)
}

fn show_one(
    changes: &[ChangeSummary],
    wanted: &ChangeId,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let Some(change) = changes.iter().find(|c| c.change == *wanted) else {
        bail!("this device knows no change {wanted}: see 'aizen changes list'");
    };
    let mut out = io::stdout().lock();
    if as_json {
        show::json(&mut out, change)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "Change {}\nPackage {}\nIntent {}",
        change.change, change.package, change.intent
    )?;
    for step in &change.steps {
        writeln!(out, "{}  {}", show::time(step.at), show::stage(step.stage))?;
    }
    Ok(ExitCode::SUCCESS)
}
