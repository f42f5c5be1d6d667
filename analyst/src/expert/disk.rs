//! File systems without room, and those that can't be written although they should.

mod damage;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Disk;

use super::draft::{Draft, Examined, Layer};
use super::unit::bytes;
use crate::case::View;

/// Images that are full by design.
const ALWAYS_FULL: [&str; 8] = [
    "squashfs", "erofs", "iso9660", "udf", "romfs", "cramfs", "efivarfs", "ramfs",
];
/// Where services write: what they can't write may end them.
const SYSTEM: [&str; 8] = [
    "/", "/var", "/var/lib", "/var/log", "/run", "/tmp", "/etc", "/overlay",
];
const MIB: u64 = 1 << 20;

/// How near a file system is to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    Short,
    None,
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().host else {
        return examined;
    };
    let mut fullest: Option<(u128, &Disk)> = None;
    for disk in seen.value.disks.iter().filter(|disk| is_written_to(disk)) {
        let (space, inodes) = (space(disk), inodes(disk));
        if space == Room::Enough && inodes == Room::Enough {
            let share = per_mille(
                disk.total_bytes - disk.available_bytes.min(disk.total_bytes),
                disk.total_bytes,
            );
            if fullest.is_none_or(|(most, _)| share > most) {
                fullest = Some((share, disk));
            }
            continue;
        }
        examined.drafts.push(full(view, disk, space, inodes));
    }
    examined.drafts.extend(damage::examine(view));
    if let Some((share, disk)) = fullest.filter(|_| examined.drafts.is_empty()) {
        examined.well.push(format!(
            "File systems have room: {} is the fullest with {} %, {} available",
            disk.mount,
            share / 10,
            bytes(disk.available_bytes)
        ));
    }
    examined
}

fn is_written_to(disk: &Disk) -> bool {
    !disk.read_only && disk.total_bytes > 0 && !ALWAYS_FULL.contains(&disk.fs.as_str())
}

/// A share alone says little: 5 % of a large disk is plenty.
fn space(disk: &Disk) -> Room {
    let share = per_mille(disk.available_bytes, disk.total_bytes);
    if disk.available_bytes == 0 || share < 10 && disk.available_bytes < 512 * MIB {
        Room::None
    } else if share <= 50 && disk.available_bytes < 2048 * MIB {
        Room::Short
    } else {
        Room::Enough
    }
}

fn inodes(disk: &Disk) -> Room {
    if disk.inodes == 0 {
        return Room::Enough;
    }
    match per_mille(disk.inodes_free, disk.inodes) {
        _ if disk.inodes_free == 0 => Room::None,
        0..10 if disk.inodes_free < 10_000 => Room::None,
        0..=50 if disk.inodes_free < 20_000 => Room::Short,
        _ => Room::Enough,
    }
}

fn per_mille(part: u64, whole: u64) -> u128 {
    u128::from(part) * 1000 / u128::from(whole.max(1))
}

