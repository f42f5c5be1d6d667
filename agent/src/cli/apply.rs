//! `aizen verify`, `rehearse` and `apply`: a signed package, on the spot.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aizen_protocol::control::{
    Bindings, DaemonAnswer, DaemonRequest, ExecutorAnswer, ExecutorRequest, Refusal,
};
use aizen_protocol::effect::Effect;
use aizen_protocol::envelope::Envelope;
use aizen_protocol::limit;
use aizen_protocol::outcome::Outcome;
use aizen_protocol::package::Package;
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::{exit, show};
use crate::config::Config;
use crate::control::{Connection, ControlError};

/// A package file.
#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// The signed package (a DSSE envelope)
    file: PathBuf,
}

/// A package file, and how sure the person is.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The signed package (a DSSE envelope)
    file: PathBuf,
    /// Do not ask before the change
    #[arg(long)]
    yes: bool,
}

pub(super) async fn verify(
    args: &FileArgs,
    config: &Config,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let package = match read(&args.file)? {
        Ok(package) => package,
        Err(refusal) => return refused(&refusal, as_json),
    };
    let mut executor = Connection::to_executor(&config.paths.executor_socket()).await?;
    match executor.ask(&ExecutorRequest::Verify { package }).await? {
        ExecutorAnswer::Verified {
            package,
            digest,
            risk,
            intent,
        } => {
            let mut out = io::stdout().lock();
            if as_json {
                show::json(
                    &mut out,
                    &json!({"verified": true, "package": package, "sha256": digest, "risk": risk, "intent": intent}),
                )?;
            } else {
                writeln!(
                    out,
                    "Verified: {package}\nIntent: {intent}\nSHA-256: {digest}"
                )?;
            }
            Ok(ExitCode::SUCCESS)
        }
        other => unexpected(other, as_json),
    }
}

