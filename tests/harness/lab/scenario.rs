//! Scenarios and topologies as their files say them. Unknown keys are errors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::draw::Range;

/// Where the lab's files are: `tests/lab` of the source.
pub const HOME: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lab");

/// One thing to do: exactly one of `run`, `start`, `stop` and `freeze`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// In which host of the topology; `outside` is the machine that runs the lab, in mounts of its own.
    #[serde(rename = "in")]
    pub place: String,
    /// Shell lines that end; a failure fails the scenario.
    pub run: Option<String>,
    /// A program that stays; `exec` it where it is one command.
    pub start: Option<String>,
    /// What `stop` and `freeze` call it.
    pub name: Option<String>,
    /// It is ready once this UDP port is bound.
    pub udp: Option<u16>,
    /// It is ready once this TCP port listens.
    pub tcp: Option<u16>,
    /// Ends a started program.
    pub stop: Option<String>,
    /// Stops a started program (`SIGSTOP`): it is there and does nothing.
    pub freeze: Option<String>,
    /// Shell lines outside, for what does not go with its namespace.
    pub undo: Option<String>,
}

/// A net to draw.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Where its addresses come from.
    #[serde(default)]
    pub range: Range,
    /// Placeholders that get an address in it.
    pub hosts: Vec<String>,
}

/// A cable (veth) between two hosts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cable {
    /// `HOST INTERFACE`, the interface as a placeholder to draw.
    pub ends: [String; 2],
    /// Addresses of the ends, separated by spaces; empty for none.
    #[serde(default)]
    pub addresses: [String; 2],
}

/// A network and the healthy things in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// One line for people.
    pub title: String,
    /// Its hosts; one must be `device`.
    pub hosts: Vec<String>,
    /// Host names to draw.
    #[serde(default)]
    pub names: Vec<String>,
    /// Nets to draw.
    pub nets: BTreeMap<String, Net>,
    /// Interfaces to name that are no end of a cable, `HOST INTERFACE`.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Cables.
    pub cables: Vec<Cable>,
    /// What makes it work, in order.
    #[serde(default)]
    pub setup: Vec<Step>,
    /// Addresses for the device's `resolv.conf`.
    #[serde(default)]
    pub resolvers: Vec<String>,
    /// The device's `aizen.toml`.
    pub config: toml::Table,
    /// What succeeds in the end when it works.
    #[serde(default)]
    pub settle: Vec<Step>,
}

/// What else may be named, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    /// Cause.
    pub cause: String,
    /// Component; none is any.
    #[serde(default)]
    pub component: Option<String>,
    /// Why this is right, too.
    pub why: String,
}

/// What the verdict must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The cause of the first finding.
    pub cause: String,
    /// Its component: what is broken, as the verdict names it.
    pub component: String,
    /// Right in place of it.
    #[serde(default)]
    pub or: Vec<Other>,
    /// May be named beside it.
    #[serde(default)]
    pub also: Vec<Other>,
    /// The verdict carries a proposal that mends it.
    #[serde(default)]
    pub repair: bool,
    /// While the repair holds the kernel learns addresses and routes from advertisements; they outlive its rollback by
    /// their lifetime.
    #[serde(default)]
    pub learns: bool,
    /// What a person does once the repair is confirmed, as its finding says.
    #[serde(default)]
    pub after: Vec<Step>,
    /// Warnings that are right after the repair.
    #[serde(default)]
    pub leaves: Vec<Other>,
}

