//! The command line: `serve` is the server, everything else asks one or works on files.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use aizen_protocol::id::{ApprovalId, CaseId, Digest};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde::Serialize;

mod answer;
mod client;
mod devices;
mod failure;
mod key;
mod package;
mod propose;
mod screen;
mod serve;
mod show;
mod trust;

use client::Client;
use failure::Failure;

/// What the cloud runs: takes evidence from devices, names causes, asks people, delivers repairs.
#[derive(Parser)]
#[command(name = "aizen-orchestrator", version, after_help = EXAMPLE)]
struct Cli {
    /// Print one JSON object with stable keys.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "Example, from nothing to a running server:
  aizen-orchestrator init --data /var/lib/aizen-orchestrator --name aizen.example.org
  aizen-orchestrator key new --out root.key
  aizen-orchestrator key new --out anna.key
  aizen-orchestrator trust new --root root.key.pub --threshold 1 --approver anna=anna.key.pub \\
      --orchestrator /var/lib/aizen-orchestrator/orchestrator.key.pub -o trust.json
  aizen-orchestrator trust sign --key root.key trust.json
  aizen-orchestrator serve --data /var/lib/aizen-orchestrator --trust trust.json

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 refused, 75 try again later.";

/// Where the server is.
#[derive(Args)]
struct Reach {
    /// The data directory: of `serve`, or of the server on this machine.
    #[arg(
        long,
        global = true,
        env = "AIZEN_ORCHESTRATOR_DATA",
        value_name = "DIR"
    )]
    data: Option<PathBuf>,
    /// The server's address, when it is not on this machine (https://HOST:PORT).
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// The bearer token, with --server.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The server's CA certificate, with --server.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Make a data directory: CA, server certificate, signing key, admin token.
    Init(serve::Init),
    /// Run the server.
    Serve(serve::Serve),
    /// One-time tokens for enrollment.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The enrolled devices.
    Devices,
    /// The cases, or one with its time line.
    Cases {
        /// One case.
        id: Option<CaseId>,
    },
    /// What waits for a person, or one question with the effect.
    Approvals {
        /// One question.
        id: Option<ApprovalId>,
        /// Decided ones too.
        #[arg(long)]
        all: bool,
    },
    /// Look at an effect, and sign it with your own key.
    Approve(answer::Approve),
    /// Say no, and why.
    Deny(answer::Deny),
    /// Propose a script of your own for a device; it is rehearsed and approved as any other.
    Propose(propose::Propose),
    /// Packages as files.
    #[command(subcommand)]
    Package(package::PackageCommand),
    /// Private keys of people.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Trust documents.
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// The record of everything.
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token that enrols one device.
    Create {
        /// How long it is valid: 90s, 30m, 24h, 7d.
        #[arg(long, default_value = "1h", value_parser = screen::duration)]
        ttl: std::time::Duration,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Walk the chain; exit code 4 if an entry was altered, dropped or swapped.
    Verify {
        /// The head of an earlier verification, which must still be part of the chain.
        #[arg(long)]
        head: Option<Digest>,
    },
    /// The entries after a place.
    Show {
        /// The place.
        #[arg(long, default_value_t = 0)]
        after: i64,
    },
}

/// The whole command line, for manual pages and completions.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the program and turns its end into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = Failure::of(&error);
            let text = format!(
                "aizen-orchestrator: {}\n",
                screen::visible(&format!("{error:#}"))
            );
            // Nobody listens if this fails.
            io::stderr().write_all(text.as_bytes()).ok();
            if json {
                print_json(&failure.report(&error)).ok();
            }
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // A second call finds the same provider installed.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let Cli {
        json,
        reach,
        command,
    } = cli;
    match command {
        Command::Init(init) => init.run(reach.data.as_deref(), json),
        Command::Serve(serve) => serve.run(reach.data.as_deref()),
        Command::Package(command) => command.run(json),
        Command::Key(command) => command.run(json),
        Command::Trust(command) => command.run(json),
        asking => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(ask(&Client::new(&reach)?, asking, json))
        }
    }
}

async fn ask(client: &Client, command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Token(TokenCommand::Create { ttl }) => show::token(client, ttl, json).await,
        Command::Devices => show::devices(client, json).await,
        Command::Cases { id: None } => show::cases(client, json).await,
        Command::Cases { id: Some(id) } => show::case(client, &id, json).await,
        Command::Approvals { id: None, all } => show::approvals(client, all, json).await,
        Command::Approvals { id: Some(id), .. } => show::approval(client, &id, json).await,
        Command::Approve(approve) => approve.run(client, json).await,
        Command::Deny(deny) => deny.run(client, json).await,
        Command::Propose(propose) => propose.run(client, json).await,
        Command::Audit(AuditCommand::Verify { head }) => {
            show::audit_verify(client, head, json).await
        }
        Command::Audit(AuditCommand::Show { after }) => show::audit(client, after, json).await,
        Command::Init(_)
        | Command::Serve(_)
        | Command::Package(_)
        | Command::Key(_)
        | Command::Trust(_) => Ok(()),
    }
}

/// Prints text for people.
fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Prints one JSON object.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}
