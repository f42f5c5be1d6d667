//! What a guest needs of an enrolled device: its state, an `/etc`, the program.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::power::FILES;
use crate::world::World;
use crate::{binaries, shell};

/// Puts the program there without what only a debugger reads: the guest fetches it over 9p.
pub(super) fn lean(program: &Path) -> Result<()> {
    shell::run(
        Command::new("strip")
            .arg("-o")
            .arg(program)
            .arg(binaries::guest()?),
    )
    .map(drop)
}

/// What is on the disk at first: the enrolled device's state, and an `/etc` with a boot configuration.
pub(super) fn device(world: &World, root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let copy = |from: &Path, to: &str| {
        shell::run(Command::new("cp").arg("-a").arg(from).arg(root.join(to)))
    };
    copy(&world.device.state(), "aizen")?;
    copy(&world.device.etc(), "etc")?;
    let etc = root.join("etc");
    fs::create_dir_all(etc.join("network"))?;
    fs::write(
        etc.join("network/interfaces"),
        "auto wan\niface wan inet dhcp\n",
    )?;
    fs::write(
        etc.join("aizen/aizen.toml"),
        "[daemon]\nuser = \"daemon\"\n",
    )?;
    let policy = format!("allow_changes = true\nmin_isolation = 2\nfiles = {FILES:?}\n");
    fs::write(etc.join("aizen/policy.toml"), policy)?;
    // What the programs of the guest need of the machine whose `/etc` this hides.
    for name in ["ld.so.cache", "alternatives", "nsswitch.conf", "modprobe.d"] {
        let from = Path::new("/etc").join(name);
        if from.exists() && !etc.join(name).exists() {
            shell::run(Command::new("cp").arg("-a").arg(from).arg(&etc))?;
        }
    }
    Ok(())
}
