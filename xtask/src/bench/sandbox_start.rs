//! From "start it" to "it ended" for `sh -c true`: bare, in our sandbox, in bubblewrap, taking turns.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use aizen_sandbox::Profile;
use anyhow::{Context as _, Result};

/// Turns; the median of each is told.
const TURNS: usize = 100;

pub(super) fn rows(helper: &Path) -> Result<String> {
    let (mut bare, mut ours, mut bwrap) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        bare.push(timed(|| {
            ended(Command::new("/bin/sh").args(["-c", "true"]))
        })?);
        ours.push(timed(|| sandboxed(helper))?);
        bwrap.push(timed(|| {
            ended(Command::new("bwrap").args([
                "--unshare-all",
                "--ro-bind",
                "/usr",
                "/usr",
                "--symlink",
                "usr/bin",
                "/bin",
                "--symlink",
                "usr/lib",
                "/lib",
                "--symlink",
                "usr/lib64",
                "/lib64",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "--tmpfs",
                "/tmp",
                "/bin/sh",
                "-c",
                "true",
            ]))
        })?);
    }
    let [bare, ours, bwrap] = [bare, ours, bwrap].map(median);
    let row = |name: &str, peer: Duration| {
        format!(
            "| start to end of a sandboxed `true`, beside {name} | {ours:.2?} | {peer:.2?} | {:.2} |\n",
            ours.as_secs_f64() / peer.as_secs_f64()
        )
    };
    Ok(format!(
        "{}{}",
        row("bare `sh -c true`", bare),
        row("`bwrap --unshare-all`", bwrap)
    ))
}

fn sandboxed(helper: &Path) -> Result<()> {
    let profile = Profile {
        helper: helper.to_owned(),
        min_level: 1,
        ..Profile::new("/bin/sh", &b"true\n"[..])
    };
    aizen_sandbox::run(profile, &AtomicBool::new(false)).context("the sandbox did not run")?;
    Ok(())
}

fn ended(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("can't start {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
