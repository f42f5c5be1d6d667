//! Why the device started: crash records, the watchdog's memory and the platform's own word.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file;

/// What is known of this boot's beginning; it doesn't change until the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(super) reason: Option<String>,
    pub(super) crash_records: u32,
    pub(super) gap: Option<&'static str>,
}

/// Reads `/sys/fs/pstore`, `/sys/class/watchdog`, the platform's attributes and the device tree.
pub(super) fn read(root: &Path) -> Start {
    let (crash_records, gap) = crash_records(&root.join("sys/fs/pstore"));
    let reason = if crash_records > 0 {
        Some("panic".to_owned())
    } else {
        watchdogs(root)
            .map(ToOwned::to_owned)
            .or_else(|| platform(root))
            .or_else(|| raspberry(root).map(ToOwned::to_owned))
    };
    Start {
        reason,
        crash_records,
        gap,
    }
}

/// Kernel logs of a crash (Documentation/ABI/testing/pstore). Logs of the console are there after every start.
fn crash_records(folder: &Path) -> (u32, Option<&'static str>) {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let records = entries
                .flatten()
                .take(MAX_FILES)
                .filter(|e| e.file_name().to_string_lossy().starts_with("dmesg-"));
            (u32::try_from(records.count()).unwrap_or(u32::MAX), None)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (
            0,
            Some("/sys/fs/pstore is not ours to read: whether the kernel crashed is not known"),
        ),
        Err(_) => (0, None),
    }
}

/// `bootstatus`: the reasons that the watchdog's hardware remembers (linux/watchdog.h).
fn watchdogs(root: &Path) -> Option<&'static str> {
    let status = file::entries(&root.join("sys/class/watchdog"), MAX_FILES)
        .iter()
        .filter_map(|watchdog| file::word::<u32>(&watchdog.join("bootstatus")))
        .fold(0, |all, status| all | status);
    [
        (WDIOF_CARDRESET, "watchdog"),
        (WDIOF_OVERHEAT, "overheat"),
        (WDIOF_POWERUNDER, "power"),
    ]
    .iter()
    .find_map(|(bit, reason)| (status & bit != 0).then_some(*reason))
}

/// What some systems on a chip tell as an attribute of a device.
fn platform(root: &Path) -> Option<String> {
    let devices = file::entries(&root.join("sys/devices/platform"), MAX_FILES);
    let inner = devices
        .iter()
        .filter(|device| matches!(file::name(device), "soc" | "ahb" | "soc@0"))
        .flat_map(|bus| file::entries(bus, MAX_FILES));
    let inner: Vec<PathBuf> = inner.collect();
    devices.iter().chain(&inner).find_map(|device| {
        ["reset_reason", "power_on_reason"]
            .iter()
            .find_map(|name| file::word::<String>(&device.join(name)))
            .and_then(|word| reason(&word))
    })
}

/// The words of the record where the platform's word means one of them.
fn reason(word: &str) -> Option<String> {
    let word = word.to_ascii_lowercase();
    let known = [
        ("watchdog", "watchdog"),
        ("wdt", "watchdog"),
        ("panic", "panic"),
        ("power", "power"),
        ("soft", "software"),
    ];
    if let Some((_, reason)) = known.iter().find(|(part, _)| word.contains(part)) {
        return Some((*reason).to_owned());
    }
    let plain: String = word
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(MAX_REASON)
        .collect();
    (!plain.is_empty() && plain != "unknown").then_some(plain)
}

/// The Raspberry Pi's reset register, as its loader hands it on. Every restart there goes through the watchdog, so only
/// a power-on can be told from the others.
fn raspberry(root: &Path) -> Option<&'static str> {
    let path = root.join("proc/device-tree/chosen/bootloader/rsts");
    let register = file::bytes(&path, 4).ok()?;
    let register = u32::from_be_bytes(*register.first_chunk()?);
    (register & PM_RSTS_HADPOR != 0).then_some("power")
}

const WDIOF_OVERHEAT: u32 = 0x01;
const WDIOF_POWERUNDER: u32 = 0x10;
const WDIOF_CARDRESET: u32 = 0x20;
const PM_RSTS_HADPOR: u32 = 0x1000;
const MAX_FILES: usize = 256;
const MAX_REASON: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn told(root: &Path) -> Option<String> {
        read(root).reason
    }

    #[test]
    fn the_surest_witness_is_believed_first() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(read(root), Start::default());
        write(
            root,
            "proc/device-tree/chosen/bootloader/rsts",
            &[0, 0, 0x10, 0],
        );
        assert_eq!(told(root).as_deref(), Some("power"));
        write(
            root,
            "sys/devices/platform/soc/rst.1/reset_reason",
            b"Pin Reset\n",
        );
        assert_eq!(told(root).as_deref(), Some("pin-reset"));
        write(root, "sys/class/watchdog/watchdog0/bootstatus", b"32\n");
        assert_eq!(told(root).as_deref(), Some("watchdog"));
        write(root, "sys/fs/pstore/console-ramoops-0", b"");
        assert_eq!(told(root).as_deref(), Some("watchdog"));
        write(root, "sys/fs/pstore/dmesg-ramoops-0", b"");
        let start = read(root);
        assert_eq!(
            (start.reason.as_deref(), start.crash_records),
            (Some("panic"), 1)
        );
    }

    #[test]
    fn a_platforms_word_becomes_ours_where_it_means_the_same() {
        for (word, want) in [
            ("Watchdog Reset", Some("watchdog")),
            ("power-on", Some("power")),
            ("software", Some("software")),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(reason(word).as_deref(), want, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_word_becomes_a_short_plain_one(word in ".{0,200}") {
            let plain = reason(&word).unwrap_or_default();
            prop_assert!(plain.len() <= MAX_REASON && plain.is_ascii());
        }
    }
}
