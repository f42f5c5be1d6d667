//! Trials under another kernel: scenarios of the fault lab, by the same `xtask` inside a guest, and other programs.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::kernel::Kernel;
use super::machine::{Machine, Shape};
use crate::binaries;

/// Longest run of scenarios in a guest without KVM.
const WITHIN: Duration = Duration::from_secs(4 * 3600);
/// How much longer than this machine a guest may take for everything.
const PATIENCE: u32 = 6;

/// Runs `xtask lab run NAMES`, with the healthy twins, in a guest and tells what it says, line by line; true if everything
/// passed. The evidence of each verdict is in `share/evidence` of the folder afterwards.
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
    let xtask = std::env::current_exe()?;
    let (aizen, guest) = (binaries::aizen()?, binaries::guest()?);
    // The programs are built: cargo is not asked again. One after the other: deadlines of the device are no longer here.
    let line = format!(
        "export CARGO=/bin/true\nmount --bind {} {}\n\
         {} lab run {} --twins --at-once 1 --seed {seed} --verdict --record /tmp/evidence\n\
         code=$?; cp -r /tmp/evidence /run/vm; exit $code\n",
        guest.display(),
        aizen.display(),
        xtask.display(),
        names.join(" ")
    );
    play(kernel, &line, folder, tell)
}

/// Runs a line of shell in a guest and tells what it says, line by line; true if it ended well.
///
/// # Errors
/// If the guest does not come up, or ends.
pub fn play(kernel: &Kernel, line: &str, folder: &Path, tell: &dyn Fn(&str)) -> Result<bool> {
    let shape = Shape {
        kernel,
        memory: 2048,
        disk: None,
        // Overlays of the device's rehearsals can't lie on an overlay.
        start: "mount -t tmpfs tmp /tmp; chmod 1777 /tmp\n",
    };
    let mut machine = Machine::start(&shape, folder)?;
    machine.wait_up(|| false)?;
    let job = machine.begin(&format!("export AIZEN_PATIENCE={PATIENCE}\n{line}"))?;
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
