//! Text for a person's terminal. Much of it comes from devices and scripts: nothing of it may move the cursor or
//! change the order of what is read, least of all beside a question to sign.

use std::fmt::Write as _;
use std::time::Duration;

use aizen_protocol::effect::{Effect, Lasts, ObjectChange};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Shows control, bidirectional and zero-width characters instead of obeying them; keeps line feeds.
pub(super) fn visible(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, c| {
        match c {
            '\n' => shown.push(c),
            '\t' => shown.push_str("    "),
            _ if c.is_control() || is_invisible(c) => shown.extend(c.escape_unicode()),
            _ => shown.push(c),
        }
        shown
    })
}

/// Bidirectional controls (UAX 9), zero-width characters, and the tag block.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// UTC, with the local time beside it.
pub(super) fn time(at: Timestamp) -> String {
    let local = at.to_zoned(TimeZone::system());
    format!(
        "{} ({} local)",
        at.strftime("%Y-%m-%d %H:%M:%SZ"),
        local.strftime("%H:%M:%S")
    )
}

/// `90s`, `30m`, `24h`, `7d`; whole numbers, at least one second.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a duration such as 90s, 30m, 24h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = &text[..text.len() - unit.len_utf8()];
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = number.parse().map_err(|_| wrong())?;
    match count.checked_mul(seconds) {
        Some(total) if total > 0 => Ok(Duration::from_secs(total)),
        _ => Err(wrong()),
    }
}

/// What a script does to the device.
pub(super) fn effect(effect: &Effect) -> String {
    let mut text = String::new();
    if effect.changes.is_empty() {
        text.push_str("Effect: nothing changes.\n");
    } else {
        text.push_str(
            "Effect, as rehearsed on the device (pseudonyms stand for private values):\n",
        );
    }
    for change in &effect.changes {
        text.push_str(&object(change));
    }
    if effect.management_path {
        text.push_str("  ! the device's own way to the orchestrator is touched\n");
    }
    for (label, lines) in [
        ("LOCK-OUT", &effect.lock_outs),
        (
            "not declared, so the device undoes all of it",
            &effect.undeclared,
        ),
        ("not rehearsed", &effect.not_rehearsed),
        ("can't be undone", &effect.irreversible),
    ] {
        for line in lines {
            // Writing to a string does not fail.
            writeln!(text, "  ! {label}: {}", visible(&line.0)).ok();
        }
    }
    text
}

fn object(change: &ObjectChange) -> String {
    let kind = format!("{:?}", change.kind).to_lowercase();
    let lasts = match change.lasts {
        Lasts::UntilReboot => "until the next reboot",
        Lasts::UntilRenewal => "until it is renewed",
        Lasts::ForGood => "for good",
    };
    let diff = visible(&change.diff.0);
    let mut text = format!(
        "  {kind} {} (owned by {}, holds {lasts})\n",
        visible(&change.object.0),
        visible(&change.owner)
    );
    for line in diff.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    // Writing to a string does not fail.
    writeln!(text, "    undone by: {}", visible(&change.inverse.0)).ok();
    text
}

/// Rows under a heading, columns as wide as their widest cell.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a string does not fail.
            write!(text, "{cell:width$}  ").ok();
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(heading);
    for row in rows {
        text.push_str(&line(row.each_ref().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_never_obeys_text_from_a_device() {
        let shown = visible("a\u{1b}[2Jb\r\u{202e}c\u{200b}\n\u{9b}");
        assert_eq!(shown, "a\\u{1b}[2Jb\\u{d}\\u{202e}c\\u{200b}\n\\u{9b}");
    }

    #[test]
    fn durations_are_whole_and_positive() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        for text in [
            "",
            "0s",
            "h",
            "-1h",
            "+1h",
            "1.5h",
            "1w",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
