//! File systems that the kernel stopped writing to, or on which it finds errors.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Disk, Host};
use jiff::Timestamp;

use super::ALWAYS_FULL;
use crate::case::View;
use crate::expert::draft::{Draft, Layer};
use crate::expert::{log, trend};

/// What kernels write when they give up writing.
const SAID: [&str; 4] = [
    "remounting filesystem read-only",
    "switched to read-only mode",
    "forced readonly",
    "ext4-fs error",
];
const MINUTES: i64 = 60;

pub(super) fn examine(view: &View<'_>) -> Vec<Draft> {
    let Some(seen) = &view.now().host else {
        return Vec::new();
    };
    let mut drafts = Vec::new();
    for disk in seen
        .value
        .disks
        .iter()
        .filter(|disk| !ALWAYS_FULL.contains(&disk.fs.as_str()))
    {
        let gave_up = disk.read_only && disk.wanted_writable == Some(true);
        // Errors that were counted before the kernel gave up writing are why it did.
        let damaged = errors(view, disk, gave_up);
        drafts.extend(damaged.or_else(|| gave_up.then(|| read_only(view, seen.at, disk))));
    }
    drafts
}

fn find<'a>(host: &'a Host, disk: &Disk) -> Option<&'a Disk> {
    host.disks.iter().find(|other| other.mount == disk.mount)
}

fn read_only(view: &View<'_>, at: Timestamp, disk: &Disk) -> Draft {
    let mut draft = Draft::new(
        "file_system_read_only",
        Layer::Resource,
        disk.mount.0.as_str(),
        Severity::Critical,
        format!(
            "The file system {} is mounted read-only although it should be writable",
            disk.mount
        ),
    );
    draft.shown(
        "host",
        "mount",
        at,
        format!("{} ({}) is mounted read-only", disk.mount, disk.fs),
    );
    draft.backed(
        "host",
        "fstab",
        at,
        format!("/etc/fstab wants {} writable", disk.mount),
    );
    if let Some(errors) = disk.errors.filter(|errors| *errors > 0) {
        draft.backed(
            "host",
            "errors",
            at,
            format!("{} counts {errors} errors", disk.mount),
        );
    }
    let before = trend::readings(view, |pass| pass.host.as_ref())
        .find(|seen| find(&seen.value, disk).is_some_and(|disk| !disk.read_only));
    if let Some(seen) = before {
        draft.backed(
            "host",
            "earlier",
            seen.at,
            format!("{} was writable earlier in this boot", disk.mount),
        );
    }
    quote(&mut draft, view);
    for cause in ["service_failed", "service_crash_loop"] {
        draft.covers(cause, None);
    }
    draft.explains("Programs that write there fail; logs, leases and settings are lost");
    draft.misses(
        "what the kernel found (`dmesg`), and whether the medium itself fails (`smartctl -a`)",
    );
    draft.next(format!(
        "Save what matters on {}, check the file system offline (`fsck`) and the medium behind \
         it, then mount it writable again",
        disk.mount
    ));
    draft
}

