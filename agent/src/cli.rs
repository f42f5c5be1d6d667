//! What people type: argv to a subcommand, an error to an exit code.
//!
//! Programs that are not for people hide here too: the sandbox's child side, the `change` command inside a sandbox,
//! the rehearsal's shadow and the second keeper of a deadline are this same file under another name or a hidden word.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::look::Look;
use crate::config::Config;

mod apply;
pub mod change;
mod changes;
pub mod diagnose;
pub mod dns;
mod enroll;
mod exit;
mod interrupt;
mod load;
mod look;
mod metrics;
mod ping;
mod ports;
mod rescue;
mod sandbox;
mod screen;
mod serve;
mod show;
mod status;
mod text;
mod top;
mod trace;
mod unseen;

/// Finds network faults, and repairs them so that the network is better afterwards or exactly as before.
#[derive(Debug, Parser)]
#[command(
    name = "aizen",
    version,
    arg_required_else_help = true,
    max_term_width = 110
)]
struct Aizen {
    /// Configuration file [default: /etc/aizen/aizen.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find out what is wrong with this device's network
    #[command(
        after_help = "Example: aizen diagnose --offline\nExit: 0 healthy, 1 warning, 2 critical, 3 could not tell"
    )]
    Diagnose(diagnose::DiagnoseArgs),
    /// Interfaces: state, speed, rates, errors, addresses
    #[command(after_help = "Example: aizen links --watch 1")]
    Links(look::LookArgs),
    /// Routes of all tables, and policy rules
    #[command(after_help = "Example: aizen routes --json")]
    Routes(look::LookArgs),
    /// Neighbours on the links (ARP, NDP)
    #[command(after_help = "Example: aizen neighbours --watch 5")]
    Neighbours(look::LookArgs),
    /// Processors, memory, disks, temperature, pressure, connections; or delay while the line is loaded
    #[command(
        after_help = "Example: aizen perf --watch\nExample: aizen perf --load --to http://files.example.org/large.bin --up http://files.example.org/sink\nExit: 0; with --load 1 if a direction could not be measured, 2 wrong usage or unknown name"
    )]
    Perf(load::PerfArgs),
    /// Links, probes and findings, live on the whole screen
    #[command(after_help = "Example: aizen top -d 2\nKeys: q quit, p pause, ? help")]
    Top(top::TopArgs),
    /// Ask every configured resolver and named others side by side, and say where they differ
    #[command(
        after_help = "Example: aizen dns www.example.org AAAA @192.0.2.53#dns.example.org --udp --tls\nExit: 0 all answered alike, 1 one did not answer or they differ, 2 wrong usage"
    )]
    Dns(dns::DnsArgs),
    /// Ask one or many targets by ICMP echo: loss, delay, jitter, percentiles
    #[command(
        after_help = "Example: aizen ping -c 5 192.0.2.1 www.example.org\nExit: 0 every target answered, 1 some did not, 2 wrong usage, unknown name or no permission"
    )]
    Ping(ping::PingArgs),
    /// The way to a target, hop by hop, with loss, delay and the path MTU
    #[command(
        after_help = "Example: aizen trace --tcp=443 www.example.org\nExit: 0 the target was reached, 1 it was not, 2 wrong usage, unknown name or no permission"
    )]
    Trace(trace::TraceArgs),
    /// Which TCP ports of a host are open, closed or filtered
    #[command(
        after_help = "Example: aizen ports -p 22,80,443,8000-8010 192.0.2.1\nExit: 0 every port answered, 1 some did not, 2 wrong usage or unknown name"
    )]
    Ports(ports::PortsArgs),
    /// Daemon, uplink, spool, trust, isolation and the pending change
    #[command(
        after_help = "Example: aizen status --json\nExit: 0 both programs answer, 1 one does not"
    )]
    Status,
    /// The daemon's newest numbers, as Prometheus text or as JSON
    #[command(after_help = "Example: aizen metrics > /var/lib/prometheus/node-exporter/aizen.prom")]
    Metrics,
    /// Enrol this device with a one-time token (as root)
    #[command(
        after_help = "Example: aizen enroll --server https://cloud.example.org:8443 --token eyJ…"
    )]
    Enroll(enroll::EnrollArgs),
    /// The way to the orchestrator
    #[command(subcommand)]
    Uplink(status::UplinkCommand),
    /// Check a signed package, and say which check failed; runs nothing
    Verify(apply::FileArgs),
    /// Run a signed package in a shadow of this device, and show its effect
    Rehearse(apply::FileArgs),
    /// Verify, rehearse, ask, execute, confirm or roll back: on the spot, without an uplink
    #[command(
        after_help = "Example: aizen apply repair.json\nExit: 0 confirmed, 4 refused, 5 rolled back, 6 rollback incomplete"
    )]
    Apply(apply::ApplyArgs),
    /// The changes of this device
    #[command(subcommand)]
    Changes(changes::ChangesCommand),
    /// The last network that was known good, and what differs from it
    #[command(
        after_help = "Example: aizen rescue apply --yes\nExit: 0 done, 1 not everything could be put back or holds, 4 refused (a change is open)"
    )]
    Rescue(rescue::RescueArgs),
    /// What this kernel's sandbox gives; run a program in it
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Replace private values in a text by pseudonyms, as they would leave this device
    Sanitize(text::SanitizeArgs),
    /// No changes from anybody until resumed
    Pause,
    /// Changes again
    Resume,
    /// The unprivileged side: collect, sanitize, stream (started by the service manager)
    Daemon,
    /// The privileged side: verify, execute, roll back (started by its socket)
    Executor(serve::ExecutorArgs),
    /// Undo what a crash or power cut left open, before the network comes up (started early in boot)
    Recover,
}

