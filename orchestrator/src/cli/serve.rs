//! `init` and `serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use super::{print, print_json};
use crate::app;
use crate::config::Settings;
use crate::data::DataDir;

#[derive(Args)]
pub(super) struct Init {
    /// A name or address under which devices and people reach the server; repeat for more.
    #[arg(long = "name", value_name = "HOST", required = true)]
    names: Vec<String>,
}

#[derive(Args)]
pub(super) struct Serve {
    /// The signed trust document; without it, the one of the last start.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Address and port; over the configuration's.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// One more name in the server's certificate; repeat for more.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Settings (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Init {
    pub(super) fn run(self, data: Option<&Path>, json: bool) -> anyhow::Result<()> {
        let directory = required(data)?;
        let data = DataDir::at(directory);
        data.init(&self.names)?;
        if json {
            return print_json(&json!({
                "data": directory,
                "public_key": data.public_key(),
                "ca": data.ca_certificate(),
                "admin_token": data.admin_token(),
            }));
        }
        print(&format!(
            "initialised {}\n  CA certificate: {}\n  signing key, public half: {}\nNext: name that key in a trust document ('trust new --orchestrator {}').\n",
            directory.display(),
            data.ca_certificate().display(),
            data.public_key().display(),
            data.public_key().display(),
        ))
    }
}

impl Serve {
    pub(super) fn run(self, data: Option<&Path>) -> anyhow::Result<()> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        let data = DataDir::at(required(data)?);
        let mut settings = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        settings.listen = self.listen.unwrap_or(settings.listen);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.until_told(&data, settings))
    }

    async fn until_told(self, data: &DataDir, settings: Settings) -> anyhow::Result<()> {
        let mut terminated = signal(SignalKind::terminate()).context("can't watch for SIGTERM")?;
        let running = app::start(data, settings, self.trust.as_deref(), &self.names).await?;
        print(&format!("listening on {}\n", running.url))?;
        tokio::select! {
            _ = terminated.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted.context("can't watch for Ctrl-C")?,
        }
        tracing::info!("stopping");
        Ok(running.stop().await?)
    }
}

fn required(data: Option<&Path>) -> Result<&Path, Failure> {
    data.ok_or_else(|| Failure::Usage("name the data directory: --data DIR".into()))
}
