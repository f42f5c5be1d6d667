//! A topology as it stands: namespaces, cables, servers and the device, under the names of this run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::draw::Draw;
use super::scenario::{self, Cable, Expect, HOME, Scenario, Step, Topology};
use crate::cloud::Cloud;
use crate::device::Device;
use crate::disk;
use crate::netns::Netns;
use crate::program::Program;
use crate::{packages, shell, wait};

/// Longest time that a network takes to work, or a fault to show.
const SETTLES: Duration = Duration::from_secs(60);
/// The host with the cloud's address: of its own, or the one for all servers.
const CLOUDS: [&str; 2] = ["cloud", "net"];
/// The place that is no host.
const OUTSIDE: &str = "outside";

/// Everything that a scenario runs in. It is gone when dropped.
#[derive(Debug)]
pub struct Stage {
    // Programs end before their namespaces go.
    programs: BTreeMap<String, Program>,
    /// The device under test.
    pub device: Device,
    cloud: Option<Cloud>,
    hosts: BTreeMap<String, Netns>,
    undo: Vec<String>,
    /// What the placeholders stand for.
    pub draw: Draw,
    kept: bool,
    folder: TempDir,
}

impl Stage {
    /// Lays a scenario out, starts its servers and waits until it works. The fault is not there yet.
    ///
    /// # Errors
    /// If a command fails or the network does not settle; with the command.
    pub fn lay_out(scenario: &Scenario, seed: u64) -> Result<Self> {
        packages::ensure(&mut |_| {})?;
        let topology = scenario::topology(&scenario.topology)?;
        if scenario.steps().any(|step| step.place == OUTSIDE) {
            disk::own_mounts()?;
        }
        let folder = tempfile::Builder::new().prefix("aizen-lab-").tempdir()?;
        let draw = draw(&topology, seed, folder.path())?;
        let hosts = make_hosts(&topology, &draw)?;
        for cable in &topology.cables {
            lay(cable, &hosts, &draw)?;
        }
        let device = furnish(scenario, &topology, &hosts, &draw, folder.path())?;
        let mut stage = Self {
            programs: BTreeMap::new(),
            device,
            cloud: None,
            hosts,
            undo: Vec::new(),
            draw,
            kept: false,
            folder,
        };
        stage.perform(&topology.setup)?;
        stage.perform(&scenario.setup)?;
        stage.settle(&topology.settle)?;
        Ok(stage)
    }

    /// Makes the fault and waits until it shows.
    ///
    /// # Errors
    /// As [`Stage::lay_out`].
    pub fn inject(&mut self, scenario: &Scenario) -> Result<()> {
        self.perform(&scenario.inject)?;
        self.settle(&scenario.settle)
    }

    /// Does what a person does once a repair is confirmed.
    ///
    /// # Errors
    /// If a step fails; with the step.
    pub fn follow_up(&mut self, expect: &Expect) -> Result<()> {
        self.perform(&expect.after)
    }

    /// Starts the daemon, where it does not run yet, and waits until it has looked twice.
    ///
    /// # Errors
    /// If it does not.
    pub fn watch(&mut self) -> Result<()> {
        if self.cloud.is_none() {
            self.device.start_daemon()?;
        }
        self.device
            .wait_rounds()
            .with_context(|| self.device.said())
    }

    /// Starts the cloud in the host that has its address, enrols the device and starts its programs.
    ///
    /// # Errors
    /// If a part does not come up, or the topology has no such host.
    pub fn enrol(&mut self) -> Result<String> {
        let netns = CLOUDS
            .iter()
            .find_map(|host| self.hosts.get(*host))
            .context("this topology has no cloud")?;
        let (name, address) = (self.draw.value("cloud_name")?, self.draw.value("cloud")?);
        let cloud = Cloud::start_in(netns, self.folder.path(), name, address)?;
        let said = self.device.enroll(&cloud)?;
        let id = said
            .strip_prefix("Enrolled as ")
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no name in: {said}"))?
            .to_owned();
        self.cloud = Some(cloud);
        self.device.start()?;
        self.device
            .wait_connected(Duration::from_secs(20))
            .with_context(|| self.device.said())?;
        Ok(id)
    }

    /// The cloud, once it runs.
    ///
    /// # Errors
    /// If it does not.
    pub fn cloud(&self) -> Result<&Cloud> {
        self.cloud.as_ref().context("the cloud was not started")
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves everything where it is, its programs running.
    pub fn keep(&mut self) {
        self.kept = true;
        self.folder.disable_cleanup(true);
    }

    /// A shell in a host.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn shell(&self, place: &str, line: &str) -> Result<Command> {
        let mut command = match place {
            "device" => self.device.command("sh"),
            OUTSIDE => Command::new("sh"),
            host => self
                .hosts
                .get(host)
                .with_context(|| format!("no host '{host}' in this topology"))?
                .command("sh"),
        };
        command.args(["-ec", line]);
        Ok(command)
    }