/// The whole command line, for manual pages and completions.
#[must_use]
pub fn definition() -> clap::Command {
    Aizen::command()
}

/// Runs the program that argv names.
#[must_use]
pub fn main() -> ExitCode {
    aizen_sandbox::enter_if_asked();
    let mut words = std::env::args_os();
    let name = words.next().map(PathBuf::from).unwrap_or_default();
    if name.file_name().is_some_and(|n| n == "change") {
        return change::main(std::env::args_os());
    }
    match words.next() {
        Some(word) if word == crate::rehearse::SHADOW_WORD => crate::rehearse::shadow_main(),
        Some(word) if word == crate::keeper::KEEP_WORD => return serve::keep(),
        Some(_) | None => {}
    }
    let said = |wanted: &str| std::env::args_os().skip(1).any(|word| word == wanted);
    // Monitoring systems take 1 and 2 of a diagnosis for verdicts: whatever keeps it from one is 3.
    let diagnosis = said("diagnose");
    let aizen = match Aizen::try_parse() {
        Ok(aizen) => aizen,
        Err(error) => {
            // With standard error closed there is nobody left to tell.
            error.print().ok();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            if said("--json") {
                let text = error.to_string();
                exit::tell_json(text.trim().trim_start_matches("error: "));
            }
            return if diagnosis { exit::UNTOLD } else { exit::USAGE }.into();
        }
    };
    let json = aizen.json;
    match run(aizen) {
        Ok(code) => code,
        Err(error) => {
            let code = exit::complain(&error, json);
            if diagnosis { exit::UNTOLD.into() } else { code }
        }
    }
}

fn run(aizen: Aizen) -> anyhow::Result<ExitCode> {
    let config = Config::load(aizen.config.as_deref())?;
    let json = aizen.json;
    match aizen.command {
        Command::Daemon => return serve::daemon(config),
        Command::Executor(args) => return serve::executor(&config, &args),
        Command::Recover => return serve::recover(&config),
        Command::Sandbox(command) => return sandbox::run(command, json),
        Command::Sanitize(args) => return text::sanitize(&args, &config),
        Command::Ping(args) => return ping::run(&args, json),
        Command::Trace(args) => return trace::run(&args, json),
        Command::Ports(args) => return ports::run(&args, json),
        Command::Diagnose(_)
        | Command::Links(_)
        | Command::Routes(_)
        | Command::Neighbours(_)
        | Command::Perf(_)
        | Command::Top(_)
        | Command::Dns(_)
        | Command::Status
        | Command::Metrics
        | Command::Enroll(_)
        | Command::Uplink(_)
        | Command::Verify(_)
        | Command::Rehearse(_)
        | Command::Apply(_)
        | Command::Changes(_)
        | Command::Rescue(_)
        | Command::Pause
        | Command::Resume => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ask(aizen.command, json, &config))
}

/// Settings of a command that looks behind the read-only door: by itself where it may, else through the executor.
fn sighted(config: &Config) -> crate::collect::Settings {
    crate::collect::Settings {
        door: crate::collect::Door::find(&config.paths.executor_socket()),
        ..config.into()
    }
}

async fn ask(command: Command, json: bool, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Diagnose(args) => {
            diagnose::run(
                args,
                json,
                sighted(config),
                status::remembered(config).await,
                || crate::sanitize::Stage::open(config),
                &mut std::io::stdout().lock(),
            )
            .await
        }
        Command::Links(args) => look::run(Look::Links, &args, json, config.into()).await,
        Command::Routes(args) => look::run(Look::Routes, &args, json, config.into()).await,
        Command::Neighbours(args) => look::run(Look::Neighbours, &args, json, config.into()).await,
        Command::Perf(args) => load::run(&args, json, config.into()).await,
        Command::Top(args) => top::run(&args, sighted(config)).await,
        Command::Dns(args) => {
            let settings = crate::collect::Settings::from(config);
            dns::run(args, json, &settings, &mut std::io::stdout().lock()).await
        }
        Command::Status => status::status(config, json).await,
        Command::Metrics => metrics::metrics(config, json).await,
        Command::Enroll(args) => enroll::enroll(args, config, json).await,
        Command::Uplink(command) => status::uplink(&command, config).await,
        Command::Verify(args) => apply::verify(&args, config, json).await,
        Command::Rehearse(args) => apply::rehearse(&args, config, json).await,
        Command::Apply(args) => apply::apply(&args, config, json).await,
        Command::Changes(command) => changes::run(command, config, json).await,
        Command::Rescue(args) => rescue::run(args, config, json).await,
        Command::Pause => status::pause(config).await,
        Command::Resume => status::resume(config).await,
        Command::Sandbox(_)
        | Command::Sanitize(_)
        | Command::Ping(_)
        | Command::Trace(_)
        | Command::Ports(_)
        | Command::Daemon
        | Command::Executor(_)
        | Command::Recover => Ok(ExitCode::SUCCESS),
    }
}
