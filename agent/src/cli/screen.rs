//! A terminal: colours, times, tables.

use std::io::{self, IsTerminal, Write};

use aizen_protocol::private::Text;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Where it is shown.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Screen {
    /// Colours are wanted; they never carry meaning alone.
    pub(in crate::cli) colour: bool,
    /// Local time, shown beside UTC.
    pub(in crate::cli) zone: TimeZone,
}

impl Screen {
    /// Standard output as it is: colours only on a terminal, and never where `NO_COLOR` stands (no-color.org).
    pub(in crate::cli) fn of_stdout() -> Self {
        Self {
            colour: io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            zone: TimeZone::system(),
        }
    }

    pub(in crate::cli) fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Red => "1;31",
            Colour::Yellow => "1;33",
            Colour::Green => "1;32",
            Colour::Bold => "1",
            Colour::Dim => "2",
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// `2026-11-21 14:02:03 UTC`, with the local time behind it where that differs.
    pub(in crate::cli) fn moment(&self, at: Timestamp) -> String {
        let utc = at.strftime("%Y-%m-%d %H:%M:%S UTC");
        match self.beside(at) {
            Some(local) => format!("{utc} ({local} local)"),
            None => utc.to_string(),
        }
    }

    /// The same without the date.
    pub(in crate::cli) fn time(&self, at: Timestamp) -> String {
        let utc = at.strftime("%H:%M:%S UTC");
        match self.beside(at) {
            Some(local) => format!("{utc} ({local})"),
            None => utc.to_string(),
        }
    }

    pub(in crate::cli) fn beside(&self, at: Timestamp) -> Option<String> {
        let local = at.to_zoned(self.zone.clone());
        (local.offset().seconds() != 0).then(|| local.strftime("%H:%M:%S").to_string())
    }
}

#[derive(Clone, Copy)]
pub(in crate::cli) enum Colour {
    Red,
    Yellow,
    Green,
    Bold,
    Dim,
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Align {
    Left,
    Right,
}

/// Rows of words under a head; columns are as wide as they must be.
#[derive(Debug)]
pub(in crate::cli) struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(in crate::cli) fn new(head: &[(&'static str, Align)]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells are data and lose what could move the cursor.
    pub(in crate::cli) fn row(&mut self, cells: Vec<String>) {
        let cells = cells.into_iter().map(|cell| plain(&Text(cell)));
        self.rows.push(cells.collect());
    }

    pub(in crate::cli) fn head(&self) -> &[(&'static str, Align)] {
        &self.head
    }

    pub(in crate::cli) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    pub(in crate::cli) fn write(&self, out: &mut impl Write, screen: &Screen) -> io::Result<()> {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| width(cell)).max().unwrap_or_default();
                widest.max(self.head[column].0.len())
            })
            .collect();
        let head = self.head.iter().map(|(title, _)| (*title).to_owned());
        let head = self.line(&head.collect::<Vec<_>>(), &widths);
        writeln!(out, "{}", screen.paint(Colour::Bold, &head))?;
        self.rows
            .iter()
            .try_for_each(|row| writeln!(out, "{}", self.line(row, &widths)))
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width_of_column), (_, align)) in cells.iter().zip(widths).zip(&self.head) {
            let gap = " ".repeat(width_of_column.saturating_sub(width(cell)));
            match align {
                Align::Left => line.extend([cell, gap.as_str(), "  "]),
                Align::Right => line.extend([gap.as_str(), cell, "  "]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// Text of the network is data: control characters could move the cursor, and bidirectional ones the meaning.
pub(in crate::cli) fn plain(text: &Text) -> String {
    text.0
        .chars()
        .map(|c| {
            if c.is_control() || HIDDEN.iter().any(|range| range.contains(&c)) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Zero-width, bidirectional and tag characters (UTS #39).
const HIDDEN: [std::ops::RangeInclusive<char>; 5] = [
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{2069}',
    '\u{feff}'..='\u{feff}',
    '\u{e0000}'..='\u{e007f}',
];

/// Bits a second in the unit that people use for lines.
pub(in crate::cli) fn bit_rate(bits_per_second: f64) -> String {
    scaled(bits_per_second, 1000.0, &["b/s", "kb/s", "Mb/s", "Gb/s"])
}

/// Bytes in the unit that people use for memory and disks.
#[expect(clippy::cast_precision_loss, reason = "three digits for people")]
pub(in crate::cli) fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$} {}", units[unit])
}

/// Seconds as a person says them.
pub(in crate::cli) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let mut table = Table::new(&[("LINK", Align::Left), ("MTU", Align::Right)]);
        table.row(vec!["a-long-name".into(), "9000".into()]);
        table.row(vec!["lo\u{1b}[2J".into(), "6".into()]);
        let screen = Screen {
            colour: false,
            zone: TimeZone::UTC,
        };
        let mut out = Vec::new();
        table.write(&mut out, &screen).unwrap();
        let want = "LINK          MTU\n\
                    a-long-name  9000\n\
                    lo\u{fffd}[2J          6\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn sizes_and_rates_have_three_digits_and_a_unit() {
        assert_eq!(bit_rate(0.0), "0 b/s");
        assert_eq!(bit_rate(999.6), "1000 b/s");
        assert_eq!(bit_rate(12_340_000.0), "12.3 Mb/s");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(123 << 20), "123 MiB");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3_661), "1 h 1 min");
        assert_eq!(duration(200_000), "2 d 7 h");
    }
}