    fn perform(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            self.step(step).with_context(|| format!("{step:?}"))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        if let Some(undo) = &step.undo {
            self.undo.push(self.draw.fill(undo)?);
        }
        if let Some(line) = &step.run {
            shell::run(&mut self.shell(&step.place, &self.draw.fill(line)?)?)?;
        } else if let Some(line) = &step.start {
            self.start(step, &self.draw.fill(line)?)?;
        } else if let Some(name) = &step.stop {
            self.programs
                .remove(name)
                .with_context(|| format!("'{name}' does not run"))?;
        } else if let Some(name) = &step.freeze {
            let program = self.programs.get(name);
            program
                .with_context(|| format!("'{name}' does not run"))?
                .signal(Signal::SIGSTOP)?;
        }
        Ok(())
    }

    fn start(&mut self, step: &Step, line: &str) -> Result<()> {
        let name = step
            .name
            .clone()
            .unwrap_or_else(|| format!("{} {}", step.place, self.programs.len()));
        let log = self
            .folder
            .path()
            .join(format!("{}.log", name.replace(' ', "-")));
        let mut program = Program::start(&name, &mut self.shell(&step.place, line)?, &log)?;
        let mut bound = |port: u16, files: &str| -> Result<()> {
            let wanted = format!(":{port:04X} ");
            program.wait_ready(SETTLES, || {
                let table = self.shell(&step.place, &format!("cat {files}"));
                table
                    .and_then(|mut command| shell::run(&mut command))
                    .is_ok_and(|table| table.contains(&wanted))
            })
        };
        match (step.udp, step.tcp) {
            (Some(port), _) => bound(port, "/proc/net/udp /proc/net/udp6")?,
            (None, Some(port)) => bound(port, "/proc/net/tcp /proc/net/tcp6")?,
            (None, None) => {}
        }
        self.programs.insert(name, program);
        Ok(())
    }

    fn settle(&self, steps: &[Step]) -> Result<()> {
        for step in steps {
            let line = self
                .draw
                .fill(step.run.as_deref().context("settling runs")?)?;
            let mut last = String::new();
            let shown = wait::until(&format!("'{line}'"), SETTLES, || {
                let tried = shell::output(&mut self.shell(&step.place, &line).ok()?).ok()?;
                last = String::from_utf8_lossy(&tried.stderr).into_owned();
                tried.status.success().then_some(())
            });
            if let Err(error) = shown {
                bail!("{error:#}: {last}\n{}", self.said());
            }
        }
        Ok(())
    }

    /// What the servers said, the last lines of each.
    #[must_use]
    pub fn said(&self) -> String {
        let last = |text: &str| {
            let skipped = text.lines().count().saturating_sub(3);
            text.lines()
                .skip(skipped)
                .map(|line| format!("  {line}\n"))
                .collect::<String>()
        };
        self.programs
            .iter()
            .map(|(name, program)| format!("{name}:\n{}", last(&program.said())))
            .collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.kept {
            std::mem::forget(std::mem::take(&mut self.programs));
            std::mem::forget(std::mem::take(&mut self.hosts));
            return;
        }
        for line in self.undo.iter().rev() {
            // What can't be undone here goes with the mounts of this thread.
            drop(shell::run(Command::new("sh").args(["-c", line])));
        }
        self.programs.clear();
        // Children of servers, and what went on in the background: only in namespaces of this stage.
        for netns in self.hosts.values() {
            netns.clear();
        }
    }
}

impl Scenario {
    fn steps(&self) -> impl Iterator<Item = &Step> {
        let after = self.expect.iter().flat_map(|expect| &expect.after);
        self.setup
            .iter()
            .chain(&self.inject)
            .chain(&self.settle)
            .chain(after)
    }
}

