//! The fixed network of demo and end-to-end tests; below it the lab of scenarios, whose networks are files.
//!
//! ```text
//!   lan ── lan0 [ device ] wan ── cpe [ isp ] ─┬─ dns1   first resolver
//!                                              ├─ dns2   second resolver
//!                                              └─ cloud  orchestrator
//! ```

pub mod draw;
pub mod needs;
pub mod recorded;
pub mod repair;
pub mod run;
pub mod scenario;
pub mod score;
pub mod stage;
pub mod verdict;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::netns::{Netns, cable};
use crate::program::Program;
use crate::{packages, shell, wait};

/// Name that the resolvers know the cloud by.
pub const CLOUD_NAME: &str = "cloud.aizen.test";
/// A name that has nothing to do with us.
pub const OTHER_NAME: &str = "www.example.test";
/// The cloud.
pub const CLOUD: &str = "203.0.113.10";
/// The provider's router, as the device sees it.
pub const GATEWAY: &str = "10.83.7.1";
/// The device towards the provider.
pub const WAN: &str = "10.83.7.2";
/// The host on the LAN.
pub const LAN_HOST: &str = "192.168.77.10";
/// The first resolver.
pub const DNS1: &str = "10.53.1.53";
/// The second resolver.
pub const DNS2: &str = "10.53.2.53";

/// The namespaces and the servers in them.
#[derive(Debug)]
pub struct Lab {
    // Programs first: they end before their namespaces go.
    resolvers: [Option<Program>; 2],
    /// The router under test.
    pub device: Netns,
    /// A host behind it.
    pub lan: Netns,
    /// The provider.
    pub isp: Netns,
    /// First and second resolver.
    pub dns: [Netns; 2],
    /// The cloud.
    pub cloud: Netns,
    folder: TempDir,
}

impl Lab {
    /// Lays out the network and starts the resolvers.
    ///
    /// # Errors
    /// If this is not root, a package is missing, or the kernel lacks namespaces or veth.
    pub fn lay_out() -> Result<Self> {
        packages::ensure(&mut |_| {})?;
        let folder = tempfile::Builder::new().prefix("aizen-lab-").tempdir()?;
        let mark = folder
            .path()
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or("lab")
            .trim_start_matches("aizen-lab-")
            .to_owned();
        let netns = |role: &str| Netns::new(format!("az{mark}-{role}"));
        let lab = Self {
            resolvers: [None, None],
            device: netns("dev")?,
            lan: netns("lan")?,
            isp: netns("isp")?,
            dns: [netns("dns1")?, netns("dns2")?],
            cloud: netns("cloud")?,
            folder,
        };
        lab.join()?;
        let mut lab = lab;
        for which in [0, 1] {
            lab.start_resolver(which)?;
        }
        Ok(lab)
    }

    /// A folder that goes with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn join(&self) -> Result<()> {
        cable(
            (&self.device, "wan", "10.83.7.2/24"),
            (&self.isp, "cpe", "10.83.7.1/24"),
        )?;
        cable(
            (&self.device, "lan0", "192.168.77.1/24"),
            (&self.lan, "eth0", "192.168.77.10/24"),
        )?;
        cable(
            (&self.isp, "dns1", "10.53.1.1/24"),
            (&self.dns[0], "eth0", "10.53.1.53/24"),
        )?;
        cable(
            (&self.isp, "dns2", "10.53.2.1/24"),
            (&self.dns[1], "eth0", "10.53.2.53/24"),
        )?;
        cable(
            (&self.isp, "cloud", "203.0.113.1/24"),
            (&self.cloud, "eth0", "203.0.113.10/24"),
        )?;
        self.device.ip(&format!(
            "route add default via {GATEWAY} dev wan proto static"
        ))?;
        self.lan.ip("route add default via 192.168.77.1")?;
        self.dns[0].ip("route add default via 10.53.1.1")?;
        self.dns[1].ip("route add default via 10.53.2.1")?;
        self.cloud.ip("route add default via 203.0.113.1")?;
        self.isp.ip("route add 192.168.77.0/24 via 10.83.7.2")?;
        for router in [&self.device, &self.isp] {
            router.sysctl("net.ipv4.ip_forward", "1")?;
        }
        self.device
            .sysctl("net.ipv4.ping_group_range", "0 2147483647")
    }

    /// Starts a resolver (0 or 1) if it does not run.
    ///
    /// # Errors
    /// If dnsmasq does not start.
    pub fn start_resolver(&mut self, which: usize) -> Result<()> {
        let address = [DNS1, DNS2][which];
        let mut command = self.dns[which].command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--log-facility=-",
            "--user=nobody",
            "--bind-interfaces",
            "--local=/test/",
            &format!(
                "--pid-file={}",
                self.folder().join(format!("dns{which}.pid")).display()
            ),
            &format!("--listen-address={address}"),
            &format!("--address=/{CLOUD_NAME}/{CLOUD}"),
            &format!("--address=/{OTHER_NAME}/198.51.100.80"),
        ]);
        let mut program = Program::start(
            "dnsmasq",
            &mut command,
            &self.folder().join(format!("dns{which}.log")),
        )?;
        program.wait_ready(Duration::from_secs(10), || listens_udp_53(&self.dns[which]))?;
        self.resolvers[which] = Some(program);
        Ok(())
    }

    /// The running resolver (0 or 1).
    ///
    /// # Errors
    /// If it was stopped.
    pub fn resolver(&mut self, which: usize) -> Result<&mut Program> {
        self.resolvers[which]
            .as_mut()
            .context("this resolver does not run")
    }

    /// Ends a resolver (0 or 1): from here on nothing listens at its address.
    pub fn stop_resolver(&mut self, which: usize) {
        self.resolvers[which] = None;
    }

    /// Waits until the cloud answers the device's echo.
    ///
    /// # Errors
    /// If it does not within five seconds.
    pub fn wait_connected(&self) -> Result<()> {
        wait::until("the lab's links", Duration::from_secs(5), || {
            shell::run(self.device.command("ip").args(["route", "get", CLOUD])).ok()
        })?;
        Ok(())
    }
}

fn listens_udp_53(netns: &Netns) -> bool {
    // Port 53 is 0035 in /proc/net/udp.
    shell::run(netns.command("cat").arg("/proc/net/udp"))
        .is_ok_and(|table| table.contains(":0035 "))
}
