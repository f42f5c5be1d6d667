//! Files of syslog: the end of each, in the forms that daemons write (RFC 3164, RFC 5424, ISO 8601 stamps of rsyslog).

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::collect::file;

/// One line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(super) at: Timestamp,
    pub(super) program: String,
    pub(crate) severity: u8,
    pub(super) text: &'a str,
}

/// The last [`MAX_TAIL`] bytes, from the beginning of a line.
pub(crate) fn tail(path: &Path) -> io::Result<String> {
    let mut file = file::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(MAX_TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(MAX_TAIL).read_to_end(&mut bytes)?;
    if start > 0 {
        let begun = bytes.iter().position(|b| *b == b'\n');
        bytes.drain(..begun.map_or(bytes.len(), |end| end + 1));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads one line; `now` gives the year that RFC 3164 leaves out, `zone` the place.
pub(crate) fn line<'a>(line: &'a str, now: Timestamp, zone: &TimeZone) -> Option<Line<'a>> {
    let (severity, rest) = priority(line);
    if let Some(rest) = rest.strip_prefix("1 ") {
        return structured(severity, rest);
    }
    let (at, rest) = stamp(rest, now, zone)?;
    // HOST PROGRAM[PID]: TEXT
    let (_host, rest) = rest.split_once(' ')?;
    let (tag, text) = rest.split_once(": ").or_else(|| rest.split_once(':'))?;
    Some(Line {
        at,
        program: program(tag)?,
        severity,
        text,
    })
}

/// `<PRI>`; without it the severity is what most lines have.
fn priority(line: &str) -> (u8, &str) {
    let read = || {
        let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
        Some((number.parse::<u8>().ok()? & 7, rest))
    };
    read().unwrap_or((INFORMATIONAL, line))
}

/// RFC 5424 after its version: `STAMP HOST APP PROCID MSGID SD TEXT`.
fn structured(severity: u8, rest: &str) -> Option<Line<'_>> {
    let mut words = rest.splitn(6, ' ');
    let at = words.next()?.parse().ok()?;
    let app = words.nth(1)?;
    let rest = words.nth(2)?;
    let text = match rest.strip_prefix("- ") {
        Some(text) => text,
        // Elements of structured data end with a bracket that no backslash hides.
        None => rest.split_once("] ")?.1,
    };
    Some(Line {
        at,
        program: program(app)?,
        severity,
        text: text.trim_start_matches('\u{feff}'),
    })
}

fn stamp<'a>(text: &'a str, now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, &'a str)> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let (stamp, rest) = text.split_once(' ')?;
        return Some((stamp.parse().ok()?, rest));
    }
    // `Nov  1 17:23:20 `
    let (date, rest) = (text.get(..15)?, text.get(15..)?.strip_prefix(' ')?);
    let month = MONTHS
        .iter()
        .position(|month| date.get(..3) == Some(month))?;
    let day: i8 = date.get(4..6)?.trim_start().parse().ok()?;
    let time: Time = date.get(7..)?.parse().ok()?;
    let year = now.to_zoned(zone.clone()).year();
    let month = i8::try_from(month + 1).ok()?;
    // A line of December read in January is of the year before.
    [year, year - 1]
        .into_iter()
        .filter_map(|year| {
            let date = Date::new(year, month, day).ok()?;
            let zoned = DateTime::from_parts(date, time).to_zoned(zone.clone());
            Some(zoned.ok()?.timestamp())
        })
        .find(|at| {
            now.checked_add(24.hours())
                .is_ok_and(|latest| *at <= latest)
        })
        .map(|at| (at, rest))
}

/// `pppd[123]` without the number of the process.
fn program(tag: &str) -> Option<String> {
    let name = tag.split('[').next()?.trim();
    let plain = !name.is_empty() && name.len() <= MAX_PROGRAM && !name.contains(' ');
    plain.then(|| name.to_owned())
}

const MAX_TAIL: u64 = 256 << 10;
const MAX_PROGRAM: usize = 128;
const INFORMATIONAL: u8 = 6;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(String, String, u8, &str)> {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        line(text, now, &TimeZone::UTC).map(|l| (l.at.to_string(), l.program, l.severity, l.text))
    }

    fn want<'a>(
        at: &str,
        program: &str,
        severity: u8,
        text: &'a str,
    ) -> Option<(String, String, u8, &'a str)> {
        Some((at.to_owned(), program.to_owned(), severity, text))
    }

    #[test]
    fn every_form_that_daemons_write_is_read() {
        assert_eq!(
            read("Jan  1 23:59:58 router pppd[12]: LCP terminated"),
            want("2026-01-01T23:59:58Z", "pppd", 6, "LCP terminated")
        );
        assert_eq!(
            read("Dec 31 08:00:00 router dnsmasq-dhcp[1]: no address"),
            want("2025-12-31T08:00:00Z", "dnsmasq-dhcp", 6, "no address")
        );
        assert_eq!(
            read("2026-01-01T10:00:00.5+02:00 router charon: 05[IKE] retransmit"),
            want("2026-01-01T08:00:00.5Z", "charon", 6, "05[IKE] retransmit")
        );
        assert_eq!(
            read("<27>1 2026-01-01T08:00:00Z router named 77 - - lame server"),
            want("2026-01-01T08:00:00Z", "named", 3, "lame server")
        );
        assert_eq!(
            read("<28>1 2026-01-01T08:00:00Z router hostapd 77 ID [a@1 b=\"c\"] deauth"),
            want("2026-01-01T08:00:00Z", "hostapd", 4, "deauth")
        );
        assert_eq!(
            read("<30>Jan  1 08:00:00 router ntpd: up"),
            want("2026-01-01T08:00:00Z", "ntpd", 6, "up")
        );
    }

    #[test]
    fn what_is_no_line_of_syslog_is_passed_over() {
        for text in [
            "",
            "Jan 32 00:00:00 a b: c",
            "  continued text",
            "Jan  1 08:00:00 router",
            "-- MARK --",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_whole_lines_of_the_end_are_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("syslog");
        let line = format!("{}\n", "y".repeat(99));
        std::fs::write(&path, line.repeat(5000)).unwrap();
        let text = tail(&path).unwrap();
        assert!(text.len() <= 256 << 10 && text.lines().all(|l| l.len() == 99));
        std::fs::write(&path, "z".repeat(400_000)).unwrap();
        assert_eq!(tail(&path).unwrap(), "");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,120}", day in 0..40_u8, rest in "[ -~]{0,40}") {
            drop(read(&text));
            drop(read(&format!("<9>1 {text}")));
            drop(read(&format!("Feb {day:2} 10:00:00 {rest}")));
        }
    }
}
