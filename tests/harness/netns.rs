//! A network namespace with a name, made with ip-netns(8), deleted when dropped.

use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shell;

/// One namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace and brings its loopback up.
    ///
    /// # Errors
    /// If ip(8) refuses: not root, or a kernel without namespaces.
    pub fn new(name: String) -> Result<Self> {
        shell::line(&format!("ip netns add {name}"))
            .context("making a network namespace needs root and iproute2")?;
        let made = Self { name };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip WORDS` in it.
    ///
    /// # Errors
    /// As [`shell::run`].
    pub fn ip(&self, words: &str) -> Result<String> {
        shell::line(&format!("ip -n {} {words}", self.name))
    }

    /// Sets a kernel parameter in it.
    ///
    /// # Errors
    /// As [`shell::run`].
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        shell::run(self.command("sh").args([
            "-c",
            "printf %s \"$1\" > \"$2\"",
            "sh",
            value,
            &path,
        ]))?;
        Ok(())
    }

    /// Kills what still runs in it (`ip netns pids`).
    pub fn clear(&self) {
        let pids = shell::line(&format!("ip netns pids {}", self.name)).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.trim().parse().ok()) {
            // It may have ended in the meantime.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }

    /// A command that will run in it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Nothing is left to do with a failure here; the next run's names are others.
        drop(shell::line(&format!("ip netns delete {}", self.name)));
    }
}

/// Joins two namespaces with a cable: an interface name in each, and their addresses.
///
/// # Errors
/// As [`shell::run`].
pub fn cable(a: (&Netns, &str, &str), b: (&Netns, &str, &str)) -> Result<()> {
    shell::line(&format!(
        "ip link add {} netns {} type veth peer name {} netns {}",
        a.1,
        a.0.name(),
        b.1,
        b.0.name()
    ))?;
    for (netns, dev, address) in [a, b] {
        netns.ip(&format!("address add {address} dev {dev}"))?;
        netns.ip(&format!("link set {dev} up"))?;
    }
    Ok(())
}
