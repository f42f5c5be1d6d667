//! Control groups: the bounds that count all processes together, and the surest way to end them.
//!
//! Version 2 where it is mounted, below the caller's own group if that is delegated, else below the root; version 1 for
//! the controllers that live there; what neither gives is left to rlimits and said.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::level::Layer;
use crate::profile::Limits;

/// The groups of one run; removed, with all that is in them, when it is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    unified: Option<PathBuf>,
    /// Why version 2 bounds nothing, if it doesn't.
    lacking: Option<String>,
    directories: Vec<PathBuf>,
    pids: Result<&'static str, String>,
    memory: Result<&'static str, String>,
}

/// A mounted hierarchy and the caller's own group in it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    own: PathBuf,
}

impl Group {
    /// Makes the groups that this host has and sets their bounds.
    pub(crate) fn create(limits: &Limits) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let member = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = unused_name();
        let mut group = Self {
            unified: None,
            lacking: Some("cgroup v2 is not mounted".to_owned()),
            directories: Vec::new(),
            pids: Err("no pids controller".to_owned()),
            memory: Err("no memory controller".to_owned()),
        };
        if let Some(hierarchy) = unified(&mounts, &member) {
            group.add_unified(&hierarchy, &name, limits);
        }
        if group.pids.is_err()
            && let Some(hierarchy) = legacy(&mounts, &member, "pids")
        {
            group.pids = group.add(&hierarchy.own, &name).and_then(|directory| {
                put(&directory, "pids.max", process_bound(limits))?;
                Ok("v1")
            });
        }
        if group.memory.is_err()
            && let Some(hierarchy) = legacy(&mounts, &member, "memory")
        {
            group.memory = group.add(&hierarchy.own, &name).and_then(|directory| {
                put(&directory, "memory.limit_in_bytes", limits.memory_bytes)?;
                // Only with swap accounting.
                put(
                    &directory,
                    "memory.memsw.limit_in_bytes",
                    limits.memory_bytes,
                )
                .ok();
                Ok("v1")
            });
        }
        group
    }

    fn add_unified(&mut self, hierarchy: &Hierarchy, name: &str, limits: &Limits) {
        // Where an earlier run moved the caller, and where it would not find its delegated group again.
        let own = match hierarchy.own.parent() {
            Some(parent) if hierarchy.own.ends_with(LEAF) => parent,
            _ => &hierarchy.own,
        };
        let delegated = own != hierarchy.mount && is_delegated(own);
        let base = if delegated { own } else { &hierarchy.mount };
        let controllers = enable(base, delegated);
        let made = self.add(base, name).inspect(|directory| {
            self.unified = Some(directory.clone());
        });
        let directory = match made.and_then(|directory| controllers.map(|()| directory)) {
            Ok(directory) => directory,
            Err(why) => {
                self.lacking = Some(why);
                return;
            }
        };
        self.pids = put(&directory, "pids.max", process_bound(limits)).map(|()| "v2");
        self.memory = put(&directory, "memory.max", limits.memory_bytes).map(|()| "v2");
        self.lacking = [&self.pids, &self.memory]
            .into_iter()
            .find_map(|controller| controller.clone().err());
        // A script that lost one process half way is not to go on; and swap would make the bound a wish.
        put(&directory, "memory.oom.group", 1).ok();
        put(&directory, "memory.swap.max", 0).ok();
    }

    fn add(&mut self, base: &Path, name: &str) -> Result<PathBuf, String> {
        let directory = base.join(name);
        // Controllers of version 1 may share one hierarchy.
        if self.directories.contains(&directory) {
            return Ok(directory);
        }
        sweep(base, &home());
        let made = match fs::create_dir(&directory) {
            // Left behind by a process that had our number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir(&directory).and_then(|()| fs::create_dir(&directory))
            }
            result => result,
        };
        made.map_err(|error| format!("{}: {error}", directory.display()))?;
        self.directories.push(directory.clone());
        Ok(directory)
    }

    /// The group of version 2.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The groups of version 1.
    pub(crate) fn legacy(&self) -> Vec<PathBuf> {
        let directories = self.directories.iter();
        let legacy = directories.filter(|path| Some(*path) != self.unified.as_ref());
        legacy.cloned().collect()
    }

    /// True if a controller bounds the memory of all processes together.
    pub(crate) fn bounds_memory(&self) -> bool {
        self.memory.is_ok()
    }

    /// What these groups give, for the vector.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let layer = |name: &str, controller: &Result<&str, String>| match controller {
            Ok(version) => Layer::on(name, format!("cgroup {version}")),
            Err(why) => Layer::off(name, format!("{why}; rlimits instead")),
        };
        vec![
            layer("process_limit", &self.pids),
            layer("memory_limit", &self.memory),
            match &self.lacking {
                None => Layer::on("cgroup_v2", "pids and memory"),
                Some(why) => Layer::off("cgroup_v2", why.as_str()),
            },
        ]
    }

    /// Kills everything that is in the groups.
    pub(crate) fn kill(&self) {
        if let Some(unified) = &self.unified
            && fs::write(unified.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        // Before Linux 5.14, or version 1 alone.
        for directory in &self.directories {
            let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            // 0 stands for a process of another pid namespace, and would mean our own process group.
            let pids = listed.lines().filter_map(|line| line.parse().ok());
            for pid in pids.filter(|pid| *pid > 1) {
                // It may have ended meanwhile.
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)
                    .ok();
            }
        }
    }

    /// How many processes are in the fullest of the groups.
    pub(crate) fn population(&self) -> usize {
        let members = self.directories.iter().map(|path| path.join(MEMBERS));
        let listed = members.map(fs::read_to_string);
        listed
            .map(|list| list.map_or(0, |text| text.lines().count()))
            .max()
            .unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for attempt in 0..REMOVALS {
            self.directories
                .retain(|directory| match fs::remove_dir(directory) {
                    Ok(()) => false,
                    Err(error) => error.kind() != io::ErrorKind::NotFound,
                });
            if self.directories.is_empty() {
                return;
            }
            if attempt == 0 {
                self.kill();
            }
            // A group is busy until its last process is reaped.
            thread::sleep(REMOVAL_PAUSE);
        }
    }
}

