//! Text from outside made plain before anything looks for values in it: what could hide one from a pattern, or hide
//! an instruction from a reader, is removed or shown.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_normalization::UnicodeNormalization as _;

/// ANSI sequences and invisible characters removed, other control characters shown as `\u{7}`, text composed (NFC,
/// UAX #15), forms that only look different folded (NFKC).
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let is_plain = |b: u8| (0x20..0x7f).contains(&b) || b == b'\n' || b == b'\t' || b == b'\r';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let visible = without_escapes(text);
    let mut plain = String::with_capacity(visible.len());
    let folded = visible
        .chars()
        .filter(|c| !is_invisible(*c))
        .nfc()
        .flat_map(|c| {
            // Folding more than these (superscripts, fractions) would glue digits to the number before them.
            let (folds, stays) = if is_other_form(c) {
                (Some(c), None)
            } else {
                (None, Some(c))
            };
            folds.into_iter().nfkc().chain(stays)
        });
    for c in folded {
        if c.is_control() && !matches!(c, '\n' | '\t' | '\r') {
            // Writing to a String can't fail.
            write!(plain, "\\u{{{:x}}}", u32::from(c)).ok();
        } else if !is_invisible(c) {
            plain.push(if c == '\u{3002}' { '.' } else { c });
        }
    }
    Cow::Owned(plain)
}

/// Removes ANSI control sequences (ECMA-48): CSI to its final byte, OSC and the like to their terminator.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let csi = match c {
            '\u{9b}' => true,
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                true
            }
            '\u{1b}'
                if chars
                    .peek()
                    .is_some_and(|n| matches!(n, ']' | 'P' | '_' | '^' | 'X')) =>
            {
                // A sequence without terminator ends with the line, or it could swallow the evidence.
                while let Some(n) = chars.next_if(|n| *n != '\n') {
                    if n == '\u{7}' || n == '\u{9c}' {
                        break;
                    }
                    if n == '\u{1b}' {
                        chars.next_if_eq(&'\\');
                        break;
                    }
                }
                continue;
            }
            '\u{1b}' => {
                chars.next_if(|n| ('\u{30}'..='\u{7e}').contains(n));
                continue;
            }
            _ => {
                out.push(c);
                continue;
            }
        };
        if csi {
            while chars
                .next_if(|n| ('\u{20}'..='\u{3f}').contains(n))
                .is_some()
            {}
            chars.next_if(|n| ('\u{40}'..='\u{7e}').contains(n));
        }
    }
    out
}

/// Full-width forms, mathematical letters and digits, segmented digits, Latin ligatures: written otherwise, read alike.
fn is_other_form(c: char) -> bool {
    matches!(u32::from(c), 0xff01..=0xff5e | 0xff61 | 0x1d400..=0x1d7ff | 0x1fbf0..=0x1fbf9 | 0xfb00..=0xfb06)
}

/// Zero-width, bidirectional, tag and filler characters, variation selectors.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0xad | 0x34f | 0x61c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f
        | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f
        | 0xfeff | 0xffa0 | 0xfff9..=0xfffb | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_a_value_is_taken_away() {
        for (hidden, shown) in [
            ("10.\u{200b}0.0.1", "10.0.0.1"),
            ("\u{ff11}\u{ff10}.0.0.1", "10.0.0.1"),
            ("\u{1b}[31m10.0.0.1\u{1b}[0m", "10.0.0.1"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]0;never ends\nx", "\nx"),
            ("a\u{202e}b", "ab"),
            ("10.0.0.1\u{b2}", "10.0.0.1\u{b2}"),
            ("\u{e0041}x", "x"),
            ("a\u{0}b\u{7}", "a\\u{0}b\\u{7}"),
            ("M\u{fc}ller\n\t", "M\u{fc}ller\n\t"),
        ] {
            assert_eq!(plain(hidden), shown, "{hidden:?}");
        }
    }
}
