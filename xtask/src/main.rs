//! The developer's commands: `cargo xtask demo | lab | test | fuzz | pages | check | bench | soak`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build;
mod demo;
mod fuzz;
mod lab;
mod pages;
mod soak;
mod test;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole loop on real faults, in a network lab on this machine
    Demo(demo::DemoArgs),
    /// Faults made on purpose, and what the device says of them
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// Every test; installs the Debian packages that they need
    Test(test::TestArgs),
    /// Every decoder of foreign bytes under cargo-fuzz
    Fuzz(fuzz::FuzzArgs),
    /// Manual pages and shell completions of both programs, for packages
    Pages(pages::PagesArgs),
    /// Format and lints, as CI runs them
    Check,
    /// Measure against peers, in one run; prints the README's table
    Bench(bench::BenchArgs),
    /// Long trials: faults at every call, every step undone, power cuts, kernels
    #[command(subcommand)]
    Soak(soak::SoakCommand),
}

fn main() -> ExitCode {
    let done = match Xtask::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Lab(command) => lab::run(&command),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Pages(args) => pages::run(&args),
        Command::Check => check(),
        Command::Bench(args) => bench::run(&args),
        Command::Soak(command) => soak::run(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "a developer's command speaks on the terminal"
            )]
            {
                eprintln!("xtask: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    build::cargo(&["fmt", "--check"])?;
    build::cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])
}
