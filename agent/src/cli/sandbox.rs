//! `aizen sandbox check` and `aizen sandbox run`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aizen_protocol::package::manifest::{Class, Manifest};
use aizen_protocol::{limit, strict};
use aizen_sandbox::{End, Finished, Limits, Profile, ReadBind};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{exit, show};

#[derive(Debug, Subcommand)]
pub(super) enum SandboxCommand {
    /// What this kernel gives, found by trying
    Check,
    /// Run a program under a manifest of class 'diagnose' (as root)
    #[command(
        after_help = "Example: aizen sandbox run --manifest look.json -- cat /etc/resolv.conf"
    )]
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The manifest (JSON)
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

pub(super) fn run(command: SandboxCommand, as_json: bool) -> anyhow::Result<ExitCode> {
    match command {
        SandboxCommand::Check => check(as_json),
        SandboxCommand::Run(args) => run_program(&args, as_json),
    }
}

fn check(as_json: bool) -> anyhow::Result<ExitCode> {
    let isolation = crate::execute::attempt::isolation(aizen_sandbox::check());
    let mut out = io::stdout().lock();
    if as_json {
        show::json(&mut out, &isolation)?
    } else {
        show::isolation(&mut out, &isolation)?
    }
    Ok(if isolation.level == 0 {
        exit::FAILED.into()
    } else {
        ExitCode::SUCCESS
    })
}

fn run_program(args: &RunArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("building a sandbox needs root: run it with sudo");
    }
    let text = std::fs::read(&args.manifest)
        .with_context(|| format!("can't read {}", args.manifest.display()))?;
    let manifest: Manifest = strict::from_slice(&text, limit::ENVELOPE)
        .with_context(|| format!("{} is no manifest", args.manifest.display()))?;
    if manifest.class != Class::Diagnose || !manifest.is_bounded() {
        bail!(
            "{}: only a manifest of class 'diagnose' within its bounds is run by hand",
            args.manifest.display()
        );
    }
    let finished = aizen_sandbox::run(profile(&manifest, &args.program), &AtomicBool::new(false))?;
    tell(&finished, as_json)
}

fn profile(manifest: &Manifest, program: &[String]) -> Profile {
    let words: Vec<String> = program
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
        .collect();
    let bind = |path: &String| ReadBind {
        source: path.into(),
        target: path.into(),
    };
    Profile {
        reads: manifest.read.iter().map(bind).collect(),
        limits: Limits {
            memory_bytes: u64::from(manifest.limits.memory_mib) << 20,
            processes: manifest.limits.processes,
            output_bytes: (manifest.limits.output_kib as usize) << 10,
            scratch_bytes: u64::from(manifest.limits.scratch_mib) << 20,
            cpu_seconds: manifest.limits.cpu_s,
        },
        timeout: Duration::from_secs(manifest.timeout_s.into()),
        min_level: manifest.min_isolation,
        ..Profile::new("/bin/sh", format!("exec {}\n", words.join(" ")))
    }
}

fn tell(finished: &Finished, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if as_json {
        let isolation = crate::execute::attempt::isolation(finished.isolation.clone());
        let output = String::from_utf8_lossy(&finished.output);
        let took = u64::try_from(finished.took.as_millis()).unwrap_or(u64::MAX);
        show::json(
            &mut out,
            &json!({"end": format!("{:?}", finished.end), "took_ms": took, "output": output, "output_bytes": finished.output_bytes,
                    "leftover_processes": finished.leftover_processes, "isolation": isolation}),
        )?;
    } else {
        out.write_all(&finished.output)?;
    }
    Ok(match finished.end {
        End::Exited(code) => u8::try_from(code).unwrap_or(exit::FAILED).into(),
        End::Signalled(_) | End::TimedOut | End::Cancelled => exit::FAILED.into(),
    })
}