pub(super) async fn rehearse(
    args: &FileArgs,
    config: &Config,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let package = match read(&args.file)? {
        Ok(package) => package,
        Err(refusal) => return refused(&refusal, as_json),
    };
    match rehearsed(&package, config).await? {
        Ok(effect) => {
            let mut out = io::stdout().lock();
            if as_json {
                show::json(&mut out, &effect)?
            } else {
                show::effect(&mut out, &effect)?
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(other) => unexpected(other, as_json),
    }
}

pub(super) async fn apply(
    args: &ApplyArgs,
    config: &Config,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let package = match read(&args.file)? {
        Ok(package) => package,
        Err(refusal) => return refused(&refusal, as_json),
    };
    let mut executor = Connection::to_executor(&config.paths.executor_socket()).await?;
    match executor
        .ask(&ExecutorRequest::Verify {
            package: package.clone(),
        })
        .await?
    {
        ExecutorAnswer::Verified { intent, .. } if !as_json => {
            writeln!(io::stdout(), "Intent: {intent}")?
        }
        ExecutorAnswer::Verified { .. } => {}
        other => return unexpected(other, as_json),
    }
    let effect = match rehearsed(&package, config).await? {
        Ok(effect) => effect,
        Err(other) => return unexpected(other, as_json),
    };
    if !as_json {
        show::effect(&mut io::stdout().lock(), &effect)?;
    }
    if !args.yes && !asked("Apply this change?")? {
        writeln!(io::stderr(), "Nothing was changed.")?;
        return Ok(exit::FAILED.into());
    }
    let bindings = values(&package, config).await?;
    executor
        .send(&ExecutorRequest::Execute {
            package,
            delivery: None,
            bindings,
        })
        .await?;
    follow(&mut executor, as_json).await
}

/// Follows a change to its end and tells each step.
pub(super) async fn follow(executor: &mut Connection, as_json: bool) -> anyhow::Result<ExitCode> {
    loop {
        match executor
            .recv::<ExecutorAnswer>()
            .await?
            .ok_or(ControlError::Closed)?
        {
            ExecutorAnswer::Admitted { change } if !as_json => {
                writeln!(io::stdout(), "\nChange {change}")?
            }
            ExecutorAnswer::Reached { stage, at, .. } if !as_json => {
                writeln!(io::stdout(), "{}  {}", show::time(at), show::stage(stage))?;
            }
            ExecutorAnswer::ConfirmOnSiteWanted { change, within_s } => writeln!(
                io::stderr(),
                "Confirm within {within_s} s from a NEW login, or it is rolled back:\n    aizen changes confirm {change}"
            )?,
            ExecutorAnswer::Ended { local, .. } => return ended(&local, as_json),
            ExecutorAnswer::Admitted { .. }
            | ExecutorAnswer::Reached { .. }
            | ExecutorAnswer::ConfirmWanted { .. } => {}
            other => return unexpected(other, as_json),
        }
    }
}

fn ended(outcome: &Outcome, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if as_json {
        show::json(&mut out, outcome)?
    } else {
        show::outcome(&mut out, outcome)?
    }
    Ok(exit::of_end(outcome.end))
}

async fn rehearsed(
    package: &Envelope,
    config: &Config,
) -> anyhow::Result<Result<Effect, ExecutorAnswer>> {
    let bindings = values(package, config).await?;
    let mut executor = Connection::to_executor(&config.paths.executor_socket()).await?;
    match executor
        .ask(&ExecutorRequest::Rehearse {
            package: package.clone(),
            bindings,
        })
        .await?
    {
        ExecutorAnswer::Rehearsed { local, .. } => Ok(Ok(local)),
        other => Ok(Err(other)),
    }
}

/// The real values behind the package's pseudonyms: the daemon knows them.
async fn values(package: &Envelope, config: &Config) -> anyhow::Result<Bindings> {
    let wanted: Vec<String> = match Package::parse(&package.unverified_payload()?) {
        Ok(package) => package.bindings.into_iter().map(|b| b.pseudonym).collect(),
        Err(_) => Vec::new(),
    };
    if wanted.is_empty() {
        return Ok(Bindings::new());
    }
    let mut daemon = Connection::connect(&config.paths.daemon_socket())
        .await
        .context("the package names pseudonyms, and only the daemon knows what they stand for")?;
    match daemon
        .ask(&DaemonRequest::Reveal { pseudonyms: wanted })
        .await?
    {
        DaemonAnswer::Values { values } => Ok(values),
        DaemonAnswer::Failed { message } => bail!(message),
        DaemonAnswer::Status(_)
        | DaemonAnswer::Done
        | DaemonAnswer::Metrics { .. }
        | DaemonAnswer::Remembered { .. } => {
            bail!("the daemon answered another question")
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Result<Envelope, Refusal>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|f| f.take(limit::ENVELOPE as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| format!("can't read the package {}", file.display()))?;
    Ok(Envelope::parse(&bytes).map_err(|reason| Refusal {
        reason,
        detail: file.display().to_string(),
        signed: None,
    }))
}

pub(super) fn asked(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask on: say --yes");
    }
    write!(io::stderr(), "\n{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn refused(refusal: &Refusal, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        let answer =
            json!({"refused": true, "reason": refusal.reason.code(), "detail": refusal.detail});
        show::json(&mut io::stdout().lock(), &answer)?;
    }
    writeln!(io::stderr(), "Refused: {}", refusal.reason)?;
    if !refusal.detail.is_empty() {
        writeln!(io::stderr(), "  {}", refusal.detail)?;
    }
    Ok(exit::REFUSED.into())
}

/// An answer that ends the matter otherwise than hoped.
pub(super) fn unexpected(answer: ExecutorAnswer, as_json: bool) -> anyhow::Result<ExitCode> {
    match answer {
        ExecutorAnswer::Refused(refusal) => refused(&refusal, as_json),
        ExecutorAnswer::Failed { message } => bail!(message),
        ExecutorAnswer::Ended { local, .. } => ended(&local, as_json),
        ExecutorAnswer::Done
        | ExecutorAnswer::Status(_)
        | ExecutorAnswer::Verified { .. }
        | ExecutorAnswer::Rehearsed { .. }
        | ExecutorAnswer::Admitted { .. }
        | ExecutorAnswer::Reached { .. }
        | ExecutorAnswer::ConfirmWanted { .. }
        | ExecutorAnswer::ConfirmOnSiteWanted { .. }
        | ExecutorAnswer::Changes { .. }
        | ExecutorAnswer::Outcomes { .. }
        | ExecutorAnswer::Rescue { .. }
        | ExecutorAnswer::Rescued(_)
        | ExecutorAnswer::Answering { .. }
        | ExecutorAnswer::Seen { .. } => bail!("the executor answered another question"),
    }
}
