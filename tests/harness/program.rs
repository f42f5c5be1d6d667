//! A program that runs beside the test: its output in a file, itself gone when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// One running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it; standard output and error are appended to `log`.
    ///
    /// # Errors
    /// If the log can't be opened or the program can't be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("{}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can't start {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Everything it said.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    /// Its end, if it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("{} is gone", self.name))
    }

    /// Kills it as a power cut would (`SIGKILL`) and waits for its end.
    ///
    /// # Errors
    /// If it can't be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().ok();
        Ok(self.child.wait()?)
    }

    /// Asks it to end (`SIGTERM`).
    ///
    /// # Errors
    /// If it does not end within ten seconds.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM).ok();
        let name = self.name.clone();
        wait::until(&format!("{name} to end"), Duration::from_secs(10), || {
            self.ended()
        })
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// If the program ends before, or not within the time: with the end of what it said.
    pub fn wait_ready(&mut self, within: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let outcome = wait::until(&self.name.clone(), within, || match self.ended() {
            Some(status) => Some(Err(anyhow!("it ended with {status}"))),
            None => ready().then_some(Ok(())),
        });
        outcome.and_then(|inner| inner).with_context(|| {
            let said = self.said();
            let lines = said.lines().count();
            let tail: String = said
                .lines()
                .skip(lines.saturating_sub(20))
                .map(|line| format!("{line}\n"))
                .collect();
            format!("{} is not ready; it said:\n{tail}", self.name)
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM).ok();
            let gone = wait::until(&self.name.clone(), Duration::from_secs(3), || self.ended());
            if gone.is_err() {
                self.kill().ok();
            }
        }
    }
}