fn full(view: &View<'_>, disk: &Disk, space: Room, inodes: Room) -> Draft {
    let severity = if space == Room::None || inodes == Room::None {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let what = if space == Room::Enough {
        "inodes"
    } else {
        "space"
    };
    let state = if severity == Severity::Critical {
        "has no"
    } else {
        "has little"
    };
    let cause = if space == Room::Enough {
        "inodes_full"
    } else {
        "disk_full"
    };
    let mut draft = Draft::new(
        cause,
        Layer::Resource,
        disk.mount.0.as_str(),
        severity,
        format!("The file system {} {state} free {what}", disk.mount),
    );
    let at = view
        .now()
        .host
        .as_ref()
        .map_or(view.now().ended.at, |seen| seen.at);
    let fact = format!(
        "{} ({}): {} of {} available",
        disk.mount,
        disk.fs,
        bytes(disk.available_bytes),
        bytes(disk.total_bytes)
    );
    draft.shown("host", "statfs", at, fact);
    if disk.inodes > 0 {
        let fact = format!(
            "{}: {} of {} inodes free",
            disk.mount, disk.inodes_free, disk.inodes
        );
        draft.noted("host", at, fact);
    }
    before(&mut draft, view, disk);
    if severity == Severity::Critical && SYSTEM.contains(&disk.mount.0.as_str()) {
        for cause in ["service_failed", "service_crash_loop"] {
            draft.covers(cause, None);
        }
    }
    draft.explains("Programs that write there fail; logs, leases and settings are lost");
    draft.misses(format!(
        "what fills it (`du -x {} | sort -n | tail`)",
        disk.mount
    ));
    draft.next(format!(
        "Find what grows on {} and delete or rotate old logs and temporary files",
        disk.mount
    ));
    draft
}

/// A second reading at another time: statfs can't be forged from outside, so it counts as one more witness.
fn before(draft: &mut Draft, view: &View<'_>, disk: &Disk) {
    let older = view.this_boot().find_map(|pass| {
        let seen = pass.host.as_ref()?;
        let older = seen
            .value
            .disks
            .iter()
            .find(|older| older.mount == disk.mount)?;
        Some((seen.at, older))
    });
    let Some((at, older)) = older else {
        return;
    };
    let fact = format!(
        "{} had {} available in the round before",
        disk.mount,
        bytes(older.available_bytes)
    );
    if space(older) == Room::Enough && inodes(older) == Room::Enough {
        draft.noted("host", at, fact);
    } else {
        draft.backed("host", "earlier", at, fact);
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use super::*;
    use crate::fixture::{Evidence, disk, fill_disk, healthy, only, verdict};

    fn with(disk: Disk) -> Evidence {
        let mut evidence = healthy(1);
        evidence.host.disks = vec![disk];
        evidence
    }

    #[test]
    fn a_full_disk_is_critical_a_nearly_full_one_warns_and_a_second_look_is_surer() {
        let mut broken = healthy(1);
        fill_disk(&mut broken);
        assert_eq!(only(&broken.verdict()).confidence, Confidence::Suspected);
        let mut again = broken.clone();
        again.round = 2;
        let twice = verdict(&[broken, again]);
        assert_eq!(
            (twice.health, only(&twice).confidence),
            (Health::Critical, Confidence::Likely)
        );
        assert_eq!(
            with(disk("/", "ext4", 10_000 * MIB, 400 * MIB))
                .verdict()
                .health,
            Health::Warning
        );
        // A router's flash: 3 % of 8 MiB.
        assert_eq!(
            with(disk("/overlay", "jffs2", 8 * MIB, MIB / 4))
                .verdict()
                .health,
            Health::Warning
        );
    }

    #[test]
    fn inodes_run_out_although_there_is_space() {
        let mut starved = disk("/var", "ext4", 100 << 30, 50 << 30);
        starved.inodes_free = 0;
        let verdict = with(starved).verdict();
        assert_eq!(only(&verdict).cause.0, "inodes_full");
        assert_eq!(
            only(&verdict).summary.0,
            "The file system /var has no free inodes"
        );
    }

    #[test]
    fn images_large_disks_and_file_systems_without_bounds_do_not_alarm() {
        let mut read_only = disk("/media", "ext4", 100 * MIB, 0);
        read_only.read_only = true;
        let mut unbounded = disk("/data", "btrfs", 100 << 30, 50 << 30);
        (unbounded.inodes, unbounded.inodes_free) = (0, 0);
        for disk in [
            disk("/rom", "squashfs", 5 * MIB, 0),
            disk("/srv", "xfs", 4 << 40, 100 << 30),
            disk("/proc/x", "none", 0, 0),
            disk("/odd", "ext4", MIB, u64::MAX),
            read_only,
            unbounded,
        ] {
            assert_eq!(
                with(disk.clone()).verdict().health,
                Health::Healthy,
                "{disk:?}"
            );
        }
    }
}
