//! `aizen rescue`: the last network that was known good, for whoever stands at the device.

use std::io::{self, Write};
use std::process::ExitCode;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest, RescueEnd, RescueProfile};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{apply, exit, show};
use crate::config::Config;
use crate::control::Connection;

#[derive(Debug, Args)]
pub(super) struct RescueArgs {
    #[command(subcommand)]
    command: Option<RescueCommand>,
}

#[derive(Debug, Subcommand)]
enum RescueCommand {
    /// Keep the network as it is as the rescue profile, if gateways and names answer
    Save,
    /// Put the network back to the rescue profile at once: links, addresses, routes, rules, neighbours, parameters, tables
    Apply {
        /// Do not ask before
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(
    args: RescueArgs,
    config: &Config,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut executor = Connection::to_executor(&config.paths.executor_socket()).await?;
    match args.command {
        None => match executor.ask(&ExecutorRequest::Rescue).await? {
            ExecutorAnswer::Rescue { profile } => tell(profile.as_ref(), as_json),
            other => apply::unexpected(other, as_json),
        },
        Some(RescueCommand::Save) => match executor.ask(&ExecutorRequest::RescueSave).await? {
            ExecutorAnswer::Done => Ok(ExitCode::SUCCESS),
            other => apply::unexpected(other, as_json),
        },
        Some(RescueCommand::Apply { yes }) => {
            if !yes && !agreed(&mut executor, as_json).await? {
                writeln!(io::stderr(), "Nothing was changed.")?;
                return Ok(exit::FAILED.into());
            }
            match executor.ask(&ExecutorRequest::RescueApply).await? {
                ExecutorAnswer::Rescued(end) => ended(&end, as_json),
                other => apply::unexpected(other, as_json),
            }
        }
    }
}

/// Shows what would be done and asks.
async fn agreed(executor: &mut Connection, as_json: bool) -> anyhow::Result<bool> {
    if !as_json
        && let ExecutorAnswer::Rescue {
            profile: Some(profile),
        } = executor.ask(&ExecutorRequest::Rescue).await?
    {
        describe(&mut io::stdout().lock(), &profile)?;
    }
    apply::asked("Put the network back to this?")
}

fn tell(profile: Option<&RescueProfile>, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if as_json {
        show::json(&mut out, &json!({"profile": profile}))?;
        return Ok(ExitCode::SUCCESS);
    }
    match profile {
        Some(profile) => describe(&mut out, profile)?,
        None => writeln!(
            out,
            "No rescue profile is kept: say 'aizen rescue save' while the network is good"
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(out: &mut impl Write, profile: &RescueProfile) -> io::Result<()> {
    let boot = if profile.this_boot {
        ""
    } else {
        ", before a restart"
    };
    writeln!(
        out,
        "Known good since {}{boot}, kept {}",
        show::time(profile.since),
        profile.source
    )?;
    list(out, "Held then", &profile.held)?;
    list(out, "Does not hold now", &profile.lost)?;
    if profile.differs.is_empty() {
        writeln!(out, "Nothing differs that would be put back")?;
    }
    list(out, "Would be put back", &profile.differs)?;
    list(out, "Would be left alone", &profile.left)
}

fn list(out: &mut impl Write, title: &str, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}:")?;
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "    {line}"))
}

fn ended(end: &RescueEnd, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let whole = end.failed.is_empty() && end.lost.is_empty();
    if as_json {
        show::json(&mut out, end)?;
    } else {
        if end.put_back.is_empty() && end.failed.is_empty() {
            writeln!(out, "Nothing differed that is put back")?;
        }
        list(&mut out, "Put back", &end.put_back)?;
        list(&mut out, "Could not be put back", &end.failed)?;
        list(&mut out, "Left alone", &end.left)?;
        list(&mut out, "Does not hold", &end.lost)?;
    }
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        exit::FAILED.into()
    })
}
