//! Mounted file systems that hold data, each asked on a thread of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aizen_protocol::private::Text;
use aizen_protocol::record::Disk;
use futures_util::future::join_all;
use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};

use super::{Seen, aside};

/// Mount points whose `statfs` has not come back yet: asking again would add a stuck thread every round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hung(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Hung {
    fn enter(&self, mount: &Path) -> Option<Asked> {
        let mut hung = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hung.insert(mount.to_owned()).then(|| Asked {
            hung: self.clone(),
            mount: mount.to_owned(),
        })
    }
}

/// One `statfs` under way; ends when its thread does.
struct Asked {
    hung: Hung,
    mount: PathBuf,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.hung
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.mount);
    }
}

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    point: PathBuf,
    fs: String,
    read_only: bool,
}

/// All file systems that hold data; each gets `deadline` to answer.
pub(crate) async fn collect(root: &Path, hung: &Hung, deadline: Duration) -> Seen<Vec<Disk>> {
    let path = root.join("proc/self/mountinfo");
    let read = move || fs::read(path).map(|bytes| data_mounts(&String::from_utf8_lossy(&bytes)));
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

async fn ask(mount: &Mount, hung: &Hung, deadline: Duration) -> Result<Disk, String> {
    let shown = mount.point.display();
    let Some(asked) = hung.enter(&mount.point) else {
        return Err(format!(
            "the file system at {shown} still hasn't answered an earlier question"
        ));
    };
    let answer = aside::run("aizen-statfs", move || {
        statvfs(&asked.mount).map_err(std::io::Error::from)
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
        wanted_writable: None,
        errors: None,
    }
}

/// The counters are 32 bits wide on some targets.
fn widen(count: impl Into<u64>) -> u64 {
    count.into()
}

/// The mounts of mountinfo (proc_pid_mountinfo(5)) that hold data: one a device, at its shortest mount point, and of
/// those at one point the last, which hides the others.
fn data_mounts(text: &str) -> Vec<Mount> {
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
        let asked = hung.enter(Path::new("/")).unwrap();
        let mount = Mount {
            device: "8:1".into(),
            point: "/".into(),
            fs: "ext4".into(),
            read_only: false,
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
        assert!(hung.0.lock().unwrap().is_empty());
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