/// Moves a process into the group.
///
/// # Errors
/// The kernel's.
pub(crate) fn join(group: &Path, process: i32) -> io::Result<()> {
    fs::write(group.join(MEMBERS), process.to_string())
}

/// Moves the calling thread, which must be its process's only one, into a group of version 1. A thread that moves itself
/// alone holds nobody up (Linux 5.5); any other move waits until every processor was idle once.
///
/// # Errors
/// The kernel's.
pub(crate) fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("tasks"), "0")
}

const MEMBERS: &str = "cgroup.procs";
const REMOVALS: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);
/// The group that the caller's own processes move into.
const LEAF: &str = "aizen-main";

/// What the names of this pid namespace's groups begin with: containers may share the hierarchy and not the numbers.
fn home() -> String {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = |letter: &char| letter.is_ascii_digit();
    let number: String = namespace.to_string_lossy().chars().filter(digits).collect();
    format!("aizen-run-{number}-")
}

fn unused_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}{}-{number}", home(), std::process::id())
}

/// Init counts as well.
fn process_bound(limits: &Limits) -> u64 {
    u64::from(limits.processes) + 1
}

fn put(directory: &Path, file: &str, value: u64) -> Result<(), String> {
    fs::write(directory.join(file), value.to_string()).map_err(|error| format!("{file}: {error}"))
}

/// Removes what a killed executor left behind: empty groups of processes that are gone.
fn sweep(base: &Path, home: &str) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    let own = std::process::id().to_string();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(home)?.split('-').next());
        if let Some(owner) = owner
            && owner != own
            && !Path::new("/proc").join(owner).exists()
        {
            // One that is not empty still ends what is in it.
            fs::remove_dir(entry.path()).ok();
        }
    }
}

/// systemd marks a group that its owner may divide.
fn is_delegated(group: &Path) -> bool {
    let mut value = [0; 1];
    ["trusted.delegate", "user.delegate"]
        .iter()
        .any(|name| rustix::fs::getxattr(group, *name, &mut value).is_ok() && value == *b"1")
}

/// Has the pids and memory controllers count in the children of `base`.
fn enable(base: &Path, delegated: bool) -> Result<(), String> {
    let read = |file: &str| {
        fs::read_to_string(base.join(file)).map_err(|error| format!("{file}: {error}"))
    };
    let missing = |text: &str| {
        let has = |name: &str| text.split_whitespace().any(|word| word == name);
        let lacking: Vec<_> = ["pids", "memory"]
            .into_iter()
            .filter(|name| !has(name))
            .collect();
        lacking.join(", ")
    };
    let unavailable = missing(&read("cgroup.controllers")?);
    if !unavailable.is_empty() {
        return Err(format!("cgroup v2 has no controller for {unavailable}"));
    }
    if missing(&read("cgroup.subtree_control")?).is_empty() {
        return Ok(());
    }
    if delegated {
        // A group with controllers for its children can't have processes itself: ours move into a leaf.
        let leaf = base.join(LEAF);
        fs::create_dir_all(&leaf).map_err(|error| format!("{}: {error}", leaf.display()))?;
        for pid in read("cgroup.procs")?.lines() {
            // It may have ended meanwhile; if it stays, the next write says so.
            fs::write(leaf.join("cgroup.procs"), pid).ok();
        }
    }
    fs::write(base.join("cgroup.subtree_control"), "+pids +memory")
        .map_err(|error| format!("cgroup.subtree_control: {error}"))
}

