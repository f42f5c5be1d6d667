//! The first file system of a guest: a static shell, the few modules that reach the real one, and the way there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::archive::{Archive, Suite};
use super::kernel::Kernel;
use crate::shell;

/// What must work before this machine's files are in reach. One that is built in has no file.
const MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_blk",
    "9p",
    "9pnet_virtio",
    "ext4",
    "f2fs",
    "overlay",
    "virtio_rng",
];

/// Mounts this machine's root below a tmpfs, and goes on there with the script of the share.
const INIT: &str = r#"#!/busybox sh
b=/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc; $b mount -t sysfs sys /sys
while read -r m; do $b insmod "/m/$m" || echo "no module $m"; done </order
o=trans=virtio,version=9p2000.L,msize=262144
$b mount -t 9p -o "ro,$o,cache=loose" host /lower
$b mount -t tmpfs up /up && $b mkdir /up/u /up/w
$b mount -t overlay -o lowerdir=/lower,upperdir=/up/u,workdir=/up/w root /root
$b mount -t tmpfs run /root/run && $b mkdir /root/run/vm
$b mount -t 9p -o "$o,cache=none" share /root/run/vm || echo "no share"
for d in dev proc sys; do $b mount --move "/$d" "/root/$d"; done
exec $b switch_root /root /bin/sh /run/vm/boot
"#;

/// Debian's static busybox.
///
/// # Errors
/// If it can't be fetched.
pub fn shell(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("busybox");
    if !folder.exists() {
        let archive = Archive::open(cache, Suite::Bookworm)?;
        archive.unpack(&["busybox-static".to_owned()], &folder)?;
    }
    Ok(folder.join("bin/busybox"))
}

/// Writes the kernel's initial file system.
pub(super) fn make(kernel: &Kernel, busybox: &Path) -> Result<()> {
    let index = fs::read_to_string(kernel.modules.join("modules.dep"))?;
    let needs = dependencies(&index);
    let mut wanted: Vec<&str> = Vec::new();
    for module in MODULES {
        if let Some((path, first)) = needs.get(module) {
            // Listed nearest first: what others need stands last.
            for path in first.iter().rev().chain([path]) {
                if !wanted.contains(path) {
                    wanted.push(path);
                }
            }
        }
    }
    let mut archive = Cpio::default();
    for folder in ["dev", "proc", "sys", "lower", "up", "root", "m"] {
        archive.add(folder, 0o040_755, &[]);
    }
    archive.add("busybox", 0o100_755, &fs::read(busybox)?);
    archive.add("init", 0o100_755, INIT.as_bytes());
    let mut order = String::new();
    for path in wanted {
        let name = stem(path);
        archive.add(
            &format!("m/{name}"),
            0o100_644,
            &module(&kernel.modules.join(path))?,
        );
        order.push_str(&format!("{name}\n"));
    }
    archive.add("order", 0o100_644, order.as_bytes());
    let parts = kernel.initramfs.with_extension("partial");
    fs::write(&parts, archive.finish())?;
    Ok(fs::rename(parts, &kernel.initramfs)?)
}

/// `modules.dep` as name → its path and the paths of what it needs.
fn dependencies(index: &str) -> BTreeMap<&str, (&str, Vec<&str>)> {
    let parse = |line| {
        let (path, first): (&str, &str) = str::split_once(line, ':')?;
        Some((stem(path), (path, first.split_whitespace().collect())))
    };
    index.lines().filter_map(parse).collect()
}

/// A module's name: its file's without folder and endings.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name)
}

fn module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|ending| ending != "xz") {
        return fs::read(path).with_context(|| path.display().to_string());
    }
    let output = shell::output(Command::new("xz").arg("-dc").arg(path))?;
    if !output.status.success() {
        bail!("{} can't be unpacked: {}", path.display(), output.status);
    }
    Ok(output.stdout)
}

/// A cpio archive of the form that the kernel unpacks (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    files: usize,
}

impl Cpio {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let header = [
            self.files,
            mode as usize,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in header {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_known_by_its_name_whatever_its_folder_and_packing() {
        let index = "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2/jbd2.ko.xz\nkernel/lib/crc16.ko.xz:\n";
        let needs = dependencies(index);
        assert_eq!(
            needs["ext4"].1,
            ["kernel/lib/crc16.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz"]
        );
        assert!(needs["crc16"].1.is_empty());
    }

    #[test]
    fn an_archive_reads_back_with_the_programs_that_know_the_form() {
        let mut archive = Cpio::default();
        archive.add("d", 0o040_755, &[]);
        archive.add("d/odd", 0o100_644, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("d/odd\0") && text.contains("12345") && text.contains("TRAILER!!!"));
    }
}
