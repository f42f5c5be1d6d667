//! The whole world of a story: network, cloud and device, running, enrolled and found healthy.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cloud::Cloud;
use crate::device::Device;
use crate::lab::Lab;
use crate::wait;

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    // The device ends before the cloud, the cloud before the network.
    /// The device.
    pub device: Device,
    /// The cloud.
    pub cloud: Cloud,
    /// The network.
    pub lab: Lab,
    /// The device's name.
    pub id: String,
}

impl World {
    /// Makes it; `say` hears who did what.
    ///
    /// # Errors
    /// If a part does not come up; with what the programs said.
    pub fn start(say: &mut dyn FnMut(&str, &str)) -> Result<Self> {
        Self::start_with(None, say)
    }

    /// The same with another build of the device's program.
    ///
    /// # Errors
    /// If a part does not come up; with what the programs said.
    pub fn start_with(program: Option<&Path>, say: &mut dyn FnMut(&str, &str)) -> Result<Self> {
        say(
            "lab",
            "six network namespaces: device, LAN host, provider, two resolvers, cloud",
        );
        let lab = Lab::lay_out()?;
        say(
            "cloud",
            "keys of root and approver, CA, trust document; the orchestrator starts (SQLite, own directory)",
        );
        let cloud = Cloud::start(&lab)?;
        let mut device = Device::new(&lab)?;
        if let Some(program) = program {
            device.use_program(program);
        }
        device.enroll(&cloud)?;
        say(
            "device",
            "enrolled with a one-time token: keys made here, CA and roots checked against the token",
        );
        device.start()?;
        device
            .wait_connected(Duration::from_secs(20))
            .with_context(|| device.said())?;
        let status = device.ask(&["status"])?;
        let id = status["daemon"]["device"]
            .as_str()
            .context("the device has no name")?
            .to_owned();
        say(
            "device",
            &format!("{id} connected: an unprivileged daemon, a privileged executor"),
        );
        let world = Self {
            device,
            cloud,
            lab,
            id,
        };
        world.wait_health("healthy", Duration::from_secs(30))?;
        world.wait_takes_changes(true)?;
        say("device", "first rounds of evidence: healthy");
        Ok(world)
    }

    /// The cloud runs and the device is enrolled; nothing runs on it yet, and nothing is said.
    ///
    /// # Errors
    /// If a part does not come up.
    pub fn enrolled() -> Result<Self> {
        let lab = Lab::lay_out()?;
        let cloud = Cloud::start(&lab)?;
        let device = Device::new(&lab)?;
        let said = device.enroll(&cloud)?;
        let id = said
            .strip_prefix("Enrolled as ")
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no name in: {said}"))?
            .to_owned();
        Ok(Self {
            device,
            cloud,
            lab,
            id,
        })
    }

    /// Waits until the device's own verdict is this.
    ///
    /// # Errors
    /// If it is not within the time.
    pub fn wait_health(&self, health: &str, within: Duration) -> Result<()> {
        wait::until(&format!("the verdict '{health}'"), within, || {
            let status = self.device.ask(&["status"]).ok()?;
            (status["daemon"]["health"] == health).then_some(())
        })
        .with_context(|| self.said())
    }

    /// Waits until the orchestrator knows that the device takes changes, or that it takes none.
    ///
    /// # Errors
    /// If it does not within half a minute.
    pub fn wait_takes_changes(&self, wanted: bool) -> Result<()> {
        let what = format!("the orchestrator to know: takes_changes is {wanted}");
        wait::until(&what, Duration::from_secs(30), || {
            let list = self.cloud.ask(&["devices"]).ok()?;
            let mut devices = list["devices"].as_array()?.iter();
            let told = devices.find(|d| d["device"] == self.id.as_str())?;
            (told["takes_changes"] == wanted).then_some(())
        })
        .with_context(|| self.said())
    }

    /// What all programs said: for a story that went wrong.
    #[must_use]
    pub fn said(&self) -> String {
        format!(
            "{}== orchestrator.log\n{}",
            self.device.said(),
            self.cloud.said()
        )
    }
}