fn unified(mounts: &str, member: &str) -> Option<Hierarchy> {
    let path = member.lines().find_map(|line| line.strip_prefix("0::"))?;
    hierarchy(mounts, path, |kind, _| kind == "cgroup2")
}

fn legacy(mounts: &str, member: &str, controller: &str) -> Option<Hierarchy> {
    let named = |list: &str| list.split(',').any(|name| name == controller);
    let path = member.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        named(parts.next()?).then_some(parts.next()?)
    })?;
    hierarchy(mounts, path, |kind, options| {
        kind == "cgroup" && named(options)
    })
}

/// The first fitting line of `mountinfo` (proc(5)), with the group `path` as seen through it.
fn hierarchy(mounts: &str, path: &str, fits: impl Fn(&str, &str) -> bool) -> Option<Hierarchy> {
    mounts.lines().find_map(|line| {
        let (place, source) = line.split_once(" - ")?;
        let mut source = source.split(' ');
        let kind = source.next()?;
        if !fits(kind, source.nth(1)?) {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        let (root, mount) = (place.next()?, Path::new(place.next()?));
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        Some(Hierarchy {
            mount: mount.to_path_buf(),
            own: if below.as_os_str().is_empty() {
                mount.to_path_buf()
            } else {
                mount.join(below)
            },
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:7 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const MEMBER: &str = "8:pids:/\n4:memory:/system/agent\n0::/\n";

    #[test]
    fn version_one_controllers_are_found_with_ones_own_group() {
        let memory = legacy(HYBRID, MEMBER, "memory").unwrap();
        assert_eq!(memory.own, Path::new("/sys/fs/cgroup/memory/system/agent"));
        let pids = legacy(HYBRID, MEMBER, "pids").unwrap();
        assert_eq!(pids.own, Path::new("/sys/fs/cgroup/pids"));
        assert_eq!(legacy(HYBRID, MEMBER, "cpu"), None);
    }

    #[test]
    fn a_group_is_seen_through_the_part_that_is_mounted() {
        let mounts = "41 31 0:38 /pod/7 /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let inside = unified(mounts, "0::/pod/7/agent").unwrap();
        assert_eq!(inside.own, Path::new("/sys/fs/cgroup/agent"));
        let outside = unified(mounts, "0::/elsewhere").unwrap();
        assert_eq!(outside.own, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn controllers_are_switched_on_for_the_runs_and_our_processes_make_room() {
        let base = tempfile::tempdir().unwrap();
        let file = |name: &str| base.path().join(name);
        let read = |name: &str| fs::read_to_string(file(name)).unwrap();
        fs::write(file("cgroup.controllers"), "cpu memory pids").unwrap();
        fs::write(file("cgroup.subtree_control"), "cpu").unwrap();
        fs::write(file("cgroup.procs"), "4711\n").unwrap();
        assert_eq!(enable(base.path(), true), Ok(()));
        assert_eq!(read("cgroup.subtree_control"), "+pids +memory");
        assert_eq!(read("aizen-main/cgroup.procs"), "4711");
        fs::write(file("cgroup.controllers"), "cpu hugetlb pids").unwrap();
        let missing = enable(base.path(), true).unwrap_err();
        assert_eq!(missing, "cgroup v2 has no controller for memory");
    }

    #[test]
    fn groups_of_runs_whose_process_is_gone_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let live = format!("run-7-{}-0", std::process::id());
        // Above the largest process number of Linux.
        let (gone, foreign) = ("run-7-4194305-0", "run-8-4194305-0");
        for name in [live.as_str(), gone, foreign] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        sweep(base.path(), "run-7-");
        assert!(base.path().join(live).exists() && base.path().join(foreign).exists());
        assert!(!base.path().join(gone).exists());
    }

    #[test]
    fn garbage_is_no_hierarchy() {
        for mounts in [
            "",
            "x",
            "1 2 3 - cgroup2",
            " - ",
            "41 31 0:38 - cgroup2 a b",
        ] {
            assert_eq!(unified(mounts, "0::/"), None, "{mounts}");
        }
        assert_eq!(unified(HYBRID, ""), None);
    }
}
