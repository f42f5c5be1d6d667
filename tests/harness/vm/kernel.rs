//! Debian's kernels: which there are, and where their parts lie once they are unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::archive::{Archive, Suite};
use super::initramfs;
use crate::shell;

/// A kernel that Debian offers.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    /// What it is called here.
    pub name: &'static str,
    package: &'static str,
    suite: Suite,
}

/// Oldest first: Debian 12's own, the long-term one that Debian 12 offers beside it, the newest in Debian 13's
/// backports.
pub const OFFERED: &[Offered] = &[
    Offered {
        name: "bookworm",
        package: "linux-image-amd64",
        suite: Suite::Bookworm,
    },
    Offered {
        name: "bookworm-6.12",
        package: "linux-image-6.12-amd64",
        suite: Suite::Bookworm,
    },
    Offered {
        name: "trixie-backports",
        package: "linux-image-amd64",
        suite: Suite::TrixieBackports,
    },
];

/// The offered kernel of this name.
///
/// # Errors
/// If there is none: names those that are.
pub fn offered(name: &str) -> Result<&'static Offered> {
    let names: Vec<&str> = OFFERED.iter().map(|offered| offered.name).collect();
    let found = OFFERED.iter().find(|offered| offered.name == name);
    found.with_context(|| format!("no kernel '{name}': there are {}", names.join(", ")))
}

/// A kernel that is there.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What it is called here.
    pub name: &'static str,
    /// As `uname -r` says it.
    pub release: String,
    /// The image.
    pub image: PathBuf,
    /// The initial file system.
    pub initramfs: PathBuf,
    /// `/lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl Offered {
    /// Makes sure that it is in the cache: fetches, unpacks, indexes its modules, makes its initial file system.
    ///
    /// # Errors
    /// If it can't be fetched, or a package is not as expected.
    pub fn ensure(&self, cache: &Path, say: &mut dyn FnMut(&str)) -> Result<Kernel> {
        let folder = cache.join(self.name);
        if !folder.exists() {
            say(&format!("fetching Debian's kernel '{}'", self.name));
            let archive = Archive::open(cache, self.suite)?;
            let packages = archive.kernel_packages(self.package)?;
            archive.unpack(&packages, &folder)?;
        }
        if !folder.join("lib/modules").exists() {
            std::os::unix::fs::symlink("usr/lib", folder.join("lib"))?;
        }
        let all = folder.join("lib/modules");
        let release = fs::read_dir(&all)?
            .next()
            .context("a kernel without modules")??
            .file_name()
            .to_string_lossy()
            .into_owned();
        let modules = all.join(&release);
        let images = [
            folder.join(format!("boot/vmlinuz-{release}")),
            modules.join("vmlinuz"),
        ];
        let Some(image) = images.into_iter().find(|image| image.exists()) else {
            bail!("{} holds no image of {release}", folder.display());
        };
        let kernel = Kernel {
            name: self.name,
            initramfs: folder.join("initramfs.cpio"),
            release,
            image,
            modules,
        };
        if !kernel.initramfs.exists() {
            shell::run(
                Command::new("depmod")
                    .arg("-b")
                    .arg(&folder)
                    .arg(&kernel.release),
            )?;
            initramfs::make(&kernel, &initramfs::shell(cache)?)?;
        }
        Ok(kernel)
    }
}
