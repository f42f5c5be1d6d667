//! What an executor leaves on a device: its journal's last word, files, mounts, processes, control groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// How long a journal is, and what its last record says.
pub(super) fn last_word(journal: &Path) -> (usize, String) {
    let bytes = fs::read(journal).unwrap_or_default();
    let (mut at, mut last) = (0, &[][..]);
    while let Some(length) = bytes.get(at + 4..at + 8) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        let Some(payload) = bytes.get(at + 52..at + 52 + length) else {
            break;
        };
        last = payload;
        at += 52 + length + 4;
    }
    let record: serde_json::Value = serde_json::from_slice(last).unwrap_or_default();
    let word = record["event"]["event"]
        .as_str()
        .or(record["entry"].as_str());
    (at, word.unwrap_or("nothing").to_owned())
}

pub(super) fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

pub(super) fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Processes below this one, without those that belong here; zombies are let go.
pub(super) fn descendants(own: &[u32]) -> Vec<String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = line.rsplit_once(") ") else {
            continue;
        };
        let mut rest = rest.split(' ');
        let state = rest.next().unwrap_or_default().to_owned();
        let parent: u32 = rest.next().and_then(|p| p.parse().ok()).unwrap_or_default();
        all.insert(id, (parent, state, name.to_owned()));
    }
    let me = std::process::id();
    let below = |mut id: u32| {
        while let Some((parent, ..)) = all.get(&id) {
            if *parent == me {
                return true;
            }
            id = *parent;
        }
        false
    };
    let mut left = Vec::new();
    for (id, (parent, state, name)) in &all {
        if own.contains(id) || !below(*id) {
            continue;
        }
        if state == "Z" && *parent == me {
            waitpid(Pid::from_raw(i32::try_from(*id).unwrap()), None).ok();
        }
        left.push(format!("{state} {name}"));
    }
    left
}

/// The control groups of an executor's scripts.
pub(super) fn groups(executor: u32) -> Vec<PathBuf> {
    let member = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in member.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controller), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mounted = if controller.is_empty() {
            "unified"
        } else {
            controller
        };
        let base = Path::new("/sys/fs/cgroup")
            .join(mounted)
            .join(path.trim_start_matches('/'));
        let ours = format!("-{executor}-");
        let of = |name: &String| name.starts_with("aizen-run-") && name.contains(&ours);
        found.extend(
            names(&base)
                .into_iter()
                .filter(of)
                .map(|name| base.join(name)),
        );
    }
    found
}
