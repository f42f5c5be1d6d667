//! `aizen dns`: asks every configured resolver and those named, side by side, and says where they differ.

mod compare;
mod plan;
mod screen;
mod survey;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::plan::Plan;
use super::exit;
use crate::collect::Settings;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub struct DnsArgs {
    /// What to ask for: a name or an address, a type (A if none is given), servers as @ADDRESS[:PORT][#NAME]
    #[arg(required = true, value_name = "NAME [TYPE] [@SERVER]…")]
    words: Vec<String>,
    /// Over UDP; the default
    #[arg(long)]
    udp: bool,
    /// Over TCP
    #[arg(long)]
    tcp: bool,
    /// Over TLS; the certificate must be for NAME, or for the name in @ADDRESS#NAME
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    tls: Option<Option<String>>,
    /// Over HTTPS at this URL, or at https://SERVER/dns-query of each server
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true)]
    https: Option<Option<String>>,
    /// Over all four
    #[arg(long)]
    all: bool,
    /// Ask for signatures, too
    #[arg(long)]
    dnssec: bool,
    /// Ask only the servers named with @, not those of this device
    #[arg(long)]
    only: bool,
    /// Ask so often
    #[arg(short = 'c', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Keep so many questions under way at once
    #[arg(short = 'q', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: u16,
    /// Seconds between an answer and the next question
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "0.1", value_parser = seconds)]
    interval: Duration,
    /// Seconds to wait for each answer
    #[arg(short = 'W', long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|s: &f64| (0.0..=60.0).contains(s))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "0 to 60 seconds are taken".to_owned())
}

/// Runs the command. Exit code: 0 all answered alike, 1 one did not answer or they differ, 2 wrong usage.
///
/// # Errors
/// If `out` can't be written.
pub async fn run(
    args: DnsArgs,
    json: bool,
    settings: &Settings,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let plan = match Plan::new(&args, settings).await {
        Ok(plan) => plan,
        Err(wrong) => {
            return Ok(exit::refuse(&wrong, json, wrong.code()));
        }
    };
    let told = survey::ask_all(&plan).await;
    let differences = compare::differences(&told);
    if json {
        super::show::json(out, &screen::object(&plan, &told, &differences))?;
    } else {
        screen::write(out, &told, &differences)?;
    }
    out.flush()?;
    Ok(if differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        exit::FAILED.into()
    })
}
