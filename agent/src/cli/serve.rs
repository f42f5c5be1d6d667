//! The programs that the service manager starts: `aizen daemon`, `executor` and `recover`.

use std::io;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Config;
use crate::{control, daemon, executor, keeper, recover};

/// Without work for so long an executor that its socket started ends: the next request starts it again.
const IDLE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct ExecutorArgs {
    /// Open the socket itself, where there is no service manager that does
    #[arg(long)]
    listen: bool,
}

pub(super) fn daemon(config: Config) -> anyhow::Result<ExitCode> {
    log();
    runtime()?.block_on(daemon::run(config))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn executor(config: &Config, args: &ExecutorArgs) -> anyhow::Result<ExitCode> {
    log();
    need_root()?;
    let handed = inherited()?;
    let (listener, idle) = match handed {
        Some(listener) => (listener, Some(IDLE)),
        None if args.listen => {
            let path = config.paths.executor_socket();
            (
                control::listen(&path, 0o666)
                    .with_context(|| format!("can't listen on {}", path.display()))?,
                None,
            )
        }
        None => bail!(
            "no socket was handed over: systemd does it (aizen-executor.socket), or say --listen"
        ),
    };
    let settings = executor::Settings::from(config);
    runtime()?.block_on(executor::run(settings, listener, idle))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn recover(config: &Config) -> anyhow::Result<ExitCode> {
    log();
    need_root()?;
    runtime()?.block_on(recover::run(executor::Settings::from(config)))?;
    Ok(ExitCode::SUCCESS)
}

/// The second keeper of a deadline, which the executor starts.
pub(super) fn keep() -> ExitCode {
    log();
    match keeper::main() {
        Ok(end) => {
            tracing::debug!(?end, "a keeper ends");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "no second keeper");
            ExitCode::FAILURE
        }
    }
}

fn need_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this program changes the device and needs root; 'aizen diagnose' does not");
    }
    Ok(())
}

/// The socket that the service manager opened (sd_listen_fds(3)).
fn inherited() -> anyhow::Result<Option<UnixListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    if handed.len() > 1 {
        bail!("more than one socket was handed over: aizen-executor.socket names one");
    }
    let listener = handed
        .take_unix_listener(0)
        .context("what the service manager handed over is no listening socket")?;
    if let Some(listener) = &listener {
        listener.set_nonblocking(true)?;
    }
    Ok(listener)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
}

/// To the journal where standard error is connected to it (systemd.exec(5)), to standard error elsewhere.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal).init(),
        None => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(io::stderr)
                    // Whoever read it may be gone with the login; to complain there would end this program.
                    .log_internal_errors(false)
                    .with_ansi(false),
            )
            .init(),
    }
}
