//! Recent lines of log, from the journal or from files of syslog: hostile text that anybody on the device may have
//! written.

pub(crate) mod journal;
pub(crate) mod syslog;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aizen_protocol::private::Text;
use aizen_protocol::record::{LogLine, LogOrigin};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use self::journal::{Journal, JournalError, Wanted};
use super::{Seen, file};

/// Reads what was written in the [`RECENT`] time before `now`, and stops after `deadline`.
pub(crate) fn collect(root: &Path, now: Timestamp, deadline: Duration) -> Seen<Vec<LogLine>> {
    let wanted = Wanted {
        since: now.checked_sub(RECENT).unwrap_or(Timestamp::MIN),
        until: Instant::now() + deadline,
        most: MAX_LINES,
    };
    let mut gaps = Vec::new();
    let mut lines = Vec::new();
    let journals = journals(root);
    let mut read = 0;
    for path in &journals {
        match journal(path, &wanted, &mut lines) {
            Ok(gap) => {
                read += 1;
                gaps.extend(gap);
            }
            Err(error) => gaps.push(refusal(path, root, &error)),
        }
    }
    // Where there is a journal, syslog gets its lines from it.
    if read == 0 {
        files(root, &wanted, now, &mut lines, &mut gaps);
    }
    lines.sort_by_key(|line| line.at);
    lines.drain(..lines.len().saturating_sub(MAX_LINES));
    gaps.truncate(MAX_GAPS);
    Seen { value: lines, gaps }
}

/// The journal of the system, kept or not kept over a restart: the present file and those just put aside.
fn journals(root: &Path) -> Vec<PathBuf> {
    ["var/log/journal", "run/log/journal"]
        .iter()
        .flat_map(|folder| file::entries(&root.join(folder), MAX_FOLDERS))
        .flat_map(|machine| file::entries(&machine, MAX_FILES))
        .filter(|path| {
            let name = file::name(path);
            name == "system.journal" || (name.starts_with("system@") && name.ends_with(".journal"))
        })
        .collect()
}

fn journal(
    path: &Path,
    wanted: &Wanted,
    lines: &mut Vec<LogLine>,
) -> Result<Option<String>, JournalError> {
    let mut journal = Journal::open(path)?;
    let tail = journal.tail(wanted, &|program, severity| is_told(program, severity))?;
    lines.extend(tail.entries.into_iter().filter_map(|entry| {
        Some(LogLine {
            at: entry.at,
            origin: LogOrigin::Journal,
            program: clean(&entry.program, MAX_PROGRAM),
            severity: entry.severity,
            text: text(&entry.message)?,
        })
    }));
    Ok((tail.compressed > 0).then(|| {
        format!(
            "{} long lines of the journal are compressed and were left out",
            tail.compressed
        )
    }))
}

fn refusal(path: &Path, root: &Path, error: &JournalError) -> String {
    match error {
        JournalError::Read(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "the journal is not ours to read: add the user to the group systemd-journal or adm"
                .to_owned()
        }
        _ => format!(
            "the journal file /{} can't be read: {error}",
            path.strip_prefix(root).unwrap_or(path).display()
        ),
    }
}

