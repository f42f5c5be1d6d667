//! `aizen enroll`: makes the keys, enrols, pins the trust document.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::show;
use crate::config::Config;
use crate::enroll::{self, Settings};
use crate::identity::Layout;
use crate::stream::dial::{Patience, Server};

#[derive(Debug, Args)]
pub(super) struct EnrollArgs {
    /// The orchestrator, for example https://cloud.example.org:8443
    #[arg(long, value_name = "URL")]
    server: Server,
    /// The one-time token
    #[arg(long, env = "AIZEN_TOKEN", hide_env_values = true)]
    token: String,
    /// The CA, if the orchestrator does not send it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Replace an enrollment: the device gets another name, old packages die
    #[arg(long)]
    force: bool,
}

pub(super) async fn enroll(
    args: EnrollArgs,
    config: &Config,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("enrolling writes the keys of both programs: run it as root");
    }
    let settings = Settings {
        server: args.server,
        token: args.token,
        ca: args.ca,
        layout: Layout::new(&config.paths.state),
        user: config.user.clone(),
        force: args.force,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        patience: Patience::default(),
    };
    let device = enroll::enroll(&settings).await?;
    let mut out = io::stdout().lock();
    if as_json {
        show::json(&mut out, &device)?;
    } else {
        writeln!(out, "Enrolled as {} at {}", device.device, device.server)?;
    }
    Ok(ExitCode::SUCCESS)
}
