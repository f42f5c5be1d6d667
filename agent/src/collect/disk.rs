//! Mounted file systems that hold data, each asked on a thread of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::private::Text;
use aizen_protocol::record::Disk;
use futures_util::future::join_all;
use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};

use super::aside::Hung;
use super::{Seen, aside, file};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    device: String,
    point: PathBuf,
    fs: String,
    read_only: bool,
    wanted_writable: Option<bool>,
    errors: Option<u64>,
}

/// All file systems that hold data; each gets `deadline` to answer.
pub(crate) async fn collect(root: &Path, hung: &Hung, deadline: Duration) -> Seen<Vec<Disk>> {
    let root = root.to_owned();
    let read = move || mounts(&root);
    let mounts = match aside::run("aizen-mounts", read).await {
        Ok(Ok(mounts)) => mounts,
        Ok(Err(error)) | Err(error) => {
            return Seen {
                value: Vec::new(),
                gaps: vec![format!("/proc/self/mountinfo can't be read: {error}")],
            };
        }
    };
    let mut gaps = Vec::new();
    if mounts.len() > MAX_DISKS {
        gaps.push(format!(
            "{} more file systems were left out",
            mounts.len() - MAX_DISKS
        ));
    }
    let asked = mounts
        .iter()
        .take(MAX_DISKS)
        .map(|mount| ask(mount, hung, deadline));
    let mut disks = Vec::new();
    for answer in join_all(asked).await {
        match answer {
            Ok(disk) => disks.push(disk),
            Err(gap) => gaps.push(gap),
        }
    }
    Seen { value: disks, gaps }
}

/// The mounts that hold data, with what `/etc/fstab` and the file system itself say of each.
fn mounts(root: &Path) -> std::io::Result<Vec<Mount>> {
    let text = file::text(&root.join("proc/self/mountinfo"), MAX_MOUNTINFO)?;
    let fstab = file::text(&root.join("etc/fstab"), MAX_FSTAB).unwrap_or_default();
    let mut mounts = data_mounts(&text);
    for mount in mounts.iter_mut().take(MAX_DISKS) {
        mount.wanted_writable = wanted_writable(&fstab, &mount.point);
        if mount.fs == "ext4" {
            mount.errors = errors(root, &mount.device);
        }
    }
    Ok(mounts)
}

/// What the last line of fstab(5) for this mount point wants; none without one.
pub(crate) fn wanted_writable(fstab: &str, point: &Path) -> Option<bool> {
    let options = fstab.lines().rev().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let device = words.next()?;
        let there = !device.starts_with('#') && Path::new(&unescape(words.next()?)) == point;
        there.then(|| words.nth(1)).flatten()
    })?;
    Some(!options.split(',').any(|option| option == "ro"))
}

/// Errors that ext4 counted since the file system was made or checked (Documentation/ABI/testing/sysfs-fs-ext4).
fn errors(root: &Path, device: &str) -> Option<u64> {
    // Mapped devices have a name of their own in mountinfo; the kernel's is behind the number.
    let link = root
        .join("sys/dev/block")
        .join(device)
        .canonicalize()
        .ok()?;
    file::word(
        &root
            .join("sys/fs/ext4")
            .join(link.file_name()?)
            .join("errors_count"),
    )
}

async fn ask(mount: &Mount, hung: &Hung, deadline: Duration) -> Result<Disk, String> {
    let shown = mount.point.display();
    let Some(asked) = hung.enter(mount.point.as_os_str()) else {
        return Err(format!(
            "the file system at {shown} still hasn't answered an earlier question"
        ));
    };
    let point = mount.point.clone();
    let answer = aside::run("aizen-statfs", move || {
        let _asked = asked;
        statvfs(&point).map_err(std::io::Error::from)
    });
    match tokio::time::timeout(deadline, answer).await {
        Err(_) => Err(format!(
            "the file system at {shown} did not answer within {} ms",
            deadline.as_millis()
        )),
        Ok(Ok(Ok(stat))) => Ok(disk(mount, &stat)),
        Ok(Ok(Err(error)) | Err(error)) => Err(format!("the file system at {shown}: {error}")),
    }
}

fn disk(mount: &Mount, stat: &Statvfs) -> Disk {
    let unit = widen(stat.fragment_size());
    Disk {
        mount: Text(mount.point.to_string_lossy().into_owned()),
        fs: mount.fs.clone(),
        total_bytes: widen(stat.blocks()).saturating_mul(unit),
        available_bytes: widen(stat.blocks_available()).saturating_mul(unit),
        inodes: widen(stat.files()),
        inodes_free: widen(stat.files_free()),
        read_only: mount.read_only || stat.flags().contains(FsFlags::ST_RDONLY),
        wanted_writable: mount.wanted_writable,
        errors: mount.errors,
    }
}

/// The counters are 32 bits wide on some targets.
fn widen(count: impl Into<u64>) -> u64 {
    count.into()
}

/// The mounts of mountinfo (proc_pid_mountinfo(5)) that hold data: one a device, at its shortest mount point, and of
/// those at one point the last, which hides the others.
pub(crate) fn data_mounts(text: &str) -> Vec<Mount> {
    let mut visible: Vec<Mount> = Vec::new();
    for mount in text.lines().take(MAX_MOUNTS).filter_map(mount) {
        visible.retain(|hidden| hidden.point != mount.point);
        visible.push(mount);
    }
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in visible
        .into_iter()
        .filter(|m| !WITHOUT_DATA.contains(&m.fs.as_str()))
    {
        match mounts.iter_mut().find(|known| known.device == mount.device) {
            None => mounts.push(mount),
            Some(known) if mount.point.as_os_str().len() < known.point.as_os_str().len() => {
                *known = mount
            }
            Some(_) => {}
        }
    }
    mounts
}

fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let device = before.next()?.to_owned();
    let point = before.nth(1)?;
    let options = before.next()?;
    let mut after = after.split(' ');
    let fs = after.next()?.to_owned();
    let super_options = after.nth(1).unwrap_or_default();
    let is_ro = |options: &str| options.split(',').any(|o| o == "ro");
    Some(Mount {
        device,
        point: unescape(point).into(),
        fs,
        read_only: is_ro(options) || is_ro(super_options),
        wanted_writable: None,
        errors: None,
    })
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

const MAX_DISKS: usize = 32;
/// A host of many containers has thousands; the file systems of the host itself come first.
const MAX_MOUNTS: usize = 4096;
const MAX_MOUNTINFO: u64 = 4 << 20;
const MAX_FSTAB: u64 = 64 << 10;
/// Kernel interfaces, and images that are full by design.
const WITHOUT_DATA: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cramfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fuse.lxcfs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "romfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kernel_interfaces_are_left_out_and_one_device_is_asked_once() {
        let mounts = data_mounts(
            "22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
             29 1 8:1 / /mnt/long\\040name rw shared:1 master:2 - ext4 /dev/sda1 rw,errors=remount-ro\n\
             30 1 8:1 /etc /etc ro - ext4 /dev/sda1 rw\n\
             31 1 7:0 / /rom ro - squashfs /dev/loop0 ro\n\
             32 1 0:40 / /tmp rw - tmpfs tmpfs rw,size=100k\n",
        );
        let seen: Vec<_> = mounts
            .iter()
            .map(|m| (m.point.to_str().unwrap(), m.fs.as_str(), m.read_only))
            .collect();
        assert_eq!(seen, [("/etc", "ext4", true), ("/tmp", "tmpfs", false)]);
    }

    #[test]
    fn of_two_file_systems_at_one_point_the_last_is_asked() {
        let mounts = data_mounts(
            "22 1 0:21 / /run rw - tmpfs first rw\n23 1 0:22 / /run ro - tmpfs second ro\n",
        );
        let [seen] = &mounts[..] else {
            panic!("{mounts:?}")
        };
        assert_eq!((seen.device.as_str(), seen.read_only), ("0:22", true));
    }

    #[test]
    fn an_escaped_space_in_a_mount_point_is_read_back() {
        let mount = mount("1 2 8:1 / /a\\040b rw - ext4 /dev/x rw").unwrap();
        assert_eq!(mount.point, Path::new("/a b"));
    }

    #[tokio::test]
    async fn a_mount_point_that_still_hangs_is_not_asked_again() {
        let hung = Hung::default();
        let asked = hung.enter("/".as_ref()).unwrap();
        let mount = Mount {
            device: "8:1".into(),
            point: "/".into(),
            fs: "ext4".into(),
            read_only: false,
            wanted_writable: None,
            errors: None,
        };
        let deadline = Duration::from_secs(5);
        assert!(
            ask(&mount, &hung, deadline)
                .await
                .unwrap_err()
                .contains("earlier question")
        );
        drop(asked);
        assert!(ask(&mount, &hung, deadline).await.unwrap().total_bytes > 0);
        assert!(hung.enter("/".as_ref()).is_some());
    }

    #[test]
    fn fstab_says_what_should_be_writable_and_ext4_what_went_wrong() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "proc/self/mountinfo",
            "22 1 8:1 / / ro - ext4 /dev/root ro\n23 1 8:2 / /boot ro - vfat /dev/sda2 ro\n24 1 8:3 / /data rw - ext4 /dev/sda3 rw\n",
        );
        write(
            "etc/fstab",
            "# /dev/sda1 / ext4 ro 0 1\n/dev/sda1 / ext4 errors=remount-ro,rw 0 1\n/dev/sda2 /boot vfat defaults,ro 0 2\n",
        );
        write("sys/fs/ext4/sda1/errors_count", "3\n");
        write("sys/devices/sda1/dev", "8:1\n");
        std::fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        std::os::unix::fs::symlink("../../devices/sda1", root.path().join("sys/dev/block/8:1"))
            .unwrap();
        let seen: Vec<_> = mounts(root.path())
            .unwrap()
            .into_iter()
            .map(|m| (m.wanted_writable, m.errors))
            .collect();
        assert_eq!(
            seen,
            [(Some(true), Some(3)), (Some(false), None), (None, None)]
        );
    }

    #[tokio::test]
    async fn this_machine_has_a_disk() {
        let seen = collect(Path::new("/"), &Hung::default(), Duration::from_secs(5)).await;
        assert!(
            seen.value
                .iter()
                .any(|d| d.total_bytes > 0 && d.available_bytes <= d.total_bytes),
            "{:?}",
            seen.gaps
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,300}", a in "[ -~]{0,40}", b in "[ -~]{0,40}") {
            drop(data_mounts(&text));
            drop(data_mounts(&format!("{a} - {b}")));
        }
    }
}
