//! A small disk (a tmpfs) over a folder, to be filled up; unmounted when dropped.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::shell;

/// Gives this thread, and every program that it starts from here on, mounts of their own: a full disk in one test is no
/// fault of the machine that others look at.
///
/// # Errors
/// If this is not root.
pub fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    Ok(mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?)
}

/// One mounted disk. Programs that start afterwards see it.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts `mib` MiB over a folder, made if it is not there, and gives it to a user.
    ///
    /// # Errors
    /// If mount(8) refuses.
    pub fn over(folder: &Path, mib: u32, user: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let size = format!("size={mib}m");
        shell::run(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(folder),
        )?;
        let disk = Self {
            at: folder.to_owned(),
        };
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        shell::run(Command::new("chown").arg(user).arg(folder))?;
        Ok(disk)
    }

    /// Fills it to the last block.
    ///
    /// # Errors
    /// If writing fails for another reason than want of space.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        loop {
            match ballast.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Frees what [`SmallDisk::fill`] took.
    ///
    /// # Errors
    /// If the file can't be removed.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the program that writes there may still run.
        drop(shell::run(
            Command::new("umount").arg("--lazy").arg(&self.at),
        ));
    }
}