/// Names and addresses for every placeholder of a topology.
fn draw(topology: &Topology, seed: u64, folder: &Path) -> Result<Draw> {
    let mut draw = Draw::new(seed);
    for name in &topology.names {
        draw.name(name)?;
    }
    for (key, net) in &topology.nets {
        draw.net(key, net.range, &net.hosts)?;
    }
    draw.set("folder", folder.display().to_string())?;
    draw.set("etc", folder.join("device/etc").display().to_string())?;
    draw.set("stand_ins", format!("{HOME}/stand_ins"))?;
    let mark = scenario::stem(folder);
    let mark = mark.trim_start_matches("aizen-lab-");
    for host in &topology.hosts {
        draw.set(&format!("{host}.ns"), format!("az{mark}-{host}"))?;
    }
    let cables = topology.cables.iter().flat_map(|cable| &cable.ends);
    for end in cables.chain(&topology.interfaces) {
        let (host, interface) = ends(end)?;
        draw.interface(host, interface)?;
    }
    Ok(draw)
}

fn make_hosts(topology: &Topology, draw: &Draw) -> Result<BTreeMap<String, Netns>> {
    let mut hosts = BTreeMap::new();
    for host in &topology.hosts {
        let netns = Netns::new(draw.value(&format!("{host}.ns"))?.to_owned())?;
        netns.sysctl("net.ipv4.ping_group_range", "0 2147483647")?;
        hosts.insert(host.clone(), netns);
    }
    Ok(hosts)
}

fn ends(end: &str) -> Result<(&str, &str)> {
    end.split_once(' ')
        .with_context(|| format!("an end of a cable is 'HOST INTERFACE', not '{end}'"))
}

fn lay(cable: &Cable, hosts: &BTreeMap<String, Netns>, draw: &Draw) -> Result<()> {
    let mut parts = Vec::new();
    for (end, addresses) in cable.ends.iter().zip(&cable.addresses) {
        let (host, interface) = ends(end)?;
        let netns = hosts
            .get(host)
            .with_context(|| format!("no host '{host}'"))?;
        let mac = draw.value(&format!("{interface}.mac"))?;
        parts.push((netns, draw.value(interface)?, mac, draw.fill(addresses)?));
    }
    let [a, b] = &parts[..] else {
        bail!("a cable has two ends");
    };
    shell::line(&format!(
        "ip link add {} address {} netns {} type veth peer name {} address {} netns {}",
        a.1,
        a.2,
        a.0.name(),
        b.1,
        b.2,
        b.0.name()
    ))?;
    for (netns, interface, _, addresses) in &parts {
        for address in addresses.split_whitespace() {
            let detection = if address.contains(':') { " nodad" } else { "" };
            netns.ip(&format!("address add {address} dev {interface}{detection}"))?;
        }
        netns.ip(&format!("link set {interface} up"))?;
    }
    Ok(())
}

fn furnish(
    scenario: &Scenario,
    topology: &Topology,
    hosts: &BTreeMap<String, Netns>,
    draw: &Draw,
    folder: &Path,
) -> Result<Device> {
    let resolvers = scenario.resolvers.as_ref().unwrap_or(&topology.resolvers);
    let lines: String = resolvers
        .iter()
        .map(|resolver| format!("nameserver {resolver}\n"))
        .collect();
    let resolv = draw.fill(&format!("{lines}options timeout:1 attempts:1\n"))?;
    let mut config = topology.config.clone();
    // The clock is this machine's, and so is whoever keeps it.
    let probe = toml::toml! { probe = { kernel_clock = false } };
    overlay(&mut config, &probe);
    overlay(&mut config, &scenario.config);
    let config = draw.fill(&toml::to_string(&config)?)?;
    let netns = hosts.get("device").context("a topology has a device")?;
    Device::secluded(netns.name(), folder, &resolv, &config)
}

/// Lays one table over another, table by table.
fn overlay(under: &mut toml::Table, over: &toml::Table) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            _ => drop(under.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_every_scenario_stands_for_something() {
        for scenario in scenario::all().unwrap() {
            let topology = scenario::topology(&scenario.topology).unwrap();
            let draw = draw(&topology, 3, Path::new("/tmp/aizen-lab-x")).unwrap();
            let steps = topology
                .setup
                .iter()
                .chain(&topology.settle)
                .chain(scenario.steps());
            let mut texts: Vec<String> = steps
                .flat_map(|step| [&step.run, &step.start, &step.undo])
                .flatten()
                .cloned()
                .collect();
            texts.push(topology.config.to_string());
            texts.push(scenario.config.to_string());
            texts.extend(scenario.resolvers.clone().unwrap_or_default());
            if let Some(expect) = &scenario.expect {
                texts.push(expect.component.clone());
                let others = expect.or.iter().chain(&expect.also);
                texts.extend(others.filter_map(|other| other.component.clone()));
            }
            for text in texts {
                draw.fill(&text)
                    .unwrap_or_else(|e| panic!("{}: {e:#}", scenario.name));
            }
        }
    }
}
