//! `cargo xtask test`: packages, programs, then every test.

use std::process::Command;

use anyhow::Result;
use clap::Args;
use harness::packages;

use crate::build;

#[derive(Args)]
pub(crate) struct TestArgs {
    /// What is passed on to the test runner, for example a test's name
    #[arg(trailing_var_arg = true)]
    filter: Vec<String>,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    #[expect(
        clippy::print_stderr,
        reason = "a developer's command speaks on the terminal"
    )]
    packages::ensure(&mut |line| eprintln!("{line}"))?;
    build::programs()?;
    let nextest = Command::new("cargo-nextest")
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success());
    let runner: &[&str] = if nextest {
        &["nextest", "run", "--workspace"]
    } else {
        &["test", "--workspace"]
    };
    let filter = args.filter.iter().map(String::as_str);
    build::cargo(&runner.iter().copied().chain(filter).collect::<Vec<_>>())
}
