//! Virtual machines as a test bed: Debian's own kernels in qemu, with this machine's file system as their userland.
//!
//! A guest boots in seconds without an image of its own: its root is this machine's, read-only over 9p, under a tmpfs.
//! What must survive a power cut lies on a [`disk::Disk`], which forgets what was not flushed. Kernels and the initial
//! file system are kept in the target folder; delete `vm` there to have newer ones.

pub mod archive;
pub mod disk;
pub mod field;
mod furnish;
pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod matrix;
pub mod nbd;
pub mod power;
pub mod units;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::binaries;

/// Programs that virtual machines need on this machine, and the packages that bring them.
pub const NEEDED: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("mke2fs", "e2fsprogs"),
    ("strip", "binutils"),
];

/// Where kernels are kept: `vm` in cargo's target folder.
///
/// # Errors
/// If the programs were not built.
pub fn cache() -> Result<PathBuf> {
    let aizen = binaries::aizen()?;
    let target = aizen.parent().and_then(|profile| profile.parent());
    let folder = target.context("no target folder")?.join("vm");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
