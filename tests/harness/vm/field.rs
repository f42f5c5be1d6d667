//! The fault lab under another kernel: the same `xtask` runs scenarios inside a guest.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::kernel::Kernel;
use super::machine::{Machine, Shape};

/// Longest run of scenarios in a guest without KVM.
const WITHIN: Duration = Duration::from_secs(4 * 3600);
/// How much longer than this machine a guest may take for everything.
const PATIENCE: u32 = 6;

/// Runs `xtask lab run NAMES` in a guest and tells what it says, line by line; true if everything passed.
///
/// # Errors
/// If the guest does not come up, or ends.
pub fn run(
    kernel: &Kernel,
    names: &[String],
    seed: u64,
    folder: &Path,
    tell: &dyn Fn(&str),
) -> Result<bool> {
    let shape = Shape {
        kernel,
        memory: 2048,
        disk: None,
        // Overlays of the device's rehearsals can't lie on an overlay.
        start: "mount -t tmpfs tmp /tmp; chmod 1777 /tmp\n",
    };
    let mut machine = Machine::start(&shape, folder)?;
    machine.wait_up(|| false)?;
    let xtask = std::env::current_exe()?;
    // The programs are built: cargo is not asked again.
    let job = machine.begin(&format!(
        "export CARGO=/bin/true AIZEN_PATIENCE={PATIENCE}; exec {} lab run {} --seed {seed}\n",
        xtask.display(),
        names.join(" ")
    ))?;
    let told = Cell::new(0);
    let follow = || {
        let said = job.said();
        let (whole, _) = said.rsplit_once('\n').unwrap_or_default();
        for line in whole.lines().skip(told.get()) {
            tell(line);
            told.set(told.get() + 1);
        }
        false
    };
    let code = machine.wait(&job, WITHIN, follow)?;
    follow();
    machine.kill()?;
    Ok(code == Some(0))
}