fn files(
    root: &Path,
    wanted: &Wanted,
    now: Timestamp,
    lines: &mut Vec<LogLine>,
    gaps: &mut Vec<String>,
) {
    let zone = TimeZone::system();
    let mut found = false;
    for name in ["syslog", "messages", "daemon.log"] {
        let path = root.join("var/log").join(name);
        match syslog::tail(&path) {
            Ok(text) => {
                found = true;
                let read = text.lines().filter_map(|l| syslog::line(l, now, &zone));
                let read = read.filter(|line| line.at >= wanted.since);
                lines.extend(read.filter_map(|line| {
                    is_told(&line.program, line.severity).then_some(LogLine {
                        at: line.at,
                        origin: LogOrigin::File,
                        program: clean(&line.program, MAX_PROGRAM),
                        severity: line.severity,
                        text: text_of(line.text)?,
                    })
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found = true;
                gaps.push(format!(
                    "/var/log/{name} is not ours to read: add the user to the group adm"
                ));
            }
            Err(error) => gaps.push(format!("/var/log/{name} can't be read: {error}")),
        }
    }
    if !found && gaps.is_empty() {
        gaps.push(
            "no log was found: no journal, and no syslog, messages or daemon.log in /var/log"
                .to_owned(),
        );
    }
}

fn text(message: &[u8]) -> Option<Text> {
    text_of(&String::from_utf8_lossy(message))
}

fn text_of(message: &str) -> Option<Text> {
    Some(clean(message, MAX_TEXT))
        .filter(|text| !text.is_empty())
        .map(Text)
}

/// Warnings and worse of anybody but the kernel, which has a collector of its own; everything of programs that networks
/// are made of.
fn is_told(program: &str, severity: u8) -> bool {
    program != "kernel"
        && (severity <= WARNING || NETWORK.iter().any(|known| program.starts_with(known)))
}

/// Without what a terminal would act on or people couldn't see: control characters, and those that turn the direction.
fn clean(text: &str, most: usize) -> String {
    text.trim_end()
        .chars()
        .filter(|c| {
            !c.is_control()
                && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        })
        .take(most)
        .collect()
}

/// How far back is read.
const RECENT: Duration = Duration::from_secs(600);
const WARNING: u8 = 4;
const MAX_LINES: usize = 200;
const MAX_TEXT: usize = 300;
const MAX_PROGRAM: usize = 60;
const MAX_FOLDERS: usize = 4;
const MAX_FILES: usize = 64;
const MAX_GAPS: usize = 4;
/// Beginnings of the names of programs that networks are made of.
const NETWORK: &[&str] = &[
    "NetworkManager",
    "charon",
    "chronyd",
    "dhclient",
    "dhcpcd",
    "dnsmasq",
    "hostapd",
    "named",
    "netifd",
    "odhcp",
    "pppd",
    "pppoe",
    "radvd",
    "systemd-networkd",
    "systemd-resolved",
    "unbound",
    "wpa_supplicant",
    "xl2tpd",
];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::journal::write::{Compact, journal_file};
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn now() -> Timestamp {
        "2026-11-21T17:30:00Z".parse().unwrap()
    }

    fn put(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn lines_of_the_journal_are_chosen_cleaned_and_sorted() {
        let root = tempfile::tempdir().unwrap();
        let at =
            |seconds: i64| u64::try_from(now().as_microsecond() - seconds * 1_000_000).unwrap();
        let file = journal_file(
            &[
                (
                    at(900),
                    &["PRIORITY=3", "SYSLOG_IDENTIFIER=pppd", "MESSAGE=too old"],
                ),
                (
                    at(300),
                    &[
                        "PRIORITY=6",
                        "SYSLOG_IDENTIFIER=pppd",
                        "MESSAGE=\u{1b}[31mPADO\u{202e} timeout\n",
                    ],
                ),
                (
                    at(200),
                    &["PRIORITY=6", "SYSLOG_IDENTIFIER=cron", "MESSAGE=a job"],
                ),
                (
                    at(150),
                    &[
                        "PRIORITY=2",
                        "_TRANSPORT=kernel",
                        "SYSLOG_IDENTIFIER=kernel",
                        "MESSAGE=oops",
                    ],
                ),
                (at(100), &["PRIORITY=4", "_COMM=cron", "MESSAGE=a warning"]),
            ],
            Compact(false),
        );
        put(root.path(), "run/log/journal/0123/system.journal", &file);
        put(
            root.path(),
            "var/log/syslog",
            b"Nov 21 17:29:00 router pppd[1]: twice\n",
        );
        let seen = collect(root.path(), now(), LONG);
        let lines: Vec<_> = seen
            .value
            .iter()
            .map(|l| (l.program.as_str(), l.severity, l.text.0.as_str()))
            .collect();
        assert_eq!(
            lines,
            [("pppd", 6, "[31mPADO timeout"), ("cron", 4, "a warning")],
            "{:?}",
            seen.gaps
        );
        assert!(seen.gaps.is_empty());
        assert!(seen.value.iter().all(|l| l.origin == LogOrigin::Journal));
    }

    #[test]
    fn files_of_syslog_are_read_where_there_is_no_journal() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(collect(root.path(), now(), LONG).gaps.len(), 1);
        let long = "x".repeat(400);
        let text = format!(
            "2026-11-21T17:00:00.000000+00:00 router pppd[7]: too old\n\
             2026-11-21T17:29:00.000000+00:00 router pppd[7]: {long}\n\
             2026-11-21T17:29:30.000000+00:00 router cron[9]: a job\n"
        );
        put(root.path(), "var/log/messages", text.as_bytes());
        let seen = collect(root.path(), now(), LONG);
        let [line] = &seen.value[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(
            (line.program.as_str(), line.text.0.len()),
            ("pppd", MAX_TEXT)
        );
        assert_eq!(line.origin, LogOrigin::File);
    }

    #[test]
    fn a_journal_that_is_none_is_a_gap_and_the_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            "var/log/journal/0123/system.journal",
            b"no journal",
        );
        put(
            root.path(),
            "var/log/syslog",
            b"<28>1 2026-11-21T17:29:00Z router dnsmasq 5 - - no address available\n",
        );
        let seen = collect(root.path(), now(), LONG);
        assert_eq!(
            (seen.value.len(), seen.gaps.len()),
            (1, 1),
            "{:?}",
            seen.gaps
        );
        assert_eq!(seen.value[0].severity, 4);
    }

    #[test]
    fn no_more_lines_are_told_than_the_bound_and_the_newest_stay() {
        let root = tempfile::tempdir().unwrap();
        let lines: String = (0..500)
            .map(|number| {
                format!(
                    "Nov 21 17:{:02}:00 router pppd[1]: line {number}\n",
                    21 + number / 60
                )
            })
            .collect();
        put(root.path(), "var/log/syslog", lines.as_bytes());
        // The zone of this machine decides what these stamps mean.
        let now = now().to_zoned(TimeZone::UTC).datetime();
        let now = now.to_zoned(TimeZone::system()).unwrap().timestamp();
        let seen = collect(root.path(), now, LONG);
        assert_eq!(seen.value.len(), MAX_LINES);
        assert_eq!(seen.value.last().unwrap().text.0, "line 499");
    }
}