/// One fault, or one healthy network that looks like a fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// `FAMILY/NAME`, from its path.
    #[serde(skip)]
    pub name: String,
    /// One sentence.
    pub title: String,
    /// The fault's number in the list of faults; 0 for none.
    pub row: u8,
    /// Topology.
    pub topology: String,
    /// What its healthy twin has, too.
    #[serde(default)]
    pub setup: Vec<Step>,
    /// Addresses for `resolv.conf` in place of the topology's.
    #[serde(default)]
    pub resolvers: Option<Vec<String>>,
    /// Laid over the topology's `aizen.toml`.
    #[serde(default)]
    pub config: toml::Table,
    /// The daemon runs before the fault is made: the device knows how it was.
    #[serde(default)]
    pub watched: bool,
    /// The fault.
    #[serde(default)]
    pub inject: Vec<Step>,
    /// What succeeds in the end once the fault shows.
    #[serde(default)]
    pub settle: Vec<Step>,
    /// What the verdict must be.
    #[serde(default)]
    pub expect: Option<Expect>,
    /// No fault must be found.
    #[serde(default)]
    pub healthy: bool,
    /// What it needs of the kernel that not every one has ([`super::needs`]).
    #[serde(default)]
    pub needs: Vec<String>,
    /// It runs with every test run, not only in the whole lab.
    #[serde(default)]
    pub quick: bool,
}

impl Scenario {
    /// Its family: the folder.
    #[must_use]
    pub fn family(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The same network without the fault; the `key` is the same for scenarios that share it.
    #[must_use]
    pub fn twin(&self) -> (String, Self) {
        let key = format!(
            "{} {:?} {:?} {} {}",
            self.topology, self.setup, self.resolvers, self.config, self.watched
        );
        let mut twin = self.clone();
        twin.name = format!("{} without the fault", self.name);
        twin.inject.clear();
        twin.settle.clear();
        twin.expect = None;
        twin.healthy = true;
        (key, twin)
    }

    fn check(&self) -> Result<()> {
        if self.healthy == self.expect.is_some() {
            bail!("it is either healthy or expects a cause");
        }
        if self.expect.is_some() && self.inject.is_empty() {
            bail!("a fault needs an injection");
        }
        let after = self.expect.iter().flat_map(|expect| &expect.after);
        let made = self.setup.iter().chain(&self.inject);
        check_steps(made.chain(&self.settle).chain(after))
    }
}

fn check_steps<'a>(steps: impl Iterator<Item = &'a Step>) -> Result<()> {
    for step in steps {
        let doing = [&step.run, &step.start, &step.stop, &step.freeze];
        if doing.iter().filter(|what| what.is_some()).count() != 1 {
            bail!("a step has exactly one of run, start, stop and freeze: {step:?}");
        }
        if (step.run.is_some() || step.start.is_some()) && step.place.is_empty() {
            bail!("a step says where ('in'): {step:?}");
        }
    }
    Ok(())
}

/// Every scenario, by name.
///
/// # Errors
/// Names the file that is not one.
pub fn all() -> Result<Vec<Scenario>> {
    let mut all = Vec::new();
    for family in sorted(&Path::new(HOME).join("scenarios"))? {
        for file in sorted(&family)? {
            let mut scenario: Scenario = read(&file)?;
            scenario.name = format!("{}/{}", stem(&family), stem(&file));
            scenario
                .check()
                .with_context(|| file.display().to_string())?;
            all.push(scenario);
        }
    }
    Ok(all)
}

/// A topology by name.
///
/// # Errors
/// If there is none, or it is not one.
pub fn topology(name: &str) -> Result<Topology> {
    let file = Path::new(HOME)
        .join("topologies")
        .join(format!("{name}.toml"));
    let topology: Topology = read(&file)?;
    check_steps(topology.setup.iter().chain(&topology.settle))
        .with_context(|| file.display().to_string())?;
    Ok(topology)
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    toml::from_str(&text).with_context(|| file.display().to_string())
}

/// The entries of a folder in the order of their names.
pub(super) fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

/// A file's name without its ending.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_scenario_of_a_topology_that_exists() {
        let all = all().unwrap();
        assert!(all.len() >= 45, "{}", all.len());
        for scenario in &all {
            topology(&scenario.topology).unwrap_or_else(|e| panic!("{}: {e:#}", scenario.name));
        }
        assert!(all.iter().filter(|scenario| scenario.quick).count() >= 10);
    }

    #[test]
    fn a_key_that_nobody_knows_is_an_error() {
        let text = "title = 't'\nrow = 1\ntopology = 'router'\nhealthy = true\ncolour = 1\n";
        assert!(toml::from_str::<Scenario>(text).is_err());
    }
}