/// Errors that were counted since an earlier reading of this boot; a total may be years old.
fn errors(view: &View<'_>, disk: &Disk, gave_up: bool) -> Option<Draft> {
    let present = disk.errors?;
    let oldest = trend::readings(view, |pass| pass.host.as_ref())
        .filter_map(|seen| Some((seen.at, find(&seen.value, disk)?.errors?)))
        .last()?;
    let grown = present.checked_sub(oldest.1).filter(|grown| *grown > 0)?;
    // When it grew first.
    let at = trend::readings(view, |pass| pass.host.as_ref())
        .take_while(|seen| find(&seen.value, disk).and_then(|disk| disk.errors) > Some(oldest.1))
        .last()?
        .at;
    let mut draft = Draft::new(
        "file_system_errors",
        Layer::Resource,
        disk.mount.0.as_str(),
        if gave_up {
            Severity::Critical
        } else {
            Severity::Warning
        },
        format!("The file system {} reports new errors", disk.mount),
    );
    draft.shown(
        "host",
        "errors",
        at,
        format!(
            "{} counted {grown} errors since {}, {present} in all",
            disk.mount, oldest.0
        ),
    );
    quote(&mut draft, view);
    if gave_up {
        let newest = view.now().host.as_ref().map_or(at, |seen| seen.at);
        let fact = format!(
            "{} ({}) is mounted read-only, and /etc/fstab wants it writable",
            disk.mount, disk.fs
        );
        draft.backed("host", "mount", newest, fact);
        for cause in ["service_failed", "service_crash_loop"] {
            draft.covers(cause, None);
        }
        draft.explains("The kernel stopped writing there: programs fail, logs and leases are lost");
    } else {
        draft.explains("Files may be damaged, and the kernel may stop writing at the next error");
    }
    draft.misses(
        "what the kernel found (`dmesg`), and whether the medium itself fails (`smartctl -a`)",
    );
    draft.next(format!(
        "Save what matters on {} and check the file system offline (`fsck`); replace the medium \
         if it reports errors",
        disk.mount
    ));
    Some(draft)
}

fn quote(draft: &mut Draft, view: &View<'_>) {
    if let Some(line) = log::recent(view, MINUTES, &SAID).last() {
        draft.noted("log", line.at, log::quote(line));
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Severity};
    use aizen_protocol::record::{Body, Disk, ServiceState};

    use crate::fixture::machine::{history, service};
    use crate::fixture::{Evidence, disk, only, verdict};

    fn with(change: impl Fn(u64, &mut Disk)) -> Vec<Evidence> {
        history(3, |round, evidence| {
            let mut var = disk("/var", "ext4", 10 << 30, 5 << 30);
            change(round, &mut var);
            evidence.host.disks.push(var);
        })
    }

    #[test]
    fn a_file_system_that_turned_read_only_is_told_and_explains_a_failed_service() {
        let mut rounds = with(|round, disk| {
            disk.wanted_writable = Some(true);
            disk.read_only = round > 1;
            disk.errors = Some(3);
        });
        let alone = verdict(&rounds);
        let finding = only(&alone);
        assert_eq!(
            (
                finding.cause.0.as_str(),
                finding.severity,
                finding.confidence
            ),
            (
                "file_system_read_only",
                Severity::Critical,
                Confidence::Certain
            )
        );
        rounds[2].see(Body::Services(vec![service(
            "dnsmasq",
            ServiceState::Failed,
            Some(true),
        )]));
        assert_eq!(only(&verdict(&rounds)).cause.0, "file_system_read_only");
    }

    #[test]
    fn new_errors_are_why_the_kernel_stopped_writing() {
        let rounds = with(|round, disk| {
            disk.wanted_writable = Some(true);
            disk.read_only = round > 1;
            disk.errors = Some(if round > 1 { 3 } else { 0 });
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.severity),
            ("file_system_errors", Severity::Critical)
        );
        assert!(
            finding
                .evidence
                .iter()
                .any(|fact| fact.fact.0.contains("read-only"))
        );
    }

    #[test]
    fn new_errors_warn_and_old_ones_media_and_images_do_not() {
        let grown = with(|round, disk| disk.errors = Some(10 + u64::from(round > 1)));
        assert_eq!(only(&verdict(&grown)).cause.0, "file_system_errors");
        let changes: [fn(u64, &mut Disk); 4] = [
            |_, disk| disk.errors = Some(4_000),
            |_, disk| disk.read_only = true,
            |_, disk| (disk.read_only, disk.wanted_writable) = (true, Some(false)),
            |_, disk| {
                disk.fs = "squashfs".into();
                (disk.read_only, disk.wanted_writable) = (true, Some(true));
            },
        ];
        for change in changes {
            assert_eq!(verdict(&with(change)).findings, []);
        }
    }
}
